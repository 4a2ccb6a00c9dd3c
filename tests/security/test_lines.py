"""What a stranger may send: lines too long, too odd, too many. Each test names its row of the security checklist."""

import random
import select

import pytest

from dialogue import ONE, PASSWORD, TWO, USER, mbox, site          # noqa: F401

TOO_LONG = "-ERR Command line too long (more than 1024 octets)."
WORDS = ("STAT", "LIST", "RETR", "DELE", "NOOP", "LAST", "RSET", "TOP", "UIDL", "XTND XLST", "XTND XMIT", "XTND",
         "CAPA", "USER",
         "PASS", "AUTH", "APOP", "QUIT", "EUIDL", "MDEF")


@pytest.mark.parametrize("word", ["PASS", "USER", "AUTH", "AUTH PLAIN", "APOP mrose", "CAPA", "QUIT", ""])
def test_overlong_argument_before_login(site, word):
    """row 1 (CVE-1999-0006 in PASS), sec.01: a line of 64 kB is one -ERR, memory stays as it was, the session is
    sound."""
    site.deliver(mbox(ONE))
    pop = site.session()
    pop.ok(f"USER {USER}")
    before = pop.memory()
    pop.send(f"{word} " + "A" * 65000 + "\r\n")
    assert pop.reply() == TOO_LONG
    assert pop.memory() - before < 1_000_000
    assert pop.ok(f"PASS {PASSWORD}").startswith(f"{USER} has 1 ")
    pop.quit()


@pytest.mark.parametrize("words", [["AUTH "], ["AUTH PLAIN\r\n", ""]])
def test_megabyte_of_auth(site, words):
    """row 2 (CVE-1999-0822 in AUTH): a megabyte in place of an argument, or of a continuation, is refused unseen."""
    pop = site.session()
    before = pop.memory()
    *first, last = words
    for word in first:
        pop.send(word)
        assert pop.reply().startswith("-ERR ")
    assert pop.pour(last.encode() + b"A" * 1_000_000 + b"\r\n") < 1_000_000
    assert pop.end() == b"-ERR Input without a line end, closing.\r\n"
    assert pop.memory() - before < 1_000_000


