"""The record of an update as a file: two heads that are written in turn, the plan, and the octets of one step.

A head has a sector to itself, so one of the two is whole whatever tears. Behind them come the segments of the plan
and what is to be inserted, then room for the octets of a step. What the heads mean is `storage.redo`'s.
"""

import os
import struct
import time
from binascii import crc32

HEADS = 4096                   # room for the heads
MAGIC = b"popredo2"
FIELDS = ("turn", "state", "up", "inode", "base", "size", "front", "count", "literal", "listed", "to", "length",
          "check", "guard", "receipt", "parcel", "parcel_check")
HEAD = struct.Struct(f"<8s{len(FIELDS)}Q")
SEGMENT = struct.Struct("<QQQ")


class Foreign(Exception):
    """A record that does not fit the mailbox; the text says why. Neither has been touched."""


class Head:
    """One state of an update. turn: counts up. up: whether it inserts. base: size of the mailbox when the update
    began; size: with what has been delivered since, or with what is inserted. front: where the plan begins. count:
    of its segments; literal: octets of what is to be inserted; listed: checksum of both. to, length: the step; in
    CUT, `to` is where the file is to end. check: of the step's octets; in CUT, of the first LOOK octets that are to
    go. guard: of octets around the step. receipt: the number to be noted. parcel, parcel_check: octets and checksum
    of what the parcel held."""

    __slots__ = FIELDS

    def __init__(self, *values: int) -> None:
        for name, value in zip(FIELDS, values):
            setattr(self, name, value)

    def packed(self) -> bytes:
        octets = HEAD.pack(MAGIC, *(getattr(self, name) for name in FIELDS))
        return octets + struct.pack("<I", crc32(octets))

    @classmethod
    def unpacked(cls, octets: bytes) -> "Head | None":
        octets, check = octets[:HEAD.size], octets[HEAD.size:HEAD.size + 4]
        if check != struct.pack("<I", crc32(octets)) or octets[:8] != MAGIC:
            return None
        return cls(*HEAD.unpack(octets)[1:])


class Record:
    """The file behind a descriptor. sync(descriptor): make it durable; sync_name(): its name as well."""

    def __init__(self, descriptor: int, sync, sync_name=None) -> None:
        self.descriptor = descriptor
        self.sync = sync
        self.sync_name = sync_name
        self.sync_takes = 0.0                # seconds, of late

    def announce(self, head: Head) -> None:
        """Put the head on disk, in the place of the older of the two."""
        head.turn += 1
        write(self.descriptor, head.packed(), head.turn % 2 * 512)
        begun = time.monotonic()
        self.sync(self.descriptor)
        takes = time.monotonic() - begun     # nothing else is dirty in this file
        self.sync_takes = (3 * self.sync_takes + takes) / 4 if self.sync_takes else takes
        self.sync_its_name()

    def sync_its_name(self) -> None:
        if self.sync_name is not None:
            self.sync_name()
            self.sync_name = None

    def newest(self) -> "Head | None":
        """The head that counts, or None when none was ever written whole."""
        octets = os.pread(self.descriptor, 1024, 0)
        for half in (octets[:8], octets[512:520]):
            if half[:7] == MAGIC[:7] and half != MAGIC and half[7:].isdigit():   # and not the beginning of one of ours
                raise Foreign("another version of popper wrote it")
        heads = [Head.unpacked(octets[:512]), Head.unpacked(octets[512:])]
        return max((head for head in heads if head is not None), key=lambda head: head.turn, default=None)

    @staticmethod
    def room(count: int) -> int:
        """Where in the file that begins which is to be inserted, when the plan has `count` segments."""
        return HEADS + count * SEGMENT.size

    def put_plan(self, head: Head, segments: "list[tuple[int, int, int]]", literal: bytes) -> None:
        """Write a plan, before any head: a head without it would be a riddle."""
        octets = b"".join(SEGMENT.pack(*segment) for segment in segments) + literal
        head.count, head.literal, head.listed = len(segments), len(literal), crc32(octets)
        if octets:                           # and room for the heads, so that writing one allocates nothing
            write(self.descriptor, bytes(HEADS) + octets, 0)
            self.sync(self.descriptor)

    def plan(self, head: Head) -> "list[tuple[int, int, int]]":
        """The segments that a head speaks of; raises Foreign."""
        length = head.count * SEGMENT.size
        octets = os.pread(self.descriptor, length + head.literal, HEADS)
        if crc32(octets) != head.listed:
            raise Foreign("its plan is damaged")
        return list(SEGMENT.iter_unpack(octets[:length]))

    @staticmethod
    def place(head: Head) -> int:
        """Where the octets of a step stand."""
        return -(-(Record.room(head.count) + head.literal) // HEADS) * HEADS


def write(target: int, octets: bytes, to: int) -> None:
    """Write all of it."""
    rest = memoryview(octets)
    while rest:
        written = os.pwrite(target, rest, to)
        to += written
        rest = rest[written:]
