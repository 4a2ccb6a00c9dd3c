"""A small file of slots, shared by all sessions, in which counts are kept under a key: addresses, names, pairs of both.

A header, then three tables of buckets of eight slots. The place of a key is a hash with a salt of the file's own, so
nobody can aim at a bucket; where one is full the mildest goes. Tables apart, so that no flood of names pushes out
addresses, nor of either the pairs. Slots are written under flock, and read without it: each has a check sum. What they
mean is `guessers`' to say; here they fade with time.

The file is ours alone, and what is wrong with it is Unusable or OSError, or, when it
could be mended, a sentence in `trouble`.
"""

import _socket
import binascii
import errno
import fcntl
import os
import struct
import time

try:
    from _md5 import md5                     # hashlib takes 2 ms to import
except ImportError:
    from hashlib import md5

from popper.account import LONGEST_NAME

MOST_FAILURES = 1000.0         # more are not counted: an address has faded to nothing after two hours, a name after one
PATIENCE = 0.2                 # seconds to wait for the lock, which is held for microseconds
NEVER = 1e11                   # seconds: no clock says that

MAPPED = b"\0" * 10 + b"\xff\xff"            # IPv4 in IPv6 (RFC 4291, 2.5.5.2)
MAGIC = b"popper guessers\n"
VERSION = 1
HEADER = struct.Struct("<16sI16sI")          # magic, version, salt, check sum
NUMBERS = struct.Struct("<4d")               # failures, as of, next free turn, last success (pairs)
SUM = struct.Struct("<I")
HEAD = SUM.size + NUMBERS.size               # then the length of the key plus one, and the key
BUCKET = 8


class Kind:
    """One table. half: seconds in which failures fade by half."""

    def __init__(self, name: str, start: int, slots: int, width: int, half: float) -> None:
        self.name = name
        self.start = start
        self.width = width
        self.half = half
        self.slot = HEAD + 1 + width
        self.buckets = slots // BUCKET
        self.end = start + slots * self.slot

    def label(self, key: bytes) -> bytes:
        """A key as it stands in a slot, and in no empty one."""
        return bytes((len(key) + 1,)) + key.ljust(self.width, b"\0")


ADDRESS = Kind("address", 64, 1024, 16, 600)
NAME = Kind("name", ADDRESS.end, 1024, LONGEST_NAME, 300)
PAIR = Kind("pair", NAME.end, 4096, 16, 600)
SIZE = PAIR.end
SEATS = 1 << 40                # where the locks on seats begin


class Unusable(Exception):
    """What is wrong with the file, as words to follow its path."""


class Slot:
    """failures: as of the time `now`, faded; next: the next free turn; seen: the last success of a pair."""

    __slots__ = ("place", "label", "failures", "next", "seen")

    def __init__(self, place: int, label: bytes, failures: float = 0.0, turn: float = 0.0, seen: float = 0.0) -> None:
        self.place = place
        self.label = label
        self.failures = failures
        self.next = turn
        self.seen = seen

    def key(self) -> bytes:
        return self.label[1:self.label[0]]

    def packed(self, now: float) -> bytes:
        octets = NUMBERS.pack(self.failures, now, self.next, self.seen) + self.label
        return SUM.pack(binascii.crc32(octets)) + octets


def packed(address: str, prefix: int = 64) -> "bytes | None":
    """An address as 16 octets, IPv6 with nothing behind its prefix, or None for what is no address."""
    text = address.partition("%")[0]
    try:
        octets = _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except (OSError, ValueError):            # ValueError: NUL or no text at all in it
        return None
    if len(octets) == 4:
        return MAPPED + octets
    if octets.startswith(MAPPED):
        return octets
    rest = 128 - prefix
    return (int.from_bytes(octets, "big") >> rest << rest).to_bytes(16, "big")


def shown(octets: bytes, prefix: int = 64) -> str:
    """The text of what `packed` gave."""
    if octets.startswith(MAPPED):
        return _socket.inet_ntop(_socket.AF_INET, octets[12:])
    return _socket.inet_ntop(_socket.AF_INET6, octets) + (f"/{prefix}" if prefix < 128 else "")


