"""The redo record: what lets an update in place survive a crash at any instruction, and a power cut.

An update moves runs of kept octets down over deleted ones, step by step, and then cuts the file. A step is made
repeatable before it begins: the record, synced, says from where to where and how many octets, and holds the octets
themselves where the step overwrites its own source. Only when a step is on disk does the next one begin. Whoever
opens the mailbox next and finds a record finishes the update, and carries along what was delivered since.

    what the head of the record says            what the mailbox looks like           what the next opener does
    nothing, or nothing whole                   as before                             forgets the record
    COPY: source and target do not overlap      step begun, done, or not begun        copies again, goes on
    RECORDED, and the target has the octets     step done                             goes on
    RECORDED, and the record has them           step begun                            writes them, goes on
    RECORDED, and the source has them           step not begun                        does it, goes on
    CUT, and what is to go is still there       all moved                             moves what came since, cuts
    CUT, and it is not                          cut already                           forgets the record
    anything else                               somebody rewrote it in between        refuses, touches nothing

Two heads are written in turn, a sector each, so one is whole whatever tears. Extra disk: CHUNK and sixteen octets
for each run; memory: PIECE.
"""

import errno
import os
import struct
import time
from binascii import crc32

CHUNK = 16777216               # octets of a step that are recorded at most
PIECE = 1048576                # octets read and written at once
NARROW = 262144                # a gap smaller than this is never moved over in steps of its own width
RECORDING = 1.5e9              # octets a second: what recording costs, beside what a sync costs
LOOK = 65536                   # octets of what is to be cut off, by which it is known again
HEADS = 4096                   # room for the heads; the runs follow
MAGIC = b"popredo1"
COPY, RECORDED, CUT = 1, 2, 3
HEAD = struct.Struct("<8s11QI")              # magic, the fields of Head, checksum
FIELDS = ("turn", "inode", "base", "size", "count", "runs_check", "state", "index", "source", "to", "length")


class Foreign(Exception):
    """A record that does not fit the mailbox; the text says why. Neither has been touched."""


class Head:
    """One state of an update. turn: counts up. base: size of the mailbox when the update began; size: with what has
    been delivered since. count, runs_check: of the list of runs. state: above. index: the run being moved; `count`
    is what was delivered since. source, to, length: the step; in CUT, `to` is where the file is to end. check: of the
    step's octets; in CUT, of the first LOOK octets that are to go."""

    __slots__ = (*FIELDS, "check")

    def __init__(self, *values: int) -> None:
        for name, value in zip(self.__slots__, values):
            setattr(self, name, value)

    def packed(self) -> bytes:
        octets = HEAD.pack(MAGIC, *(getattr(self, name) for name in FIELDS), self.check)
        return octets + struct.pack("<I", crc32(octets))

    @classmethod
    def unpacked(cls, octets: bytes) -> "Head | None":
        octets, check = octets[:HEAD.size], octets[HEAD.size:HEAD.size + 4]
        if octets[:8] != MAGIC or check != struct.pack("<I", crc32(octets)):
            return None
        return cls(*HEAD.unpack(octets)[1:])


