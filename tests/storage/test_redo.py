"""Crashes and power cuts at every write of an update, on a model of a disk.

A crash keeps all that was written before it. A power cut keeps all that was synced, and of the rest any part in any
order, torn between sectors: tried are none, all, each alone, all but each, and random choices.
"""

import copy
import os
import random

import pytest
from disk import Cut, Disk, begin, small

from popper.storage import record, redo

@pytest.fixture(autouse=True)
def figures(monkeypatch):
    small(monkeypatch)


def shape(name, chance):
    """(mailbox, runs that stay, where the first of them goes) for a named shape of deletion."""
    octets = bytes(chance.randrange(256) for _ in range(900))
    gone = {"first": [(0, 120)], "tiny gap": [(0, 17)], "middle": [(400, 520)], "last": [(700, 900)],
            "alternate": [(0, 90), (200, 290), (400, 410), (600, 700)], "all but one": [(0, 500), (560, 900)],
            "two small": [(10, 30), (850, 880)]}[name]
    runs = [(end, begin) for (_, end), (begin, _) in zip(gone, gone[1:] + [(900, 900)])]
    return octets, runs, gone[0][0]


SHAPES = ("first", "tiny gap", "middle", "last", "alternate", "all but one", "two small")


def recovered(monkeypatch, mailbox, written, delivered=b""):
    """The mailbox as the next opener leaves it."""
    disk = Disk(mailbox, written)
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
            begin(monkeypatch, disk).remove(runs, to, len(before))
            break
        except Cut:
            points += 1
        for delivered in (b"", b"From new mail that came after the crash\n\n"):
            crashed = recovered(monkeypatch, disk.now[Disk.MAILBOX], disk.now[Disk.RECORD], delivered)
            assert crashed in (before + delivered, after + delivered), f"crash before call {points}"
            for mailbox, octets, _ in disk.states_after_power_cut(chance):
                states += 1
                assert recovered(monkeypatch, mailbox, octets, delivered) in (before + delivered, after + delivered), \
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
            begin(monkeypatch, disk).remove(runs, to, len(before))
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


@pytest.mark.parametrize("name", SHAPES)
def test_a_power_cut_while_recovering_from_a_kill(monkeypatch, name):
    """What was killed has not synced all it wrote: the next one may build on it only when it is on disk."""
    monkeypatch.setattr(redo, "CHUNK", 100)
    chance = random.Random(name)
    before, runs, to = shape(name, chance)
    after = before[:to] + b"".join(before[begin:end] for begin, end in runs)
    for first in range(1, 60):
        disk = Disk(before)
        disk.stop_at = first
        try:
            begin(monkeypatch, disk).remove(runs, to, len(before))
            return
        except Cut:
            pass
        for second in range(1, 60):
            again = copy.deepcopy(disk)
            again.stop_at = again.calls + second
            try:
                begin(monkeypatch, again).recover()
                again.now[Disk.RECORD].clear()           # forgotten
                again.durable[Disk.RECORD] = b""
                ended = True
            except Cut:
                ended = False
            for mailbox, octets, _ in again.states_after_power_cut(chance):
                assert recovered(monkeypatch, mailbox, octets) in (before, after), (first, second)
            if ended:
                break


def test_a_reader_that_rewrote_what_was_to_be_cut_off_loses_no_new_mail(monkeypatch):
    """Killed with CUT announced; then a reader takes the last octets away, and more than that is delivered."""
    before, runs, to = shape("first", random.Random(3))
    monkeypatch.setattr(redo, "CHUNK", 200)
    for stop in range(1, 60):
        disk = Disk(before)
        disk.stop_at = stop
        with pytest.raises(Cut):
            begin(monkeypatch, disk).remove(runs, to, len(before))
        head = record.Record(Disk.RECORD, None).newest()
        if head is not None and head.state == redo.CUT:
            break
    disk.stop_at = None
    del disk.now[Disk.MAILBOX][850:]
    disk.append(b"From new mail, longer than what was taken away " * 5)
    octets = bytes(disk.now[Disk.MAILBOX])
    with pytest.raises(record.Foreign, match="changed since"):
        begin(monkeypatch, disk).recover()
    assert bytes(disk.now[Disk.MAILBOX]) == octets