@pytest.mark.parametrize("word", WORDS)
def test_every_command_with_any_arguments(site, word):
    """row 3 (CVE-2000-0096 in LIST): 1 to 8 arguments of 0 to 4,096 octets get one reply each; nothing is harmed."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in(xmit_max=0)
    for octets in (0, 1, 255, 4096):
        for count in range(1, 9):
            pop.send(word + (" " + "9" * octets) * count + "\r\nNOOP\r\n")
            reply = pop.reply()
            if octets == 0 and reply.startswith("+OK") and word == "QUIT":
                assert pop.end() == b""
                pop = site.log_in(xmit_max=0)
                continue
            if octets == 0 and reply.startswith("+OK") and word in ("LIST", "UIDL", "CAPA"):
                pop.raw_body()
            elif word == "XTND XLST" and reply.startswith("+OK"):
                assert pop.raw_body() == b""
            elif len(word) + (1 + octets) * count + 2 > 1024:
                assert reply == TOO_LONG
            assert pop.reply() == "+OK ", (word, octets, count)
    assert pop.ok("STAT").startswith("2 ")
    pop.quit()
    assert path.read_bytes() == mbox(ONE, TWO)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("count", [1, 8])
def test_every_command_with_arguments_of_64k(site, word, count):
    """row 3 (CVE-2000-0096): so with 65,536 octets, over which the session may end."""
    pop = site.log_in()
    pop.pour(word.encode() + (b" " + b"1" * 65536) * count + b"\r\nNOOP\r\nQUIT\r\n")
    replies = pop.end().decode().splitlines()
    assert replies == ["-ERR Input without a line end, closing."] or count == 1 and replies[:2] == [TOO_LONG, "+OK "]


@pytest.mark.parametrize("length", [65, 255, 256, 1000, 2000, 20000])
def test_overlong_user(site, length):
    """row 6 (CVE-2001-1046, CVE-2006-2502, CVE-1999-0042 in USER): an overlong name is one -ERR."""
    pop = site.session()
    assert pop.err("USER " + "u" * length).startswith(("User name too long", "Command line too long"))
    pop.log_in().quit()


def test_input_without_a_line_end(site):
    """row 7 (CVE-2002-0454): no loop over input without a line end; it is cut off at a limit, in one line of the
    log."""
    pop = site.session()
    before = pop.memory()
    for _ in range(60):
        pop.send(b"A" * 1000)
    assert pop.memory() - before < 1_000_000
    assert pop.pour(b"A" * 10_000_000) < 1_000_000
    assert pop.end() == b"-ERR Input without a line end, closing.\r\n"
    assert pop.status == 0
    assert len(site.log()) == 1


@pytest.mark.parametrize("octet", ["A", "%", "\0", "\xff", "\x1b", "\\", "\x7f"])
def test_echo_is_bounded_and_plain(site, octet):
    """row 9 (CVE-2003-0143), sec.04: what is echoed is cut, and no control octet comes back raw, in reply or log."""
    site.deliver(mbox(ONE))
    pop = site.session()
    told = [pop.ask(octet * 900), pop.ask("USER " + octet * 64)]
    pop.log_in()
    for command in ("RETR {}", "LIST {}", "DELE {}", "TOP 1 {}", "TOP {} 1", "UIDL {}", "XTND {}", "XTND XLST x {}",
                    "{}"):
        told.append(pop.err(command.format(octet * 900)))
    pop.quit()
    assert all(len(line) <= 510 and line.isascii() and line.isprintable() for line in told)
    assert all(len(line) < 700 and line.isascii() and line.isprintable() for line in site.log())


FORMATS = ("%s%s%s%n", "%n%n", "%x%x%x%x", "{0}", "{0.__class__}", "{}", "%(user)s", "$USER", "${HOME}", "`id`",
           "\\x41", "%")


@pytest.mark.parametrize("name", FORMATS)
def test_format_strings(site, name):
    """row 16 (CVE-2000-0583, CVE-2004-0777, CVE-2007-5740, CVE-2005-1523): a name is data, for the client and the
    log."""
    pop = site.session(debug=True)
    assert pop.ok(f"USER {name}") == f"Password required for {name}."
    assert pop.err(f"PASS {name}") == f'[AUTH] Password supplied for "{name}" is incorrect.'
    assert pop.end() == b""
    escaped = "".join(c if c.isalnum() or c in "_.@+-" else f"\\x{ord(c):02x}" for c in name)
    assert site.logged(f"warning: [AUTH] Failed attempted login to {escaped} from host (local) local")


HOSTILE = ("..", ".", "../mrose", "mrose/../mrose", "/etc/passwd", "/", "a/b", ".mrose", "-mrose", "--", "mrose.lock",
           "x.pop",
           "mrose\0", "mrose\0.lock", "\0", "~root", "~", "m*", "mros?", "a..b", "mrose:", "\xe4\xf6", "\xff\xfe", "%u",
           "%1", "%%",
           "mrose=", "'mrose'", "mrose;", "mrose,", "mrose|", "$mrose", "(mrose)", "\x1bmrose")
UNKNOWN = ("n" * 64, "MROSE", "mrose@", "root", "0", "mrose_", "mros", "mrosee")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_user_names(site, name):
    """row 38 (CVE-2005-2933, CVE-1999-0920), sec.03: no name but a plain one becomes part of a path.

    A name has at most 64 octets: 40 must be taken (1939.04), and Qpopper kept 64.
    """
    known = site.passwords.read_bytes().partition(b":")[2]
    with site.passwords.open("ab") as lines:          # even where the file knows such a name
        lines.write(name.encode("latin-1") + b":" + known)
    refuses(site, name)


@pytest.mark.parametrize("name", UNKNOWN)
def test_names_that_are_nearly_right(site, name):
    """sec.03: a name is that name, to the letter."""
    refuses(site, name)


def refuses(site, name):
    """Let nobody in under a name, and touch no file for it."""
    site.deliver(mbox(ONE))
    before = sorted(site.place.rglob("*"))
    pop = site.session()
    pop.ok(f"USER {name}")
    assert pop.err(f"PASS {PASSWORD}").endswith('" is incorrect.')
    assert pop.end() == b""
    assert sorted(site.place.rglob("*")) == before


@pytest.mark.parametrize("name", ["%u%h%{env:HOME}", "%u", "%%u", "%1", "a=b", "%2", "%{", "~%u"])
def test_templates_do_not_expand_what_came_in(site, name):
    """row 19 (CVE-2006-2659 `a=b`, CVE-2017-2669 `%{...}`): such names are a plain failure."""
    pop = site.session()
    assert pop.ok(f"USER {name}") == f"Password required for {name}."
    assert pop.err(f"PASS {PASSWORD}") == f'[AUTH] Password supplied for "{name}" is incorrect.'
    assert pop.end() == b""


GARBAGE = (b"\0", b"mrose\0root", b"\xed\xa0\x80", b"\xc0\xaf\xc0\xae", b"\xf5\x80\x80\x80", b"====", b"=",
           b"\xff" * 60, b"\x80", b"\xe2\x80\xa8")


@pytest.mark.parametrize("octets", GARBAGE)
def test_undecodable_credentials(site, octets):
    """row 27 (CVE-2019-11500, CVE-2019-10691, CVE-2025-59028): such octets fail like any others; a login beside them is
    unharmed."""
    site.deliver(mbox(ONE))
    beside = site.session()
    beside.ok(f"USER {USER}")
    for name, password in ((octets, b"x"), (USER.encode(), octets), (octets, octets)):
        pop = site.session()
        pop.ok(b"USER " + name)
        assert pop.err(b"PASS " + password).startswith("[AUTH] Password supplied for ")
        assert pop.end() == b""
    assert beside.ok(f"PASS {PASSWORD}").startswith(f"{USER} has 1 ")
    beside.quit()


@pytest.mark.parametrize("command", ["DELE -1", "UIDL -1", "RETR -1", "LIST -1", "TOP -1 -1", "DELE 0", "RETR 0"])
def test_negative_numbers(site, command):
    """row 32 (CVE-2002-1539): no message is reached from behind."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.err(command)
    assert pop.ok("STAT").startswith("2 ")
    pop.quit()
    assert path.read_bytes() == mbox(ONE, TWO)


