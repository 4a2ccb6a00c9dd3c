"""popper's own XTND XLST and XTND XMIT, with a real program in sendmail's place. Each test cites its checklist line."""

import os
import signal

import pytest

from conftest import wait_until
from dialogue import ONE, ROOT, TWO, UID, USER, mbox, site          # noqa: F401
from popper.errors import Refused
from popper.submit import Submission
from processes import has_ended

MAIL = b"From: mrose@example.org\r\nTo: ann@example.org\r\nSubject: hi\r\n\r\n..\r\n...two\r\nend\r\n"
UNSTUFFED = b"From: mrose@example.org\nTo: ann@example.org\nSubject: hi\n\n.\n..two\nend\n"

# A sendmail that writes down who called it, and how.
RECORDER = """#!/bin/sh
exec 5>'{told}'
printf '%s\\n' "$@" >&5; echo >&5
env >&5; echo >&5
pwd >&5; id -u >&5; id -G >&5; umask >&5
ls /proc/self/fd | tr '\\n' ' ' >&5; echo >&5
grep -E '^(SigIgn|SigBlk)' /proc/self/status >&5
grep 'core file' /proc/self/limits >&5
cat >'{mail}'
{then}
"""


@pytest.fixture
def sendmail(site):
    """sendmail(then) makes the program, which ends with `then`; -> the settings of a session that uses it."""
    place = site.place / "sendmail"
    place.mkdir()
    site.own(place)

    def make(then="exit 0", script=RECORDER):
        program = place / "sendmail"
        program.write_text(script.format(told=place / "told", mail=place / "mail", then=then))
        program.chmod(0o755)
        return {"sendmail": str(program)}
    make.told = lambda: (place / "told").read_text()
    make.mail = place / "mail"
    return make


def transmit(pop, octets=MAIL):
    assert pop.ok("XTND XMIT") == "Start sending the message."
    pop.send(octets + b".\r\n")
    return pop.reply()


def test_xlst_lists_a_header(site):
    """xtnd.01 XTND XLST HEADER: number and header line of every message that has it, and a dot."""
    site.deliver(mbox(ONE, b"From: x\n\nSubject: in the body\n", TWO,
                      b"SUBJECT: folded\n line\n\tand line\nTo: y\n\nx\n"))
    pop = site.log_in()
    assert pop.ok("XTND XLST Subject") == "xlst command accepted; headers coming."
    assert pop.raw_body() == (b"1 Subject: one\r\n3 Subject: two\r\n4 SUBJECT: folded\r\n line\r\n\tand line\r\n")
    assert pop.lines("xtnd xlist sub") == pop.lines("XTND XLST SUBJECT:")
    assert pop.lines("XTND XLST No-Such-Header") == []
    pop.quit()


def test_xlst_of_one_message(site):
    """xtnd.02 with a number it lists one message; a deleted one, or one that is not there, is -ERR."""
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    assert pop.lines("XTND XLST From 2") == ["2 From: bob@example.org"]
    assert pop.err("XTND XLST From 3") == "Message 3 does not exist."
    pop.ok("DELE 2")
    assert pop.err("XTND XLST From 2") == "Message 2 has been deleted."
    assert pop.lines("XTND XLST From") == ["1 From: ann@example.org"]
    assert pop.err("XTND XLST") == "Too few arguments for the xtnd xlst command."
    pop.quit()


def test_xmit_sends(site, sendmail):
    """xtnd.03 XTND XMIT: +OK, the text, its dots unstuffed, and +OK when sendmail has ended with 0."""
    pop = site.log_in(**sendmail())
    assert transmit(pop) == "+OK Message sent successfully"
    assert sendmail.mail.read_bytes() == UNSTUFFED
    assert pop.ok("STAT") == "0 0"
    pop.quit()


def test_xmit_text_in_pieces(site, sendmail):
    """xtnd.03 the text may come in any pieces, and commands may follow it in the same packet."""
    pop = site.log_in(**sendmail())
    pop.ok("XTND XMIT")
    for octet in MAIL:
        pop.send(bytes([octet]))
    pop.send(b".\r\nNOOP\r\nSTAT\r\n")
    assert [pop.reply() for _ in range(3)] == ["+OK Message sent successfully", "+OK ", "+OK 0 0"]
    assert sendmail.mail.read_bytes() == UNSTUFFED
    pop.quit()


def test_xmit_that_fails(site, sendmail):
    """xtnd.03 when sendmail does not end with 0 there is no +OK; xtnd.06 the session goes on; sec.16 its words are not
    shown."""
    pop = site.log_in(**sendmail("echo secret path >&2; exit 75"))
    assert transmit(pop) == "-ERR Unable to send message"
    assert pop.ok("STAT") == "0 0"
    pop.quit()
    assert site.logged("ended with 75") and not site.logged("secret path")


@pytest.mark.parametrize("text", [b"", b"To: a\r\n\r\nhalf", b"To: a\r\n\r\nx\r\n", b"To: a\r\n\r\nx\r\n.",
                                  b"To: a\r\n\r\nx\r\n.\r"])
def test_xmit_cut_off(site, sendmail, text):
    """xtnd.04 a text that was cut off before its dot is not sent, nor is a part of it."""
    pop = site.log_in(**sendmail())
    pop.ok("XTND XMIT")
    pop.send(text)
    pop.hang_up()
    assert not sendmail.mail.exists()


def test_xmit_timed_out(site, sendmail):
    """xtnd.04 nor is one whose client fell silent: 1939.15 the connection is closed without a word."""
    pop = site.log_in(**sendmail(), timeout=0.2)
    pop.ok("XTND XMIT")
    pop.send(MAIL)
    assert pop.end() == b""
    assert not sendmail.mail.exists()


