"""mbox octets to entries: pure, in one pass of C-speed calls over large windows.

A message begins with an envelope line: `From `, a sender, and a date in one of the forms of ucb-popper.md 5.4. All
but the first must follow an empty line, so a paragraph of a body that begins with "From " is a boundary only when it
also looks like an envelope (delivery agents put `>` before those). With `sysv` a Content-Length is believed exactly
when an envelope or the end of the file is where it says; a lie never hides a message.

The same function opens a mailbox and, later, checks that it is still what was opened.
"""

WINDOW = 131072                # fits the processor's cache beside its CRLF copy; a megabyte is scanned at half the speed
ENVELOPE_MOST = 1024           # octets of an envelope line; what is longer is text
HEADER_LOOK = 65536            # octets of a header searched for Content-Length

DAYS = frozenset((b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"))
MONTHS = frozenset((b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"))


class Entry:
    """One message. offset: of its envelope line; start, end: its text without envelope and separator, as file
    offsets; octets: the text's size on the wire, lines ended by CRLF, dot-stuffing not counted."""

    __slots__ = ("offset", "start", "end", "octets")

    def __init__(self, offset: int, start: int) -> None:
        self.offset = offset
        self.start = start
        self.end = self.octets = 0

    def __eq__(self, other) -> bool:
        return (self.offset, self.start, self.end, self.octets) == (other.offset, other.start, other.end, other.octets)


class NotMailbox(Exception):
    """The file does not begin with an envelope line; the text says at which offset something else stands."""


def is_envelope(line: bytes) -> bool:
    """Whether a line is `From SENDER DAY MONTH D HH:MM[:SS] [ZONE] YEAR [ZONE] [remote from HOST]`."""
    if not line.startswith(b"From "):
        return False
    words = line.lower().split()
    for at in range(1, len(words) - 4):
        if words[at] in DAYS and words[at + 1] in MONTHS:
            day, clock, rest = words[at + 2], words[at + 3], words[at + 4:at + 6]
            return (day.isdigit() and len(day) <= 2 and _is_clock(clock)
                    and any(len(word) == 4 and word.isdigit() for word in rest))
    return False


def _is_clock(word: bytes) -> bool:
    parts = word.split(b":")
    return 2 <= len(parts) <= 3 and all(part.isdigit() and len(part) <= 2 for part in parts)


def scan(pread, size: int, sysv: bool = False, window: int = WINDOW):
    """Yield the entries of a mailbox of `size` octets. pread(count, offset) -> octets, fewer only at the end.

    Raises NotMailbox when the first thing in the file that is not an empty line is no envelope. `window`: octets
    looked at in one go, more than twice ENVELOPE_MOST.
    """
    head = pread(ENVELOPE_MOST, 0)[:size]
    offset = len(head) - len(head.lstrip(b"\r\n"))
    if offset == size:
        return
    start = head.find(b"\n", offset) + 1 or len(head)
    if not head.startswith(b"From ", offset) or (start == len(head) < size and head[-1] != 10):
        raise NotMailbox(f"no envelope line at octet {offset}")
    entry, measure = Entry(offset, start), Measure()
    known = _content_end(pread, size, start) if sysv else 0
    done = start                             # all before this offset is measured
    while done < size:
        base = max(done - 4, 0)              # four octets back: an empty line before the envelope may lie there
        octets = pread(window, base)[:size - base]
        if len(octets) <= done - base:
            break                            # cut short under us; whoever compares will see it
        # An envelope line that begins before `limit` is whole in this window.
        limit = len(octets) if base + len(octets) >= size else len(octets) - ENVELOPE_MOST
        while True:
            begin = known - base if known else _boundary(octets, done - base, limit)
            if not 0 <= begin < limit:
                break
            measure.add(octets[done - base:begin])
            yield measure.close(entry, base + begin)
            done = base + (octets.find(b"\n", begin) + 1 or len(octets))
            entry = Entry(base + begin, done)
            known = _content_end(pread, size, done) if sysv else 0
        if done < base + limit:
            measure.add(octets[done - base:limit])
            done = base + limit
    yield measure.close(entry, size)


def _boundary(octets: bytes, begin: int, end: int) -> int:
    """The first envelope line behind an empty line in octets[begin:end], or -1."""
    crlf = b"\r" in octets
    at = begin
    while True:
        found = octets.find(b"\n\nFrom ", max(at - 2, 0), end + 5)
        found = found + 2 if found >= 0 else -1
        if crlf:
            other = octets.find(b"\n\r\nFrom ", max(at - 3, 0), end + 5)
            if other >= 0 and (found < 0 or other + 3 < found):
                found = other + 3
        if found < 0:
            return -1
        line = octets[found:found + ENVELOPE_MOST]
        if is_envelope(line[:line.find(b"\n") + 1] or line):
            return found
        at = found + 1


def _content_end(pread, size: int, start: int) -> int:
    """Where the text that begins at `start` ends by its Content-Length, if an envelope or the end is there, else 0."""
    header = pread(HEADER_LOOK, start)[:size - start]
    body = first_blank(header)
    for line in header[:max(body, 0)].split(b"\n"):
        if line[:15].lower() == b"content-length:":
            value = line[15:].strip()
            if not value.isdigit() or len(value) > 18:
                return 0
            end = start + body + int(value)
            if end >= size:
                return size if end == size else 0
            behind = pread(ENVELOPE_MOST, end)[:size - end]
            rest = behind.lstrip(b"\r\n")
            end += len(behind) - len(rest)
            return end if end == size or is_envelope(rest.split(b"\n", 1)[0]) else 0
    return 0


def first_blank(octets: bytes) -> int:
    """The offset behind the first empty line that follows another line, or -1."""
    plain = octets.find(b"\n\n")
    if b"\r" in octets:
        crlf = octets.find(b"\n\r\n", 0, plain if plain >= 0 else len(octets))
        if crlf >= 0:
            return crlf + 3
    return plain + 2 if plain >= 0 else -1


class Measure:
    """Adds up the wire size of a text from its pieces, in order."""

    __slots__ = ("octets", "tail", "body")

    def __init__(self) -> None:
        self.octets = 0
        self.tail = b"\n"                    # the last octets seen: lines and empty lines reach across pieces
        self.body = False                    # something has come behind the first empty line

    def add(self, piece: bytes) -> None:
        if not piece:
            return
        split = self.tail.endswith(b"\r") and piece.startswith(b"\n")
        self.octets += len(piece.replace(b"\n", b"\r\n")) - split
        if b"\r" in piece:
            self.octets -= piece.count(b"\r\n")
        if not self.body:
            edge = self.tail + piece[:3]
            self.body = 0 < first_blank(edge) < len(edge) or 0 < first_blank(piece) < len(piece)
        self.tail = (self.tail + piece[-3:])[-3:]

    def close(self, entry: Entry, end: int) -> Entry:
        """Finish an entry whose extent ends at `end`, and begin anew. An empty line at its end that is not the one
        between header and body is the separator, not text."""
        if not self.tail.endswith(b"\n"):
            self.octets += 2
        elif self.body and self.tail.endswith((b"\n\n", b"\n\r\n")):
            end -= 2 if self.tail.endswith(b"\r\n") else 1
            self.octets -= 2
        entry.end, entry.octets = max(entry.start, end), self.octets
        self.octets, self.tail, self.body = 0, b"\n", False
        return entry
