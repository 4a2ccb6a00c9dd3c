"""Crashes and power cuts at every write of an update, on a model of a disk.

A crash keeps all that was written before it. A power cut keeps all that was synced, and of the rest any part in any
order, torn between sectors: tried are none, all, each alone, all but each, and random choices.
"""

import os
import random

import pytest

from popper.storage import redo

SECTOR = 64


class Cut(Exception):
    """The machine stopped here."""


class Disk:
    """Two files and what happened to them since each was last synced. Stands where redo looks for `os`."""

    MAILBOX, RECORD = 3, 4

    def __init__(self, mailbox, record=b""):
        self.durable = {self.MAILBOX: bytes(mailbox), self.RECORD: bytes(record)}
        self.now = {number: bytearray(octets) for number, octets in self.durable.items()}
        self.pending = []
        self.calls = 0
        self.stop_at = None
        self.full = False

    def __getattr__(self, name):
        return getattr(os, name)

    def fstat(self, number):
        return os.stat_result((0o100600, 7, 1, 1, 0, 0, len(self.now[number]), 0, 0, 0))

    def pread(self, number, count, offset):
        return bytes(self.now[number][offset:offset + count])

    def pwrite(self, number, octets, offset):
        self._call()
        octets = bytes(octets)
        if self.full and number == self.RECORD and offset + len(octets) > redo.HEADS:
            raise OSError(28, "No space left on device")
        self._apply(self.now[number], ("write", octets, offset))
        self.pending += [(number, ("write", octets[at:at + SECTOR], offset + at))
                         for at in range(0, len(octets), SECTOR)]
        return len(octets)

    def ftruncate(self, number, size):
        self._call()
        self._apply(self.now[number], ("cut", size))
        self.pending.append((number, ("cut", size)))

    def fdatasync(self, number):
        self._call()
        self.durable[number] = bytes(self.now[number])
        self.pending = [(other, change) for other, change in self.pending if other != number]

    def append(self, octets):
        """A delivery, by somebody who syncs."""
        self.now[self.MAILBOX] += octets
        self.durable[self.MAILBOX] = bytes(self.now[self.MAILBOX])

    def states_after_power_cut(self, chance):
        """Every state tried of (mailbox, record) that a power cut now may leave."""
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
            yield bytes(files[self.MAILBOX]), bytes(files[self.RECORD])

    def _call(self):
        self.calls += 1
        if self.calls == self.stop_at:
            raise Cut

    @staticmethod
    def _apply(octets, change):
        if change[0] == "cut":
            del octets[change[1]:]
            octets.extend(bytes(change[1] - len(octets)))
        else:
            _, new, offset = change
            octets.extend(bytes(max(0, offset - len(octets))))
            octets[offset:offset + len(new)] = new


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Figures in proportion to mailboxes of some hundred octets."""
    for name, value in {"PIECE": 96, "NARROW": 60, "LOOK": 48, "HEADS": 1024}.items():
        monkeypatch.setattr(redo, name, value)


def shape(name, chance):
    """(mailbox, runs that stay, where the first of them goes) for a named shape of deletion."""
    octets = bytes(chance.randrange(256) for _ in range(900))
    gone = {"first": [(0, 120)], "tiny gap": [(0, 17)], "middle": [(400, 520)], "last": [(700, 900)],
            "alternate": [(0, 90), (200, 290), (400, 410), (600, 700)], "all but one": [(0, 500), (560, 900)],
            "two small": [(10, 30), (850, 880)]}[name]
    runs = [(end, begin) for (_, end), (begin, _) in zip(gone, gone[1:] + [(900, 900)])]
    return octets, runs, gone[0][0]


SHAPES = ("first", "tiny gap", "middle", "last", "alternate", "all but one", "two small")


def begin(monkeypatch, disk):
    monkeypatch.setattr(redo, "os", disk)
    return redo.Redo(disk.MAILBOX, disk.RECORD, True)


def recovered(monkeypatch, mailbox, record, delivered=b""):
    """The mailbox as the next opener leaves it."""
    disk = Disk(mailbox, record)
    disk.append(delivered)
    begin(monkeypatch, disk).recover()
    return bytes(disk.now[Disk.MAILBOX])


@pytest.mark.parametrize("chunk", (40, 200, 4096))
@pytest.mark.parametrize("name", SHAPES)
def test_every_crash_and_every_power_cut_leaves_the_mailbox_before_or_after(monkeypatch, name, chunk):
    monkeypatch.setattr(redo, "CHUNK", chunk)
    chance = random.Random(f"{name} {chunk}")
    before, runs, to = shape(name, chance)
    after = before[:to] + b"".join(before[begin:end] for begin, end in runs)
    points = states = 0
    while True:
        disk = Disk(before)
        disk.stop_at = points + 1
        try:
            begin(monkeypatch, disk).update(runs, to, len(before))
            break
        except Cut:
            points += 1
        for delivered in (b"", b"From new mail that came after the crash\n\n"):
            crashed = recovered(monkeypatch, disk.now[Disk.MAILBOX], disk.now[Disk.RECORD], delivered)
            assert crashed in (before + delivered, after + delivered), f"crash before call {points}"
            for mailbox, record in disk.states_after_power_cut(chance):
                states += 1
                assert recovered(monkeypatch, mailbox, record, delivered) in (before + delivered, after + delivered), \
                    f"power cut before call {points}"
    assert bytes(disk.now[Disk.MAILBOX]) == after
    assert points >= 4 and states > points


@pytest.mark.parametrize("name", SHAPES)
def test_a_crash_while_recovering_is_recovered_from(monkeypatch, name):
    monkeypatch.setattr(redo, "CHUNK", 100)
    chance = random.Random(name)
    before, runs, to = shape(name, chance)
    after = before[:to] + b"".join(before[begin:end] for begin, end in runs)
    for first in range(2, 40):
        disk = Disk(before)
        disk.stop_at = first
        try:
            begin(monkeypatch, disk).update(runs, to, len(before))
            return
        except Cut:
            pass
        for second in range(1, 60):
            again = Disk(disk.now[Disk.MAILBOX], disk.now[Disk.RECORD])
            again.append(b"one more\n")
            again.stop_at = second
            try:
                begin(monkeypatch, again).recover()
                break
            except Cut:
                left = recovered(monkeypatch, again.now[Disk.MAILBOX], again.now[Disk.RECORD], b"and another\n")
                assert left in (before + b"one more\nand another\n", after + b"one more\nand another\n")


def test_deleting_works_where_the_disk_has_no_room_for_octets(monkeypatch):
    before, runs, to = shape("tiny gap", random.Random(1))
    disk = Disk(before)
    disk.full = False
    update = begin(monkeypatch, disk)
    real = disk.pwrite

    def no_room(number, octets, offset):
        if number == Disk.RECORD and offset > redo.HEADS:
            raise OSError(28, "No space left on device")
        return real(number, octets, offset)
    monkeypatch.setattr(disk, "pwrite", no_room, raising=False)
    update.update(runs, to, len(before))
    assert bytes(disk.now[Disk.MAILBOX]) == before[17:]


def interrupted(monkeypatch, calls):
    before, runs, to = shape("first", random.Random(3))
    monkeypatch.setattr(redo, "CHUNK", 200)
    disk = Disk(before)
    disk.stop_at = calls
    with pytest.raises(Cut):
        begin(monkeypatch, disk).update(runs, to, len(before))
    return disk


def test_a_record_of_another_file_is_refused_and_nothing_touched(monkeypatch):
    disk = interrupted(monkeypatch, 9)
    octets = bytes(disk.now[Disk.MAILBOX])
    other = Disk(octets, disk.now[Disk.RECORD])
    other.fstat = lambda number: os.stat_result((0o100600, 8, 1, 1, 0, 0, len(other.now[number]), 0, 0, 0))
    with pytest.raises(redo.Foreign, match="another file"):
        begin(monkeypatch, other).recover()
    assert bytes(other.now[Disk.MAILBOX]) == octets


def test_a_mailbox_that_shrank_in_between_is_refused_and_nothing_touched(monkeypatch):
    disk = interrupted(monkeypatch, 9)
    octets = bytes(disk.now[Disk.MAILBOX])[:300]
    other = Disk(octets, disk.now[Disk.RECORD])
    with pytest.raises(redo.Foreign, match="shorter"):
        begin(monkeypatch, other).recover()
    assert bytes(other.now[Disk.MAILBOX]) == octets


def test_a_damaged_list_of_runs_is_refused(monkeypatch):
    disk = interrupted(monkeypatch, 9)
    record = bytearray(disk.now[Disk.RECORD])
    record[redo.HEADS] ^= 1
    with pytest.raises(redo.Foreign, match="list"):
        begin(monkeypatch, Disk(disk.now[Disk.MAILBOX], record)).recover()
