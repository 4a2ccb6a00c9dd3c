"""RFC 2449 (CAPA, response codes, long lines, pipelining) and RFC 3206 (AUTH, SYS). Each test cites its checklist
line."""

import os
import re

import pytest

from dialogue import ONE, PASSWORD, TWO, USER, mbox, site, wire          # noqa: F401
from popper import VERSION

REGISTERED = {"TOP", "USER", "SASL", "RESP-CODES", "LOGIN-DELAY", "PIPELINING", "EXPIRE", "UIDL", "IMPLEMENTATION",
              "STLS",
              "AUTH-RESP-CODE", "UTF8", "LANG"}
CODES = re.compile(r"\[(AUTH|IN-USE|SYS/TEMP|SYS/PERM)\] ")


def capabilities(pop):
    return pop.lines("CAPA")


def test_capa_before_and_after_login(site):
    """2449.01 CAPA before USER, behind USER, and after login; 2449.03 in any case."""
    pop = site.session()
    before = capabilities(pop)
    pop.ok(f"USER {USER}")
    assert pop.lines("capa") == before
    pop.ok(f"PASS {PASSWORD}")
    assert pop.lines("CapA")
    pop.quit()


def test_syntax_of_capability_lines(site):
    """2449.02 each line a tag and arguments, single spaces, at most 512 octets, printable; CAPA takes no argument."""
    pop = site.session()
    lines = capabilities(pop)
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9/-]*( [!-~]+)*", line) and not line.endswith(" ")
    assert pop.err("CAPA 1") == "Too many arguments for the capa command."


def test_tags_once_and_in_capitals(site):
    """2449.03 a client compares tags in any case: none comes twice, and all are written as the RFCs write them."""
    tags = [line.split()[0] for line in capabilities(site.session())]
    assert len({tag.upper() for tag in tags}) == len(tags)
    assert tags == [tag.upper() for tag in tags]


def test_what_holds_in_both_states_is_listed_in_both(site):
    """2449.04 no capability of the one state is missing in the other; 2449.16 IMPLEMENTATION names us and our
    version."""
    pop = site.session()
    before = capabilities(pop)
    pop.log_in()
    assert capabilities(pop) == before
    assert f"IMPLEMENTATION popper-{VERSION}" in before
    pop.quit()


@pytest.mark.parametrize("octets", [255, 600, 1024])
def test_long_lines_work(site, octets):
    """2449.05 a command line of 255 octets with its CRLF is taken, and longer ones up to 1,024."""
    site.deliver(mbox(ONE))
    pop = site.log_in()
    assert pop.ok("LIST" + " " * (octets - 7) + "1").startswith("1 ")
    pop.quit()


def test_long_password(site):
    """2449.05 so a password that fills a line of 255 octets is whole."""
    site.add("lengthy", "p" * 248)
    site.log_in("lengthy", "p" * 248).quit()
    pop = site.session()
    pop.ok("USER lengthy")
    assert pop.err("PASS " + "p" * 247).startswith("[AUTH] ")
    assert pop.end() == b""


@pytest.mark.parametrize("length", [1025, 1026, 2000, 16384, 16385, 40000])
def test_longer_lines_are_one_mistake(site, length):
    """2449.05 a longer line is one -ERR, and its tail is never taken for a command."""
    path = site.deliver(mbox(ONE))
    pop = site.log_in()
    tail = "\tQUIT DELE 1 " * 200
    line = ("x" * length + tail)[-length + 2:]
    pop.send(f"{line}\r\nNOOP\r\nLIST 1\r\n")
    assert pop.reply() == "-ERR Command line too long (more than 1024 octets)."
    assert pop.reply() == "+OK " and pop.reply().startswith("+OK 1 ")
    pop.quit()
    assert path.read_bytes() == mbox(ONE)


@pytest.mark.parametrize("command", ["{}", "USER {}", "RETR {}", "XTND {}", "XTND XLST {}", "LIST {}", "TOP 1 {}"])
def test_first_line_of_a_reply_is_short(site, command):
    """2449.06 no first line is longer than 512 octets, whatever it echoes; the client here tries every one."""
    site.deliver(mbox(ONE))
    pop = site.log_in() if command[0] != "U" else site.session()
    for octet in ("x", "\xff", "\0", "%", "\x1b"):
        if pop.ask(command.format(octet * 900)).startswith("+OK xlst"):
            pop.raw_body()


def test_what_is_announced_is_there(site):
    """2449.07 TOP, 2449.08 USER and 2449.15 UIDL are announced, and work."""
    site.deliver(mbox(ONE))
    pop = site.session()
    assert {"TOP", "USER", "UIDL"} <= set(capabilities(pop))
    pop.log_in()
    assert pop.text("TOP 1 0") == wire(ONE).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert len(pop.lines("UIDL")) == 1
    pop.quit()


def test_no_sasl_no_auth(site):
    """2449.09 SASL is announced with its mechanisms or not at all: there are none yet, and AUTH is refused."""
    pop = site.session()
    assert not any(line.startswith(("SASL", "STLS")) for line in capabilities(pop))
    for command in ("AUTH", "AUTH PLAIN", "AUTH PLAIN AG1yb3NlAHRhbnN0YWFm"):
        pop.err(command)
    pop.quit()


def test_brackets_are_for_response_codes(site):
    """2449.10 a text begins with `[` only for a response code: no echo of the client's can forge one."""
    pop = site.session()
    for name in ("[AUTH]", "[IN-USE]x", "[", "[SYS/TEMP]"):
        assert not pop.ok(f"USER {name}").startswith("[")
        pop.send(f"{name}\r\nSTAT {name}\r\nPASS\r\n{name} {name}\r\n")
        assert not any(pop.reply().partition(" ")[2].startswith("[") for _ in range(4))
    pop.log_in()
    for command in ("[AUTH]", "LIST [AUTH]", "RETR [AUTH]", "XTND [AUTH]", "TOP 1 [AUTH]", "DELE 9", "QUIT [X]"):
        assert not pop.err(command).startswith("[")
    pop.quit()


