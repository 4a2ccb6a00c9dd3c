"""Octets only: command lines out of a stream, replies and message text into one.

Knows no file, socket or clock. All input is distrusted: lines are capped, numbers are plain digits or nothing,
and whatever is echoed goes through `printable`.
"""

LONGEST_LINE = 1024            # octets with the line end; RFC 2449.4 asks for 255, the original's buffer was 1024
LONGEST_FLOOD = 65536          # octets without a line end after which the connection is closed
LONGEST_REPLY = 512            # RFC 2449.4, with CRLF
TERMINATOR = b".\r\n"
TOO_LONG = object()            # stands where an over-long line stood


class Lines:
    """Cuts a stream into lines without their CRLF or LF. Memory is bounded whatever comes.

    take() -> a line, TOO_LONG once for each line over LONGEST_LINE (at its end), or None: more input is needed.
    """

    __slots__ = ("buffer", "dropped")

    def __init__(self, first: bytes = b"") -> None:
        self.buffer = first
        self.dropped = 0                     # octets thrown away of the over-long line being read

    def feed(self, octets: bytes) -> None:
        self.buffer += octets

    def take(self):
        end = self.buffer.find(b"\n")
        if end < 0:
            if self.dropped or len(self.buffer) > LONGEST_LINE:
                self.dropped += len(self.buffer)
                self.buffer = b""
            return None
        line, self.buffer = self.buffer[:end], self.buffer[end + 1:]
        if self.dropped or end >= LONGEST_LINE:
            self.dropped = 0
            return TOO_LONG
        return line[:-1] if line.endswith(b"\r") else line

    @property
    def flooding(self) -> bool:
        """Whether the line being read is so long that its end is not worth waiting for."""
        return self.dropped > LONGEST_FLOOD

    def rest(self) -> bytes:
        """The octets read but not used; they are the caller's from now on."""
        octets, self.buffer = self.buffer, b""
        return octets


class Reply:
    """One reply: a status line, and for a multi-line reply a body of wire octets without the terminator.

    reason: what the log should know beyond the text, or "". body: an iterable of blocks, read while it is sent, or
    None. sink: where the text that the client sends next goes (XTND XMIT), or None.
    """

    __slots__ = ("ok", "text", "code", "reason", "body", "sink")

    def __init__(self, ok: bool, text: str, code: str = "", reason: str = "", body=None, sink=None) -> None:
        self.ok = ok
        self.text = text
        self.code = code
        self.reason = reason
        self.body = body
        self.sink = sink

    def status(self) -> bytes:
        """The first line. A space follows the status even when no text does: popclient and netApp want it."""
        code = f"[{self.code}] " if self.code else ""
        line = f"{'+OK' if self.ok else '-ERR'} {code}{self.text}".encode("ascii", "replace")
        return line[:LONGEST_REPLY - 2] + b"\r\n"


def number(word: bytes) -> "int | None":
    """A number of plain decimal digits, or None. int() would take signs, underscores, spaces and other digits."""
    if word.isdigit() and len(word) <= 20:
        return int(word)
    return None


def printable(octets: bytes, most: int = 128) -> str:
    """Text safe to send back or to log: what is not printable ASCII becomes \\xNN, and what is too long is cut."""
    text = octets[:most].decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c.isascii() and c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text + "..." if len(octets) > most else text


def outgoing(blocks):
    """Stored text to wire text: lines end in CRLF, lines that begin with a dot are stuffed, the last line is ended.

    Lines may end in LF or CRLF; a CR elsewhere is an octet like any other. Stuffing apart, the octets that come out
    are those that `storage.scan` announced.
    """
    line_start = True
    held = b""                               # a CR at a block's end: whether LF follows is not known yet
    for block in blocks:
        if held:
            block, held = held + block, b""
        if b"\r" in block:
            if block[-1] == 13:
                block, held = block[:-1], b"\r"
            block = block.replace(b"\r\n", b"\n")
        if not block:
            continue
        ended = block[-1] == 10
        # No further than the last dot, which is found ten times as fast: base64, most of most mail, has none.
        dots = block.rfind(b".") + 1
        if block.find(b"\n.", 0, dots) >= 0:
            block = block[:dots].replace(b"\n.", b"\n..") + block[dots:]
        if line_start and block[0] == 46:
            block = b"." + block
        line_start = ended
        yield block.replace(b"\n", b"\r\n")
    if held:
        yield b"\r"
        line_start = False
    if not line_start:
        yield b"\r\n"


def top(blocks, lines: int):
    """The header, the blank line, and the first `lines` lines of the body, out of what `outgoing` yields."""
    seam = b"\r\n"                           # so that a blank line is found across blocks, or as the very first line
    header = True
    for block in blocks:
        if header:
            joined = seam + block
            blank = joined.find(b"\r\n\r\n")
            if blank < 0:
                seam = joined[-3:]
                yield block
                continue
            header = False
            cut = blank + 4 - len(seam)
            yield block[:cut]
            block = block[cut:]
        here = block.count(b"\n")
        if here >= lines:
            end = 0
            for _ in range(lines):
                end = block.find(b"\n", end) + 1
            if end:
                yield block[:end]
            return
        lines -= here
        yield block


def blocks_of(lines, size: int = 65536):
    """Short lines of a listing gathered into blocks of about `size` octets."""
    block, held = [], 0
    for line in lines:
        block.append(line)
        held += len(line)
        if held >= size:
            yield b"".join(block)
            block, held = [], 0
    if block:
        yield b"".join(block)


class Incoming:
    """Text from the client up to the line that is one dot: unstuffed, lines ended by LF.

    feed(octets) -> text; `done` turns true at the terminator, and `rest` holds what was sent after it.
    """

    __slots__ = ("done", "rest", "held", "line_start")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.held = b""                      # an undecided beginning or end of a line: ".", ".\r" or "\r"
        self.line_start = True

    def feed(self, octets: bytes) -> bytes:
        octets, self.held = self.held + octets, b""
        text = []
        at = 0
        while at < len(octets):
            end = octets.find(b"\n", at)
            line = octets[at:] if end < 0 else octets[at:end]
            if self.line_start and line.startswith(b"."):
                if end >= 0 and line in (b".", b".\r"):
                    self.done, self.rest = True, octets[end + 1:]
                    break
                if end < 0 and line in (b".", b".\r"):
                    self.held = line
                    break
                line = line[1:]
            if end < 0:
                if line.endswith(b"\r"):
                    line, self.held = line[:-1], b"\r"
                text.append(line)
                self.line_start = self.line_start and octets[at:] == self.held
                break
            text.append(line[:-1] if line.endswith(b"\r") else line)
            text.append(b"\n")
            self.line_start = True
            at = end + 1
        return b"".join(text)
