"""A model of a disk with three files, on which updates of a mailbox can be cut short at every write."""

import os

from popper.storage import record, redo

SECTOR = 64


class Cut(Exception):
    """The machine stopped here."""


class Disk:
    """Three files and what happened to them since each was last synced. Stands where redo looks for `os`."""

    MAILBOX, RECORD, PARCEL = 3, 4, 5

    def __init__(self, mailbox, record=b"", parcel=b""):
        self.durable = {self.MAILBOX: bytes(mailbox), self.RECORD: bytes(record), self.PARCEL: bytes(parcel)}
        self.now = {number: bytearray(octets) for number, octets in self.durable.items()}
        self.pending = []
        self.calls = 0
        self.stop_at = None
        self.full = False

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(os, name)

    def fstat(self, number):
        return os.stat_result((0o100600, 7, 1, 1, 0, 0, len(self.now[number]), 0, 0, 0))

    def pread(self, number, count, offset):
        return bytes(self.now[number][offset:offset + count])

    def pwrite(self, number, octets, offset):
        self._call()
        octets = bytes(octets)
        if self.full and number == self.RECORD and offset + len(octets) > record.HEADS:
            raise OSError(28, "No space left on device")
        self._apply(self.now[number], ("write", octets, offset))
        self.pending += [(number, ("write", octets[at:at + SECTOR], offset + at))
                         for at in range(0, len(octets), SECTOR)]
        return len(octets)

    def ftruncate(self, number, size):
        self._call()
        self._apply(self.now[number], ("cut", size))
        self.pending.append((number, ("cut", size)))

    def posix_fallocate(self, number, offset, count):
        """The file grows, and may be found at any size on the way after a power cut."""
        self._call()
        before, end = len(self.now[number]), offset + count
        for size in sorted({*range(before + SECTOR, end, SECTOR), end}):
            if size > before:
                self._apply(self.now[number], ("cut", size))
                self.pending.append((number, ("grow", size)))

    def fdatasync(self, number):
        self._call()
        self.durable[number] = bytes(self.now[number])
        self.pending = [(other, change) for other, change in self.pending if other != number]

    def append(self, octets):
        """A delivery, by somebody who syncs."""
        self.now[self.MAILBOX] += octets
        self.durable[self.MAILBOX] = bytes(self.now[self.MAILBOX])

    def states_after_power_cut(self, chance):
        """Every state tried of (mailbox, record, parcel) that a power cut now may leave."""
        count = len(self.pending)
        choices = {frozenset(), frozenset(range(count))}
        choices |= {frozenset([one]) for one in range(count)}
        choices |= {frozenset(range(count)) - {one} for one in range(count)}
        choices |= {frozenset(one for one in range(count) if chance.random() < 0.5) for _ in range(4)}
        for kept in choices:
            files = {number: bytearray(octets) for number, octets in self.durable.items()}
            for index in sorted(kept):
                number, change = self.pending[index]
                self._apply(files[number], change)
            yield tuple(bytes(octets) for octets in files.values())

    def _call(self):
        self.calls += 1
        if self.calls == self.stop_at:
            raise Cut

    @staticmethod
    def _apply(octets, change):
        if change[0] == "grow":
            octets.extend(bytes(max(0, change[1] - len(octets))))
        elif change[0] == "cut":
            del octets[change[1]:]
            octets.extend(bytes(change[1] - len(octets)))
        else:
            _, new, offset = change
            octets.extend(bytes(max(0, offset - len(octets))))
            octets[offset:offset + len(new)] = new


def small(monkeypatch):
    """Figures in proportion to mailboxes of some hundred octets."""
    for name, value in {"PIECE": 96, "NARROW": 60, "GUARD": 40, "LOOK": 48}.items():
        monkeypatch.setattr(redo, name, value)
    monkeypatch.setattr(record, "HEADS", 1024)


def begin(monkeypatch, disk, **how):
    """A Redo on this disk."""
    monkeypatch.setattr(redo, "os", disk)
    monkeypatch.setattr(record, "os", disk)
    return redo.Redo(disk.MAILBOX, disk.RECORD, True, **how)
