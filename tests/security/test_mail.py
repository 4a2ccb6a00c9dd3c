"""What a stranger may put into somebody's mailbox. Each test names its row of the security checklist."""

import resource
import time
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import ENVELOPE, ONE, THREE, TWO, mbox, site, wire          # noqa: F401

FORMAT = b"%s%n%x{0}{__class__}$(id)`id`\\x41"


def test_format_strings_in_headers(site):
    """row 4 (CVE-2000-0442, a From: header as a format): headers are data in XLST, UIDL, TOP, RETR and the log."""
    names = (b"From", b"To", b"Subject", b"Message-ID", b"Date", b"Received", b"X-UIDL", b"Status", FORMAT)
    text = b"".join(b"%b: %b\n" % (name, FORMAT) for name in names) + b"\n" + FORMAT + b"\n"
    site.deliver(ENVELOPE.replace(b"sender", FORMAT) + text + b"\n" + mbox(ONE))
    pop = site.log_in(debug=True)
    for name in names:
        assert pop.text(b"XTND XLST " + name + b" 1") == b"1 %b: %b\r\n" % (name, FORMAT)
    assert pop.text("TOP 1 0") + FORMAT + b"\r\n" == pop.text("RETR 1") == wire(text)
    assert pop.ok("UIDL 1") == f"1 {FORMAT.decode()}"
    pop.quit()
    assert not any("uid=" in line or "<class" in line for line in site.log())


EDGES = (1023, 1024, 4095, 8191, 16383, 65535, 131071)


@pytest.mark.parametrize("edge", EDGES)
def test_what_falls_on_the_edge_of_a_buffer(site, edge):
    """row 5 (CVE-2000-0320, a line split at 1023): dots, line ends and From lines at buffer edges stay what they
    are."""
    texts = []
    for trap in (b"\n.\r\n", b"\n.\n", b"\n\nFrom here on\n", b"From x@y Tue Jan  2 03:04:05 2024\n",
                 b"\r\n.\r\n.\r\n"):
        for shift in range(-3, 3):
            header = b"Subject: edge\n\n"
            texts.append(header + b"x" * (edge - len(header) + shift) + trap + b"tail\n")
    site.deliver(mbox(*texts))
    pop = site.log_in()
    assert pop.ok("STAT").startswith(f"{len(texts)} ")
    for number, text in enumerate(texts, 1):
        sent = wire(text.replace(b"\r\n", b"\n"))
        assert pop.text(f"RETR {number}") == sent
        assert pop.ok(f"LIST {number}") == f"{number} {len(sent)}"
    pop.quit()


@pytest.mark.parametrize("edge", EDGES)
def test_messages_that_end_on_the_edge_of_a_buffer(site, edge):
    """row 5: nor is an envelope line missed that begins, ends, or lies across an edge of the file's buffers."""
    for shift in range(-60, 4, 7):
        first = b"Subject: one\n\n" + b"y" * (edge + shift - len(ENVELOPE) - 16) + b"\n"
        path = site.deliver(mbox(first, TWO, THREE))
        assert path.read_bytes().index(ENVELOPE, 1) == edge + shift
        pop = site.log_in()
        assert pop.text("RETR 1") == wire(first) and pop.text("RETR 2") == wire(TWO)
        pop.ok("DELE 2")
        pop.quit()
        assert path.read_bytes() == mbox(first, THREE)


HEAVY = {"one line of 10 MB": b"Subject: " + b"x" * 10_000_000 + b"\n\nbody\n",
         "100,000 headers": b"".join(b"X-%d: y\n" % n for n in range(100_000)) + b"\nbody\n",
         "no colon": b"Subject\nno colon here\n:\n: x\n\nbody\n",
         "NUL in a name": b"Sub\0ject: x\n\0: y\n\0\n\nbody\n",
         "a folded line of 10 MB": b"Subject: x\n" + b" " * 10_000_000 + b"\n\nbody\n",
         "no end of the header": b"Subject: x\n" * 500_000}


@pytest.mark.parametrize("case", HEAVY)
def test_headers_that_are_hard_to_parse(site, case):
    """row 18 (CVE-2005-1520): odd and huge headers are served whole, and memory does not follow their size."""
    text = HEAVY[case]
    site.deliver(mbox(ONE, text))
    pop = site.log_in()
    before = pop.memory()
    assert len(pop.lines("UIDL")) == 2
    assert pop.lines("XTND XLST Message-ID") == ["1 Message-ID: <1@example.org>"]
    pop.text("XTND XLST Subject")
    sent = wire(text) + (b"" if b"\n\n" in text else b"\r\n")
    assert pop.text("RETR 2") == sent
    assert pop.text("TOP 2 0") == sent.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert pop.memory() - before < 8_000_000
    pop.quit()


