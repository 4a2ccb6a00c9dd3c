"""Who guesses passwords is slowed down: by address, by name, in a file that all sessions share, inetd's too (`slots`).

A failure is counted for the address (an IPv6 prefix is one address) and for the name, whether there is such a name or
not. Counts fade by half every so many minutes. The first two cost nothing, people mistype; then each attempt of that
address waits its turn, one interval after the one before it, and the interval doubles with every failure. Nobody sleeps
here and no process is held: `wait` says how long, and whoever keeps the connection keeps it that long. What is being
verified is counted only when it has failed, so not many of one address are verified at a time (SEATS).

Nobody is to be locked out by others. A name slows by a quarter of the most; and a pair of address and name that got
in within 30 days is slowed by its own failures alone, neither by strangers who try that name nor by a neighbour behind
the same address. What is given away by that is known to who shares the address: that such a user comes from there. A
success takes nothing back: who has one account could clear his count with it, or profit from a neighbour's polling.

What is wrong with the file is a sentence in `trouble`: no login ever fails for it.
"""

import time

from popper.account import LONGEST_NAME, shown_name
from popper.slots import ADDRESS, MOST_FAILURES, NAME, PAIR, Kind, Slot, Slots, Unusable, packed, shown

FREE = 2.0                     # failures that cost nothing
NOTHING = 0.5                  # failures that are not worth a line
KNOWN = 30 * 86400             # seconds that a pair is remembered from its last success
RENEWED = 86400                # seconds after which a success is written down again
SEATS = 3                      # attempts of one address that are verified at a time, of names that never got in so
SLACK = 0.001                  # seconds by which a turn may come late and still be in time: what a float forgets
NAMES_SHARE = 0.25             # of the most that is ever waited, for the sake of a name