def unpacked(kind: Kind, octets: bytes, place: int, now: float) -> "Slot | None":
    """A slot as it is now, or None where nothing whole is. Time that has not come yet is now."""
    numbers = octets[SUM.size:]
    if octets[HEAD:HEAD + 1] in (b"", b"\0") or SUM.unpack_from(octets)[0] != binascii.crc32(numbers):
        return None
    failures, then, turn, seen = NUMBERS.unpack_from(numbers)
    if not (0.0 <= failures <= MOST_FAILURES and 0.0 <= then < NEVER and 0.0 <= turn < NEVER and 0.0 <= seen < NEVER):
        return None                          # a check sum can be had by anybody, and NaN is neither less nor more
    failures *= 0.5 ** (max(0.0, now - then) / kind.half)
    return Slot(place, numbers[NUMBERS.size:], failures, turn, seen)


class Slots:
    """The file at `path`; nothing is opened yet. trouble: "" or a sentence about it, true since it was last opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.trouble = ""
        self.file: "int | None" = None
        self._process = 0
        self._header = b""

    def open(self) -> None:
        """Have the file open that is there now, or Unusable or OSError. A child opens it for itself: flock belongs to
        what was opened, and would not keep it and its parent apart."""
        if self.file is not None:
            status = os.fstat(self.file)
            if (self._process == os.getpid() and status.st_nlink == 1 and status.st_size == SIZE
                    and os.pread(self.file, HEADER.size, 0) == self._header):
                return
            self.close()
        self.trouble = ""
        for _ in range(5):                   # it may be removed between our open and our look
            file = _opened(self.path)
            try:
                if self._is_ready(file):
                    self._header = os.pread(file, HEADER.size, 0)
                    self.file, file = file, None
                    self._process = os.getpid()
                    return
            finally:
                if file is not None:
                    os.close(file)
        raise Unusable("is removed again and again")

    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            try:
                os.close(file)
            except OSError:
                pass

    def locked(self) -> "Lock":
        """To be held while slots are written. Unusable when somebody else does not let go of it."""
        return Lock(self.file)

    def sit_down(self, key: bytes, seats: int) -> bool:
        """Have one of so many seats of a key, if one is free. They are locks on octets behind the end of the file, of
        which nobody loses any when a process is killed."""
        place = SEATS + seats * int.from_bytes(md5(self._header + b"seat" + key).digest()[:5], "big")
        for number in range(seats):
            try:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place + number)
                return True
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
        return False

    def stand_up(self) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_UN, 0, SEATS)

    # -- slots ---------------------------------------------------------------------------------------------------

    def pair(self, address: bytes, name: bytes) -> bytes:
        """The key of both together."""
        return md5(self._header + b"pair" + address + name).digest()

    def find(self, kind: Kind, key: bytes, now: float) -> "Slot | None":
        """The slot of a key, or None. Without the lock, one that is being written is looked at again."""
        label = kind.label(key)
        for _ in range(3):
            place, octets = self._bucket(kind, key)
            for at in range(0, len(octets), kind.slot):
                if octets.startswith(label, at + HEAD):
                    slot = unpacked(kind, octets[at:at + kind.slot], place + at, now)
                    if slot:
                        return slot
                    break
            else:
                return None
        return None

    def find_or_make(self, kind: Kind, key: bytes, now: float) -> Slot:
        """The slot of a key, or, for a new one, a slot that is free, or else the mildest one's; of pairs, the oldest
        one's."""
        slot = self.find(kind, key, now)
        if slot:
            return slot
        place, octets = self._bucket(kind, key)
        best, least = 0, 2 * NEVER
        for at in range(0, len(octets), kind.slot):
            slot = unpacked(kind, octets[at:at + kind.slot], place + at, now)
            weight = -1.0 if slot is None else slot.seen if kind is PAIR else slot.failures
            if weight < least:
                best, least = at, weight
        return Slot(place + best, kind.label(key))

    def write(self, slot: Slot, now: float) -> None:
        _put(self.file, slot.packed(now), slot.place)

    def all(self, kind: Kind, now: float) -> "list[Slot]":
        """All slots of a table that have a key."""
        table = os.pread(self.file, kind.end - kind.start, kind.start)
        found = [unpacked(kind, table[at:at + kind.slot], kind.start + at, now)
                 for at in range(0, len(table), kind.slot)]
        return [slot for slot in found if slot]

    def _bucket(self, kind: Kind, key: bytes) -> "tuple[int, bytes]":
        """(place, octets) of the slots a key may be in."""
        digest = md5(self._header + kind.name.encode() + key).digest()
        number = int.from_bytes(digest[:8], "big") % kind.buckets
        place = kind.start + number * BUCKET * kind.slot
        return place, os.pread(self.file, BUCKET * kind.slot, place)

    # -- the file ------------------------------------------------------------------------------------------------

    def _is_ready(self, file: int) -> bool:
        """Whether a file can be used, after it was made whole if need be; not: it is gone, and to be opened again."""
        status = _checked(file)
        if status.st_nlink and status.st_size == SIZE and _is_header(os.pread(file, HEADER.size, 0)):
            return True
        with Lock(file):
            status = _checked(file)
            if not status.st_nlink:
                return False
            header = os.pread(file, HEADER.size, 0)
            if not header:
                _put(file, _new_header(), 0)
                os.ftruncate(file, SIZE)
            elif _is_header(header):
                if status.st_size != SIZE:
                    os.ftruncate(file, SIZE)
                    self.trouble = f"{self.path} had the wrong size; what is lost of it is forgotten."
            elif header[:len(MAGIC)] == MAGIC[:len(header)] or status.st_size == SIZE and not header.strip(b"\0"):
                self._discard(status)         # another file, for others may have this one open, and its salt
                return False
            else:
                raise Unusable("is some other file")
        return True

    def _discard(self, status: os.stat_result) -> None:
        """Remove our own file, which is damaged; its lock is held, so nobody else removes it now."""
        if os.path.samestat(os.lstat(self.path), status):
            os.unlink(self.path)
            self.trouble = f"{self.path} was damaged, or of another version, and is begun anew."