class Redo:
    """An update and its record. mailbox, record: descriptors. sync: make it durable; sync_name: the record's name."""

    def __init__(self, mailbox: int, record: int, sync: bool, sync_name=None) -> None:
        self.mailbox = mailbox
        self.record = record
        self.sync = os.fdatasync if sync else (lambda descriptor: None)
        self.sync_name = sync_name if sync else None
        self.sync_takes = 0.0
        self.runs: "list[tuple[int, int]]" = []
        self.begun = False                   # a head has been written: the mailbox may have been touched
        self.head = Head(0, os.fstat(mailbox).st_ino, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def update(self, runs: "list[tuple[int, int]]", to: int, size: int) -> None:
        """Move the runs (begin, end) down, the first one to `to`, and cut the file of `size` octets behind them."""
        runs = [run for run in runs if run[0] < run[1]]
        octets = b"".join(struct.pack("<QQ", *run) for run in runs)
        self.head.base = self.head.size = size
        self.head.count, self.head.runs_check = len(runs), crc32(octets)
        self.runs = runs
        if runs:
            os.pwrite(self.record, octets, HEADS)
            self.sync(self.record)           # before any head: a head without its list would be a riddle
        self._go_on(0, 0, to)

    def recover(self) -> str:
        """Finish what the record tells of. -> what was done, as words for the log. Raises Foreign."""
        head = self._newest()
        if head is None:
            return "an update that had not begun was forgotten"
        self.head = head
        status = os.fstat(self.mailbox)
        if head.inode != status.st_ino:
            raise Foreign("it belongs to another file")
        octets = os.pread(self.record, head.count * 16, HEADS)
        if crc32(octets) != head.runs_check:
            raise Foreign("its list is damaged")
        self.runs = list(struct.iter_unpack("<QQ", octets))
        if head.state == CUT:
            if status.st_size < head.size or self._check(self.mailbox, head.to, self._look()) != head.check:
                return "an update that was finished was found"
            index, at, to = head.count, head.size, head.to
        else:
            if status.st_size < head.size:
                raise Foreign("the mailbox is shorter than it was")
            self._repeat()
            index, at, to = head.index, head.source + head.length, head.to + head.length
        delivered = status.st_size - head.base
        head.size = status.st_size
        self._go_on(index, at, to)
        return f"an interrupted update was finished; {delivered} octets delivered since were kept"

    # -- steps ---------------------------------------------------------------------------------------------------

    def _go_on(self, index: int, at: int, to: int) -> None:
        """Move all that is from octet `at` of run `index` on, and cut the file."""
        head = self.head
        while True:
            runs = self.runs + [(head.base, head.size)]
            while index < len(runs):
                begin, end = runs[index]
                at = max(at, begin)
                while at < end:
                    length = self._step(index, at, to, end - at)
                    at += length
                    to += length
                index += 1
            size = os.fstat(self.mailbox).st_size
            if size <= head.size:
                break
            # Somebody appended who minds no lock of ours.
            index, at, head.size = head.count, head.size, size
        head.to = to
        head.check = self._check(self.mailbox, to, self._look())
        self._announce(CUT)
        os.ftruncate(self.mailbox, to)
        self.sync(self.mailbox)

    def _step(self, index: int, source: int, to: int, most: int) -> int:
        """Do one step: announce it, do it, have it on disk. -> its length."""
        head, gap = self.head, source - to
        head.index, head.source, head.to = index, source, to
        # Steps as wide as the gap need no recording, but two syncs each: cheap only where a sync is.
        overlaps = gap < most and (gap < NARROW or 2 * self.sync_takes >= gap / RECORDING)
        if overlaps and self._recorded(source, min(CHUNK, most)):
            self._announce(RECORDED)
            self._copy(self.record, self._place(), self.mailbox, to, head.length)
        else:
            head.length, head.check = min(gap, most), 0
            self._announce(COPY)
            self._copy(self.mailbox, source, self.mailbox, to, head.length)
        self.sync(self.mailbox)
        return head.length

    def _recorded(self, source: int, length: int) -> bool:
        """Put the octets of a step into the record. False: there is no room. Deleting mail must work on a full disk,
        so small steps without recording it is then."""
        self.head.length = length
        try:
            self.head.check = self._copy(self.mailbox, source, self.record, self._place(), length)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise
        return True

    def _repeat(self) -> None:
        """Do the step that the head tells of, unless it was done."""
        head = self.head
        if head.state == COPY:
            self._copy(self.mailbox, head.source, self.mailbox, head.to, head.length)
        elif self._check(self.mailbox, head.to, head.length) == head.check:
            return
        elif self._check(self.record, self._place(), head.length) == head.check:
            self._copy(self.record, self._place(), self.mailbox, head.to, head.length)
        elif self._check(self.mailbox, head.source, head.length) == head.check:
            self._step(head.index, head.source, head.to, head.length)
        else:
            raise Foreign("the mailbox has been changed since")
        self.sync(self.mailbox)

    # -- octets --------------------------------------------------------------------------------------------------

    def _announce(self, state: int) -> None:
        """Put the head on disk, in the place of the older of the two."""
        head = self.head
        head.state, head.turn = state, head.turn + 1
        self.begun = True
        os.pwrite(self.record, head.packed(), head.turn % 2 * 512)
        begun = time.monotonic()
        self.sync(self.record)
        self.sync_takes = time.monotonic() - begun
        if self.sync_name is not None:
            self.sync_name()
            self.sync_name = None

    def _newest(self) -> "Head | None":
        octets = os.pread(self.record, 1024, 0)
        heads = [Head.unpacked(octets[:512]), Head.unpacked(octets[512:])]
        return max((head for head in heads if head is not None), key=lambda head: head.turn, default=None)

    def _place(self) -> int:
        """Where in the record the octets of a step stand."""
        return -(-(HEADS + self.head.count * 16) // HEADS) * HEADS

    def _look(self) -> int:
        return min(LOOK, self.head.size - self.head.to)

    def _check(self, descriptor: int, offset: int, length: int) -> int:
        check, end = 0, offset + length
        while offset < end:
            octets = os.pread(descriptor, min(PIECE, end - offset), offset)
            if not octets:
                return -1
            check = crc32(octets, check)
            offset += len(octets)
        return check

    def _copy(self, source: int, at: int, target: int, to: int, length: int) -> int:
        """Copy octets upwards in offset, so that a target below its source is right. -> their checksum."""
        check, end = 0, at + length
        while at < end:
            octets = os.pread(source, min(PIECE, end - at), at)
            if not octets:
                raise OSError(errno.EIO, "file ended early")
            check = crc32(octets, check)
            at += len(octets)
            octets = memoryview(octets)
            while octets:
                written = os.pwrite(target, octets, to)
                to += written
                octets = octets[written:]
        return check
