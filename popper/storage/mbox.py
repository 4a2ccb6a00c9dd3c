"""A mailbox in mbox format, served where it lies: no copy, nothing held open but one descriptor, the inode kept.

Mail that arrives during a session stays behind what was scanned and is left alone. Any other change by someone else
ends the session: the mailbox is looked at again, by the function that first scanned it, whenever its size or time
has moved. An update that a crash interrupted is finished, by its record, before the mailbox is read.
"""

import _signal
import errno
import os
import time

from popper.errors import PERMANENT, TEMPORARY, DropBroken, Refused
from popper.maildrop import HEADER_MOST
from popper.storage.identity import seen, told_apart, unique_id
from popper.storage.locks import OPEN, Held, checked
from popper.storage.redo import Foreign, Redo
from popper.storage.scan import Entry, NotMailbox, first_blank, scan

BLOCK = 65536                  # octets read and sent at once; larger ones cost fresh pages each time
TICK = 20_000_000              # ns; a file changed this recently may change again without its time moving


class Mbox:
    """The Store over one file. locks: SpoolLocks or Keeper; lock_timeout in seconds."""

    def __init__(self, path: str, locks, sysv: bool = False, lock_timeout: int = 10, fsync: bool = True) -> None:
        self.path = path
        self.locks = locks
        self.sysv = sysv
        self.lock_timeout = lock_timeout
        self.fsync = fsync
        self.descriptor: "int | None" = None
        self.size = 0                        # of what was scanned; what lies behind came later
        self.stamp: "tuple | None" = None    # size and time of the file when it was last known to be right
        self.entries: "list[Entry]" = []
        self.notes: "list[str]" = []         # what the log should know of the opening

    def scan(self) -> "list[Entry]":
        """Open, lock, and list the mailbox; a missing one is empty. Raises Refused."""
        for _ in range(5):
            self._open()
            if self.descriptor is None:
                return self.entries
            with self._held():
                if self._in_place():
                    self._recover()
                    status = os.fstat(self.descriptor)
                    self.size = status.st_size
                    try:
                        self.entries = list(scan(self._pread, self.size, self.sysv))
                    except NotMailbox as error:
                        raise Refused("Unable to process From lines (envelopes), change recognition modes.",
                                      PERMANENT, f"{self.path}: {error}") from None
                    except OSError as error:
                        raise Refused(f"{self.path} cannot be read.", TEMPORARY, error.strerror) from None
                    self._remember(status)
                    return self.entries
            self._close_file()               # replaced while we waited for the locks
        raise Refused(f"{self.path} keeps being replaced.", TEMPORARY)

    def read(self, entry: Entry):
        """The text of a message in blocks; DropBroken before the first or after the last if it is not what was."""
        self._verify()
        at = entry.start
        while at < entry.end:
            block = self._block(min(BLOCK, entry.end - at), at)
            yield block
            at += len(block)
        self._verify()

    def header(self, entry: Entry) -> bytes:
        self._verify()
        return self._header(entry)[entry.start - entry.offset:]

    def unique_ids(self) -> "list[bytes]":
        self._verify()
        return told_apart([unique_id(self._header(entry)) for entry in self.entries])

    def seen(self, entry: Entry) -> bool:
        self._verify()
        return seen(self._header(entry))

    def commit(self, entries: "list[Entry]") -> None:
        """Take these messages out of the file: what is to stay moves down in place, then the file is cut."""
        if not entries:
            return
        # They stay blocked: a session ends with its update, and its log lines should be as true as its mailbox.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGALRM))
        with self._held():
            if not self._in_place():
                raise self._changed("replaced")
            self._verify()
            self._remove(entries)

    def close(self) -> None:
        self._close_file()
        self.locks.close()

    # -- opening -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        flags = OPEN | getattr(os, "O_NOATIME", 0)
        try:
            descriptor = os.open(self.path, flags)
        except FileNotFoundError:
            return
        except OSError as error:
            what = "is a symbolic link" if error.errno == errno.ELOOP else "cannot be opened"
            raise Refused(f"{self.path} {what}.", PERMANENT, error.strerror) from None
        checked(descriptor, self.path)
        self.descriptor = descriptor

    def _close_file(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _held(self) -> Held:
        return Held(self.locks, self.descriptor, self.path, self.lock_timeout)

    def _in_place(self) -> bool:
        """Whether the open file is the one that has the name."""
        try:
            named = os.lstat(self.path)
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(self.descriptor))

    # -- reading -------------------------------------------------------------------------------------------------

    def _pread(self, count: int, offset: int) -> bytes:
        return os.pread(self.descriptor, count, offset)

    def _block(self, count: int, offset: int) -> bytes:
        try:
            block = self._pread(count, offset)
        except OSError as error:
            raise DropBroken("Mailbox cannot be read.", reason=f"{self.path}: {error.strerror}") from None
        if not block:
            raise self._changed("cut short")
        return block

    def _header(self, entry: Entry) -> bytes:
        """Envelope line and header of a message up to the blank line, at most HEADER_MOST octets."""
        length = entry.end - entry.offset
        for most in (4096, HEADER_MOST):
            octets = self._block(min(most, length), entry.offset) if length else b""
            blank = first_blank(octets)
            if blank >= 0:
                return octets[:blank]
            if len(octets) >= length:
                break
        return octets

    def _remember(self, status: os.stat_result) -> None:
        # Not the mtime: mail readers set that back after they rewrote a mailbox.
        recent = abs(time.time_ns() - status.st_ctime_ns) < TICK
        self.stamp = None if recent else (status.st_size, status.st_ctime_ns, status.st_nlink)

    def _verify(self) -> None:
        """DropBroken unless what was scanned is still there; mail that was added behind it does no harm."""
        if self.descriptor is None:
            return
        status = os.fstat(self.descriptor)
        if self.stamp == (status.st_size, status.st_ctime_ns, status.st_nlink):
            return
        if status.st_nlink == 0:
            raise self._changed("removed")
        if status.st_size < self.size:
            raise self._changed("cut short")
        known = iter(self.entries)
        try:
            if not all(entry == next(known, None) for entry in scan(self._pread, self.size, self.sysv)) \
                    or next(known, None) is not None:
                raise self._changed("changed")
        except NotMailbox:
            raise self._changed("changed") from None
        except OSError as error:
            raise DropBroken("Mailbox cannot be read.", reason=f"{self.path}: {error.strerror}") from None
        self._remember(status)

    def _changed(self, how: str) -> DropBroken:
        return DropBroken("Mailbox changed by another program; nothing was deleted.", TEMPORARY,
                          f"{self.path} was {how} by another program")

    # -- updating ------------------------------------------------------------------------------------------------

    def _remove(self, entries: "list[Entry]") -> None:
        index = {entry.offset: following for entry, following in
                 zip(self.entries, [later.offset for later in self.entries[1:]] + [self.size])}
        gone = sorted((entry.offset, index[entry.offset]) for entry in entries)
        size = os.fstat(self.descriptor).st_size
        runs = [(begin, end) for (_, begin), (end, _) in zip(gone, gone[1:] + [(size, size)]) if begin < end]
        to = gone[0][0]
        try:
            self._may_write(to + sum(end - begin for begin, end in runs))
            if runs:
                self._move(runs, to, size)
            else:
                os.ftruncate(self.descriptor, to)
                if self.fsync:
                    os.fsync(self.descriptor)
        except OSError as error:
            raise DropBroken("Error updating mailbox.", TEMPORARY,
                             f"update of {self.path} failed: {error.strerror}") from None

    def _may_write(self, end: int) -> None:
        """Write the octet before `end` as it is: a limit or a read-only disk is to show before anything has moved."""
        if end:
            os.pwrite(self.descriptor, self._pread(1, end - 1), end - 1)

    def _move(self, runs: "list[tuple[int, int]]", to: int, size: int) -> None:
        """Move what is to stay down, under the protection of a record."""
        record = self.locks.record()
        redo = Redo(self.descriptor, record, self.fsync, self.locks.sync_names)
        try:
            redo.update(runs, to, size)
        except OSError:
            if not redo.begun:
                self.locks.forget()
            raise
        finally:
            os.close(record)
        self.locks.forget()

    def _recover(self) -> None:
        """Finish an update that was interrupted, if there is a record of one."""
        if not os.path.lexists(self.locks.record_file):
            return
        record = self.locks.record()
        try:
            done = Redo(self.descriptor, record, self.fsync, self.locks.sync_names).recover()
        except Foreign as error:
            raise Refused("Mailbox needs repair, tell your administrator.", PERMANENT,
                          f"{self.locks.record_file} does not fit {self.path}: {error}; neither was touched") from None
        except OSError as error:
            raise Refused("Mailbox cannot be repaired now.", TEMPORARY,
                          f"update of {self.path} cannot be finished: {error.strerror}") from None
        finally:
            os.close(record)
        self.locks.forget()
        self.notes.append(f"{self.path}: {done}")
