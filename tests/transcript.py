r"""Golden sessions: what a client and a server say to each other, written down, and held against whoever serves.

`sessions/NAME.txt` has one line for each thing that is said, and `sessions/NAME.mbox` is the mailbox it is said of.
`sessions/NAME.after.mbox`, where there is one, is what the session must leave of it; else not an octet may change.

    # words                   a comment
    @ mailbox FILE            another mailbox of that directory; `none`: there is no such file
    @ option WORDS            a line of popper.conf
    @ bulletins DIRECTORY     the bulletins there are, out of that directory beside it
    @ receipt WORDS           what stands in .popbull, escapes as below; `none`: there is no such file
    @ leaves receipt WORDS    what the session must leave there, else it may not change
    @ not through DRIVER      that driver cannot show this
    @ client closes           at the end the client says no more; else the server has to close by itself
    C: words                  sent, with CRLF, or with nothing when it ends in \c
    S: words                  expected, with CRLF, octet for octet
    S< lines 2-9              expected: these lines of the mailbox file as they go over the wire, each ended by CRLF,
                              with one more dot before a first dot

In C: and S: lines \r \n \t \\ \{ and \xNN stand for octets, {x*1000} for a thousand x, and {host} and {version} for
those of the server. No line ends in a space that cannot be seen.

A feed says how the lines are sent: each when its turn comes, all in one packet, or octet by octet. A connection is
anything with `send(octets)`, `settle()`, `shut()`, `wait()`, `received` and `ended`; there are two here, descriptors
and the session core without any process.
"""

import fcntl
import os
import re
import select
import struct
import termios
from pathlib import Path

import pytest

from popper import VERSION
from popper.account import Credentials
from popper.errors import Refused
from popper.session import HALT, Session
from popper.wire import TERMINATOR, Incoming, Lines

SESSIONS = Path(__file__).resolve().parent / "sessions"
PATIENCE = 20.0                # seconds of silence after which nothing more is expected to come
SINGLY = 40                    # octets at each end of a line that are sent one by one
SHOWN = 300                    # octets of a line in a complaint
ESCAPES = {b"\\r": b"\r", b"\\n": b"\n", b"\\t": b"\t", b"\\\\": b"\\", b"\\{": b"{"}
TOKEN = re.compile(rb"\\x[0-9a-f]{2}|\\.|\{[^{}]*\}|[^\\{]+", re.S)


class Disagreement(pytest.fail.Exception):
    """What was said is not what is written; the text shows expected, got, and the line of the transcript."""

    def __init__(self, complaint: str) -> None:
        super().__init__(complaint, pytrace=False)


def names() -> "list[str]":
    return sorted(path.stem for path in SESSIONS.glob("*.txt"))


# -- reading ---------------------------------------------------------------------------------------------------------

class Said:
    """One line of a transcript: its number there, whether the client says it, and its octets."""

    def __init__(self, number: int, by_client: bool, octets: bytes) -> None:
        self.number = number
        self.by_client = by_client
        self.octets = octets


class Transcript:
    """A transcript with its mailboxes. before, after: the mailbox's octets, None: no such file. receipt, left_receipt:
    the same of .popbull. bulletins: their directory, or None."""

    def __init__(self, name: str) -> None:
        self.path = SESSIONS / f"{name}.txt"
        self.options: "list[str]" = []
        self.client_closes = False
        self.not_through: "set[str]" = set()
        self.bulletins: "Path | None" = None
        self.receipt: "bytes | None" = None
        self._lines: "list[tuple[int, bytes]]" = []
        mailbox, left_receipt = f"{name}.mbox", ""
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if line.endswith((b" ", b"\t")):
                raise ValueError(f"{self.path}:{number}: ends in a space that cannot be seen")
            words = line.decode().split(None, 2)
            if not words or line.startswith(b"#"):
                continue
            if words[0] != "@":
                self._lines.append((number, line))
            elif words[1] == "mailbox":
                mailbox = words[2]
            elif words[1] == "option":
                self.options.append(words[2])
            elif words[1] == "bulletins":
                self.bulletins = SESSIONS / words[2]
            elif words[1] == "receipt":
                self.receipt = _receipt(words[2])
            elif words[1] == "leaves":
                left_receipt = words[2].removeprefix("receipt ")
            elif words[1:] == ["client", "closes"]:
                self.client_closes = True
            elif words[1] == "not":
                self.not_through.add(words[2].removeprefix("through "))
            else:
                raise ValueError(f"{self.path}:{number}: no such directive")
        self.before = None if mailbox == "none" else (SESSIONS / mailbox).read_bytes()
        after = SESSIONS / f"{name}.after.mbox"
        self.after = after.read_bytes() if after.exists() else self.before
        self.left_receipt = _receipt(left_receipt) if left_receipt else self.receipt

    def said(self, host: str) -> "list[Said]":
        """All that is said, in order, with a server that calls itself `host`."""
        values = {b"{host}": host.encode(), b"{version}": VERSION.encode()}
        said = []
        for number, line in self._lines:
            kind, words = line[:2], line[3:]
            if kind == b"C:":
                said.append(Said(number, True, _sent(words, values)))
            elif kind == b"S:":
                said.append(Said(number, False, _plain(words, values) + b"\r\n"))
            elif kind == b"S<":
                said += [Said(number, False, octets) for octets in self._wire_lines(words)]
            else:
                raise ValueError(f"{self.path}:{number}: neither C: nor S:")
        return said

    def _wire_lines(self, words: bytes):
        """The lines of the mailbox file that `lines 2-9` or `lines 2` means, as they go over the wire."""
        first, _, last = words.removeprefix(b"lines ").partition(b"-")
        lines = self.before.split(b"\n")
        for line in lines[int(first) - 1:int(last or first)]:
            yield (b"." if line.startswith(b".") else b"") + line.removesuffix(b"\r") + b"\r\n"


