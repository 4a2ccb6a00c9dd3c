"""A mailbox in which there is nothing, and nobody: most polls find one, and it needs no lock.

Locks keep what was listed as it was listed. Of nothing, nothing can be read, deleted or marked, so a session about it
hinders nobody and is hindered by nobody; mail that comes meanwhile is the next session's, as it always is.
"""

import fcntl
import os
import struct

from popper.storage.locks import OPEN, closed, complaint_about


def is_vacant(path: str, kinds: "tuple[str, ...]") -> bool:
    """Whether a mailbox is empty, or missing, and nothing is going on about it: no session, no lock, no update that
    waits to be finished, no mail left by an older popper. Whatever is odd about it is for others to complain of.

    Who rewrites a mailbox in place makes it empty for a moment, under his lock: so the locks are looked at after its
    size, and then the size again.
    """
    directory, name = os.path.split(path)
    beside = (f"{path}.lock", *(f"{directory}/.{name}.{end}" for end in ("pop", "redo", "redo.foreign")))
    descriptor = None
    try:
        try:
            descriptor = os.open(path, OPEN)
        except FileNotFoundError:
            return os.path.isdir(directory) and not any(map(os.path.lexists, (path, *beside)))
        if not _is_empty(descriptor) or any(map(os.path.lexists, beside)) or _is_locked(descriptor, kinds):
            return False
        return _is_empty(descriptor) and os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False
    finally:
        closed(descriptor)


def _is_empty(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return status.st_size == 0 and not complaint_about(status)


def _is_locked(descriptor: int, kinds: "tuple[str, ...]") -> bool:
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    if struct.unpack("hhqqi", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK:
        return True
    if "flock" in kinds:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)       # it goes when the descriptor is closed
        except OSError:
            return True
    return False


class Vacant:
    """The Store over such a mailbox."""

    backlog = 0

    def __init__(self, path: str) -> None:
        self.path = path
        self.say = lambda text: None
        self.spent: "dict[str, float]" = {}
        self.entries: list = []
        self.notes: "list[str]" = []
        self.alarms: "list[str]" = []
        self.noted = None
        self.locks = self

    def session(self) -> int:
        return 0

    def scan(self) -> list:
        self.say(f"{self.path} is empty, and nobody is at it: no locks")
        return self.entries

    def unique_ids(self) -> "list[bytes]":
        return []

    def commit(self, entries: list, read: list = ()) -> None:
        pass

    def close(self) -> None:
        pass
