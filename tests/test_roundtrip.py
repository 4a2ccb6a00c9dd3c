"""What holds of every mailbox, whatever is in it: announced is sent, sent is stored, deleted is what was asked for.

The mailboxes are made of the lines that have broken POP servers, in any order. What is in them is told by the few
lines of `messages_of`, which read line by line and know the envelope lines that they were made with; the server's own
scan is not asked. Each session is the session core over an mbox file.
"""

import os
import re
import signal
from contextlib import contextmanager
from functools import partial
from itertools import cycle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popper.maildrop import Maildrop
from popper.storage import mbox, redo
from popper.storage.locks import SpoolLocks
from popper.storage.scan import ENVELOPE_MOST, scan
from transcript import Core

ENVELOPES = (b"From joe@example.org Mon Jan  6 09:15:02 1997", b"From - Tue Dec 31 23:59 +0100 1996",
             b"From uucp Sat Feb  1 1:02:03 1997 GMT remote from ucbvax")
LINES = (b"", b".", b"..", b".hidden", b" .", b"From", b"From ", b"From here on", b">From quoted", b"From: Ann",
         b"From joe Mon Jan 6", b"Subject: x", b" continued", b"Status: RO", b"X-UIDL: 1", b"Content-Length: 3",
         b"\r", b"\r.", b"a\rb", b"\0", b"\xff\xfe", b"text", b"x" * 1023, b"y" * 3000)
ENDS = st.sampled_from([b"\n", b"\n", b"\r\n"])
noise = st.binary(max_size=30).map(lambda octets: octets.replace(b"\n", b""))
line = st.builds(bytes.__add__, st.sampled_from(LINES) | noise, ENDS)
blank = st.sampled_from([b"\n", b"\r\n"])
envelope = st.builds(bytes.__add__, st.sampled_from(ENVELOPES), ENDS)
text = st.lists(line | blank | envelope, max_size=12).map(b"".join)
message = st.builds(bytes.__add__, envelope, text)


@st.composite
def mailboxes(draw):
    """An mbox: perhaps empty lines, messages with or without an empty line between, perhaps no end of the last line."""
    octets = draw(st.lists(blank, max_size=2).map(b"".join))
    for one in draw(st.lists(message, min_size=1, max_size=5)):
        octets += one + draw(blank | st.just(b""))
    return octets[:-1] if draw(st.booleans()) else octets


def lines_of(octets: bytes) -> "list[bytes]":
    """Lines with their ends; the last may have none."""
    return re.findall(rb"[^\n]*\n|[^\n]+", octets)


def is_blank(line: bytes) -> bool:
    return line in (b"\n", b"\r\n")


def messages_of(octets: bytes) -> "list[tuple[int, bytes]]":
    """(offset of the envelope line, text as it is to go out but for stuffing) for each message."""
    lines = lines_of(octets)
    first = next(at for at, line in enumerate(lines) if not is_blank(line))
    begins = [at for at in range(first, len(lines))
              if at == first or is_blank(lines[at - 1]) and lines[at].rstrip(b"\r\n") in ENVELOPES]
    return [(len(b"".join(lines[:begin])), wire_text(lines[begin + 1:end]))
            for begin, end in zip(begins, begins[1:] + [len(lines)])]


def wire_text(lines: "list[bytes]") -> bytes:
    """Lines of a message to what a client is to have. An empty last line is the separator and goes, unless it is the
    first empty line: that ends the header."""
    if lines and is_blank(lines[-1]) and any(map(is_blank, lines[:-1])):
        lines = lines[:-1]
    return b"".join(line[:-1].removesuffix(b"\r") + b"\r\n" if line.endswith(b"\n") else line + b"\r\n"
                    for line in lines)


def top_of(wire: bytes, count: int) -> bytes:
    lines = lines_of(wire)
    header = lines.index(b"\r\n") + 1 if b"\r\n" in lines else len(lines)
    return b"".join(lines[:header + count])


