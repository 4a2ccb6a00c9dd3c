"""mbox octets to entries: pure, in one pass of C-speed calls over large windows.

A message begins with an envelope line: `From `, a sender, and a date in one of the forms of ucb-popper.md 5.4. All
but the first must follow an empty line, so a paragraph of a body that begins with "From " is a boundary only when it
also looks like an envelope (delivery agents put `>` before those). With `sysv` a Content-Length is believed
when an envelope or the end of the file is where it says, so that bodies may hold anything; one that leads nowhere is
ignored. Only where the delivery agent writes it itself: a sender who guesses the next message's size can hide that.

The same function opens a mailbox and, later, checks that it is still what was opened.
"""

WINDOW = 131072                # fits the processor's cache beside its CRLF copy; a megabyte does not
ENVELOPE_MOST = 1024           # octets of an envelope line; what is longer is text
MARKED = 512                   # octets of a message, envelope line included, by which it is known again
HEADER_LOOK = 65536            # octets of a header searched for Content-Length

DAYS = frozenset((b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"))
MONTHS = frozenset((b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"))


class Entry:
    """One message. offset: of its envelope line; start, end: its text without envelope and separator, as file
    offsets; octets: the text's size on the wire, lines ended by CRLF, dot-stuffing not counted. mark: what tells it
    from another message of the same size in the same place."""

    __slots__ = ("offset", "start", "end", "octets", "mark")

    def __init__(self, offset: int, start: int, beginning: bytes = b"") -> None:
        self.offset = offset
        self.start = start
        self.end = self.octets = 0
        self.mark = hash(beginning)

    def __eq__(self, other) -> bool:
        return isinstance(other, Entry) and self._all() == other._all()

    def _all(self) -> tuple:
        return self.offset, self.start, self.end, self.octets, self.mark


class NotMailbox(Exception):
    """The file does not begin with an envelope line; the text says at which offset something else stands."""


def is_envelope(line: bytes) -> bool:
    """Whether a line is `From SENDER DAY MONTH D HH:MM[:SS] [ZONE] YEAR [ZONE] [remote from HOST]`."""
    if not line.startswith(b"From "):
        return False
    words = line.lower().split()
    for at in range(1, len(words) - 4):
        if words[at] in DAYS and words[at + 1] in MONTHS:
            day, clock = words[at + 2], words[at + 3]
            return day.isdigit() and len(day) <= 2 and _is_clock(clock) and _is_year(words[at + 4:])
    return False


def _is_clock(word: bytes) -> bool:
    parts = word.split(b":")
    return 2 <= len(parts) <= 3 and all(part.isdigit() and len(part) <= 2 for part in parts)


def _is_year(words: "list[bytes]") -> bool:
    """Whether the rest of a line is `[ZONE] YEAR [ZONE] [remote from HOST]`; prose goes on otherwise."""
    at = 1 if _is_zone(words[0]) else 0
    year, rest = b"".join(words[at:at + 1]), words[at + 1:]
    if rest and _is_zone(rest[0]):
        rest = rest[1:]
    return len(year) == 4 and year.isdigit() and (not rest or rest[:2] == [b"remote", b"from"] and len(rest) == 3)


def _is_zone(word: bytes) -> bool:
    return len(word) <= 5 and (word.isalpha() or word[:1] in (b"+", b"-") and word[1:].isdigit())


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
    entry, measure = Entry(offset, start, head[offset:offset + MARKED]), Measure()
    known = _content_end(pread, size, start) if sysv else 0
    done = start                             # all before this offset is measured
    while done < size:
        base = max(done - 4, 0)              # four octets back: an empty line before the envelope may lie there
        octets = pread(window, base)[:size - base]
        if len(octets) < min(window, size - base):
            break                            # cut short under us; whoever compares will see it
        # An envelope line that begins before `limit` is whole in this window.
        limit = len(octets) if base + len(octets) >= size else len(octets) - ENVELOPE_MOST
        ahead = [] if known - base >= limit else _boundaries(octets, done - base, limit)
        while True:
            begin = known - base if known else _next(ahead, done - base)
            if not 0 <= begin < limit:
                break
            measure.add(octets[done - base:begin])
            yield measure.close(entry, base + begin)
            done = base + (octets.find(b"\n", begin) + 1 or len(octets))
            entry = Entry(base + begin, done, octets[begin:begin + MARKED])
            known = _content_end(pread, size, done) if sysv else 0
        if done < base + limit:
            measure.add(octets[done - base:limit])
            done = base + limit
    yield measure.close(entry, size)


def _boundaries(octets: bytes, begin: int, end: int) -> "list[int]":
    """The envelope lines behind an empty line in octets[begin:end], the first one last.

    Looked for from behind: rfind is faster than find, and from one boundary it need only go on at the last colon
    before it, as an envelope line has one. So base64, most of most mail, is passed over at memrchr's speed.
    """
    found, line = [], len(octets)
    begin = max(begin - 1, 0)
    while line:
        colon = max(octets.rfind(b":", begin, line), 0)
        line = octets.rfind(b"\nFrom ", begin, min(colon, end + 4)) + 1
        if line and octets.endswith((b"\n\n", b"\n\r\n"), max(line - 3, 0), line):
            if _is_envelope_line(octets[line:line + ENVELOPE_MOST + 1]):
                found.append(line)
    return found


def _next(boundaries: "list[int]", begin: int) -> int:
    """Take the first boundary that is not before `begin`, or -1."""
    while boundaries:
        boundary = boundaries.pop()
        if boundary >= begin:
            return boundary
    return -1


def _is_envelope_line(octets: bytes) -> bool:
    """Whether octets begin with an envelope line that ends where they end or before, and is not too long to be one."""
    line = octets[:octets.find(b"\n") + 1] or octets
    return len(line) <= ENVELOPE_MOST and is_envelope(line)


def _content_end(pread, size: int, start: int) -> int:
    """Where the text that begins at `start` ends by its Content-Length, if an envelope or the end is there, else 0."""
    header = pread(HEADER_LOOK, start)[:size - start]
    body = first_blank(b"\n" + header) - 1   # the envelope line is a line: there may be no header at all
    for line in header[:max(body, 0)].split(b"\n"):
        if line[:15].lower() == b"content-length:":
            value = line[15:].strip()
            if not value.isdigit() or len(value) > 18:
                return 0
            end = start + body + int(value)
            if end >= size:
                return size if end == size else 0
            around = pread(2 * ENVELOPE_MOST, end - 1)[:size - end + 1]
            rest = around[1:].lstrip(b"\r\n")
            begin = len(around) - len(rest)
            if end - 1 + begin == size:
                return size
            return end - 1 + begin if around[begin - 1] == 10 and _is_envelope_line(rest[:ENVELOPE_MOST + 1]) else 0
    return 0


def first_blank(octets: bytes) -> int:
    """The offset behind the first empty line that follows another line, or -1."""
    plain = octets.find(b"\n\n")
    if b"\r" in octets:
        crlf = octets.find(b"\n\r\n", 0, plain + 2 if plain >= 0 else len(octets))
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
