"""Crashes and power cuts while something is put into a mailbox: mail of an older popper in front, bulletins behind,
marks in between (the model of a disk is `disk`)."""

import copy
import random

import pytest
from disk import Cut, Disk, begin, small

from popper.storage import record, redo
from popper.storage.plan import MAILBOX, PARCEL, RECORD, inserting

BEFORE = random.Random(9).randbytes(700).replace(b"\0", b"\1")       # a mailbox has no NULs to speak of
PARCELS = {"narrow": BEFORE[:23], "wide": BEFORE[:300][::-1]}
BULLETIN = random.Random(8).randbytes(150).replace(b"\0", b"\1")
DELIVERED = b"From new mail that came after the crash\n\n"


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    small(monkeypatch)


class Site:
    """A disk, and the place where receipts are noted."""

    def __init__(self, mailbox=BEFORE, written=b"", parcel=b"", noted=0):
        self.disk = Disk(mailbox, written, parcel)
        self.noted = noted
        self.refuses = False

    def note(self, number):
        if self.noted >= number:
            return
        self.disk._call()
        if self.refuses:
            raise OSError(30, "Read-only file system")
        self.noted = number

    def begin(self, monkeypatch):
        return begin(monkeypatch, self.disk, parcel=Disk.PARCEL, noted=self.note)

    def after_crash(self):
        return Site(*(bytes(octets) for octets in self.disk.now.values()), self.noted)

    def killed(self):
        """The same, all that was written still there to be read, and no more of it on disk than was."""
        site = Site(noted=self.noted)
        site.disk = copy.deepcopy(self.disk)
        return site

    def after_power_cuts(self, chance):
        return [Site(*files, self.noted) for files in self.disk.states_after_power_cut(chance)]

    def recovered(self, monkeypatch, delivered=b"", refuses=False):
        """(mailbox, parcel, noted) as the next opener leaves them."""
        self.disk.append(delivered)
        self.refuses = refuses
        try:
            self.begin(monkeypatch).recover()
        except redo.Unnoted:
            assert refuses
        return bytes(self.disk.now[Disk.MAILBOX]), bytes(self.disk.now[Disk.PARCEL]), self.noted


def merge(site, monkeypatch):
    octets = len(site.disk.now[Disk.PARCEL])
    site.begin(monkeypatch).insert([(PARCEL, 0, octets), (RECORD, 0, 1), (MAILBOX, 0, 700)], 0, 700, b"\n")


def mark(site, monkeypatch):
    segments, front, literal = inserting([(100, 0, b"Status: RO\n"), (300, 2, b" RO"), (650, 0, b"Status: RO\n")], 700)
    site.begin(monkeypatch).insert(segments, front, 700, literal)


def add(site, monkeypatch):
    site.begin(monkeypatch).insert([(RECORD, 0, len(BULLETIN))], 700, 700, BULLETIN, 23)


MARKED = BEFORE[:100] + b"Status: RO\n" + BEFORE[100:300] + b" RO" + BEFORE[302:650] + b"Status: RO\n" + BEFORE[650:]
CASES = {                                    # name: (what is done, parcel, states (mailbox, parcel, noted) that are right)
    "merge narrow": (merge, PARCELS["narrow"], [(BEFORE, PARCELS["narrow"], 0), (PARCELS["narrow"] + b"\n" + BEFORE, b"", 0)]),
    "merge wide": (merge, PARCELS["wide"], [(BEFORE, PARCELS["wide"], 0), (PARCELS["wide"] + b"\n" + BEFORE, b"", 0)]),
    "mark": (mark, b"", [(BEFORE, b"", 0), (MARKED, b"", 0)]),
    "append": (add, b"", [(BEFORE, b"", 0), (BEFORE + BULLETIN, b"", 23)]),
}


def every_crash(monkeypatch, work, parcel):
    """Sites that were cut short in this work at one call after the other."""
    stop = 1
    while True:
        site = Site(parcel=parcel)
        site.disk.stop_at = stop
        try:
            work(site, monkeypatch)
            return
        except Cut:
            yield site
        stop += 1


def right(states, delivered):
    return [(mailbox + delivered, parcel, noted) for mailbox, parcel, noted in states]