def test_pipelining(site):
    """2449.12 commands sent ahead are answered in order, through the login too, and none is lost on the way."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.session()
    assert "PIPELINING" in capabilities(pop)
    pop.send(f"USER {USER}\r\nPASS {PASSWORD}\r\n"
             "STAT\r\nLIST 2\r\nRETR 2\r\nNOPE\r\nDELE 1\r\nUIDL 1\r\nNOOP\r\nQUIT\r\n")
    octets = pop.end()
    firsts = [line for line in octets.split(b"\r\n") if line.startswith((b"+OK", b"-ERR"))]
    assert [line[:3] for line in firsts] == [b"+OK"] * 5 + [b"-ER", b"+OK", b"-ER", b"+OK", b"+OK"]
    assert firsts[2].startswith(b"+OK 2 ") and firsts[3].startswith(b"+OK 2 ") and b"signing off" in firsts[-1]
    assert path.read_bytes() == mbox(TWO)


def test_pipelining_without_end(site):
    """2449.12 a client that sends and never reads blocks itself and nobody else; its commands were all taken in
    order."""
    site.add("other", "word")
    endless = site.log_in()
    endless.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            endless.socket.send(b"NOOP\r\n" * 1000)
    pop = site.log_in("other", "word")
    pop.ok("NOOP")
    pop.quit()
    endless.socket.setblocking(True)
    assert endless.socket.recv(12000).startswith(b"+OK \r\n+OK \r\n")


def test_expire(site):
    """2449.14 EXPIRE NEVER, in both states, and it is true: what was read is still there."""
    path = site.deliver(mbox(ONE))
    pop = site.log_in()
    assert "EXPIRE NEVER" in capabilities(pop)
    pop.text("RETR 1")
    pop.quit()
    assert path.read_bytes() == mbox(ONE)


def test_in_use(site):
    """2449.17 [IN-USE] is said to the PASS that failed for the lock, a session's or a program's."""
    site.deliver(mbox(ONE))
    assert "RESP-CODES" in capabilities(site.session())
    first = site.log_in()
    lock = site.spool / f"{USER}.lock"
    for _ in range(2):
        pop = site.session(lock_timeout=0)
        pop.ok(f"USER {USER}")
        assert re.fullmatch(r"\[IN-USE\] .* lock busy!  Is another session active\?", pop.err(f"PASS {PASSWORD}"))
        assert pop.end() == b""
        if not lock.exists():
            first.quit()
            lock.write_text(f"{os.getpid()}\n{os.uname().nodename}\n")


def test_private_tags_begin_with_x(site):
    """2449.18 a tag that no RFC knows begins with X."""
    assert all(line.split()[0] in REGISTERED or line.startswith("X") for line in capabilities(site.session()))


FAILURES = {"wrong password": (USER, "wrong"), "unknown user": ("nobody-there", "x"),
            "name with a slash": ("../" + USER, "x"),
            "NUL in the password": (USER, "tanstaaf\0"), "locked": ("locked", "x"), "empty hash": ("open", "x")}


@pytest.mark.parametrize("case", FAILURES)
def test_every_failure_of_credentials_is_marked(site, case):
    """3206.01 AUTH-RESP-CODE is announced, and every failure of credentials is [AUTH]."""
    with site.passwords.open("a") as lines:
        lines.write("open:\nlocked:*\n")
    name, password = FAILURES[case]
    pop = site.session()
    assert "AUTH-RESP-CODE" in capabilities(pop)
    pop.ok(f"USER {name}")
    assert pop.err(f"PASS {password}").startswith("[AUTH] ")
    assert pop.end() == b""


def test_nothing_else_is_marked_auth(site):
    """3206.02 [AUTH] is never said of anything but credentials: no mistake, no lock, no broken mailbox."""
    site.deliver(mbox(ONE))
    pop = site.session()
    replies = [pop.ask(command) for command in ("AUTH", "PASS x", "USER " + "x" * 70, "STAT", "RPOP x", f"USER {USER}",
                                                "PASS")]
    first = site.log_in()
    busy = site.session(lock_timeout=0)
    busy.ok(f"USER {USER}")
    replies += [busy.ask(f"PASS {PASSWORD}"), first.ask("RETR 9"), first.ask("XTND FOO")]
    assert not any("[AUTH]" in reply for reply in replies)
    assert [CODES.search(reply) and CODES.search(reply)[1] for reply in replies][-3:] == ["IN-USE", None, None]


def spool_is_gone(site):
    site.spool.rename(site.place / "away")


def is_a_directory(site):
    site.mailbox().mkdir()


def no_mbox(site):
    site.deliver(b"not an mbox\n")


def is_a_fifo(site):
    os.mkfifo(site.mailbox())
    site.own(site.mailbox())


def session_file_is_a_directory(site):
    (site.spool / f".{USER}.pop").mkdir()


def no_password_file(site):
    site.passwords.unlink()


@pytest.mark.parametrize("trouble", [spool_is_gone, is_a_directory, no_mbox, is_a_fifo, session_file_is_a_directory,
                                     no_password_file])
def test_trouble_of_the_system(site, trouble):
    """3206.03 trouble of the system is [SYS/PERM] or [SYS/TEMP], never [AUTH], and the client is told nothing more."""
    trouble(site)
    pop = site.session(lock_timeout=0)
    pop.ok(f"USER {USER}")
    assert pop.err(f"PASS {PASSWORD}").startswith("[SYS/PERM] ")
    assert pop.end() == b""
