"""One session from end to end: what goes over the wire when things go wrong, and what the log says of it."""

import os
import re
import signal

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, PASSWORD, THREE, TWO, USER, mbox, site, wire          # noqa: F401
from popper import VERSION, login, session
from popper.errors import DropBroken
from popper.session import MOST_BAD
from popper.storage import mbox as mbox_module
from popper.wire import LONGEST_FLOOD

WHO = f"{USER} at local (local)"
STRANGER = "(null) at local (local)"


def notices(site):
    """The lines of the log but the one that tells of a login."""
    return [line for line in site.log() if "POP login by user" not in line]


# -- mistakes --------------------------------------------------------------------------------------------------------

def test_a_flood_of_bad_commands_is_one_line(site):
    pop = site.session()
    pop.send("XYZZY\r\n" * (MOST_BAD + 100))
    for _ in range(MOST_BAD - 1):
        assert pop.reply() == '-ERR Unknown command: "xyzzy".'
    assert pop.reply() == "-ERR Too many bad commands, closing."
    assert pop.end() == b""
    assert site.log() == [f"notice: {STRANGER}: -ERR Too many bad commands, closing. (and {MOST_BAD - 1} more)"]


def test_mistakes_of_a_client_are_summed_up_at_the_end(site):
    site.deliver(mbox(ONE))
    pop = site.log_in()
    for _ in range(3):
        pop.err("RETR 7")
    assert notices(site) == []
    pop.quit()
    assert notices(site) == [f"notice: {WHO}: -ERR Message 7 does not exist. (and 2 more)"]


def test_one_mistake_is_shown_alone(site):
    pop = site.log_in()
    pop.err("RETR 7")
    pop.quit()
    assert notices(site) == [f"notice: {WHO}: -ERR Message 7 does not exist."]


def test_trouble_of_ours_is_told_at_once(site):
    site.deliver(mbox(ONE))
    pop = site.log_in(sendmail="/nonexistent")
    for count in (1, 2):
        pop.ok("XTND XMIT")
        assert pop.err("Subject: x\r\n.") == '[SYS/TEMP] Unable to execute "/nonexistent"'
        assert notices(site) == [f'notice: {WHO}: -ERR [SYS/TEMP] Unable to execute "/nonexistent"'
                                 " (No such file or directory)"] * count
    pop.quit()
    assert len(notices(site)) == 2


def test_a_good_session_is_one_line(site):
    site.deliver(mbox(ONE))
    site.log_in().quit()
    assert site.log() == [f'notice: (v{VERSION}) POP login by user "{USER}" at (local) local']


# -- ends ------------------------------------------------------------------------------------------------------------

def test_eof_is_a_line_and_deletes_nothing(site):
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.ok("DELE 1")
    pop.hang_up()
    assert notices(site) == [f"notice: {WHO}: -ERR POP EOF or I/O Error"]
    assert path.read_bytes() == mbox(ONE, TWO) and site.left_over() == []