@pytest.mark.parametrize("recording", (1.5e9, 1e-3))          # dear, or cheap beside a sync
@pytest.mark.parametrize("chunk", (40, 200, 4096))
@pytest.mark.parametrize("name", CASES)
def test_every_crash_and_every_power_cut_leaves_all_before_or_all_after(monkeypatch, name, chunk, recording):
    monkeypatch.setattr(redo, "CHUNK", chunk)
    monkeypatch.setattr(redo, "RECORDING", recording)
    work, parcel, states = CASES[name]
    chance = random.Random(f"{name} {chunk}")
    points = 0
    for site in every_crash(monkeypatch, work, parcel):
        points += 1
        for delivered in (b"", DELIVERED):
            assert site.after_crash().recovered(monkeypatch, delivered) in right(states, delivered), f"crash {points}"
            for cut in site.after_power_cuts(chance):
                assert cut.recovered(monkeypatch, delivered) in right(states, delivered), f"power cut {points}"
    assert points > 8


@pytest.mark.parametrize("name", CASES)
def test_all_is_done_when_nothing_happens(monkeypatch, name):
    work, parcel, states = CASES[name]
    site = Site(parcel=parcel)
    work(site, monkeypatch)
    assert (bytes(site.disk.now[Disk.MAILBOX]), bytes(site.disk.now[Disk.PARCEL]), site.noted) == states[1]
    assert {number: bytes(octets) for number, octets in site.disk.now.items()} == site.disk.durable


@pytest.mark.parametrize("name", CASES)
def test_a_crash_while_recovering_is_recovered_from(monkeypatch, name):
    monkeypatch.setattr(redo, "CHUNK", 100)
    work, parcel, states = CASES[name]
    for site in every_crash(monkeypatch, work, parcel):
        for second in range(1, 60):
            again = site.after_crash()
            again.disk.append(b"one more\n")
            again.disk.stop_at = second
            try:
                again.begin(monkeypatch).recover()
                break
            except Cut:
                left = again.after_crash().recovered(monkeypatch, b"and another\n")
                assert left in right(states, b"one more\nand another\n")


@pytest.mark.parametrize("name", CASES)
def test_a_power_cut_while_recovering_from_one(monkeypatch, name):
    monkeypatch.setattr(redo, "CHUNK", 100)
    work, parcel, states = CASES[name]
    chance = random.Random(name)
    for site in every_crash(monkeypatch, work, parcel):
        for first in site.after_power_cuts(chance)[:3]:
            for stop in range(1, 30):
                again = first.after_crash()
                again.disk.stop_at = stop
                try:
                    again.begin(monkeypatch).recover()
                    break
                except Cut:
                    for second in again.after_power_cuts(chance):
                        assert second.recovered(monkeypatch, DELIVERED) in right(states, DELIVERED)


@pytest.mark.parametrize("name", CASES)
def test_a_power_cut_while_recovering_from_a_kill(monkeypatch, name):
    """What was killed has not synced all it wrote: the next one may build on it only when it is on disk."""
    monkeypatch.setattr(redo, "CHUNK", 100)
    work, parcel, states = CASES[name]
    chance = random.Random(name)
    for site in every_crash(monkeypatch, work, parcel):
        for stop in range(1, 30):
            again = site.killed()
            again.disk.stop_at = again.disk.calls + stop
            try:
                again.begin(monkeypatch).recover()
                again.disk.now[Disk.RECORD].clear()      # forgotten
                again.disk.durable[Disk.RECORD] = b""
                ended = True
            except Cut:
                ended = False
            for second in again.after_power_cuts(chance):
                assert second.recovered(monkeypatch, DELIVERED) in right(states, DELIVERED), (stop, ended)
            if ended:
                break


@pytest.mark.parametrize("delivered", (b"", DELIVERED))
def test_a_receipt_that_cannot_be_written_takes_the_bulletin_back(monkeypatch, delivered):
    monkeypatch.setattr(redo, "CHUNK", 60)
    for site in every_crash(monkeypatch, add, b""):
        mailbox, _, noted = site.after_crash().recovered(monkeypatch, delivered, refuses=True)
        assert (mailbox, noted) in ((BEFORE + delivered, 0), (BEFORE + BULLETIN + delivered, 23))
        for second in range(1, 60):
            again = site.after_crash()
            again.disk.append(delivered)
            again.refuses = True
            again.disk.stop_at = second
            try:
                again.begin(monkeypatch).recover()
                break
            except redo.Unnoted:
                break
            except Cut:
                mailbox, _, noted = again.after_crash().recovered(monkeypatch, b"more")
                assert (mailbox, noted) in ((BEFORE + delivered + b"more", 0),
                                            (BEFORE + BULLETIN + delivered + b"more", 23))


