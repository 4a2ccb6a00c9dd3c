"""Lines of a trace as they are written, by the name of its file: whatever has that name now, and what had it before, as
long as somebody may still write there."""

import json
import os
import stat
import time

from popper.admin import traceview
from popper.admin.console import Failed
from popper.admin.tracelines import Reading, Stamps
from popper.admin.traces import Choice, Session, Sessions, exact

POLL = 0.25                    # seconds between looks
MOST_HELD = 1000               # lines of a session of which it is not known yet whether it is wanted
MOST_OLD = 3                   # files that had the name before; sessions that opened them go on writing
MOST_LINE = 1 << 20            # octets of a line that is not ended yet


class _File:
    """One file under the name, read from an offset on."""

    def __init__(self, descriptor: int, at: int) -> None:
        self.descriptor = descriptor
        self.at = at
        self.rest = b""
        self.stamps = Stamps()

    def block(self) -> bytes:
        """The whole lines that have been added."""
        if os.fstat(self.descriptor).st_size < self.at:          # emptied, as logrotate's copytruncate does
            self.at, self.rest = 0, b""
        octets = os.pread(self.descriptor, 1 << 20, self.at)
        self.at += len(octets)
        whole, end, self.rest = (self.rest + octets).rpartition(b"\n")
        if len(self.rest) > MOST_LINE:
            self.rest = b""
        return whole + end


class Follower:
    """Follows a file by its name; it need not be there yet. from_start: whether what is in it already is wanted.
    Raises Failed for what is no file."""

    def __init__(self, path: str, from_start: bool = False) -> None:
        self.path = path
        self.files: "list[_File]" = []
        self.reading = Reading([])
        self._look(from_start)

    def new(self):
        """Yield the lines that have come since this was asked last, as `tracelines.Reading` does."""
        self._look(True)
        for file in self.files:
            while block := file.block():
                yield from self.reading.lines_in(block, file.stamps)

    def close(self) -> None:
        while self.files:
            os.close(self.files.pop().descriptor)

    def _look(self, from_start: bool) -> None:
        """Open what has the name now, if that is another file."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            if self.files:                   # logrotate may be at work; what was there goes on
                return
            raise Failed(f"{self.path} is not a regular file, and cannot be followed", os.EX_NOINPUT)
        if any(os.path.samestat(status, os.fstat(file.descriptor)) for file in self.files):
            os.close(descriptor)
            return
        self.files.append(_File(descriptor, 0 if from_start else status.st_size))
        if len(self.files) > MOST_OLD + 1:
            os.close(self.files.pop(0).descriptor)


def follow(path: str, choice: Choice, whole: bool, console) -> None:
    """Say what comes, until somebody interrupts. whole: a line for each session that has ended, not each of its lines.
    For programs each line is a JSON document."""
    there = os.path.exists(path)
    if not there:
        console.complain(f"{path} is not there yet; waiting for it")
    follower = Follower(path, from_start=not there)
    try:
        for found in (ended if whole else spoken)(follower, choice):
            if found is None:
                console.flush()
                time.sleep(POLL)
            elif console.json:
                console.say_all(json.dumps(found[0], default=str))
            else:
                console.say(found[1])
    finally:
        follower.close()


def ended(follower: Follower, choice: Choice):
    """Yield (for a program, for a person) for each session that has ended, and None whenever there is nothing new."""
    table = Sessions()
    while True:
        for line in follower.new():
            table.add(*line)
            for session in table.ended:
                if choice.fits(session):
                    name = table.name(session)
                    yield traceview.row(session, name), traceview.brief(session, name)
            table.ended.clear()
        yield None


def spoken(follower: Follower, choice: Choice):
    """Yield (for a program, for a person) for each line, and None whenever there is nothing new. Those of a session of
    which it is not known yet whether it is wanted are held back until it is."""
    table = Sessions()
    held: "dict[str, list[tuple[float, str]]]" = {}
    while True:
        for when, mark, text, ours in follower.new():
            before = table.open.get(mark)
            session = table.add(when, mark, text, ours)
            if session is not before:        # the number of one that never ended has come again
                held.pop(mark, None)
            waiting = held.setdefault(mark, [])
            if len(waiting) < MOST_HELD:
                waiting.append((when, text))
            if choice.fits(session):
                for earlier, line in waiting:
                    yield _spoken(earlier, line, session), traceview.live(earlier, line, session)
                waiting.clear()
            if table.ended:
                table.ended.clear()
                held = {mark: lines for mark, lines in held.items() if mark in table.open}
        yield None


def _spoken(when: float, text: str, session: Session) -> dict:
    who, words = traceview.said(text, session.ours)
    return {"when": exact(when), "session": session.mark, "pid": session.process, "user": session.user or None,
            "address": session.address or None, "who": who, "text": words}