def _receipt(words: str) -> "bytes | None":
    return None if words == "none" else _plain(words.encode(), {})


def _sent(words: bytes, values) -> bytes:
    if words.endswith(b"\\c"):
        return _plain(words[:-2], values)
    return _plain(words, values) + b"\r\n"


def _plain(words: bytes, values) -> bytes:
    """Words with their escapes replaced."""
    return b"".join(_token(token, values) for token in TOKEN.findall(words))


def _token(token: bytes, values) -> bytes:
    if token.startswith(b"\\x") and len(token) == 4:
        return bytes([int(token[2:], 16)])
    if token.startswith(b"\\"):
        return ESCAPES[token]
    if token.startswith(b"{") and token not in values:
        text, _, times = token[1:-1].rpartition(b"*")
        return _plain(text, {}) * int(times)
    return values.get(token, token)


# -- feeding ---------------------------------------------------------------------------------------------------------

def in_turn(said: "list[Said]", connection, check) -> None:
    """Each command is sent when all that comes before it has been answered."""
    for at, line in enumerate(said):
        if line.by_client:
            check(said[:at])
            connection.send(line.octets)


def in_one_packet(said: "list[Said]", connection, check) -> None:
    connection.send(b"".join(line.octets for line in said if line.by_client))


def octet_by_octet(said: "list[Said]", connection, check) -> None:
    """Each octet by itself, when those before it have been read; the middle of a long line, many at once."""
    for line in said:
        octets = line.octets if line.by_client else b""
        at = 0
        while at < len(octets):
            step = 1 if at < SINGLY or len(octets) - at <= SINGLY else min(999, len(octets) - at - SINGLY)
            connection.send(octets[at:at + step])
            connection.settle()
            at += step


FEEDS = {"in_turn": in_turn, "in_one_packet": in_one_packet, "octet_by_octet": octet_by_octet}


def conduct(transcript: Transcript, host: str, connection, feed: str) -> None:
    """Hold a session with a server; Disagreement unless it says what is written, then closes, and no more."""
    said = transcript.said(host)

    def check(so_far) -> None:
        expected = [line for line in so_far if not line.by_client]
        _await(connection, b"".join(line.octets for line in expected))
        _compare(transcript, expected, bytes(connection.received))

    FEEDS[feed](said, connection, check)
    check(said)
    if transcript.client_closes:
        connection.shut()
    while not connection.ended:
        if not connection.wait():
            raise Disagreement(f"{transcript.path}:{said[-1].number}: the server does not close after this line")
    _compare(transcript, [line for line in said if not line.by_client], bytes(connection.received), over=True)


def _await(connection, expected: bytes) -> None:
    """Wait until as much has come as is expected, or something else, or nothing any more."""
    while len(connection.received) < len(expected) and expected.startswith(connection.received):
        if connection.ended or not connection.wait():
            return


def _compare(transcript: Transcript, expected: "list[Said]", received: bytes, over: bool = False) -> None:
    """Disagreement unless `received` begins with what is expected, or, when all is over, is just that."""
    at = 0
    for line in expected:
        if not received.startswith(line.octets, at):
            got = received[at:].split(b"\n", 1)
            raise _disagreement(transcript, line.number, line.octets, b"\n".join(got[:1]) + b"\n" * (len(got) > 1))
        at += len(line.octets)
    if over and len(received) > at:
        raise _disagreement(transcript, expected[-1].number, b"", received[at:], " (behind this line)")