def age(path):
    """Wait until a file is not quite new: one that is, is read twice."""
    wait_until(lambda: time.time_ns() - path.stat().st_ctime_ns > 100_000_000)


def octets_read(pop):
    return int(Path(f"/proc/{pop.child}/io").read_text().split()[1])


@pytest.mark.parametrize("size", [1_000_000, 4_000_000])
def test_work_is_linear(site, size):
    """row 35 (CVE-2024-23184, CVE-2024-23185, CVE-2020-12100): many parts, a huge header: each octet is read once to
    list.

    Counted in octets read, not in seconds: at most the file itself and a bounded look at each header.
    """
    part = b"--=_%d\nContent-Type: multipart/mixed; boundary=\"=_%d\"\n\n"
    parts = b"".join(part % (n, n) for n in range(size // 80))
    text = b"Subject: parts\n" + b"To: somebody@example.org,\n" * (size // 52) + b"\n" + parts
    path = site.deliver(mbox(text, ONE))
    age(path)
    pop = site.session()
    before = octets_read(pop)
    pop.log_in()
    assert len(pop.lines("LIST")) == 2 and len(pop.lines("UIDL")) == 2
    assert octets_read(pop) - before < path.stat().st_size + 1_000_000
    assert pop.ok("LIST 1") == f"1 {len(wire(text))}"
    pop.quit()


LIES = (b"0", b"-1", b"9223372036854775808", b"99999999999999999999999999", b"1", b"100000", b"1e3", b"0x10", b"+5",
        b" ", b"abc", b"3 3")


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("sort", ["bsd", "sysv"])
def test_content_length_that_lies(site, lie, sort):
    """row 39 (Content-Length believed elsewhere): a lie hides no message and makes none."""
    lying = [b"Content-Length: " + lie + b"\n" + text for text in (ONE, TWO, THREE)]
    path = site.deliver(mbox(*lying))
    pop = site.log_in(mailbox_format=sort)
    assert pop.lines("LIST") == [f"{n} {len(wire(text))}" for n, text in enumerate(lying, 1)]
    assert pop.text("RETR 2") == wire(lying[1])
    pop.ok("DELE 2")
    pop.quit()
    assert path.read_bytes() == mbox(lying[0], lying[2])


def test_unique_ids_made_alike(site):
    """row 39: whoever makes his mail's unique-id that of another message hides nothing: the two are told apart."""
    site.deliver(mbox(b"X-UIDL: same\n\na\n", b"X-UIDL: same\n\nb\n", ONE, ONE.replace(b"first", b"other"),
                      b"X-UIDL: same\n\nc\n"))
    pop = site.log_in()
    ids = [line.split()[1] for line in pop.lines("UIDL")]
    assert ids[0] == "same" and len(set(ids)) == 5
    pop.quit()


def test_two_gigabytes_in_little_memory(site):
    """sec.19: a mailbox of 2 GB is served, and cut, by a process that may have 48 MB more than it starts with."""
    path = site.mailbox()
    big = 2 * 2**30 + 4096
    with path.open("wb") as mailbox:
        mailbox.write(ENVELOPE + b"Subject: big\n\n")
        mailbox.seek(big)
        mailbox.write(b"\n\n" + mbox(TWO, THREE))
    site.own(path)
    age(path)

    def limited():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + 48 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
    pop = site.log_in(before=limited)
    sizes = [int(line.split()[1]) for line in pop.lines("LIST")]
    assert sizes[0] == big - len(ENVELOPE) + 4 and sizes[1:] == [len(wire(TWO)), len(wire(THREE))]
    assert len(pop.lines("UIDL")) == 3
    assert pop.text("TOP 1 0") == b"Subject: big\r\n\r\n"
    assert pop.text("RETR 3") == wire(THREE)
    pop.ok("DELE 1")
    pop.ok("DELE 2")
    pop.quit()
    assert path.read_bytes() == mbox(THREE)


def test_a_large_message_is_streamed(site):
    """sec.05 and sec.19: a message of 40 MB leaves in memory that does not grow with it."""
    text = b"Subject: large\n\n" + b"A line of text, as there are many.\n" * 1_150_000
    site.deliver(mbox(text))
    pop = site.log_in()
    before = pop.memory()
    pop.ok("RETR 1")
    left = len(wire(text)) + 3 - len(pop.buffer)
    while left:
        left -= len(pop.socket.recv(min(left, 1 << 20)))
    pop.buffer = b""
    assert pop.memory() - before < 4_000_000
    pop.quit()
