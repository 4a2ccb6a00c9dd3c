"""RFC 1939 sections 5 and 7, TRANSACTION: STAT LIST RETR DELE NOOP RSET TOP UIDL. Each test cites its checklist
line."""

import re

import pytest

from dialogue import ENVELOPE, ONE, THREE, TWO, mbox, site, wire          # noqa: F401

ODD = (ONE, TWO, THREE, b"Subject: crlf\r\n\r\n.\r\n..\r\n\r\n", b"No: body\n",
       b"S: 8-bit \xff\n\n\0\xe4\r in the middle\n",
       b"S: x\n\n" + b"long " * 40000 + b"\n", b"\nno header\n")
# A message without a body: the empty line behind it in the mailbox is the one that ends its header.
AS_SENT = [wire((text + b"\n" * (text == b"No: body\n")).replace(b"\r\n", b"\n")) for text in ODD]


@pytest.fixture
def pop(site):
    """A session over ONE, TWO and THREE."""
    site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in()
    yield pop
    pop.quit()


def test_numbers_run_from_one_in_order(pop):
    """1939.20 messages are numbered from 1 in the order of the mailbox; 1939.22 in decimal."""
    assert [line.split()[0] for line in pop.lines("LIST")] == ["1", "2", "3"]
    assert [pop.lines(f"TOP {n} 0")[1] for n in (1, 2, 3)] == ["Subject: one", "Subject: two", "Subject: three"]


def test_all_numbers_are_decimal(site):
    """1939.22 numbers and sizes in every reply are plain decimal, behind 9 and behind 255 too."""
    site.deliver(mbox(*[b"S: x\n\n" + b"y" * n + b"\n" for n in range(300)]))
    pop = site.log_in()
    assert re.fullmatch(r"300 [1-9]\d*", pop.ok("STAT"))
    assert [line.split() for line in pop.lines("LIST")] == [[str(n + 1), str(n + 10)] for n in range(300)]
    assert [line.split()[0] for line in pop.lines("UIDL")] == [str(n + 1) for n in range(300)]
    assert pop.ok("LIST 300") == "300 309"
    assert pop.ok("RETR 300").startswith("309 ") and len(pop.raw_body()) == 309
    pop.quit()


def test_stat(pop):
    """1939.23 STAT: count, space, octets, and nothing behind it; 1939.24 without the deleted; 1939.25 after login."""
    sizes = [len(wire(text)) for text in (ONE, TWO, THREE)]
    assert pop.ok("STAT") == f"3 {sum(sizes)}"
    pop.ok("DELE 2")
    assert pop.ok("STAT") == f"2 {sizes[0] + sizes[2]}"
    pop.ok("DELE 1")
    pop.ok("DELE 3")
    assert pop.ok("STAT") == "0 0"
    pop.ok("RSET")
    assert pop.ok("STAT") == f"3 {sum(sizes)}"


def test_list(pop):
    """1939.26 LIST is a scan listing; 1939.27 with a number one line; 1939.31 each a number, a space, a size, no
    more."""
    listing = pop.lines("LIST")
    assert listing == [f"{n} {len(wire(text))}" for n, text in enumerate((ONE, TWO, THREE), 1)]
    assert [pop.ok(f"LIST {n}") for n in (1, 2, 3)] == listing


def test_list_of_what_is_not_there(pop):
    """1939.28 LIST of no such message is -ERR; 1939.29 of a deleted one too, and the listing leaves it out."""
    assert pop.err("LIST 4") == "Message 4 does not exist."
    assert pop.err("LIST 0") == "Message 0 does not exist."
    pop.ok("DELE 2")
    assert pop.err("LIST 2") == "Message 2 has been deleted."
    assert [line.split()[0] for line in pop.lines("LIST")] == ["1", "3"]
    pop.ok("RSET")


@pytest.mark.parametrize("mailbox", [None, b""])
def test_empty_maildrop(site, mailbox):
    """1939.30 LIST and UIDL of an empty maildrop: +OK and the terminator; STAT says 0 0."""
    if mailbox is not None:
        site.deliver(mailbox)
    pop = site.log_in()
    assert pop.ok("STAT") == "0 0"
    for command in ("LIST", "UIDL"):
        pop.ok(command)
        assert pop.raw_body() == b""
    pop.err("LIST 1")
    pop.quit()


def test_size_is_what_crosses_the_wire(site):
    """1939.32 the size is that of the octets RETR delivers: CRLF is two, stuffing and terminator are not counted."""
    site.deliver(mbox(*ODD))
    pop = site.log_in()
    assert len(pop.lines("LIST")) == len(ODD)
    for number, text in enumerate(AS_SENT, 1):
        octets = pop.text(f"RETR {number}")
        assert pop.ok(f"LIST {number}") == f"{number} {len(octets)}"
        assert octets == text
    pop.quit()