def test_a_receipt_that_is_refused_at_once_takes_the_bulletin_back(monkeypatch):
    site = Site()
    site.refuses = True
    with pytest.raises(redo.Unnoted, match="Read-only"):
        add(site, monkeypatch)
    assert (bytes(site.disk.now[Disk.MAILBOX]), site.noted) == (BEFORE, 0)


def test_what_was_changed_since_is_not_taken_back(monkeypatch):
    """Somebody has read the bulletin and written into it: his now."""
    site = Site()
    site.refuses = True
    real, done = site.note, []

    def note(number):
        done.append(site.disk.now[Disk.MAILBOX][750])
        site.disk.now[Disk.MAILBOX][750] ^= 1
        real(number)
    site.note = note
    with pytest.raises(redo.Unnoted):
        add(site, monkeypatch)
    assert done and len(site.disk.now[Disk.MAILBOX]) == 850


@pytest.mark.parametrize("name", CASES)
def test_without_room_nothing_has_changed_and_nothing_begun(monkeypatch, name):
    work, parcel, states = CASES[name]
    site = Site(parcel=parcel)

    def no_room(number, offset, count):
        site.disk.ftruncate(number, offset + count // 2)     # some of it
        raise OSError(28, "No space left on device")
    site.disk.posix_fallocate = no_room
    with pytest.raises(OSError, match="No space"):
        work(site, monkeypatch)
    assert (bytes(site.disk.now[Disk.MAILBOX]), bytes(site.disk.now[Disk.PARCEL]), site.noted) == states[0]


def test_who_minds_no_lock_and_writes_where_the_file_was_to_grow_loses_nothing(monkeypatch):
    site = Site()
    real = site.disk.posix_fallocate

    def interrupted(number, offset, count):
        site.disk.append(DELIVERED)
        real(number, offset, count)
    site.disk.posix_fallocate = interrupted
    with pytest.raises(OSError, match="minds no lock"):
        add(site, monkeypatch)
    assert bytes(site.disk.now[Disk.MAILBOX]) == BEFORE + DELIVERED and site.noted == 0


def test_mail_of_an_older_popper_that_changed_since_is_not_merged_by_halves(monkeypatch):
    monkeypatch.setattr(redo, "CHUNK", 100)
    sites = list(every_crash(monkeypatch, merge, PARCELS["wide"]))
    site = sites[len(sites) // 2].after_crash()
    site.disk.now[Disk.PARCEL][0] ^= 1
    mailbox = bytes(site.disk.now[Disk.MAILBOX])
    with pytest.raises(record.Foreign, match="merged"):
        site.begin(monkeypatch).recover()
    assert bytes(site.disk.now[Disk.MAILBOX]) == mailbox


def test_a_mailbox_that_changed_within_the_step_is_not_guessed_at(monkeypatch):
    """Neither target, nor record, nor source has the octets of the step."""
    monkeypatch.setattr(redo, "CHUNK", 100)
    seen = 0
    for site in every_crash(monkeypatch, mark, b""):
        site = site.after_crash()
        head = record.Record(Disk.RECORD, None).newest() if begin(monkeypatch, site.disk) else None
        if head is None or head.state != redo.RECORDED:
            continue
        seen += 1
        for number in (Disk.MAILBOX, Disk.RECORD):
            octets = site.disk.now[number]
            first = head.to - 40 if number == Disk.MAILBOX else record.Record.place(head)
            octets[first:] = bytes(octet ^ 1 for octet in octets[first:])
        mailbox = bytes(site.disk.now[Disk.MAILBOX])
        with pytest.raises(record.Foreign, match="changed since"):
            site.begin(monkeypatch).recover()
        assert bytes(site.disk.now[Disk.MAILBOX]) == mailbox
    assert seen


def test_a_record_of_another_version_is_not_guessed_at(monkeypatch):
    site = Site(written=b"popredo1" + bytes(2000))
    with pytest.raises(record.Foreign, match="another version"):
        site.begin(monkeypatch).recover()