class Client:
    """A client of a session core: says a line, and takes its reply apart."""

    def __init__(self, mailbox, sysv: bool = False) -> None:
        def login(credentials):
            locks = SpoolLocks(str(mailbox))
            locks.session()
            return Maildrop("joe", mbox.Mbox(str(mailbox), locks, sysv, fsync=False))
        self.core = Core("mail.example.org", login)
        self.status("USER joe")
        self.status("PASS x")

    def say(self, command: str) -> bytes:
        before = len(self.core.received)
        self.core.send(command.encode() + b"\r\n")
        return bytes(self.core.received[before:])

    def status(self, command: str) -> str:
        """The text behind +OK of a reply of one line."""
        reply = self.say(command)
        assert re.fullmatch(rb"\+OK [ -~]*\r\n", reply), reply
        return reply[4:-2].decode()

    def text(self, command: str) -> "tuple[str, bytes]":
        """The text behind +OK, and what follows up to the dot, unstuffed: RFC 1939.3, read line by line."""
        status, *lines = lines_of(self.say(command))
        assert status.startswith(b"+OK ") and lines[-1] == b".\r\n" and b".\r\n" not in lines[:-1]
        assert all(line.endswith(b"\r\n") for line in lines)
        return status[4:-2].decode(), b"".join(line.removeprefix(b".") for line in lines[:-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("spool")


@contextmanager
def served(place, octets: bytes, piece: int = mbox.BLOCK, sysv: bool = False):
    """(a mailbox with these octets, somebody logged in), read and moved in pieces of so many octets, and scanned in
    windows that small, too."""
    mailbox = place / "joe"
    mailbox.write_bytes(octets)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mbox, "BLOCK", piece)
        patch.setattr(redo, "CHUNK", piece)
        patch.setattr(redo, "PIECE", piece)
        patch.setattr(mbox, "scan", partial(scan, window=2 * ENVELOPE_MOST + piece))
        client = Client(mailbox, sysv)
        try:
            yield mailbox, client
        finally:
            client.core.shut()
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)    # UPDATE leaves some blocked, as its process ends
    assert os.listdir(place) == ["joe"]


pieces = st.integers(1, 40) | st.just(mbox.BLOCK)
many = settings(deadline=None, max_examples=100)


@many
@given(octets=mailboxes(), piece=pieces)
def test_announced_is_sent_and_sent_is_stored(place, octets, piece):
    """1939.20, .32, .33: numbers in mailbox order, sizes exact in LIST and RETR, and STAT their sum."""
    texts = [text for _, text in messages_of(octets)]
    with served(place, octets, piece) as (_, client):
        assert client.status("STAT") == f"{len(texts)} {sum(map(len, texts))}"
        listing = "".join(f"{number} {len(text)}\r\n" for number, text in enumerate(texts, 1))
        assert client.text("LIST")[1].decode() == listing
        for number, text in enumerate(texts, 1):
            assert client.text(f"RETR {number}") == (f"{len(text)} octets", text)


@many
@given(octets=mailboxes(), piece=pieces)
def test_top_is_the_header_and_so_many_lines(place, octets, piece):
    """1939.50, .51, .52, for every number of lines there could be."""
    with served(place, octets, piece) as (_, client):
        for number, (_, text) in enumerate(messages_of(octets), 1):
            for count in range(text.count(b"\n") + 2):
                assert client.text(f"TOP {number} {count}")[1] == top_of(text, count)


@many
@given(octets=mailboxes(), piece=pieces, marks=st.sets(st.integers(0, 9)), arrived=st.just(b"") | message)
def test_exactly_the_marked_messages_go(place, octets, piece, marks, arrived):
    """1939.44, .47, .79, .87: those octets and no other, in the same file, and mail that came meanwhile stays."""
    found = messages_of(octets)
    bounds = [offset for offset, _ in found] + [len(octets)]
    gone = sorted(mark for mark in marks if mark < len(found))
    left = octets[:bounds[0]] + b"".join(octets[bounds[n]:bounds[n + 1]] for n in range(len(found)) if n not in gone)
    with served(place, octets, piece) as (mailbox, client):
        inode = mailbox.stat().st_ino
        for mark in reversed(gone):
            client.status(f"DELE {mark + 1}")
        with open(mailbox, "ab") as file:
            file.write(arrived)
        assert client.status("QUIT") == "Pop server at mail.example.org signing off."
        assert mailbox.read_bytes() == left + arrived
        assert mailbox.stat().st_ino == inode


