"""RFC 1939 over mailboxes as they are found. Each test cites its checklist line."""

import pytest

from dialogue import ENVELOPE, ONE, THREE, TWO, USER, mbox, site, wire          # noqa: F401


def test_no_mailbox(site):
    """1939.84 no mailbox file is an empty maildrop, before and after; nothing is made in its place."""
    pop = site.log_in()
    assert pop.ok("STAT") == "0 0" and pop.lines("LIST") == [] and pop.lines("UIDL") == []
    pop.err("RETR 1")
    pop.quit()
    assert list(site.spool.iterdir()) == []


def test_mailbox_that_comes_during_the_session(site):
    """1939.84 mail for somebody who had no mailbox is there the next time."""
    pop = site.log_in()
    site.deliver(mbox(ONE))
    assert pop.ok("STAT") == "0 0"
    pop.quit()
    pop = site.log_in()
    assert pop.text("RETR 1") == wire(ONE)
    pop.quit()


@pytest.mark.parametrize("tail", [b"Subject: cut\n\nno end", b"Subject: cut\n\n.", b"Subject: cut\n\n\r",
                                  b"Subject: cut"])
def test_no_final_newline(site, tail):
    """1939.85 a last line without an end gets its CRLF on the wire, and its two octets in the size."""
    path = site.deliver(mbox(ONE) + ENVELOPE + tail)
    pop = site.log_in()
    octets = pop.text("RETR 2")
    assert octets == wire(tail) + b"\r\n"
    assert pop.ok("LIST 2") == f"2 {len(octets)}"
    assert pop.text("TOP 2 99") == octets
    pop.ok("DELE 1")
    pop.quit()
    assert path.read_bytes() == ENVELOPE + tail


NULS = b"Subject: n\0l\nX: \0\n\n\0\n\0\0\0body\0\n" + b"\0" * 5000 + b"\nend\n"


def test_nul_in_a_message(site):
    """1939.86 NUL is served as any octet is, in header and body."""
    site.deliver(mbox(NULS, ONE))
    pop = site.log_in()
    assert pop.text("RETR 1") == wire(NULS)
    assert pop.ok("LIST 1") == f"1 {len(wire(NULS))}"
    assert len(pop.lines("UIDL")) == 2
    pop.quit()


@pytest.mark.parametrize("kept", [NULS, b"S: \xff\xfe\x80\n\n\xe4\xf6\xfc\n", b"S: cr\n\na\rb\r\r\n\r\n\r\nc\n",
                                  b"S: crlf\r\n\r\nx\r\n", b"S: all\n\n" + bytes(range(256)) + b"\n"])
def test_octets_survive_a_deletion(site, kept):
    """1939.87 NUL, 8-bit and CR of the messages that stay are the same octets after UPDATE."""
    path = site.deliver(mbox(ONE, kept, TWO, kept, THREE))
    pop = site.log_in()
    for number in (1, 3):
        pop.ok(f"DELE {number}")
    pop.quit()
    assert path.read_bytes() == mbox(kept, kept, THREE)


def test_a_thousand_messages(site):
    """1939.88 a maildrop of 1,000 messages: listed, read and thinned out."""
    texts = [b"Message-ID: <%d@x>\n\n" % n + b"x" * (n % 97) + b"\n" for n in range(1000)]
    path = site.deliver(mbox(*texts))
    pop = site.log_in()
    assert pop.ok("STAT") == f"1000 {sum(len(wire(text)) for text in texts)}"
    assert pop.lines("LIST") == [f"{n} {len(wire(text))}" for n, text in enumerate(texts, 1)]
    assert len({line.split()[1] for line in pop.lines("UIDL")}) == 1000
    pop.send("".join(f"DELE {n}\r\n" for n in range(1, 1001, 2)))
    assert all(pop.reply().startswith("+OK") for _ in range(500))
    assert pop.text("RETR 1000") == wire(texts[999])
    pop.quit()
    assert path.read_bytes() == mbox(*texts[1::2])


@pytest.mark.parametrize("body", [b"From the beginning\n", b"x\n\nFrom here on it is a paragraph.\n",
                                  b">From quoted Tue\n",
                                  b"x\nFrom x@y Tue Jan  2 03:04:05 2024\ny\n",
                                  b"\n>From x@y Tue Jan  2 03:04:05 2024\n",
                                  b"\n From x@y Tue Jan  2 03:04:05 2024\n", b"\nfrom x@y Tue Jan  2 03:04:05 2024\n"])
def test_lines_that_begin_with_from(site, body):
    """1939.89 a line of a body that begins with "From " and is no envelope line behind an empty line is just text."""
    text = b"Subject: from\n\n" + body
    site.deliver(mbox(text, ONE))
    pop = site.log_in()
    assert pop.ok("STAT").startswith("2 ")
    assert pop.text("RETR 1") == wire(text)
    pop.quit()


@pytest.mark.parametrize("octets, count", [(b"\n\n", 0), (b"\r\n", 0), (b"\n", 0), (b"ab", None), (b"\0\0", None),
                                           (b"Fr", None)])
def test_mailbox_of_two_octets(site, octets, count):
    """1939.90 a file of one or two octets is empty, or no mailbox; never a loop, never a message."""
    path = site.deliver(octets)
    pop = site.session()
    pop.ok(f"USER {USER}")
    if count is None:
        assert pop.err("PASS tanstaaf").startswith("[SYS/PERM] Unable to process From lines")
        assert pop.end() == b""
    else:
        assert pop.ok("PASS tanstaaf").startswith(f"{USER} has {count} message(s)")
        pop.quit()
    assert path.read_bytes() == octets


BARE = [(ENVELOPE, 0), (ENVELOPE[:-1], 0), (ENVELOPE + b"\n", 2), (ENVELOPE + b"\n\n", 2), (ENVELOPE + b"A: b\n", 6),
        (ENVELOPE + b"A: b\n\n", 8), (ENVELOPE + b"\nbody\n", 8)]


@pytest.mark.parametrize("octets, size", BARE)
def test_messages_with_next_to_nothing(site, octets, size):
    """1939.90 a message without body, without header, without anything: one message, its size what is sent."""
    path = site.deliver(octets)
    pop = site.log_in()
    assert pop.ok("STAT") == f"1 {size}"
    assert len(pop.text("RETR 1")) == size
    assert len(pop.text("TOP 1 5")) == size
    assert len(pop.lines("UIDL")) == 1
    pop.ok("DELE 1")
    pop.quit()
    assert path.read_bytes() == b""


def test_crlf_mailbox(site):
    """1939.90 a mailbox whose lines end in CRLF is served as one whose lines end in LF."""
    path = site.deliver(wire(mbox(ONE, TWO, THREE)))
    pop = site.log_in()
    assert pop.lines("LIST") == [f"{n} {len(wire(text))}" for n, text in enumerate((ONE, TWO, THREE), 1)]
    assert [pop.text(f"RETR {n}") for n in (1, 2, 3)] == [wire(ONE), wire(TWO), wire(THREE)]
    assert pop.text("TOP 2 1").endswith(b"\r\n\r\n.leading dot\r\n")
    pop.ok("DELE 2")
    pop.quit()
    assert path.read_bytes() == wire(mbox(ONE, THREE))
