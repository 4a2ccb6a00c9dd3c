"""The redo record: what lets an update in place survive a crash at any instruction, and a power cut.

An update rearranges a mailbox by a plan (`storage.plan`), step by step. *Removing* moves octets down over deleted
ones, from the front, and then cuts the file. *Inserting* makes the file longer and moves octets up, from the end. A
step is made repeatable before it begins: the record, synced, says what is to stand where, and holds the octets
themselves where the step overwrites its own source. Only when a step is on disk does the next one begin. Whoever
opens the mailbox next and finds a record finishes the update, and carries along what was delivered since. README.md
has the table of states and what is done about each.

    removing     COPY or RECORDED, for each step; CUT
    inserting    GROW; COPY or RECORDED, for each step; PLACED

COPY: the step does not overwrite what it reads, and can be done again. RECORDED: it does, and the record has the
octets. CUT: all has moved, the end is to be cut off. GROW: NULs are being added, nothing has moved. PLACED: all is
where it belongs, the rest is done elsewhere.

The *parcel* is a file whose mail was inserted: it is emptied when that is on disk. The *receipt* is a number that
somebody notes elsewhere; when he cannot, what was inserted is taken out again. Two heads are written in turn, a
sector each, so one is whole whatever tears. Extra disk: CHUNK, 24 octets for each segment, and what is inserted;
memory: PIECE, and what is inserted.
"""

import errno
import os
from binascii import crc32

from popper.errors import Refused
from popper.storage.plan import MAILBOX, PARCEL, RECORD, Plan
from popper.storage.record import FIELDS, Foreign, Head, Record, write

CHUNK = 16777216               # octets of a step that are recorded at most
PIECE = 1048576                # octets read and written at once
NARROW = 32768                 # a gap smaller than this is never moved over in steps of its own width
RECORDING = 1e9                # octets a second: what recording costs, beside what a sync costs
GUARD = 4096                   # octets below a step, and at the end, by which the mailbox is known again
LOOK = 65536                   # octets of what is to be cut off, by which it is known again
GROW, COPY, RECORDED, CUT, PLACED = range(1, 6)
NO_SUM = 1 << 32               # no checksum at all