def test_who_does_not_wait_for_the_sign_off_has_quit_all_the_same(site):
    """The connection is reset, for what we have said was not read."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.session(trace=str(site.place / "trace"), tcp=True).log_in()
    pop.send("LIST\r\nDELE 1\r\nQUIT\r\n")
    pop.socket.recv(1)
    pop.hang_up()
    said = (site.place / "trace").read_text()
    assert "Ended by QUIT;" in said and "POP EOF" not in said
    assert path.read_bytes() == mbox(TWO)


@pytest.mark.parametrize("said", [(), ("USER mrose",)])
def test_eof_before_login_is_no_news(site, said):
    pop = site.session()
    for line in said:
        pop.ok(line)
    pop.hang_up()
    assert site.log() == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_is_a_hangup(site, number):
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.ok("DELE 1")
    os.kill(pop.child, number)
    assert pop.end() == b"" and pop.status == 0
    assert notices(site) == [f"notice: {WHO}: -ERR POP hangup"]
    assert path.read_bytes() == mbox(ONE, TWO) and site.left_over() == []


def test_idle_in_transaction(site):
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in(timeout=1)
    pop.ok("DELE 1")
    assert pop.end() == b""                  # a timeout is silent and deletes nothing (RFC 1939.3)
    assert notices(site) == [f"notice: (v{VERSION}) Timeout (1 secs) during nw read from {WHO}"]
    assert path.read_bytes() == mbox(ONE, TWO) and site.left_over() == []


@pytest.mark.parametrize("limits", [{"timeout": 1, "login_timeout": 60}, {"timeout": 60, "login_timeout": 1},
                                    {"timeout": 0, "login_timeout": 1}])
def test_idle_before_login(site, limits):
    pop = site.session(**limits)
    assert pop.end() == b""
    assert site.log() == [f"notice: (v{VERSION}) Timeout (1 secs) during nw read from {STRANGER}"]


def test_a_login_that_dawdles_is_out_of_time_although_it_is_not_idle(site):
    pop = site.session(timeout=60, login_timeout=1)

    def over():
        try:
            pop.ask("USER mrose")
        except (AssertionError, OSError):
            return True
        return False
    wait_until(over)
    pop.end()
    assert site.log() == [f"notice: (v{VERSION}) Timeout (1 secs) during nw read from {WHO}"]


def test_a_login_that_never_pauses_is_out_of_time_too(site):
    """Octets that are always there are not waited for, and so no wait would end."""
    pop = site.session(timeout=60, login_timeout=1)
    pop.socket.setblocking(False)

    def over():
        try:
            while pop.socket.send(b"USER mrose\r\n" * 1000):
                pass                         # until no more fits: there is work for longer than till the next look
        except BlockingIOError:
            pass
        except OSError:
            return True
        try:
            while pop.socket.recv(1 << 20):
                pass
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True
    wait_until(over)
    pop.wait()
    assert site.log() == [f"notice: (v{VERSION}) Timeout (1 secs) during nw read from {WHO}"]


def test_a_client_that_does_not_read(site):
    path = site.deliver(mbox(b"Subject: large\n\n" + b"x" * 80 * 100000 + b"\n"))
    pop = site.log_in(timeout=1)
    pop.send("RETR 1\r\n")
    pop.wait()
    assert notices(site) == [f"notice: (v{VERSION}) Timeout (1 secs) during nw write from {WHO}"]
    assert path.exists() and not pop.end().endswith(b"\r\n.\r\n")


def test_a_probe_is_told(site):
    pop = site.session()
    pop.ok("USER somebody")
    pop.quit()
    assert site.log() == ["warning: Possible probe of account somebody from host local (local)"]


def test_quit_at_once_is_no_probe(site):
    site.session().quit()
    assert site.log() == []


def test_input_without_a_line_end_is_closed_with_one_line(site):
    pop = site.session(tcp=False)
    pop.pour(b"x" * (LONGEST_FLOOD * 4))
    assert pop.end() == b"-ERR Input without a line end, closing.\r\n"
    assert site.log() == [f"notice: {STRANGER}: -ERR Input without a line end, closing."]


# -- Stats -----------------------------------------------------------------------------------------------------------

def stats(site):
    return site.logged("Stats: ")


def test_stats_after_an_update(site):
    site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in(statistics=True)
    pop.ok("DELE 2")
    pop.quit()
    gone, left = len(wire(TWO)), len(wire(ONE)) + len(wire(THREE))
    assert stats(site) == [f"notice: Stats: {USER} 1 {gone} 2 {left} local local"]


def test_stats_after_a_failed_update_say_that_nothing_went(site):
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in(statistics=True, lock_timeout=0)
    pop.ok("DELE 1")
    lock = site.spool / f"{USER}.lock"
    lock.write_text(f"{os.getpid()}\n{os.uname().nodename}\n")
    assert pop.err("QUIT").startswith("[IN-USE] ")
    assert pop.end() == b""
    both = len(wire(ONE)) + len(wire(TWO))
    assert stats(site) == [f"notice: Stats: {USER} 0 0 2 {both} local local"]


def test_no_stats_without_update(site):
    site.deliver(mbox(ONE, TWO))
    site.log_in(statistics=True).hang_up()
    assert stats(site) == []


def test_no_stats_unless_wanted(site):
    site.log_in().quit()
    assert stats(site) == []


def test_update_on_abort(site):
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in(update_on_abort=True, statistics=True)
    pop.ok("DELE 1")
    pop.hang_up()
    assert path.read_bytes() == mbox(TWO)
    assert site.logged("POP EOF") == [f"notice: {WHO}: -ERR POP EOF or I/O Error"]
    assert stats(site) == [f"notice: Stats: {USER} 1 {len(wire(ONE))} 1 {len(wire(TWO))} local local"]


def test_update_on_abort_that_fails_is_told(site):
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in(update_on_abort=True, lock_timeout=0)
    pop.ok("DELE 1")
    (site.spool / f"{USER}.lock").write_text(f"{os.getpid()}\n{os.uname().nodename}\n")
    pop.hang_up()
    assert path.read_bytes() == mbox(ONE, TWO)
    assert len(site.logged("-ERR POP mailbox update failed.")) == 1


# -- faults ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("place", ["login", "handler"])
def test_an_internal_error_is_one_line_without_secrets(site, place):
    site.may_fail = True
    secret = "correct-horse"

    def fault(*arguments):
        password = secret                    # noqa: F841  a local, as a traceback with locals would show
        raise RuntimeError("out of luck")

    def before():
        if place == "login":
            login.auth.authenticate = fault
        else:
            next(row for row in session._ROWS if row.word == b"stat").handler = fault

    site.add("horse", secret)
    pop = site.session(before=before)
    pop.ok("USER horse")
    if place == "handler":
        pop.ok(f"PASS {secret}")
        pop.send("STAT\r\n")
    else:
        pop.send(f"PASS {secret}\r\n")
    assert pop.end() == b"-ERR [SYS/TEMP] Internal error, closing.\r\n"
    assert pop.status == 0
    critical = [line for line in site.log() if line.startswith("critical: ")]
    assert len(critical) == 1
    assert re.fullmatch(r"critical: horse at local \(local\): internal error at test_serve\.py:\d+: "
                        r"RuntimeError: out of luck", critical[0])
    assert secret not in site.log_file.read_text() and site.left_over() == []


def breaking(after):
    """To be run in a session's process: the mailbox breaks behind so many blocks of a message."""
    def read(self, entry):
        yield from [b"Subject: one\n\n" + b"x" * 70000 + b"\n"] * after
        raise DropBroken("The mailbox has changed.", reason="cut short")

    def before():
        mbox_module.Mbox.read = read
    return before


