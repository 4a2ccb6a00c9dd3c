"""Logs of any size, read once: which there are, what they are packed in, which of their lines are worth a look.

    Source -> blocks of whole lines -> lines in which one of some words stands -> logline.Line

A line that holds none of the words costs a search in memory and nothing else: it is neither cut out nor decoded. What
stands in a file is believed of nobody: a line that cannot be read is counted and left out.
"""

import bz2
import collections
import contextlib
import datetime
import errno
import glob
import gzip
import heapq
import itertools
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
import zlib

from popper.admin import logline

STANDARD_INPUT, JOURNAL = "-", "journal"
IDENTS = ("popper", "in.popper", "qpopper", "in.qpopper", "dovecot")     # what the journal is asked for
PLACES = ("/var/log/mail.log", "/var/log/maillog", "/var/log/mail", "/var/log/syslog", "/var/log/messages",
          "/var/log/dovecot.log", "/var/log/dovecot-info.log")

BLOCK = 1 << 20                # octets read at once
LONGEST = 32768                # octets of a line that is looked at; what syslog or the journal writes is shorter
TWINS = 10000                  # lines among which the same line of another log is looked for
UNPACK = {b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file), b"BZh": bz2.BZ2File, b"\xfd7zXZ": lzma.LZMAFile}
ZSTD = b"\x28\xb5\x2f\xfd"
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)           # what reading a log may raise
ROTATED = re.compile(r"(?:\.(\d{1,5})|-(\d{8}(?:-\d{1,10})?))?(?:\.(?:gz|bz2|xz|zst))?$")
NOT_TEXT = b'"MESSAGE":['      # how journalctl gives a text that is no UTF-8: octet by octet


class Source:
    """A log to be read. size: octets, 0 where nobody knows; changed: when last, a local time; family: the log of which
    it is a part, `mail.log` for mail.log.2.gz."""

    def __init__(self, name: str) -> None:
        self.name = self.family = name
        self.size = 0
        self.changed = datetime.datetime.now()
        self.plain = False
        if name not in (STANDARD_INPUT, JOURNAL):
            status = os.stat(name)
            trouble = errno.EISDIR if stat.S_ISDIR(status.st_mode) else 0 if os.access(name, os.R_OK) else errno.EACCES
            if trouble:
                raise OSError(trouble, os.strerror(trouble), name)
            self.family = ROTATED.sub("", os.path.abspath(name))
            self.plain = stat.S_ISREG(status.st_mode)
            if self.plain:
                self.size = status.st_size
                self.changed = datetime.datetime.fromtimestamp(status.st_mtime)


def usual(trace: str = "") -> "list[str]":
    """The logs that are there on this system, with what was rotated of them; the journal where there is none.
    trace: a file that all lines go to in place of the log, as the directive says, and that may be there as well."""
    found = set()
    for place in map(glob.escape, filter(None, (*PLACES, trace))):
        found.update(filter(os.path.isfile, itertools.chain(
            *map(glob.glob, (place, place + ".[0-9]*", place + "-[0-9]*")))))
    return sorted(found) or [JOURNAL]


class Reading:
    """Goes through sources once, as an iterator of logline.Lines in the order of time, as far as each log is in order.

    words: octets, one of which a line must hold; since: a local time, files that were last written before it are left
    out; tick(octets): called as files are read; complain(text): told what could not be read. Several logs may hold
    the same lines, as mail.log and syslog do in Debian: each line of them counts once.

    When it has ended: octets and lines that were read, `odd` lines that hold a word but are no line of a log, `broken`
    sources that could not be read to their end.
    """

    def __init__(self, sources: "list[Source]", words, since: "datetime.datetime | None" = None,
                 tick=lambda octets: None, complain=lambda text: None) -> None:
        self.sources = [each for each in sources if not (since and each.plain and each.changed < since)]
        self.words = (*words, NOT_TEXT)
        self.since = since
        self.tick = tick
        self.complain = complain
        self.octets = self.lines = self.odd = self.broken = 0
        self.latest = datetime.date.today().year + 1

    def __iter__(self):
        families: "dict[str, list[Source]]" = {}
        for source in self.sources:
            families.setdefault(source.family, []).append(source)
        logs = [self._lines_of_all(_oldest_first(members)) for members in families.values()]
        return logs[0] if len(logs) == 1 else _each_once(logs)

    def _lines_of_all(self, sources: "list[Source]"):
        for source in sources:
            yield from self._lines_of(source)

    def _lines_of(self, source: Source):
        stamps = logline.Stamps(source.changed, self.latest)
        try:
            with opened(source, self.since) as (read, place):
                before = 0
                for block in whole_lines(read):
                    self.octets += len(block)
                    self.lines += block.count(b"\n")
                    for octets in _lines_with(self.words, block):
                        found = logline.line_of(octets, stamps)
                        if found is not None:
                            yield found
                        else:
                            self.odd += 1
                    after = place()
                    self.tick(after - before)
                    before = after
        except UNREADABLE as error:
            said = getattr(error, "strerror", None) or error
            self.broken += 1
            self.complain(f"{source.name}: {said}; what came before that is counted")


