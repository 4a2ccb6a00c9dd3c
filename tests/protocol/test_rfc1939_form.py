"""RFC 1939 sections 3 and 4: the form of commands and replies, states, the timer. Each test cites its checklist
line."""

import os
import time

import pytest

from dialogue import HOST, ONE, PASSWORD, THREE, TWO, USER, mbox, site, wire          # noqa: F401
from popper import VERSION
from popper.channel import Channel

AUTHORIZATION = ("USER mrose", "PASS tanstaaf", "RPOP mrose")
TRANSACTION = ("STAT", "LIST", "LIST 1", "RETR 1", "DELE 1", "NOOP", "RSET", "LAST", "TOP 1 0", "UIDL", "UIDL 1",
               "XTND XLST Subject", "XTND XMIT")


def test_greeting_is_one_line_at_once(site):
    """1939.01 one +OK line as soon as connected, before anything is sent; 1939.02 of at most 512 octets."""
    pop = site.session(greeting=False)
    line = pop.line()
    assert line == f"+OK UCB Pop server (version {VERSION}) at {HOST} starting.".encode()
    assert len(line) + 2 <= 512
    assert pop.ask("QUIT").startswith("+OK ")
    assert pop.end() == b""


def test_greeting_of_a_host_with_a_long_name(site):
    """1939.02 the greeting is cut rather than longer than 512 octets."""
    pop = site.session(greeting=False, hostname="h" * 600)
    assert pop.reply().startswith("+OK UCB Pop server ")
    pop.quit()


@pytest.mark.parametrize("shape", [str.lower, str.upper, str.title, str.swapcase])
def test_keywords_in_any_case(site, shape):
    """1939.03 keywords of three or four letters, upper case and lower case being the same."""
    site.deliver(mbox(ONE))
    pop = site.session()
    pop.ok(f"{shape('user')} {USER}")
    pop.ok(f"{shape('pass')} {PASSWORD}")
    for word in ("stat", "noop", "rset", "last"):
        pop.ok(shape(word))
    assert pop.lines(shape("top") + " 1 0")[1] == "Subject: one"
    pop.ok(shape("quit"))
    assert pop.end() == b""


def test_arguments_of_forty_octets(site):
    """1939.04 arguments of up to 40 octets are taken, each separated by one space."""
    name, password = "n" * 40, "p" * 40
    site.add(name, password)
    site.deliver(mbox(ONE), name)
    pop = site.log_in(name, password)
    assert pop.lines("XTND XLST " + "x" * 40) == []
    pop.quit()


def test_status_words_are_upper_case(site):
    """1939.05 a reply begins with +OK or -ERR in upper case (and a space, see 1957.01)."""
    pop = site.session()
    for command in ("user mrose", "nonsense", "pass tanstaaf", "stat", "retr 1", "quit"):
        assert pop.ask(command).split(" ")[0] in ("+OK", "-ERR")


def test_one_reply_line_for_each_command(site):
    """1939.06 one first line of at most 512 octets for one command, whatever it echoes."""
    pop = site.log_in()
    commands = ["x" * 1000, "STAT", "RETR " + "9" * 1000, "NOOP", "XTND " + "y" * 1000, "LIST 1 " + "z" * 1000, "NOOP"]
    pop.send("".join(command + "\r\n" for command in commands))
    assert [pop.reply()[:3] for _ in commands] == ["-ER", "+OK", "-ER", "+OK", "-ER", "-ER", "+OK"]
    pop.quit()


@pytest.mark.parametrize("command", ["CAPA", "LIST", "UIDL", "RETR 1", "TOP 1 99", "XTND XLST Subject"])
def test_multi_line_replies_end_once(site, command):
    """1939.07 CRLF, a dot, CRLF end a multi-line reply, once: what follows is the next reply."""
    site.deliver(mbox(ONE))
    pop = site.log_in()
    pop.ok(command)
    body = pop.raw_body()
    assert body.endswith(b"\r\n")
    assert pop.ok("NOOP") == ""
    pop.quit()


def test_every_line_with_a_leading_dot_is_stuffed(site):
    """1939.08 the termination octet is put before every line that begins with it, in RETR and TOP alike."""
    text = b"Subject: dots\n.header: of a sort\n\n.\n..\n...\n.dot\nno dot.\n.\n"
    site.deliver(mbox(text, b".first: line\n\nx\n"))
    pop = site.log_in()
    stuffed = b"Subject: dots\r\n..header: of a sort\r\n\r\n..\r\n...\r\n....\r\n..dot\r\nno dot.\r\n..\r\n"
    for command in ("RETR 1", "TOP 1 99"):
        pop.ok(command)
        assert pop.raw_body() == stuffed
    for command in ("RETR 2", "TOP 2 99"):
        pop.ok(command)
        assert pop.raw_body() == b"..first: line\r\n\r\nx\r\n"
    pop.quit()