class Lock:
    """flock, waited for no longer than `PATIENCE`."""

    def __init__(self, file: int) -> None:
        self.file = file

    def __enter__(self) -> None:
        patience = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
            if time.monotonic() >= patience:
                raise Unusable("is locked by another process")
            time.sleep(0.001)

    def __exit__(self, *trouble) -> None:
        fcntl.flock(self.file, fcntl.LOCK_UN)


def _opened(path: str) -> int:
    """Open or make the file, and its directory where that alone is missing; -> its descriptor"""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        umask = os.umask(0o022)
        try:
            os.mkdir(os.path.dirname(path), 0o755)
        except FileExistsError:
            pass                             # made by another one just now
        finally:
            os.umask(umask)
    return os.open(path, flags, 0o600)


def _checked(file: int) -> os.stat_result:
    """The status of the file, or Unusable (security.md rows 12, 20, 21). Who may open it may lock it, too."""
    status = os.fstat(file)
    if status.st_mode & 0o170000 != 0o100000:
        raise Unusable("is not a regular file")
    if status.st_uid != os.geteuid():
        raise Unusable("belongs to another user")
    if status.st_nlink > 1:
        raise Unusable("has more than one link")
    if status.st_mode & 0o077:
        raise Unusable("is open to others (its mode is to be 0600)")
    return status


def _new_header() -> bytes:
    octets = HEADER.pack(MAGIC, VERSION, os.urandom(16), 0)[:-SUM.size]
    return octets + SUM.pack(binascii.crc32(octets))


def _is_header(octets: bytes) -> bool:
    if len(octets) < HEADER.size:
        return False
    magic, version, _, check = HEADER.unpack(octets)
    return magic == MAGIC and version == VERSION and check == binascii.crc32(octets[:-SUM.size])


def _put(file: int, octets: bytes, place: int) -> None:
    """Write all, or OSError."""
    if os.pwrite(file, octets, place) < len(octets):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