ODD = [word.encode() for word in WORDS if word not in ("QUIT", "PASS")] + [
    b"1", b"2", b"0", b"-1", b" ", b"\t", b":", b"\0", b"\r", b"\xff", b"x" * 300, b".", b"%s", b"Subject", b"",
    b"9" * 20]


def odd_lines(count):
    """Lines out of the words of the protocol and of what does not belong there, the same in every run."""
    dice = random.Random(1939)
    for _ in range(count):
        words = [dice.choice(ODD) for _ in range(dice.randint(0, 5))]
        yield dice.choice((b" ", b" ", b"", b":", b"\t")).join(words) + dice.choice((b"\r\n", b"\n"))


@pytest.mark.parametrize("good", ["USER x", "NOOP"])
def test_ten_thousand_odd_lines(site, good):
    """row 36 (an assert in another server's POP3: `STAT:` killed it): no line is an internal error, none goes
    unanswered."""
    site.deliver(mbox(ONE, TWO))
    pop = site.session(xmit_max=0) if good == "USER x" else site.log_in(xmit_max=0)
    octets = b"".join(line + good.encode() + b"\r\n" for line in odd_lines(10_000)) + b"QUIT\r\n"
    assert pop.pour(octets) == len(octets)
    octets = pop.end()
    assert octets.endswith(b"signing off.\r\n")
    assert sum(line.startswith((b"+OK ", b"-ERR ")) for line in octets.split(b"\r\n")) == 20_001


def test_pipelined_replies_keep_their_order(site):
    """row 37 (CVE-2024-41671, replies out of order): a thousand commands at once, each answered in its turn."""
    site.deliver(mbox(*[b"Subject: %d\n\n%s\n" % (n, b"x" * n) for n in range(1, 21)]))
    pop = site.log_in()
    numbers = [n * 7 % 20 + 1 for n in range(1000)]
    pop.send("".join(f"TOP {n} 0\r\nLIST {n}\r\n" for n in numbers))
    for n in numbers:
        pop.reply()
        assert pop.raw_body() == b"Subject: %d\r\n\r\n" % n
        assert pop.reply().startswith(f"+OK {n} ")
    pop.quit()


@pytest.mark.parametrize("half", ["QUIT", "QUIT\r", "QUI", "quit "])
def test_half_a_command_is_none(site, half):
    """row 41 (another server ran UPDATE for QUIT without a line end): half a line is not taken for a whole one."""
    path = site.deliver(mbox(ONE))
    pop = site.log_in()
    pop.ok("DELE 1")
    pop.send(half)
    pop.hang_up()
    assert path.read_bytes() == mbox(ONE)


def test_other_servers_slips(site):
    """row 42 (measured elsewhere): `pw ` is not `pw`; a killed session locks nobody out; 600 octets get one reply."""
    pop = site.session()
    pop.ok(f"USER {USER}")
    assert pop.err(f"PASS {PASSWORD} ").startswith("[AUTH]")
    pop = site.log_in()
    pop.kill()
    pop = site.log_in(lock_timeout=0)
    pop.send("x" * 600 + "\r\nNOOP\r\n")
    assert [pop.reply()[:4] for _ in range(2)] == ["-ERR", "+OK "]
    pop.quit()


@pytest.mark.parametrize("number", ["4294967297", "1x", "1e0", "+1", "0x1", "18446744073709551617", "1.", "01x"])
def test_no_number_wraps(site, number):
    """row 43 (LIST 4294967297 was LIST 1 elsewhere), row 41 (`+1`): what is not plainly a message's number names
    none."""
    site.deliver(mbox(ONE))
    pop = site.log_in()
    for command in ("LIST", "RETR", "DELE", "UIDL"):
        pop.err(f"{command} {number}")
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()


def test_a_line_octet_by_octet_before_login(site):
    """sec.11: what trickles in does not put off the login deadline, however small the pieces."""
    pop = site.session(login_timeout=0.5)
    gone = select.poll()
    gone.register(pop.socket, select.POLLIN)
    for _ in range(1000):
        pop.send("x")
        if gone.poll(20):
            break
    assert pop.end() == b""
    assert site.logged("Timeout (0.5 secs) during nw read")