def test_lines_end_in_crlf_and_nothing_else_is_made(site):
    """1939.09 every line that we send ends in CRLF; a CR or LF of our own making stands nowhere else."""
    site.deliver(mbox(ONE, b"Subject: crlf\r\n\r\nended\r\nby both\r\n", THREE))
    pop = site.log_in()
    for command in ("LIST", "UIDL", "RETR 1", "RETR 2", "RETR 3", "TOP 2 1", "XTND XLST Subject", "CAPA"):
        pop.ok(command)
        body = pop.raw_body()
        assert body.count(b"\n") == body.count(b"\r") == body.count(b"\r\n")
    pop.quit()


@pytest.mark.parametrize("command", ["XYZZY", "AUTH PLAIN", "APOP mrose x", "HELP", "EHLO there", "STAT:", "QUITT", "-",
                                     "1"])
def test_unknown_command(site, command):
    """1939.10 an unrecognised command is answered -ERR, before and after login."""
    pop = site.session()
    assert pop.err(command) == f'Unknown command: "{command.split()[0].lower()}".'
    pop.log_in()
    assert pop.err(command) == f'Unknown command: "{command.split()[0].lower()}".'
    pop.quit()


def test_commands_of_another_state(site):
    """1939.11 every command is answered -ERR in a state that it does not belong to; 1939.25 STAT among them."""
    site.deliver(mbox(ONE))
    pop = site.session()
    for command in TRANSACTION:
        assert pop.err(command).startswith("Unknown command"), command
    assert pop.err("PASS tanstaaf").startswith("Unknown command")
    pop.ok("USER mrose")
    for command in TRANSACTION:
        assert pop.err(command).startswith("Unknown command"), command
    pop.ok("PASS tanstaaf")
    for command in AUTHORIZATION:
        assert pop.err(command).startswith("Unknown command"), command
    assert pop.ok("STAT") == f"1 {len(wire(ONE))}"
    pop.quit()


@pytest.mark.parametrize("command", ["STAT:", "STAT 1", "RETR", "RETR x", "RETR 1 2", "TOP 1", "TOP 1 x", "DELE",
                                     "DELE -1",
                                     "LIST x", "UIDL *", "NOOP 1", "RSET all", "QUIT now", "XTND", "XTND FOO", ": :"])
def test_bad_syntax_harms_nothing(site, command):
    """1939.12 what is syntactically wrong is answered -ERR, and the session goes on as if it had not been said."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.ok("DELE 1")
    before = pop.ok("STAT"), pop.ok("LAST"), pop.lines("LIST")
    pop.err(command)
    assert (pop.ok("STAT"), pop.ok("LAST"), pop.lines("LIST")) == before
    pop.quit()
    assert path.read_bytes() == mbox(TWO)


def test_bad_syntax_before_login_harms_nothing(site):
    """1939.12 a mistake between USER and PASS leaves the name as it was given."""
    pop = site.session()
    pop.ok("USER mrose")
    for mistake in ("XYZZY", "PASS", "STAT", "USER", ""):
        pop.err(mistake)
    pop.ok("PASS tanstaaf")
    pop.quit()


def note_deadlines():
    """In a session's process: put the deadline of every read into the log."""
    read = Channel.read

    def noted(channel, deadline=None):
        os.write(2, f"popper[0]: deadline {deadline!r}\n".encode())
        return read(channel, deadline)
    Channel.read = noted


def test_any_command_resets_the_timer(site):
    """1939.14 every command, the refused ones too, gives the client its whole time anew."""
    pop = site.log_in(before=note_deadlines, timeout=500)
    sent = []
    for command in ("NOOP", "XYZZY", "STAT", "RETR 99", "LAST"):
        sent.append(time.monotonic())
        pop.ask(command)
    pop.quit()
    for_first, *for_others = sorted({float(line.split()[1]) for line in site.logged("deadline ")})[-len(sent) - 1:]
    assert len(for_others) == len(sent) and for_first >= sent[0] - 1 + 500
    assert all(deadline >= moment + 500 for moment, deadline in zip(sent, for_others))


@pytest.mark.parametrize("state", ["AUTHORIZATION", "TRANSACTION"])
def test_when_the_timer_expires(site, state):
    """1939.15 when the timer expires the connection is closed: no response, no UPDATE, nothing removed."""
    path = site.deliver(mbox(ONE, TWO))
    inode = path.stat().st_ino
    if state == "TRANSACTION":
        pop = site.log_in(timeout=0.2)
        pop.ok("DELE 1")
    else:
        pop = site.session(login_timeout=0.2)
        pop.ok("USER mrose")
    assert pop.end() == b""
    assert pop.status == 0
    assert path.read_bytes() == mbox(ONE, TWO) and path.stat().st_ino == inode
    assert site.left_over() == []
    assert site.logged("Timeout (0.2 secs) during nw read from mrose at local (local)")