def _oldest_first(members: "list[Source]") -> "list[Source]":
    """The parts of one log in order. What rotation put behind their names tells more than when they were written, as
    copies have the time of the copying: a number is the older the higher, a date the other way round, what has neither
    is the latest. Only where there are numbers and dates it is the time."""
    found = [(source, *ROTATED.search(source.name).groups()) for source in members]
    mixed = any(number for _, number, _ in found) and any(date for *_, date in found)
    found.sort(key=lambda part: (mixed and part[0].changed.timestamp(), not part[2], part[2] or "", -int(part[1] or 0),
                                 part[0].changed))
    return [source for source, *_ in found]


def _each_once(logs):
    """The lines of several logs, each as often as it stands in the log that has it most."""
    seen: "collections.OrderedDict[tuple, list[int]]" = collections.OrderedDict()
    tagged = [zip(itertools.repeat(number), log) for number, log in enumerate(logs)]
    for number, line in heapq.merge(*tagged, key=lambda pair: pair[1].when):
        # Not the host, to which logs may give a longer name, nor the ident, which a trace does not have.
        key = (line.when, line.pid, line.text)
        counts = seen.setdefault(key, [0] * len(logs))
        most = max(counts)
        counts[number] += 1
        if counts[number] > most:
            yield line
        if len(seen) > TWINS:
            seen.popitem(last=False)


# -- octets ------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def opened(source: Source, since: "datetime.datetime | None" = None):
    """(read(most) -> octets, place() -> how many octets of the file are behind us)."""
    if source.name == JOURNAL:
        with _journal(since) as file:
            yield file.read1, lambda: 0
        return
    with open(0 if source.name == STANDARD_INPUT else source.name, "rb", BLOCK, closefd=source.name != "-") as file:
        begun = file.peek(8)[:8]
        if begun.startswith(ZSTD):
            raise OSError(errno.EINVAL, "is packed by zstd, which Python cannot read; unpack it first")
        unpack = next((make for magic, make in UNPACK.items() if begun.startswith(magic)), None)
        with unpack(file) if unpack else contextlib.nullcontext(file) as unpacked:
            # read1 gives what there is before it finds that the rest is damaged, or has not come yet
            read = unpacked.read if source.plain and not unpack else unpacked.read1
            yield read, file.tell if source.plain else lambda: 0


@contextlib.contextmanager
def _journal(since: "datetime.datetime | None"):
    """What journalctl prints of IDENTS, as a file. Raises OSError when it fails."""
    command = ["journalctl", "-o", "json", "--no-pager", "-q", *(f"--identifier={ident}" for ident in IDENTS)]
    if since:
        command.append(f"--since=@{int(since.timestamp())}")
    if not shutil.which(command[0]):
        raise OSError(errno.ENOENT, "journalctl is not installed")
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said,
                              bufsize=BLOCK) as process:
            yield process.stdout
        said.seek(0)
        words = said.read(500).decode("utf-8", "backslashreplace").split("\n")[0]
    if process.returncode:
        raise OSError(errno.EIO, words or f"journalctl ended with {process.returncode}")


def whole_lines(read):
    """Blocks that end at the end of a line. What is longer than a block without one is left out."""
    rest, headless = b"", False              # headless: the line whose rest we hold was too long, and is half gone
    while octets := read(BLOCK):
        end = octets.rfind(b"\n") + 1
        if not end:
            rest += octets
            if len(rest) > BLOCK:
                rest, headless = b"", True
            continue
        block, rest = rest + octets[:end], octets[end:]
        if headless:
            block, headless = block[block.index(b"\n") + 1:], False
        if block:
            yield block
    if rest and not headless:
        yield rest + b"\n"


def _lines_with(words, block: bytes):
    """The lines of a block that hold one of the words, in order, those over LONGEST left out. Each holds b"\\n"."""
    found: "dict[int, int]" = {}
    for word in words:
        at = block.find(word)
        while at >= 0:
            end = block.index(b"\n", at)
            found[block.rfind(b"\n", 0, at) + 1] = end
            at = block.find(word, end + 1)
    for start in sorted(found):
        if found[start] - start <= LONGEST:
            yield block[start:found[start]]