def test_a_mailbox_that_breaks_in_the_middle_of_a_body(site):
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in(before=breaking(3))
    pop.send("RETR 1\r\nNOOP\r\n")
    said = pop.end()
    assert said.startswith(b"+OK ") and said.count(b"x" * 70000) >= 1
    assert b"\r\n.\r\n" not in said and b"-ERR" not in said
    assert site.logged("The mailbox has changed.") == \
        [f"notice: {WHO}: -ERR [SYS/TEMP] The mailbox has changed. (cut short)"]


def test_a_mailbox_that_breaks_before_a_body(site):
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in(before=breaking(0))
    pop.send("RETR 1\r\nNOOP\r\n")
    assert pop.end() == b"-ERR [SYS/TEMP] The mailbox has changed.\r\n"
    assert len(site.logged("The mailbox has changed.")) == 1


# -- the trace -------------------------------------------------------------------------------------------------------

def test_the_trace_has_commands_replies_and_counts_and_no_secrets(site):
    site.deliver(mbox(ONE, TWO))
    site.own(site.place)
    trace = site.place / "trace"
    pop = site.session(trace=str(trace), sendmail="/bin/true")
    pop.err("APOP mrose c4c9334bac560ecc979e58001b3e22fb")
    pop.ok(f"user {USER}")
    pop.ok(f"pAsS {PASSWORD}")
    pop.text("RETR 1")
    pop.text("TOP 2 5")
    pop.ok("XTND XMIT")
    pop.send("To: secretary\r\n\r\nsesame\r\n.\r\n")
    assert pop.reply() == "+OK Message sent successfully"
    pop.lines("UIDL")
    pop.quit()
    text = trace.read_text()
    for secret in (PASSWORD, "c4c9334", "secretary", "sesame", "The first message", "leading dot", "ann@example.org"):
        assert secret not in text, secret
    for words in (f"+OK UCB Pop server (version {VERSION}) at {HOST} starting.", 'Received: "user mrose"',
                  'Received: "pAsS xxxxxxxxx"', 'Received: "APOP mrose xxxxxxxxx"', 'Received: "RETR 1"',
                  f"+OK {len(wire(ONE))} octets", f"Sent {len(wire(ONE))} octets", 'Received: "XTND XMIT"',
                  "+OK Message sent successfully", f"+OK Pop server at {HOST} signing off.",
                  f'POP login by user "{USER}"', "octets received, "):
        assert words in text, words
    stamp = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{3} \d{4} \[%d\] \S.*" % pop.child
    assert all(re.fullmatch(stamp, line) for line in text.splitlines())
    assert trace.stat().st_mode & 0o777 == 0o600
    assert site.log() == []


def test_the_trace_of_a_failed_login(site):
    trace = site.place / "trace"
    pop = site.session(trace=str(trace))
    pop.ok(f"USER {USER}")
    pop.err(f"PASS not {PASSWORD}")
    pop.end()
    assert PASSWORD not in trace.read_text() and "[AUTH] Failed attempted login to mrose" in trace.read_text()
    assert "PASS xxxxxxxxx" in trace.read_text()


def test_octets_are_counted(site):
    trace = site.place / "trace"
    pop = site.session(trace=str(trace))
    sent = len(f"+OK UCB Pop server (version {VERSION}) at {HOST} starting.\r\n") + len(
        f"+OK Pop server at {HOST} signing off.\r\n")
    pop.quit()
    assert f"6 octets received, {sent} sent" in trace.read_text()


def test_a_long_line_in_the_trace(site):
    trace = site.place / "trace"
    pop = site.session(trace=str(trace))
    pop.err("PASS " + "x" * 2000)
    pop.quit()
    assert 'Received: "(line too long)"' in trace.read_text() and "xxxxxxxxxx" not in trace.read_text()


# -- the order of things ---------------------------------------------------------------------------------------------

def test_the_locks_are_gone_when_the_sign_off_arrives(site):
    site.deliver(mbox(ONE))
    pop = site.log_in()
    assert site.left_over() == [f".{USER}.pop"]
    pop.ok("QUIT")
    assert site.left_over() == []
    pop.end()