def test_empty_line(site):
    """1939.75 an empty line, or one of blanks, is no command: -ERR, in each state, and one reply for each."""
    pop = site.session()
    pop.send("\r\n   \r\n\n\t\r\n")
    assert [pop.reply() for _ in range(4)] == ['-ERR Unknown command: "".'] * 4
    pop.log_in()
    pop.send("\r\n \r\nNOOP\r\n")
    assert [pop.reply()[:4] for _ in range(3)] == ["-ERR", "-ERR", "+OK "]
    pop.quit()


NO_NUMBERS = ("0", "-1", "+1", "1x", "x1", "1.0", "1e0", "0x1", "1_0", "4294967297", "18446744073709551617",
              "99999999999999999999999",
              "1\0", "\xb9", "\xc2\xb2", "\xd9\xa1", "\xef\xbc\x91", "''", "''1", "1,2", "1:2", "*", "--", "(1)", "%31")


@pytest.mark.parametrize("command", ["LIST", "RETR", "DELE", "UIDL", "TOP", "XTND XLST Subject"])
def test_what_is_no_message_number(site, command):
    """1939.76 zero, signs, garbage, overflow, other notations and other digits name no message."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    for word in NO_NUMBERS:
        reply = pop.err(f"{command} {word}" + (" 0" if command == "TOP" else ""))
        assert "number" in reply or "does not exist" in reply, (word, reply)
        assert pop.ok("NOOP") == ""
    assert pop.ok("STAT").startswith("2 ")
    pop.quit()
    assert path.read_bytes() == mbox(ONE, TWO)


def test_leading_zeros_are_decimal(site):
    """1939.76 010 is ten, as 10 is: never octal."""
    site.deliver(mbox(*[b"Subject: %d\n\nx\n" % n for n in range(1, 12)]))
    pop = site.log_in()
    assert pop.lines("TOP 010 0")[0] == "Subject: 10"
    assert pop.ok("LIST 0009").startswith("9 ")
    pop.quit()


@pytest.mark.parametrize("word", ["-1", "+1", "1x", "0x1", "1_0", "1e1", "\xb2", "99999999999999999999999"])
def test_what_is_no_number_of_lines(site, word):
    """1939.76 the second argument of TOP is held to the same rule, but may be zero; 1939.49 it is not negative."""
    site.deliver(mbox(TWO))
    pop = site.log_in()
    assert "is not a number of lines" in pop.err(f"TOP 1 {word}")
    assert pop.text("TOP 1 0").endswith(b"\r\n\r\n")
    pop.quit()


CONVERSATION = b"USER mrose\r\nPASS tanstaaf\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nNOPE\r\nQUIT\r\n"


def heard(site, pieces):
    """All that a client hears which sends these pieces, one by one."""
    site.deliver(mbox(TWO))
    pop = site.session()
    for piece in pieces:
        pop.send(piece)
    octets = pop.end()
    assert site.mailbox().read_bytes() == b""
    return octets


def test_commands_split_and_joined(site):
    """1939.77 commands mean the same in one packet, octet by octet, and cut in the middle of CRLF."""
    whole = heard(site, [CONVERSATION])
    assert whole.count(b"+OK ") == 6 and whole.count(b"-ERR ") == 1
    assert heard(site, [CONVERSATION[at:at + 1] for at in range(len(CONVERSATION))]) == whole
    assert heard(site,
                 CONVERSATION.split(b"\n")[0:1] + [b"\n" + line for line in CONVERSATION.split(b"\n")[1:]]) == whole


def test_bare_lf_ends_a_command(site):
    """1939.77 a command that ends in LF alone is taken."""
    assert heard(site, [CONVERSATION.replace(b"\r\n", b"\n")]) == heard(site, [CONVERSATION])


def test_nul_is_data(site):
    """1939.77 NUL ends neither a line nor a word: NOOP NUL is not NOOP, and mrose NUL is not mrose."""
    pop = site.session()
    assert pop.ok(b"USER mrose\0") == "Password required for mrose\\x00."
    assert pop.err("PASS tanstaaf").startswith("[AUTH] ")
    assert pop.end() == b""
    pop = site.session()
    pop.ok("USER mrose")
    assert pop.err(b"PASS tanstaaf\0").startswith("[AUTH] ")
    pop = site.log_in()
    assert pop.err(b"NOOP\0") == 'Unknown command: "noop\\x00".'
    pop.send(b"NOOP\0STAT\r\n\0\r\n")
    assert [pop.reply() for _ in range(2)] == ['-ERR Unknown command: "noop\\x00stat".',
                                               '-ERR Unknown command: "\\x00".']
    pop.quit()
