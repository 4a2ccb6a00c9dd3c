"""The lines of trace files, gigabytes of them, and the times that stand in them.

    Sat Nov 21 08:37:50.123 2026 [4711] TEXT                     popper's
    Sat Nov 21 08:37:50.123 2026 [4711.7] TEXT                   popper's, on its own
    Thu Nov 24 18:22:48 1996 [4711] TEXT                         Qpopper 2's, with a line of the stamp alone behind each
    Nov 24 18:22:48.123 2003 [4711] TEXT [pop_dele.c:42]         Qpopper 4's, the same (ucb-popper.md 9.1)

What stands in brackets is the mark of a session: the number of its process, or that and its own number.

What stands in a file is believed of nobody: a line that cannot be read is counted and left out, and a clock may go
back. Times are seconds of the local clock since the first day of year 1, so that differences need no calendar; `moment`
makes a date of one.
"""

import datetime
import re

from popper.admin import logline, logs

LINE = re.compile(rb"^([A-Z][a-z][a-z] (?:[A-Z][a-z][a-z] )?[ \d]\d \d\d:\d\d:\d\d)(\.\d{1,6})?( \d{4}) "
                  rb"\[(\d{1,10}(?:\.\d{1,10})?)\] (.*)$", re.M)
STAMP = re.compile(rb"^(?:[A-Z][a-z][a-z] )?[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})? \d{4} ?$|^$", re.M)
DAY_NAMED = len("Sat Nov 21 08:37:50")
LONGEST = 8192                 # octets of a line that are kept


class Reading:
    """Goes through traces once, the oldest first, as an iterator of (when, mark, text, whether it is popper's own).

    mark: of this session only, or None; other lines then cost a search in memory and nothing else. tick(octets): called
    as files are read; complain(text): told what could not be read. When it has ended: octets and lines that were read,
    `odd` lines that are none of a trace, `broken` files that could not be read to their end.
    """

    def __init__(self, names: "list[str]", mark: "str | None" = None, tick=lambda octets: None,
                 complain=lambda text: None) -> None:
        self.mark = None if mark is None else f" [{mark}] ".encode()
        self.sources = [logs.Source(name) for name in names]
        if len(self.sources) > 1:
            self.sources.sort(key=_first_time)
        self.tick = tick
        self.complain = complain
        self.octets = self.lines = self.odd = self.broken = 0

    def __iter__(self):
        for source in self.sources:
            yield from self._lines_of(source)

    def _lines_of(self, source: logs.Source):
        try:
            with logs.opened(source) as (read, place):
                before, stamps = 0, Stamps()
                for block in logs.whole_lines(read):
                    self.octets += len(block)
                    yield from self.lines_in(_with(self.mark, block) if self.mark else block, stamps)
                    after = place()
                    self.tick(after - before)
                    before = after
        except logs.UNREADABLE as error:
            self.broken += 1
            self.complain(f"{source.name}: {getattr(error, 'strerror', None) or error}; what came before that is there")

    def lines_in(self, block: bytes, stamps: "Stamps"):
        """The lines of a block of whole lines."""
        count = block.count(b"\n")
        self.lines += count
        known = 0
        for stamp, part, year, mark, octets in LINE.findall(block):
            when = stamps.time(stamp + year) if stamp + year != stamps.text else stamps.when
            if when is None:
                continue
            known += 1
            text = octets[:LONGEST].decode("utf-8", "backslashreplace")
            if text.endswith("\r"):
                text = text.rstrip("\r")
            if len(stamp) < DAY_NAMED:
                text = logline.PLACE.sub("", text)
            yield when + float(part) if part else when, mark.decode(), text, bool(part) and len(stamp) == DAY_NAMED
        if known < count:
            self.odd += count - known - len(STAMP.findall(block, 0, len(block) - 1))


def _with(mark: bytes, block: bytes) -> bytes:
    """The lines of a block in which something stands."""
    found, at = [], block.find(mark)
    while at >= 0:
        end = block.index(b"\n", at) + 1
        found.append(block[block.rfind(b"\n", 0, at) + 1:end])
        at = block.find(mark, end)
    return b"".join(found)


class Stamps:
    """Times out of stamps, to the second; the latest is kept, as most lines have the stamp of the line before."""

    def __init__(self) -> None:
        self.text = b""
        self.when: "float | None" = None

    def time(self, text: bytes) -> "float | None":
        """The time of a stamp without fraction; None: there is no such time."""
        *_, month, day, clock, year = text.split()
        self.text, self.when = text, None
        try:
            date = datetime.date(int(year), logline.MONTHS.get(month.decode(), 0), int(day))
        except ValueError:
            return None
        hour, minute, second = map(int, clock.split(b":"))
        if hour < 24 and minute < 60 and second < 61 and date.year < datetime.MAXYEAR:
            self.when = float(date.toordinal() * 86400 + hour * 3600 + minute * 60 + second)
        return self.when


def _first_time(source: logs.Source) -> float:
    """When the first line of a file was written; what has none comes last."""
    if source.name == logs.STANDARD_INPUT:
        return float("inf")
    try:
        with logs.opened(source) as (read, _):
            for when, *_ in Reading([]).lines_in(next(logs.whole_lines(read), b""), Stamps()):
                return when
    except logs.UNREADABLE:
        pass                                 # told when it is read
    return float("inf")


# -- times -------------------------------------------------------------------------------------------------------------

def moment(seconds: float) -> datetime.datetime:
    """A time as a date."""
    whole = int(seconds)
    return (datetime.datetime.fromordinal(max(1, whole // 86400))
            + datetime.timedelta(seconds=whole % 86400, milliseconds=round((seconds - whole) * 1000)))


def clock(seconds: float, near: float) -> str:
    """A time for people: of the clock, with the day when it is another than that of a time near by."""
    other_day = seconds // 86400 != near // 86400
    return f"{moment(seconds):{'%Y-%m-%d %H:%M:%S' if other_day else '%H:%M:%S'}}"


def lasting(seconds: float) -> str:
    """How long something took, for people."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def instant(when: datetime.datetime) -> float:
    """A date as a time."""
    return when.toordinal() * 86400 + when.hour * 3600 + when.minute * 60 + when.second + when.microsecond / 1e6
