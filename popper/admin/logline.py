"""One line of a log: when, by whom, what. Syslog's in its three forms, the journal's, popper's trace.

    Nov 24 18:22:48 mail popper[1]: TEXT                        syslog; the year is found by the age of the file
    2026-11-24T18:22:48.123456+01:00 mail popper[1]: TEXT       rsyslog, journalctl -o short-iso; maybe no host
    <165>1 2026-11-24T18:22:48Z mail popper 1 - - TEXT          RFC 5424
    {"MESSAGE": "TEXT", "SYSLOG_IDENTIFIER": "popper", ...}     journalctl -o json
    Thu Nov 24 18:22:48 1996 [1] TEXT                           popper's trace, Qpopper 2's (ucb-popper.md 9.1)
    Thu Nov 24 18:22:48.123 1996 [1.7] TEXT                     popper's, of a session of a popper on its own
    Nov 24 18:22:48.123 2003 [1] TEXT [pop_dele.c:42]           Qpopper 4's trace
    Nov 24 18:22:48 pop3-login: TEXT                            Dovecot's own log file

Whatever else stands there is no line, and never an error.
"""

import datetime
import json
import re
from typing import NamedTuple

OLDEST = 1988                  # year of RFC 1081, the first POP3

MONTHS = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)}
CLASSIC = re.compile(r"(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?"
                     r"(?: (\d{4}) \[(\d{1,10}(?:\.\d{1,10})?)\])? (.*)", re.S | re.A)
ISO = re.compile(r"(?:<\d{1,3}>(1 )?)?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,]\d{1,9})?(Z|[+-]\d\d:?\d\d)? (.*)",
                 re.S | re.A)
RFC5424 = re.compile(r'(\S+) (\S+) (\S+) \S+ (?:-|(?:\[(?:[^"\]]|"(?:[^"\\]|\\.)*")*\])+)(?: \ufeff?(.*))?$',
                     re.S | re.A)
PROGRAM = re.compile(r"(?:(\S*[^\s:]) )?([^\s\[\]:]{1,300})(?:\[(\d{1,10})\])?: ?(.*)", re.S | re.A)
LEVEL = re.compile(r"(?:critical|warning|notice|info|debug): ")           # popper's, where its log is standard error
OURSELVES = re.compile(r"(?:in\.)?q?popper\[(\d{1,10})\]: ")              # the same, where systemd took that up
PLACE = re.compile(r" \[\w{1,40}\.[ch]:\d{1,6}\]$", re.A)                 # where in its source Qpopper said it


class Line(NamedTuple):
    """when: local time, to the second; ident: "" in a trace file; pid: "" where there is none."""

    when: datetime.datetime
    host: str
    ident: str
    pid: str
    text: str


class Stamps:
    """Times out of what a line begins with. reference: a time by which all of them were written; latest: a year."""

    def __init__(self, reference: datetime.datetime, latest: int) -> None:
        self.reference = reference + datetime.timedelta(days=1)      # a clock may have been wrong
        self.latest = latest
        self.years: "dict[tuple, int]" = {}

    def classic(self, month: str, day: str, hour: str, minute: str, second: str,
                year: "str | None") -> datetime.datetime:
        """ValueError for what is no time."""
        number, day = MONTHS.get(month, 0), int(day)
        return self._checked(datetime.datetime(int(year or self._year(number, day)), number, day,
                                               int(hour), int(minute), min(int(second), 59)))

    def _year(self, month: int, day: int) -> int:
        """The last year in which there was such a day before the reference."""
        year = self.years.get((month, day))
        if year is None:
            year = self.reference.year
            while (year, month, day) > (self.reference.year, self.reference.month, self.reference.day) or (
                    (month, day) == (2, 29) and (year % 4 or year % 100 == 0 and year % 400)):
                year -= 1
            self.years[month, day] = year
        return year

    def iso(self, stamp: str, zone: "str | None") -> datetime.datetime:
        """ValueError for what is no time."""
        if not zone:
            return self._checked(datetime.datetime.fromisoformat(stamp))
        when = self._checked(datetime.datetime.fromisoformat(stamp + zone))
        return when.astimezone().replace(tzinfo=None)

    def seconds(self, since_1970: float) -> datetime.datetime:
        """ValueError, OverflowError or OSError for what is no time."""
        return self._checked(datetime.datetime.fromtimestamp(int(since_1970)))

    def _checked(self, when: datetime.datetime) -> datetime.datetime:
        if not OLDEST <= when.year <= self.latest:
            raise ValueError("no time of a POP3 server")
        return when


def line_of(octets: bytes, stamps: Stamps) -> "Line | None":
    """What a line of a log says, or None."""
    try:
        if octets.startswith(b"{"):
            return _of_json(octets, stamps)
        text = octets.decode("utf-8", "backslashreplace").rstrip("\r ")
        found = CLASSIC.match(text)
        if found:
            *stamp, year, pid, rest = found.groups()
            when = stamps.classic(*stamp, year)
            return _told(when, "", "", pid, rest) if year else _named(when, rest)
        found = ISO.match(text)
        if found:
            when = stamps.iso(found[2], found[3])
            return _of_rfc5424(when, found[4]) if found[1] else _named(when, found[4])
    except (ValueError, OverflowError, OSError, RecursionError):
        pass
    return None


def _named(when: datetime.datetime, rest: str) -> "Line | None":
    found = PROGRAM.match(rest)
    return found and _told(when, found[1] or "", found[2], found[3] or "", found[4])


def _of_rfc5424(when: datetime.datetime, rest: str) -> "Line | None":
    found = RFC5424.match(rest)
    return found and _told(when, found[1], found[2], found[3].replace("-", ""), found[4] or "")


def _of_json(octets: bytes, stamps: Stamps) -> "Line | None":
    entry = json.loads(octets.decode("utf-8", "backslashreplace"))
    text = entry.get("MESSAGE")
    if isinstance(text, list):
        text = bytes(each for each in text if isinstance(each, int) and 0 <= each < 256)
        text = text.decode("utf-8", "backslashreplace")
    stamp = entry.get("_SOURCE_REALTIME_TIMESTAMP") or entry.get("__REALTIME_TIMESTAMP")
    if not isinstance(text, str) or not isinstance(stamp, str) or not stamp[:20].isdigit():
        return None
    ident, host = entry.get("SYSLOG_IDENTIFIER"), entry.get("_HOSTNAME")
    pid = entry.get("SYSLOG_PID") or entry.get("_PID")
    ident, host, pid = (each if isinstance(each, str) else "" for each in (ident, host, pid))
    return _told(stamps.seconds(int(stamp[:20]) // 1000000), host, ident, pid, text) if ident else None


def _told(when: datetime.datetime, host: str, ident: str, pid: str, text: str) -> Line:
    """The line without what popper or Qpopper put around its text for other readers."""
    own = OURSELVES.match(text)
    if own:
        pid, text = own[1], text[own.end():]
    level = LEVEL.match(text)
    return Line(when, host, ident, pid, PLACE.sub("", text[level.end():] if level else text))