@many
@given(octets=mailboxes(), marks=st.sets(st.integers(0, 9)))
def test_what_is_left_is_the_same_next_time(place, octets, marks):
    """1939.57, .83: the next session numbers the survivors anew; their texts are what they were."""
    found = messages_of(octets)
    with served(place, octets) as (mailbox, client):
        for mark in marks:
            if mark < len(found):
                client.status(f"DELE {mark + 1}")
        client.status("QUIT")
        left = mailbox.read_bytes()
    texts = [text for number, (_, text) in enumerate(found) if number not in marks]
    with served(place, left) as (_, client):
        assert client.status("STAT") == f"{len(texts)} {sum(map(len, texts))}"
        assert [client.text(f"RETR {number}")[1] for number in range(1, len(texts) + 1)] == texts


@many
@given(octets=mailboxes(), marks=st.sets(st.integers(0, 9)))
def test_unique_ids_are_unique_and_lasting(place, octets, marks):
    """1939.56, .57: each of 1 to 70 printable octets, no two alike, and the same after a session without UPDATE."""
    with served(place, octets) as (_, client):
        ids = client.text("UIDL")[1].decode().split("\r\n")[:-1]
        client.status("DELE 1")
    with served(place, octets) as (_, client):
        assert client.text("UIDL")[1].decode().split("\r\n")[:-1] == ids
    values = [re.fullmatch(r"(\d+) ([!-~]{1,70})", one) for one in ids]
    assert [int(value[1]) for value in values] == list(range(1, len(messages_of(octets)) + 1))
    assert len({value[2] for value in values}) == len(values)


bodies = st.lists(line | blank | envelope, min_size=1, max_size=12).map(b"".join)


@many
@given(texts=st.lists(bodies, min_size=1, max_size=4), piece=pieces)
def test_content_length_is_believed_where_it_is_true(place, texts, piece):
    """In a System V mailbox a body of the length that its header gives may hold any line."""
    octets = b"".join(b"%s\nContent-Length: %d\n\n%s\n" % (ENVELOPES[0], len(body), body) for body in texts)
    with served(place, octets, piece, sysv=True) as (_, client):
        for number, body in enumerate(texts, 1):
            wire = wire_text([b"Content-Length: %d\n" % len(body), b"\n", *lines_of(body), b"\n"])
            assert client.text(f"RETR {number}") == (f"{len(wire)} octets", wire)


COMMANDS = (b"STAT", b"LIST", b"LIST 1", b"RETR 1", b"RETR 9", b"DELE 1", b"DELE 2", b"TOP 1 1", b"UIDL", b"RSET",
            b"LAST", b"NOOP", b"CAPA", b"XTND XLST Sub", b"XTND XMIT", b"QUITE", b"", b"RETR", b"USER x", b"x" * 1500)
command = st.sampled_from(COMMANDS) | noise
TWO = b"%s\nSubject: a\n\n.\n\n%s\n\nb\n" % ENVELOPES[:2]


@many
@example(commands=[b"x" * 1500] * 19, ends=[b"\r\n"], cuts=[1])
@given(commands=st.lists(command, max_size=20), ends=st.lists(ENDS, min_size=1, max_size=3),
       cuts=st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_any_input_in_any_pieces(place, commands, ends, cuts):
    """1939.05, .06, .77: however the input is cut, the replies are the same; each is a line of at most 512 printable
    octets that begins with +OK or -ERR; and nothing is deleted without QUIT."""
    octets = b"".join(command + ends[at % len(ends)] for at, command in enumerate(commands))
    with served(place, TWO) as (_, client):
        client.status("NOOP")
        begin = len(client.core.received)
        client.core.send(octets)
        whole = bytes(client.core.received[begin:])
    with served(place, TWO) as (mailbox, client):
        client.status("NOOP")
        left = octets
        for cut in cycle(cuts):
            client.core.send(left[:cut])
            left = left[cut:]
            if not left:
                break
        assert bytes(client.core.received[begin:]) == whole
        client.core.shut()
        assert mailbox.read_bytes() == TWO
    heads = [line for line in lines_of(whole) if line.startswith((b"+", b"-"))]
    assert len(heads) >= min(len(commands), 20)
    assert all(re.fullmatch(rb"(\+OK|-ERR) [ -~]*\r\n", line) and len(line) <= 512 for line in heads)
