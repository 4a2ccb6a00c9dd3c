"""What the processes of a server tell each other: messages, each in one piece, of a letter and fields of any octets.

Every field has its length before it (security.md row 23); a message that is not well-formed is ValueError. To a front,
which speaks AUTHORIZATION, go

    C number address port flags    a connection, with its descriptor
    G number                       greet it: the address that a proxy told may come in
    T number                       its session is over, or goes on without you: let go of it
    A number seconds code text     answer in so many seconds that the login failed, and let go; text: why, or ""
    X number code text             answer that and let go, now
    D                              no more will come: end when the last has gone

and from it come

    L number ...                   a login, with the descriptor: class Login
    E number lines user            it has gone without one; lines: for the log; user: that it named, or ""
    N number lines                 for the log, now
    P number address port          what a proxy told of it

and from any process of the crew

    W text                         what keeps it from its work
"""

import struct
import time

from popper.errors import AUTH

FROM_PROXY, LIVE, NOTED = 1, 2, 4            # flags of C: a PROXY header comes first; debug lines at once; debug lines
TROUBLE = b"W"
LARGEST = 180000                             # octets of a message; sockets take some more by default
LEVELS = (2, 4, 5, 6, 7)                     # of syslog, as a Journal has them
LAST_SECOND = 1e11                           # since 1970; no clock says more


def pack(letter: bytes, *fields: bytes) -> bytes:
    return letter + b"".join([struct.pack(">I", len(field)) + field for field in fields])


def unpack(octets: bytes) -> "list[bytes]":
    """The fields of a message, after its letter."""
    fields, at = [], 1
    while at < len(octets):
        if len(octets) < at + 4:
            raise ValueError("a message that is cut short")
        end = at + 4 + struct.unpack_from(">I", octets, at)[0]
        if end > len(octets):
            raise ValueError("a message that is cut short")
        fields.append(octets[at + 4:end])
        at = end
    return fields


def refused(refusal, number: int, asked: float, fail_delay: int) -> bytes:
    """The message A. refusal: errors.Refused; asked: when the password came, by the monotonic clock: each that was
    wrong is answered as late, whatever was wrong with it."""
    late = max(0.0, asked + fail_delay - time.monotonic()) if refusal.code == AUTH else 0.0
    return pack(b"A", b"%d" % number, b"%.3f" % late, refusal.code.encode(), refusal.text.encode())


def pack_lines(lines: "list[tuple[float, int, str]]") -> bytes:
    """Lines of journal.Notes as one field; the last ones are left out when they are too many."""
    packed, size = [], 0
    for seconds, level, text in lines:
        piece = pack(b"", b"%.6f" % seconds, b"%d" % level, text.encode("utf-8", "replace"))
        size += len(piece)
        if size > LARGEST // 2:
            break
        packed.append(piece)
    return b"".join(packed)


def unpack_lines(octets: bytes) -> "list[tuple[float, int, str]]":
    fields = unpack(b"-" + octets)
    if len(fields) % 3:
        raise ValueError("a line that is cut short")
    lines = [(float(fields[at]), int(fields[at + 1]), printable(fields[at + 2])) for at in range(0, len(fields), 3)]
    if not all(0 <= seconds < LAST_SECOND and level in LEVELS for seconds, level, _ in lines):
        raise ValueError("a line for no log")
    return lines


def printable(octets: bytes) -> str:
    """Text that may stand in a log, whoever sent it; a NUL stays (journal.NAME)."""
    text = octets.decode("utf-8", "replace")
    return text if text.isprintable() else "".join([c if c.isprintable() or c == "\0" else "?" for c in text])


def needs_name(lines: "list[tuple[float, int, str]]") -> bool:
    """Whether what the client is called stands in one of these lines."""
    return any("\0" in text for _, _, text in lines)


class Login:
    """Credentials, and the session so far: what it takes to go on with it elsewhere.

    rest: octets that were read but not used. received, sent: octets; seconds: since the session began; mistakes,
    mistake: see Conversation; lines: for the log.
    """

    __slots__ = ("number", "user", "password", "rest", "received", "sent", "seconds", "mistakes", "mistake", "lines")
    FORMS = (int, bytes, bytes, bytes, int, int, float, int, str, list)

    def __init__(self, *values) -> None:
        for name, value in zip(self.__slots__, values, strict=True):
            setattr(self, name, value)

    def packed(self) -> bytes:
        fields = []
        for name, form in zip(self.__slots__, self.FORMS):
            value = getattr(self, name)
            fields.append(value if form is bytes else pack_lines(value) if form is list else str(value).encode())
        return pack(b"L", *fields)

    @classmethod
    def unpacked(cls, octets: bytes) -> "Login":
        fields = unpack(octets)
        if len(fields) != len(cls.FORMS):
            raise ValueError("a login that is cut short")
        return cls(*(field if form is bytes else unpack_lines(field) if form is list
                     else form(printable(field)) for field, form in zip(fields, cls.FORMS)))