class Redo:
    """An update and its record. mailbox, record: descriptors. sync: make it durable; sync_name: the record's name.
    parcel: a descriptor, or None. noted(number): writes a receipt, or raises. alive(): called again and again."""

    def __init__(self, mailbox: int, record: int, sync: bool, sync_name=None, parcel: "int | None" = None,
                 noted=lambda number: None, alive=lambda: None) -> None:
        self.mailbox = mailbox
        self.sync = os.fdatasync if sync else (lambda descriptor: None)
        self.record = Record(record, self.sync, sync_name if sync else None)
        self.sources = {MAILBOX: mailbox, RECORD: record, PARCEL: parcel}
        self.noted = noted
        self.alive = alive
        self.segments: "list[tuple[int, int, int]]" = []
        self.begun = False                   # a head has been written: the mailbox may have been touched
        self.head = Head(*[0] * len(FIELDS))
        self.head.inode = os.fstat(mailbox).st_ino

    def remove(self, runs: "list[tuple[int, int]]", to: int, size: int) -> None:
        """Move the runs (begin, end) down, the first one to `to`, and cut the file of `size` octets behind them."""
        head = self.head
        head.base, head.size, head.front, head.up = size, size, to, 0
        self.sync(self.mailbox)              # who delivered may have left that undone
        self.segments = [(MAILBOX, begin, end) for begin, end in runs if begin < end]
        self.record.put_plan(head, self.segments, b"")
        self._go_down(to)

    def insert(self, segments: "list[tuple[int, int, int]]", front: int, size: int, literal: bytes = b"",
               receipt: int = 0) -> None:
        """Make these segments the mailbox from `front` on, which has `size` octets. No octet of it may move down.

        Segments of RECORD are places in `literal`. When this raises and `begun` is false, nothing has changed.
        """
        head, grow = self.head, Plan(segments, front).end - size
        head.base, head.size, head.front, head.up = size, size + grow, front, 1
        self.sync(self.mailbox)
        head.receipt = receipt
        if self.sources[PARCEL] is not None:
            head.parcel = os.fstat(self.sources[PARCEL]).st_size
            head.parcel_check = self._sum([(PARCEL, 0, head.parcel)])
        room = Record.room(len(segments))
        self.segments = [(origin, begin + room, end + room) if origin == RECORD else (origin, begin, end)
                         for origin, begin, end in segments]
        self.record.put_plan(head, self.segments, literal)
        try:
            self._grow(grow)
            self._go_up(head.size)
        except OSError:
            if head.state == GROW:
                self._take_out()
                self.begun = False
            raise
        self._settle()

    def recover(self) -> str:
        """Finish what the record tells of. -> what was done, as words for the log. Raises Foreign."""
        head = self.record.newest()
        if head is None:
            return "an update that had not begun was forgotten"
        self.head, self.begun = head, True
        self._settle_disk()
        status = os.fstat(self.mailbox)
        if head.inode != status.st_ino:
            raise Foreign("it belongs to another file")
        if head.state == PLACED:
            self._settle()
            return "an update that was finished was found"
        if head.state == GROW:
            return self._take_out() or "an update that had not begun was forgotten"
        if head.state != CUT:
            self.segments = self.record.plan(head)
            if status.st_size < head.size:
                raise Foreign("the mailbox is shorter than it was")
            self._repeat()
        elif status.st_size < head.size or self._sum([(MAILBOX, head.to, self._look())]) != head.check:
            return "an update that was finished was found"
        elif self._guard() != head.guard:
            raise Foreign("the mailbox has been changed since")
        delivered = status.st_size - (head.size if head.up else head.base)
        done = f"an interrupted update was finished; {delivered} octets delivered since were kept"
        if head.up:
            self._go_up(head.to)
            self._settle()
            return done
        if head.state == CUT:                # nothing but what has been delivered since is left to be moved
            self._carry(head.size, head.to)
        head.size = status.st_size
        self._go_down(head.to + (head.length if head.state != CUT else 0))
        return done

    def _settle_disk(self) -> None:
        """Whoever was killed left all he wrote to be read, but not all of it on disk; it is built upon now."""
        self.sync(self.sources[RECORD])
        self.record.sync_its_name()
        self.sync(self.mailbox)
        if self.sources[PARCEL] is not None:
            self.sync(self.sources[PARCEL])

    # -- removing ------------------------------------------------------------------------------------------------

    def _go_down(self, to: int) -> None:
        """Put in place all that belongs behind `to`, and cut the file."""
        head = self.head
        while True:
            plan = Plan([*self.segments, (MAILBOX, head.base, head.size)], head.front)
            while to < plan.end:
                most, room = plan.end - to, plan.room_below(to)
                length = min(CHUNK, most)
                # Steps as wide as the room need no recording, but two syncs each: cheap only where a sync is.
                if room >= most or not self._overlapping(room) or not self._recorded(plan, to, length):
                    length = min(room, most)
                    self._copied(plan, to, length)
                to += length
            if self._grown():
                continue
            head.to, head.length = to, 0
            head.check, head.guard = self._sum([(MAILBOX, to, self._look())]), self._guard()
            self._announce(CUT)
            before = head.size
            if not self._grown():
                break
            self._carry(before, to)
        os.ftruncate(self.mailbox, to)
        self.sync(self.mailbox)

    def _grown(self) -> bool:
        """Whether somebody has appended who minds no lock of ours."""
        size = os.fstat(self.mailbox).st_size
        if size <= self.head.size:
            return False
        self.head.size = size
        return True

    # -- inserting -----------------------------------------------------------------------------------------------

    def _grow(self, octets: int) -> None:
        """Make the file longer by so many NULs, with room for them on the disk: nothing has moved when there is
        none."""
        head = self.head
        self._announce(GROW)
        if octets:
            try:
                os.posix_fallocate(self.mailbox, head.base, octets)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                os.ftruncate(self.mailbox, head.size)
        self.sync(self.mailbox)
        if os.fstat(self.mailbox).st_size != head.size or os.pread(self.mailbox, 1, head.base) not in (b"", b"\0"):
            raise OSError(errno.EAGAIN, "somebody wrote who minds no lock")

    def _take_out(self) -> str:
        """Take out the NULs that are where the file was to grow, or what was inserted. -> what was done, or ""."""
        head = self.head
        end = min(os.fstat(self.mailbox).st_size, head.size)
        if head.state == GROW:
            nul = head.base
            while nul < end:
                octets = os.pread(self.mailbox, min(PIECE, end - nul), nul)
                rest = octets.lstrip(b"\0")
                nul += len(octets) - len(rest)
                if rest or not octets:
                    break
            end = nul
        if end == head.base:
            self._strip()
            return ""
        front, head.up, head.receipt, head.parcel = head.base, 0, 0, 0
        self._carry(end, front)
        head.size = os.fstat(self.mailbox).st_size
        self._go_down(front)
        return "an update that had begun was undone"

    def _strip(self) -> None:
        """Cut off NULs behind what somebody wrote, who minds no lock, where the file was just growing."""
        head, end = self.head, self.head.size
        if os.fstat(self.mailbox).st_size != end:
            return
        while end > head.base:
            least = max(head.base, end - PIECE)
            rest = os.pread(self.mailbox, end - least, least).rstrip(b"\0")
            end = least + len(rest)
            if rest:
                break
        if end < head.size:
            os.ftruncate(self.mailbox, end)
            self.sync(self.mailbox)

    def _carry(self, base: int, front: int) -> None:
        """Have a plan that says: what stands from `base` on moves down to `front`."""
        head = self.head
        head.base, head.front = base, front
        self.segments, head.count, head.literal, head.listed = [], 0, 0, crc32(b"")

    def _go_up(self, to: int) -> None:
        """Put in place all that belongs before `to`."""
        plan = Plan(self.segments, self.head.front)
        while to > plan.front:
            most, room = to - plan.front, plan.room_above(to)
            length = min(CHUNK, most)
            copies = room >= most or not self._overlapping(room)
            if copies or not self._recorded(plan, to - length, length):
                if not copies and (self.head.state == GROW or not room):
                    raise OSError(errno.ENOSPC, "No space left on device")
                length = min(room, most)
                self._copied(plan, to - length, length)
            to -= length

    def _settle(self) -> None:
        """All is where it belongs: empty the parcel, have the receipt written. Raises Unnoted."""
        head = self.head
        if head.state != PLACED:
            head.to, head.length = head.base, head.size - head.base
            head.check = self._sum([(MAILBOX, head.base, head.length)]) if head.receipt else 0
            self._announce(PLACED)
        if head.parcel and self._has_parcel():
            os.ftruncate(self.sources[PARCEL], 0)
            self.sync(self.sources[PARCEL])
        if head.receipt:
            try:
                self.noted(head.receipt)
            except (OSError, Refused) as trouble:
                if self._sum([(MAILBOX, head.to, head.length)]) == head.check:
                    self._take_out()
                raise Unnoted(str(trouble)) from trouble

    def _has_parcel(self) -> bool:
        """Whether the parcel is what it was when the update began."""
        parcel, head = self.sources[PARCEL], self.head
        return parcel is not None and os.fstat(parcel).st_size == head.parcel \
            and self._sum([(PARCEL, 0, head.parcel)]) == head.parcel_check

    # -- steps ---------------------------------------------------------------------------------------------------

    def _overlapping(self, room: int) -> bool:
        """Whether to take a wide step through the record, where `room` is what can be stepped over without."""
        return room < NARROW or 2 * self.record.sync_takes >= room / RECORDING

    def _copied(self, plan: Plan, to: int, length: int) -> None:
        """Do a step that does not overwrite what it reads: announce it, do it, have it on disk."""
        head = self.head
        if length < 1:
            raise Foreign("its plan leads nowhere")
        head.to, head.length, head.check = to, length, 0
        head.guard = self._guard()
        self._announce(COPY)
        self._copy(plan.pieces(to, length), self.mailbox, to)
        self.sync(self.mailbox)

    def _recorded(self, plan: Plan, to: int, length: int) -> bool:
        """Do a step through the record. False: there is no room for that. Deleting mail must work on a full disk, so
        small steps without recording it is then."""
        head = self.head
        try:
            check = self._copy(plan.pieces(to, length), self.sources[RECORD], self.record.place(head))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                os.ftruncate(self.sources[RECORD], self.record.place(head))      # the heads need the room
                return False
            raise
        self.sync(self.sources[RECORD])      # apart, so that the time of announcing is that of a sync
        head.to, head.length, head.check = to, length, check
        head.guard = self._guard()
        self._announce(RECORDED)
        self._copy([(RECORD, self.record.place(head), length)], self.mailbox, to)
        self.sync(self.mailbox)
        return True

    def _repeat(self) -> None:
        """Do the step that the head tells of, unless it was done."""
        head = self.head
        tail = [] if head.up else [(MAILBOX, head.base, head.size)]
        pieces = list(Plan(self.segments + tail, head.front).pieces(head.to, head.length))
        if head.parcel and not self._has_parcel():
            raise Foreign("the mail that was to be merged has been changed since")
        if self._guard() != head.guard:
            raise Foreign("the mailbox has been changed since")
        if head.state == RECORDED:
            recorded = [(RECORD, self.record.place(head), head.length)]
            if self._sum([(MAILBOX, head.to, head.length)]) == head.check:
                return
            if self._sum(recorded) != head.check:
                if self._sum(pieces) != head.check:
                    raise Foreign("the mailbox has been changed since")
                self._copy(pieces, self.sources[RECORD], self.record.place(head))
                self.sync(self.sources[RECORD])
            pieces = recorded
        self._copy(pieces, self.mailbox, head.to)
        self.sync(self.mailbox)

    def _guard(self) -> int:
        """The checksum of octets that a step does not touch: those below it, and the last ones of the mailbox."""
        head = self.head
        least, last = max(0, head.to - GUARD), max(head.to + head.length, head.size - GUARD)
        return self._sum([(MAILBOX, least, head.to - least), (MAILBOX, last, head.size - last)])

    def _announce(self, state: int) -> None:
        self.head.state, self.begun = state, True
        self.record.announce(self.head)

    def _look(self) -> int:
        return min(LOOK, self.head.size - self.head.to)

    # -- octets --------------------------------------------------------------------------------------------------

    def _octets(self, pieces):
        """The octets of pieces (origin, offset, count), not much more than PIECE at a time."""
        gathered, size = [], 0
        for origin, offset, count in pieces:
            while count:
                octets = os.pread(self.sources[origin], min(PIECE, count), offset)
                if not octets:
                    raise OSError(errno.EIO, "file ended early")
                offset += len(octets)
                count -= len(octets)
                gathered.append(octets)
                size += len(octets)
                if size >= PIECE:
                    yield b"".join(gathered)
                    gathered, size = [], 0
        yield b"".join(gathered)

    def _sum(self, pieces) -> int:
        """The checksum of pieces; NO_SUM when a file ends before them."""
        check = 0
        try:
            for octets in self._octets(pieces):
                check = crc32(octets, check)
        except OSError as error:
            if error.errno != errno.EIO or error.args[1] != "file ended early":
                raise
            return NO_SUM
        return check

    def _copy(self, pieces, target: int, to: int) -> int:
        """Copy pieces to a place that none of them reaches into. -> their checksum."""
        check = 0
        for octets in self._octets(pieces):
            if target == self.sources[RECORD]:
                check = crc32(octets, check)
            write(target, octets, to)
            to += len(octets)
            self.alive()
        return check


class Unnoted(Exception):
    """The receipt could not be written; what was inserted has been taken out again."""