def _disagreement(transcript: Transcript, number: int, expected: bytes, got: bytes, where: str = "") -> Disagreement:
    return Disagreement(f"{transcript.path}:{number}{where}\n  expected: {_shown(expected)}\n  got:      {_shown(got)}")


def _shown(octets: bytes) -> str:
    more = f" and {len(octets) - SHOWN} octets" if len(octets) > SHOWN else ""
    return repr(octets[:SHOWN])[1:] + more if octets else "nothing"


# -- connections -----------------------------------------------------------------------------------------------------

class Descriptors:
    """A connection over descriptors. shut() closes our direction. pipe: what is unread in `sink` can be told."""

    def __init__(self, source: int, sink: int, shut, pipe: bool = False) -> None:
        self.source = source
        self.sink = sink
        self.shut = shut
        self.pipe = pipe
        self.received = bytearray()
        self.ended = False

    def send(self, octets: bytes) -> None:
        """Send, and take in what comes meanwhile. What is sent to a server that has closed is lost."""
        while octets and not self.ended:
            readable, writable, _ = select.select([self.source], [self.sink], [], PATIENCE)
            if readable:
                self._read()
            elif writable:
                octets = octets[self._write(octets[:select.PIPE_BUF]):]
            else:
                raise Disagreement(f"the server does not read: {_shown(octets)}")

    def settle(self) -> None:
        """Wait until all that was sent is read, where that can be told: not on a socket."""
        while self.pipe and not self.ended and self._unread():
            self.wait(0.0001)

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Wait for something to come, or the end; False: neither did."""
        readable, _, _ = select.select([self.source], [], [], seconds)
        if readable:
            self._read()
        return bool(readable)

    def _write(self, octets: bytes) -> int:
        try:
            return os.write(self.sink, octets)
        except (BrokenPipeError, ConnectionResetError):
            return len(octets)

    def _read(self) -> None:
        try:
            octets = os.read(self.source, 65536)
        except ConnectionResetError:         # what a server that has closed says to more
            octets = b""
        self.received += octets
        self.ended = not octets

    def _unread(self) -> int:
        return struct.unpack("i", fcntl.ioctl(self.sink, termios.FIONREAD, bytes(4)))[0]


class Core:
    """The session core as a connection: Session, Lines and a maildrop, neither process nor descriptor.

    login(credentials) -> Maildrop, or raises Refused.
    """

    def __init__(self, host: str, login, submission=None, update_on_abort: bool = False) -> None:
        self.session = Session(host)
        self.login = login
        self.submission = submission
        self.update_on_abort = update_on_abort
        self.lines = Lines()
        self.sink = self.text = None         # of an XTND XMIT under way
        self.received = bytearray(self.session.greeting().status())
        self.ended = False

    def send(self, octets: bytes) -> None:
        self.lines.feed(octets)
        while not self.ended and (self._take_text() if self.sink else self._take_line()):
            pass

    def settle(self) -> None:
        """All that is sent is read at once."""

    def shut(self) -> None:
        if self.sink:
            self.sink.abandon()
        if not self.ended:
            self.session.aborted(self.update_on_abort)
            self._end()

    def wait(self) -> bool:
        """Nothing comes by itself."""
        return False

    def _take_line(self) -> bool:
        line = self.lines.take()
        if line is None:
            return False
        reply = self.session.receive(line)
        if isinstance(reply, Credentials):
            try:
                reply = self.session.opened(self.login(reply))
                self.session.submission = self.submission
            except Refused as refusal:
                reply = self.session.refused(refusal)
        self._put(reply)
        if reply.sink is not None:
            self.sink, self.text = reply.sink, Incoming()
        if self.session.state == HALT:
            self._end()
        return True

    def _take_text(self) -> bool:
        self.sink.write(self.text.feed(self.lines.rest()))
        if not self.text.done:
            return False
        self._put(self.session.submitted(self.sink))
        self.lines.feed(self.text.rest)
        self.sink = self.text = None
        return True

    def _put(self, reply) -> None:
        self.received += reply.status()
        if reply.body is not None:
            self.received += b"".join(reply.body) + TERMINATOR

    def _end(self) -> None:
        self.ended = True
        if self.session.drop is not None:
            self.session.drop.close()