@pytest.mark.parametrize("when", ("before", "after"))
def test_who_appends_and_minds_no_lock_is_carried_along(monkeypatch, when):
    """Before and after it is announced that the end is to be cut off."""
    monkeypatch.setattr(redo, "CHUNK", 200)
    before, runs, to = shape("first", random.Random(3))
    disk = Disk(before)
    update = begin(monkeypatch, disk)
    real, late = update._announce, [b"From somebody who is late\n\n"]

    def announce(state):
        if state == redo.CUT and when == "before" and late:
            disk.append(late.pop())
        real(state)
        if state == redo.CUT and late:
            disk.append(late.pop())
    update._announce = announce
    update.remove(runs, to, len(before))
    assert bytes(disk.now[Disk.MAILBOX]) == before[120:] + b"From somebody who is late\n\n"


def test_deleting_works_where_the_disk_has_no_room_for_octets(monkeypatch):
    before, runs, to = shape("tiny gap", random.Random(1))
    disk = Disk(before)
    disk.full = False
    update = begin(monkeypatch, disk)
    real = disk.pwrite

    def no_room(number, octets, offset):
        if number == Disk.RECORD and offset > record.HEADS:
            raise OSError(28, "No space left on device")
        return real(number, octets, offset)
    monkeypatch.setattr(disk, "pwrite", no_room, raising=False)
    update.remove(runs, to, len(before))
    assert bytes(disk.now[Disk.MAILBOX]) == before[17:]


def interrupted(monkeypatch, calls):
    before, runs, to = shape("first", random.Random(3))
    monkeypatch.setattr(redo, "CHUNK", 200)
    disk = Disk(before)
    disk.stop_at = calls
    with pytest.raises(Cut):
        begin(monkeypatch, disk).remove(runs, to, len(before))
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


@pytest.mark.parametrize("recording", (1e9, 1e-3))
def test_a_mailbox_that_somebody_rewrote_in_between_is_refused_and_nothing_touched(monkeypatch, recording):
    """The same file, not shorter: only its octets tell."""
    monkeypatch.setattr(redo, "CHUNK", 200)
    monkeypatch.setattr(redo, "RECORDING", recording)
    before, runs, to = shape("first", random.Random(3))
    tried = 0
    for stop in range(1, 60):
        disk = Disk(before)
        disk.stop_at = stop
        try:
            begin(monkeypatch, disk).remove(runs, to, len(before))
            break
        except Cut:
            head = record.Record(Disk.RECORD, None).newest()
        if head is None or head.state not in (redo.COPY, redo.RECORDED):
            continue
        tried += 1
        other = Disk(random.Random(stop).randbytes(1000), disk.now[Disk.RECORD])
        octets = bytes(other.now[Disk.MAILBOX])
        with pytest.raises(record.Foreign, match="changed since"):
            begin(monkeypatch, other).recover()
        assert bytes(other.now[Disk.MAILBOX]) == octets
    assert tried > 3


def test_a_delivery_that_was_not_on_disk_yet_is_before_anything_else(monkeypatch):
    """Otherwise a power cut could leave a record that speaks of octets which never came."""
    monkeypatch.setattr(redo, "CHUNK", 200)
    before, runs, to = shape("first", random.Random(3))
    chance = random.Random(5)
    for stop in range(1, 60):
        disk = Disk(before[:800])
        disk.pwrite(Disk.MAILBOX, before[800:], 800)
        disk.calls, disk.stop_at = 0, stop
        try:
            begin(monkeypatch, disk).remove(runs, to, len(before))
            break
        except Cut:
            for mailbox, octets, _ in disk.states_after_power_cut(chance):
                left = recovered(monkeypatch, mailbox, octets)
                assert left == before[120:] or left.startswith(before[:800])


def test_a_damaged_list_of_runs_is_refused(monkeypatch):
    disk = interrupted(monkeypatch, 9)
    octets = bytearray(disk.now[Disk.RECORD])
    octets[record.HEADS] ^= 1
    with pytest.raises(redo.Foreign, match="plan"):
        begin(monkeypatch, Disk(disk.now[Disk.MAILBOX], octets)).recover()
