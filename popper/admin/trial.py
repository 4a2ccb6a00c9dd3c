"""popperctl mailbox test: sessions and deliveries on dummies, copies, or mailboxes as they are; several at once, each
in a process of its own as popper's are, with a session's locks."""

import collections
import heapq
import json
import os
import random
import secrets
import select
import signal
import statistics
import time
import traceback

from popper.admin.console import Failed
from popper.admin.findings import report
from popper.admin.places import Place, prepare, served
from popper.errors import Refused

STRUCK = 0.2                   # of the sessions, when some are to be killed


def run(arguments: dict, options, console) -> int:
    trial = Trial(options, _number(arguments, "-j", 4, 1, 100), _number(arguments, "--interval", 0, 0, 60000) / 1000)
    rounds = _number(arguments, "--rounds", 0, 1, 10**9)
    seconds = _number(arguments, "--seconds", 0 if rounds else 10, 1, 86400)
    files = [os.path.abspath(file) for file in arguments["FILE"]]
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        if arguments["--in-place"]:
            trial.places = [Place(path, served(path), secrets.token_hex(16) if arguments["--update"] else "")
                            for path in files]
        else:
            trial.strike = arguments["--kill"]
            prepare(trial, files, arguments["--directory"], options)
        with console.progress("testing", seconds or rounds) as progress:
            trial.run(seconds, rounds, progress)
    finally:
        trial.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
    return report(trial, arguments, console)


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _number(arguments: dict, option: str, default: int, least: int, most: int) -> int:
    text = arguments.get(option)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise Failed(f'{option} "{text}": a number from {least} to {most} is expected', os.EX_USAGE)
    return int(text)


class Trial:
    """Processes at work on mailboxes, and what they found. jobs: how many at once; interval: seconds between two
    sessions of each."""

    def __init__(self, options, jobs: int, interval: float) -> None:
        self.options = options
        self.jobs = jobs
        self.interval = interval
        self.places: list = []
        self.strike = False
        self.pending: collections.deque = collections.deque()    # (place, act): deliveries to come
        self.running: "dict[int, tuple]" = {}                    # reader: (pid, place, whether it may be killed)
        self.aside: set = set()                                  # what is not tried any more
        self.failed: collections.Counter = collections.Counter()  # place: faults
        self.rounds = self.busy = self.deleted = self.delivered = self.killed = 0
        self.settled = collections.Counter()
        self.seconds = 0.0
        self.is_over = False                 # what comes now is the last look at each place, and no round
        self.phases: "dict[str, list[float]]" = collections.defaultdict(list)
        self.waits: "dict[str, list]" = collections.defaultdict(list)
        self.faults: collections.Counter = collections.Counter()

    def run(self, seconds: int, most: int, progress) -> None:
        """For so many seconds, or so many rounds."""
        begun = time.monotonic()
        free, started, shown = [begun] * self.jobs, 0, 0
        while True:
            now = time.monotonic()
            over = (seconds and now >= begun + seconds) or (most and started >= most)
            while free and (self.pending or not over and free[0] <= now and (not most or started < most)):
                task = self._next()
                if task is None:
                    break
                heapq.heappop(free)
                started += task[2]
                self.start(*task[:2], task[3])
            if not self.running and not self.pending and (over or len(self.aside) == len(self.places)):
                break
            ahead = [when - now for when in (begun + seconds, *free[:1]) if when > now]
            self._wait(min([1.0, *ahead]))
            for _ in range(self.jobs - len(self.running) - len(free)):
                heapq.heappush(free, time.monotonic() + self.interval)
            done = time.monotonic() - begun if seconds else self.rounds + self.busy
            progress.add(done - shown)
            shown = done
        self.seconds = time.monotonic() - begun
        self.is_over = True
        for place in self.places:
            if place not in self.aside:
                place.last(self)

    def _next(self):
        """(place, act, whether it is a round, whether it may be killed), or None when there is nothing to start."""
        if self.pending:
            return *self.pending.popleft(), 0, False
        ready = [place for place in self.places if place not in self.aside and not place.busy]
        if not ready:
            return None
        place = random.choice(ready)
        kill = None
        if self.strike and random.random() < STRUCK:
            known = self.phases["delete"][-100:]
            kill = random.random() * 2 * (statistics.median(known) if known else 0.004)
        place.busy = isinstance(place, Place)
        return place, place.task(self, kill), 1, kill is not None

    def alone(self, place, **how) -> "dict | None":
        """One more session, with nothing beside it. -> its answer"""
        self.start(place, place.task(self, None, **how))
        return self.finish()

    def start(self, place, act, may_die: bool = False) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            _answer(act, writer)
        os.close(writer)
        self.running[reader] = pid, place, may_die

    def finish(self) -> "dict | None":
        """Wait for all that are at work. -> the answer of the last"""
        answer = None
        while self.running:
            answer = self._take(next(iter(self.running)))
        return answer

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        for reader in self.running:
            poll.register(reader, select.POLLIN)
        for reader, _ in poll.poll(seconds * 1000):
            self._take(reader)

    def _take(self, reader: int) -> "dict | None":
        pid, place, may_die = self.running[reader]
        with open(reader, "rb", closefd=False) as pipe:
            octets = pipe.read()
        del self.running[reader]
        os.close(reader)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        place.busy = False
        if octets:
            answer = json.loads(octets)
            self._count(place, answer)
            return answer
        if status == -signal.SIGKILL and may_die:
            self.killed += 1
            return None
        if status < 0:
            self.fault(f"{place.title}: a process of this test was ended by signal {-status}")
            self.aside.add(place)
            return None
        raise Failed("a process of its own ended early; this is a mistake in popperctl", os.EX_SOFTWARE)

    def _count(self, place, answer: dict) -> None:
        if not self.is_over:
            for name, seconds in answer["phases"].items():
                self.phases[name].append(seconds)
            if "parse" in answer["phases"] and not answer["faults"] and "busy" not in answer:
                self.rounds += 1
        for what, seconds, obstacle in answer["waits"]:
            self.waits[what].append((seconds, obstacle))
        for fault in answer["faults"]:
            self.fault(f"{place.title}: {fault}")
        self.failed[place] += bool(answer["faults"])
        if answer.get("put_aside") or self.failed[place] >= 10:
            self.aside.add(place)
        self.busy += "busy" in answer
        self.delivered += answer.get("delivered", 0)
        self.deleted += answer.get("deleted", 0)
        if "settled" in answer:
            self.settled[answer["settled"]] += 1
        place.took(answer, self)

    def fault(self, text: str) -> None:
        self.faults[text] += 1

    def clear(self) -> None:
        """End, and leave nothing behind: who is at work finishes what it does."""
        for reader, (pid, _, _) in self.running.items():
            os.close(reader)
            os.waitpid(pid, 0)
        self.running = {}
        for place in self.places:
            place.remove()


def _answer(act, writer: int) -> None:
    """The life of a process that does act() and says what it found."""
    status = os.EX_SOFTWARE
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)             # what was begun is finished
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        try:
            found = act()
        except Refused as refused:           # nothing could be begun at all
            fault = refused.text + (f" ({refused.reason})" if refused.reason else "")
            found = {"phases": {}, "waits": [], "faults": [fault], "put_aside": True}
        octets = json.dumps(found).encode()
        while octets:
            octets = octets[os.write(writer, octets):]
        status = os.EX_OK
    except BrokenPipeError:
        pass                                 # nobody waits any more
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