def hostile_environment():
    os.environ.update(LD_PRELOAD="/nonexistent/evil.so", IFS="/", PATH="/tmp/evil", BASH_ENV="/tmp/evil",
                      TZ="../../etc/passwd",
                      PYTHONPATH="/tmp/evil", SENDMAIL="/tmp/evil")
    os.umask(0)


def test_how_sendmail_is_called(site, sendmail):
    """xtnd.05 fixed arguments, no shell, nothing of the client's, a new environment, and as the user.

    sec.14 no descriptor but 0, 1 and 2, the working directory /, signals as they should be, umask 077, no core.
    """
    pop = site.log_in(**sendmail(), before=hostile_environment)
    assert transmit(pop, b"To: $(id) `id` -bp\r\n\r\n-bd\r\n").startswith("+OK")
    pop.quit()
    arguments, environment, rest = sendmail.told().split("\n\n")
    assert arguments.split("\n") == ["-oi", "-oem", "-t", "--"]
    names = {line.partition("=")[0] for line in environment.splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "USER", "LOGNAME", "SHELL"}
    assert f"USER={USER}" in environment and "PATH=/usr/sbin:/usr/bin:/sbin:/bin" in environment
    place, uid, groups, umask, descriptors, blocked, ignored, core = rest.splitlines()
    assert place == "/"
    if ROOT:
        assert (uid, groups) == (str(UID), str(UID))
    assert umask == "0077"
    assert set(descriptors.split()) <= {"0", "1", "2", "3", "5"}          # 3: ls, reading; 5: the script's own
    assert int(blocked.split()[1], 16) == 0
    assert not int(ignored.split()[1], 16) & sum(1 << number - 1 for number in (
        signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ))
    assert core.split()[4] == "0"


def test_the_text_becomes_no_command(site, sendmail):
    """xtnd.05 a text that looks like commands, to us or to a shell, stays a text."""
    pop = site.log_in(**sendmail())
    assert transmit(pop, b"QUIT\r\nDELE 1\r\n; rm -rf /\r\n~! ls\r\n").startswith("+OK")
    assert sendmail.mail.read_bytes() == b"QUIT\nDELE 1\n; rm -rf /\n~! ls\n"
    pop.quit()


@pytest.mark.parametrize("argument", ["-bd", "-f root", "ann@example.org", "|id"])
def test_xmit_takes_no_argument(site, sendmail, argument):
    """xtnd.05, sec.16: nothing behind XMIT is taken, so nothing of it reaches sendmail: no sender, no recipient."""
    pop = site.log_in(**sendmail())
    assert pop.err(f"XTND XMIT {argument}") == "Too many arguments for the xtnd xmit command."
    assert pop.ok("NOOP") == ""
    pop.quit()
    assert not sendmail.mail.exists()


@pytest.mark.parametrize("program", ["/nonexistent/sendmail", "/dev/null", "/"])
def test_sendmail_that_cannot_be_run(site, program):
    """xtnd.06 a sendmail that cannot be run is -ERR, and the session goes on."""
    pop = site.log_in(sendmail=program)
    assert transmit(pop).startswith("-ERR [SYS/TEMP] Unable to execute")
    assert pop.ok("STAT") == "0 0"
    pop.quit()


def test_sendmail_that_never_reads(site, sendmail):
    """xtnd.06 a sendmail that ends without reading a large text blocks nothing."""
    pop = site.log_in(**sendmail(script="#!/bin/sh\nexit 0\n"))
    assert transmit(pop, b"To: x\r\n\r\n" + b"line of text\r\n" * 100_000).startswith("+OK")
    pop.quit()


def test_sendmail_that_hangs(tmp_path):
    """xtnd.06 a sendmail that does not end is killed with all its children, and leaves no zombie."""
    program, pids = tmp_path / "sendmail", tmp_path / "pids"
    program.write_text("#!/bin/sh\ntrap '' TERM HUP INT\n(trap '' TERM; sleep 1000) &\n"
                       f"echo $$ $! >{pids}\nwait\nsleep 1000\n")
    program.chmod(0o755)
    submission = Submission(str(program), USER, "/", 1000, patience=1)
    submission.write(b"text")
    with pytest.raises(Refused, match="Unable to send message"):
        submission.send()
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda: has_ended(pid))   # or it waits for an init that does not come
    with pytest.raises(ChildProcessError):
        os.waitpid(int(pids.read_text().split()[0]), 0)


def test_xmit_of_too_much(site, sendmail):
    """xtnd.06, sec.16: more than xmit_max is -ERR at its end, in bounded memory and space, and none of it is sent."""
    pop = site.log_in(**sendmail(), xmit_max=100_000)
    before = pop.memory()
    assert transmit(pop, b"x" * 70 + b"\r\n" + b"y" * 78 + b"\r\n" * 100_000 + b"z" * 10_000_000 + b"\r\n") \
        == "-ERR [SYS/TEMP] Message is larger than 100000 octets"
    assert pop.memory() - before < 4_000_000
    assert not sendmail.mail.exists()
    assert pop.ok("STAT") == "0 0"
    pop.quit()


def test_xmit_switched_off(site):
    """xtnd.03 `xmit_max 0`: XMIT is refused before any text is asked for."""
    pop = site.log_in(xmit_max=0)
    pop.err("XTND XMIT")
    assert pop.ok("STAT") == "0 0"
    pop.quit()