def test_size_in_the_status_line_of_retr(site):
    """1939.32 what RETR announces in its first line is the same figure."""
    site.deliver(mbox(*ODD))
    pop = site.log_in()
    for number, text in enumerate(ODD, 1):
        announced = pop.ok(f"RETR {number}").split()[0]
        body = pop.raw_body()
        assert int(announced) == len(body) - sum(line.startswith(b".") for line in body.split(b"\r\n"))
    pop.quit()


def test_stat_is_the_sum_of_list(site):
    """1939.33 the octets of STAT are the sum of LIST's, with messages deleted and without."""
    site.deliver(mbox(*ODD))
    pop = site.log_in()
    for command in ("NOOP", "DELE 3", "DELE 1", "DELE 7", "RSET"):
        pop.ok(command)
        sizes = [int(line.split()[1]) for line in pop.lines("LIST")]
        assert pop.ok("STAT") == f"{len(sizes)} {sum(sizes)}"
    pop.quit()


def test_retr(pop):
    """1939.34 RETR sends the whole message, without the envelope line of the mailbox."""
    assert [pop.text(f"RETR {n}") for n in (1, 2, 3, 1)] == [wire(ONE), wire(TWO), wire(THREE), wire(ONE)]


@pytest.mark.parametrize("command", ["RETR", "DELE", "TOP", "UIDL"])
def test_no_such_message(pop, command):
    """1939.35 RETR, 1939.41 DELE, 1939.53 TOP, 1939.55 UIDL of a number that no message has is -ERR."""
    for number in ("0", "4", "99999", "4294967297"):
        assert pop.err(f"{command} {number}" + " 0" * (command == "TOP")) == f"Message {number} does not exist."


@pytest.mark.parametrize("command", ["RETR 2", "TOP 2 0", "UIDL 2", "LIST 2", "DELE 2", "XTND XLST Subject 2"])
def test_a_deleted_message_cannot_be_referred_to(pop, command):
    """1939.39 any later reference is -ERR: 1939.36 RETR, 1939.40 DELE again, 1939.53 TOP, 1939.59 UIDL."""
    pop.ok("DELE 2")
    assert re.fullmatch(r"Message 2 has (been|already been) (deleted|marked for deletion)\.", pop.err(command))
    pop.ok("RSET")
    assert pop.ask(command).startswith("+OK")
    if not command.startswith(("LIST", "DELE", "UIDL")):
        pop.raw_body()
    pop.ok("RSET")


@pytest.mark.parametrize("command", ["RETR", "DELE", "TOP", "TOP 1"])
def test_a_missing_argument(pop, command):
    """1939.37 RETR and DELE without a number are -ERR; 1939.49 TOP wants a message and a number of lines."""
    word = command.split()[0].lower()
    assert pop.err(command) == f"Too few arguments for the {word} command."


def test_dele_only_marks(site):
    """1939.38 DELE marks; nothing in the spool changes before UPDATE."""
    path = site.deliver(mbox(ONE, TWO, THREE))
    old = path.stat()
    pop = site.log_in()
    for number in (1, 2, 3):
        assert pop.ok(f"DELE {number}") == f"Message {number} has been deleted."
    assert path.read_bytes() == mbox(ONE, TWO, THREE)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (old.st_mtime_ns, old.st_ino)
    pop.ok("RSET")
    pop.quit()
    assert path.read_bytes() == mbox(ONE, TWO, THREE)


def test_noop(pop):
    """1939.42 NOOP does nothing and says +OK."""
    assert pop.ask("NOOP") == "+OK "
    assert pop.ok("STAT").startswith("3 ")


def test_rset(pop):
    """1939.43 RSET unmarks every message that was marked deleted."""
    for number in (3, 1):
        pop.ok(f"DELE {number}")
    pop.ok("RSET")
    assert len(pop.lines("LIST")) == len(pop.lines("UIDL")) == 3
    assert pop.text("RETR 3") == wire(THREE)
    assert pop.ok("RSET").startswith("Maildrop has 3 messages")


def test_top(pop):
    """1939.50 TOP sends the header, the blank line, and so many lines; 1939.52 none of the body for 0."""
    header, body = wire(THREE).split(b"\r\n\r\n", 1)
    lines = body.splitlines(True)
    for count in range(len(lines)):
        assert pop.text(f"TOP 3 {count}") == header + b"\r\n\r\n" + b"".join(lines[:count])


@pytest.mark.parametrize("count", ["4", "5", "1000", "4294967296", "99999999999999999999"])
def test_top_of_more_lines_than_there_are(pop, count):
    """1939.51 asked for more lines than the body has, TOP sends the whole message."""
    assert pop.text(f"TOP 3 {count}") == wire(THREE)


