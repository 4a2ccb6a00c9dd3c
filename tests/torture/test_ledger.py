"""Nothing is lost: thousands of random steps against one spool, and a ledger that knows every letter.

Delivery by procmail and by agents that know one kind of lock, sessions that poll, delete, reset, hang up and idle, two
at once, and sessions that are killed, at any moment or at an exact system call. The real server, real processes, a
spool like Debian's and one of an ordinary user.

    SEED=word STEPS=n    repeat a run, or a longer one. What each step does follows from the seed and its number; what
                         happens at the same time does not, so a rare fault may take a few runs to come back.

Not part of `make check`: `make torture`. A failure prints the history of the letters and sessions concerned, and
where the mailboxes, the configuration and the logs are kept.
"""

import contextlib
import itertools
import os
import random
import shutil
import statistics
import threading
import time
import traceback

import pytest

import ledger_steps
from ledger import GONE, KEPT, Fault, Ledger
from ledger_caller import may_trace
from ledger_place import Debian, Ordinary
from ledger_run import Run

THREADS = 20
STEPS = int(os.environ.get("STEPS", "10000"))
SEED = os.environ.get("SEED") or os.urandom(4).hex()
TOLD = 40                      # lines of a log that a failure shows


class Torture:
    """A run in a place: `steps` steps, by THREADS threads, and the end."""

    def __init__(self, place, seed, steps, kinds):
        self.place = place
        self.steps = steps
        self.numbers = itertools.count(1)
        self.run = Run(place, Ledger(place.users), seed, kinds)
        self.wrong = ""
        self.lock = threading.Lock()

    def go_on(self):
        for number in iter(self.numbers.__next__, None):
            if number > self.steps or self.run.stop.is_set():
                self.run.stop.set()
                return
            try:
                ledger_steps.step(self.run, number)
            except BaseException as wrong:
                self.fails(number, wrong)

    def fails(self, number, wrong):
        with self.lock:
            self.run.stop.set()
            if not self.wrong:
                told = str(wrong) if isinstance(wrong, Fault) else traceback.format_exc()
                self.wrong = f"SEED={self.run.seed}, step {number}: {told}"

    def until_the_end(self):
        """Hold it; -> what went wrong first, or ""."""
        self.begun = time.monotonic()
        try:
            self.look_in()                   # who has never been there gets no bulletins that are there already
        except Exception as wrong:
            self.fails("the beginning", wrong)
        threads = [threading.Thread(target=self.go_on) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            self.wait_for(threads)
        except KeyboardInterrupt:
            self.run.stop.set()
            self.wait_for(threads)
            raise
        if not self.wrong:
            try:
                ledger_steps.finish(self.run, random.Random(self.run.seed))
            except Exception as wrong:
                self.fails("the end", wrong)
        self.seconds = time.monotonic() - self.begun
        return self.wrong

    def wait_for(self, threads):
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.1)
            if self.run.stop.is_set():       # who waits for a dead man's lock needs a login to remove it
                with contextlib.suppress(Exception):
                    self.look_in()

    def look_in(self):
        """Log everybody in once."""
        for user in self.place.users:
            with self.run.session(user, random, "plain") as session:
                session.quit()

    def told(self, log):
        """What happened, for whoever reads along."""
        ledger, counts = self.run.ledger, self.run.counts
        self.finished = sum("interrupted update was finished" in line for line in log)
        letters = [letter for book in ledger.books.values() for letter in book.letters.values()]
        lines = [f"{self.steps} steps in {self.seconds:.0f} s; "
                 f"{len(letters)} letters, {len(ledger.visits)} logins that found "
                 f"{statistics.mean(ledger.sizes or [0]):.0f} of them on average, "
                 f"{sum(len(book.gone) for book in ledger.books.values())} letters deleted",
                 f"QUIT without an answer: {sum(d.fate == GONE for d in ledger.silent)} times all gone, "
                 f"{sum(d.fate == KEPT for d in ledger.silent)} times all there",
                 f"updates finished by the next login: {self.finished}"]
        lines += [f"{counts[kind]:6} {kind}, each {spent / counts[kind]:.2f} s"
                  for kind, spent in sorted(self.run.spent.items())]
        return "\n".join(lines + [f"{counts[what]:6} {what}" for what in sorted(counts) if what not in self.run.spent])


def torture(kind_of_place):
    """Run until the end, and tell what happened; keep the place if it ended badly."""
    kinds = dict(ledger_steps.KINDS)
    if not may_trace():
        print("this user may not trace his own processes: none is killed at an exact system call")
        kinds.update(strike=0, fail=0, stop=0)
    python = next(kind_of_place.pythons(), None)
    if python is None:
        pytest.skip("there is no Python that this user could run")
    servers = ("plain", "unsynced", "impatient", "eager") + ("marking",) * bool(kinds["status"])
    place = kind_of_place(python, servers, bool(kinds["bulletin"]))
    print(f"\nSEED={SEED} STEPS={STEPS}, {kind_of_place.__name__}: {place.place}", flush=True)
    one = Torture(place, SEED, STEPS, kinds)
    wrong = "interrupted"
    try:
        place.begin()
        wrong = one.until_the_end() or unexpected(place.log())
    finally:
        log = place.log().splitlines()
        if wrong:
            (place.place / "history").write_text("\n".join(one.run.ledger.history()))
        stopped = place.leave(destroy=not wrong)
    print(one.told(log))
    if wrong:
        pytest.fail("\n".join([wrong, f"-- the end of the logs in {place.place}:", *log[-TOLD:]]), pytrace=False)
    assert not stopped, f"these servers had stopped: {stopped}"
    if STEPS >= 5000:
        assert_it_was_torture(one)


def unexpected(log):
    """The lines of a log that should never be there."""
    return "\n".join([line for line in log.splitlines() if "critical" in line or "Traceback" in line][:TOLD])


def assert_it_was_torture(one):
    """That the run had in it what it is for: sessions that were killed before, in and after their updates."""
    silent = [deletion.fate for deletion in one.run.ledger.silent]
    assert min(silent.count(GONE), silent.count(KEPT)) > STEPS // 500
    assert one.finished > STEPS // 500


needs = pytest.mark.skipif(not all(map(shutil.which, ("procmail", "strace"))), reason="needs procmail and strace")


def servers(kinds):
    return ("plain", "unsynced", "impatient", "eager") + (("marking",) if kinds["status"] else ())


@needs
@pytest.mark.root
@pytest.mark.skipif(not Debian.is_here(), reason="the spool is not like Debian's")
def test_nothing_is_lost_in_debians_spool():
    torture(Debian)


@needs
def test_nothing_is_lost_in_the_spool_of_an_ordinary_user():
    torture(Ordinary)