class Guessers:
    """The guessers in the file at `path`; nothing is opened yet.

    most: seconds an attempt is ever held back, 0: nothing is counted and nobody waits. base: seconds, the interval for
    the second failure if it cost anything. prefix: bits of an IPv6 address that count.
    late: whether the turn of the last `wait` would have come later than `most`. Such an attempt had better be answered
    when it has waited, but not verified: else a hundred connections at once get a hundred guesses in `most` seconds.
    """

    def __init__(self, path: str, most: int, base: float = 0.5, prefix: int = 64, clock=time.time) -> None:
        self.slots = Slots(path)
        self.most = most
        self.base = base
        self.prefix = prefix
        self.clock = clock
        self.late = False

    @property
    def trouble(self) -> str:
        """"" or a sentence about the file, true since it was last opened."""
        return self.slots.trouble

    def wait(self, address: str, name: bytes) -> float:
        """Seconds, 0 to `most`, that this attempt is to be held back before it is verified; its turn is booked."""
        self.late = False
        return self._with_file(self._wait, address, name) or 0.0

    def begin(self, address: str, name: bytes) -> bool:
        """Whether a seat for an attempt was to be had, or is not needed; it is given back by `end`, or when this
        process ends. For processes that know nothing of each other."""
        return self._with_file(self._begin, address, name) is not False

    def end(self) -> None:
        if self.slots.file is not None:
            self.slots.stand_up()

    def knows(self, address: str, name: bytes) -> bool:
        """Whether this name got in from this address of late: what others do there does not slow it."""
        return bool(self._with_file(self._knows, address, name))

    def failed(self, address: str, name: bytes) -> None:
        """Count a failure."""
        self._with_file(self._failed, address, name)

    def succeeded(self, address: str, name: bytes) -> None:
        """Remember that this name got in from this address."""
        self._with_file(self._succeeded, address, name)

    def held(self) -> "list[tuple[str, str, float, float]]":
        """(kind, what, failures, seconds an attempt now would wait) of all that have not faded, worst first."""
        if not self.most:
            return []
        return self._guarded(self._held) or []

    def close(self) -> None:
        """Let go of the file, before rights are given up; the next call opens it again."""
        self.slots.close()

    # -- the file being open -------------------------------------------------------------------------------------

    def _with_file(self, call, address: str, name: bytes):
        octets = packed(address, self.prefix) if self.most else None
        if octets is None:
            return None
        return self._guarded(call, octets, name[:LONGEST_NAME])

    def _guarded(self, call, *arguments):
        """What a call gives, or None and `trouble`."""
        try:
            self.slots.open()
            return call(*arguments, max(0.0, self.clock()))
        except Unusable as error:
            self._complain(str(error))
        except OSError as error:
            self._complain(f"cannot be used: {error.strerror}")
        return None

    def _complain(self, words: str) -> None:
        self.slots.trouble = f"{self.slots.path} {words}; guessers are not slowed down."

    # -- turns ---------------------------------------------------------------------------------------------------

    def _wait(self, address: bytes, name: bytes, now: float) -> float:
        slots = self.slots
        rows = [(ADDRESS, address), (NAME, name)]
        pair = slots.pair(address, name)
        if self._is_known(slots.find(PAIR, pair, now), now):
            rows = [(PAIR, pair)]
        if not any(self._interval(kind, slots.find(kind, key, now)) for kind, key in rows):
            return 0.0
        with slots.locked():
            return max([self._booked(kind, key, now) for kind, key in rows])

    def _booked(self, kind: Kind, key: bytes, now: float) -> float:
        """Take the next free turn, when there is one before it is too late; -> seconds until then"""
        slot = self.slots.find(kind, key, now)
        if not self._interval(kind, slot):
            return 0.0
        longest = self._longest(kind)
        wait = self._turn(kind, slot, now)
        if wait <= longest + SLACK:
            slot.next = now + wait
            self.slots.write(slot, now)
        elif kind is not NAME:               # of a name, attempts may come from all the world, the owner's too
            self.late = True
        return min(wait, longest)

    def _turn(self, kind: Kind, slot: Slot, now: float) -> float:
        """Seconds until the end of the queue and an interval more."""
        ahead = slot.next - now
        if not 0.0 < ahead <= self._longest(kind) + SLACK:       # no turn is ever booked later: the clock was set
            ahead = 0.0
        return ahead + self._interval(kind, slot)

    def _interval(self, kind: Kind, slot: "Slot | None") -> float:
        """Seconds between two attempts."""
        if slot is None or slot.failures <= FREE:
            return 0.0
        return min(self._longest(kind), self.base * 2.0 ** (slot.failures - FREE))

    def _longest(self, kind: Kind) -> float:
        """Seconds that are ever waited for the sake of one table."""
        return self.most * (NAMES_SHARE if kind is NAME else 1.0)

    def _begin(self, address: bytes, name: bytes, now: float) -> bool:
        return self._knows(address, name, now) or self.slots.sit_down(address, SEATS)

    def _knows(self, address: bytes, name: bytes, now: float) -> bool:
        return self._is_known(self.slots.find(PAIR, self.slots.pair(address, name), now), now)

    # -- what came of it -----------------------------------------------------------------------------------------

    def _failed(self, address: bytes, name: bytes, now: float) -> None:
        pair = self.slots.pair(address, name)
        with self.slots.locked():
            slots = [self.slots.find_or_make(ADDRESS, address, now), self.slots.find_or_make(NAME, name, now)]
            known = self.slots.find(PAIR, pair, now)
            if self._is_known(known, now):
                slots.append(known)
            for slot in slots:
                slot.failures = min(MOST_FAILURES, slot.failures + 1.0)
                self.slots.write(slot, now)

    def _succeeded(self, address: bytes, name: bytes, now: float) -> None:
        pair = self.slots.pair(address, name)
        known = self.slots.find(PAIR, pair, now)
        if known and 0.0 <= now - known.seen <= RENEWED:
            return
        with self.slots.locked():
            slot = self.slots.find_or_make(PAIR, pair, now)
            slot.seen = now
            self.slots.write(slot, now)

    def _is_known(self, pair: "Slot | None", now: float) -> bool:
        return pair is not None and pair.seen > 0.0 and now - pair.seen <= KNOWN

    def _held(self, now: float) -> "list[tuple[str, str, float, float]]":
        rows = []
        for kind in (ADDRESS, NAME):
            for slot in self.slots.all(kind, now):
                if slot.failures >= NOTHING:
                    key = slot.key()
                    text = shown(key, self.prefix) if kind is ADDRESS else shown_name(key)
                    wait = self._turn(kind, slot, now) if self._interval(kind, slot) else 0.0
                    rows.append((kind.name, text, slot.failures, min(wait, self._longest(kind))))
        return sorted(rows, key=lambda row: (-row[3], -row[2], row))