def test_top_stops_where_the_message_does(site):
    """1939.51 TOP of a message without a blank line, or without a body, does not run into the next one."""
    site.deliver(mbox(b"No: body\n", b"Empty: body\n\n", ONE))
    pop = site.log_in()
    assert pop.text("TOP 1 99") == b"No: body\r\n\r\n"
    assert pop.text("TOP 2 99") == b"Empty: body\r\n\r\n"
    assert pop.text("TOP 1 0") == b"No: body\r\n\r\n"
    pop.quit()


def test_uidl(pop):
    """1939.54 UIDL is a listing of number, space, unique-id; 1939.55 with a number one line."""
    listing = pop.lines("UIDL")
    assert [line.split(" ")[0] for line in listing] == ["1", "2", "3"] and all(line.count(" ") == 1 for line in listing)
    assert [pop.ok(f"UIDL {n}") for n in (1, 2, 3)] == listing


HOSTILE_IDS = (b"", b"two words", b"8-bit \xe4", b"tab\there", b"x" * 71, b"nul\0", b"esc\x1b[31m")


def test_form_of_unique_ids(site):
    """1939.56 a unique-id is 1 to 70 characters of 0x21 to 0x7E, whatever a stored X-UIDL: says."""
    site.deliver(mbox(*[b"Message-ID: <%d@x>\nX-UIDL: %s\n\nx\n" % (n, stored) for n, stored in enumerate(HOSTILE_IDS)],
                      b"X-UIDL: " + b"~" * 70 + b"\n\nx\n", b"no header at all\n"))
    pop = site.log_in()
    ids = [line.split(" ", 1)[1] for line in pop.lines("UIDL")]
    assert len(ids) == len(HOSTILE_IDS) + 2
    assert all(re.fullmatch(r"[!-~]{1,70}", unique) for unique in ids)
    assert ids[-2] == "~" * 70
    pop.quit()


def test_unique_ids_last(site):
    """1939.57 unique in the maildrop, and the same in every session: after QUIT, after a cut line, after an UPDATE."""
    path = site.deliver(mbox(ONE, TWO, ONE, THREE, b"X-UIDL: kept\n\nx\n", b"X-UIDL: kept\n\ny\n"))
    pop = site.log_in()
    ids = [line.split()[1] for line in pop.lines("UIDL")]
    assert len(set(ids)) == 6
    pop.hang_up()
    pop = site.log_in()
    assert [line.split()[1] for line in pop.lines("UIDL")] == ids
    pop.text("RETR 4")
    pop.ok("DELE 2")
    pop.quit()
    with path.open("ab") as mailbox:
        mailbox.write(mbox(b"Subject: new\n\nnew\n"))
    pop = site.log_in()
    now = [line.split()[1] for line in pop.lines("UIDL")]
    assert now[:5] == ids[:1] + ids[2:] and now[5] not in ids
    pop.quit()


def test_ids_of_copies(site):
    """1939.58 identical copies each have an id of their own; an id of a deleted message comes back for no other."""
    site.deliver(mbox(ONE, ONE, ONE, TWO))
    pop = site.log_in()
    ids = [line.split()[1] for line in pop.lines("UIDL")]
    assert len(set(ids)) == 4
    pop.ok("DELE 4")
    pop.quit()
    with site.mailbox().open("ab") as mailbox:
        mailbox.write(mbox(THREE, b"Subject: yet another\n\nx\n"))
    pop = site.log_in()
    assert ids[3] not in [line.split()[1] for line in pop.lines("UIDL")]
    pop.quit()


def test_uidl_leaves_out_the_deleted(pop):
    """1939.59 UIDL leaves out deleted messages; asked for one it says -ERR."""
    listing = pop.lines("UIDL")
    pop.ok("DELE 1")
    assert pop.lines("UIDL") == listing[1:]
    assert pop.err("UIDL 1") == "Message 1 has been marked for deletion."
    pop.ok("RSET")
    assert pop.lines("UIDL") == listing


def test_numbers_do_not_move(site):
    """1939.78 a message keeps its number through the session, whatever is deleted and whatever arrives."""
    path = site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in()
    pop.ok("DELE 1")
    with path.open("ab") as mailbox:
        mailbox.write(ENVELOPE + b"Subject: late\n\nlate\n\n")
    assert [line.split()[0] for line in pop.lines("LIST")] == ["2", "3"]
    assert pop.text("RETR 3") == wire(THREE)
    pop.ok("DELE 2")
    assert pop.lines("LIST") == [f"3 {len(wire(THREE))}"]
    pop.err("RETR 4")
    pop.quit()
