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
from popper.storage.held import Held
from popper.storage.identity import read_mark, seen, told_apart, unique_id
from popper.storage.locks import OPEN, checked, closed
from popper.storage.plan import MAILBOX, PARCEL, RECORD, inserting, removing
from popper.storage.record import Foreign
from popper.storage.redo import Redo, Unnoted
from popper.storage.scan import ENVELOPE_MOST, Entry, NotMailbox, first_blank, scan

BLOCK = 65536                  # octets read and sent at once; larger ones cost fresh pages each time
SIGNALS = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGALRM)
TICK = 20_000_000              # ns; a file changed this recently may change again without its time moving


class Mbox:
    """The Store over one file. locks: SpoolLocks or Keeper; lock_timeout in seconds; kinds: which locks, in order;
    status: whether to write Status: headers; noted(number): takes the receipt of bulletins, or raises."""

    def __init__(self, path: str, locks, sysv: bool = False, lock_timeout: int = 10, fsync: bool = True,
                 kinds: "tuple[str, ...]" = ("dotlock", "fcntl"), status: bool = False, noted=None) -> None:
        self.path = path
        self.locks = locks
        self.sysv = sysv
        self.lock_timeout = lock_timeout
        self.fsync = fsync
        self.kinds = kinds
        self.status = status
        self.noted = noted or (lambda number: None)
        self.say = lambda text: None         # takes sentences for a trace
        self.spent = {"locks": 0.0, "scan": 0.0, "disk": 0.0}    # seconds
        self.descriptor: "int | None" = None
        self.size = 0                        # of what was scanned; what lies behind came later
        self.stamp: "tuple | None" = None    # size and time of the file when it was last known to be right
        self.entries: "list[Entry]" = []
        self.notes: "list[str]" = []         # what the log should know
        self.alarms: "list[str]" = []        # what the administrator must know

    def scan(self) -> "list[Entry]":
        """Open, lock, and list the mailbox; a missing one is empty. Raises Refused."""
        try:
            return self._scan()
        except OSError as error:
            raise Refused(f"{self.path} cannot be opened now.", TEMPORARY, error.strerror) from None

    def _scan(self) -> "list[Entry]":
        self._refuse_foreign()
        for _ in range(5):
            self._open()
            if self.descriptor is None and self.locks.backlog:
                self.locks.make_mailbox()
                self._open()
            if self.descriptor is None:
                return self.entries
            with self._held() as held:
                if self._in_place():
                    self._recover(held)
                    self._list(held)
                    if self.locks.backlog:
                        self._merge(held)    # in front of what has just been seen to be a mailbox
                    return self.entries
            self._close_file()               # replaced while we waited for the locks
        raise Refused(f"{self.path} keeps being replaced.", TEMPORARY)

    def _entries(self, refresh):
        """What is in the first `size` octets of the file now. refresh(): called again and again."""
        def pread(count: int, offset: int) -> bytes:
            refresh()
            return os.pread(self.descriptor, count, offset)
        return scan(pread, self.size, self.sysv)

    def _list(self, held: Held) -> None:
        begun = time.monotonic()
        status = os.fstat(self.descriptor)
        self.size = status.st_size
        try:
            self.entries = list(self._entries(held.refresh))
        except NotMailbox as error:
            raise Refused("Unable to process From lines (envelopes), change recognition modes.",
                          PERMANENT, f"{self.path}: {error}") from None
        except OSError as error:
            raise Refused(f"{self.path} cannot be read.", TEMPORARY, error.strerror) from None
        finally:
            seconds = time.monotonic() - begun
            self.spent["scan"] += seconds
        self.say(f"Scan of {self.path}: {len(self.entries)} messages, {self.size} octets, in {seconds:.3f} s")
        self._remember(status)

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

    def commit(self, entries: "list[Entry]", read: "list[Entry]" = ()) -> None:
        """Take these messages out of the file: what is to stay moves down in place, then the file is cut."""
        read = [entry for entry in read if not self.seen(entry)] if self.status else ()
        if not entries and not read:
            return
        # They stay blocked: a session ends with its update, and its log lines should be as true as its mailbox.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
        try:
            self._commit(entries, read)
        except OSError as error:
            raise DropBroken("Error updating mailbox.", TEMPORARY,
                             f"update of {self.path} failed: {error.strerror}") from None

    def _commit(self, entries, read) -> None:
        with self._held() as held:
            if not self._in_place():
                raise self._changed("replaced")
            begun, done = time.monotonic(), "failed"
            try:
                self._recover(held)          # from an append of ours that could not be finished
                self._verify(held.refresh)
                if entries:
                    self._remove(entries, held)
                if read:
                    self._mark(read, entries, held)
                done = f"{len(entries)} deleted, {len(self.entries) - len(entries)} left"
            finally:
                seconds = time.monotonic() - begun
                self.spent["disk"] += seconds
                self.say(f"Update of {self.path}: {done}, in {seconds:.3f} s")

    def append(self, messages: "list[bytes]", number: int) -> None:
        """Add bulletins behind all mail, in one step with their receipt. Raises Refused when that cannot be."""
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
        try:
            if self.descriptor is None:
                self.locks.make_mailbox()
                self._open()
            with self._held() as held:
                if self.descriptor is None or not self._in_place():
                    raise Refused(f"{self.path} was replaced.", TEMPORARY)
                self._recover(held)
                size = os.fstat(self.descriptor).st_size
                text = b"".join([message + separator(message[-4:]) for message in messages])
                if b"\r\n" in self._pread(ENVELOPE_MOST, 0).partition(b"\n")[0] + b"\n":
                    text = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
                text = separator(self._pread(4, max(0, size - 4))) + text
                self._update(held, lambda redo: redo.insert([(RECORD, 0, len(text))], size, size, text, number))
                self._list(held)
        except OSError as error:
            raise Refused(f"{self.path} cannot be added to.", TEMPORARY, error.strerror) from None
        except Unnoted as error:
            raise Refused("The receipt of bulletins cannot be written.", TEMPORARY, str(error)) from None
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)

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
        descriptor, self.descriptor = self.descriptor, None
        closed(descriptor)

    def _held(self) -> Held:
        return Held(self.locks, self.descriptor, self.path, self.lock_timeout, self.kinds, self._waited)

    def _waited(self, seconds: float, obstacle: str) -> None:
        """Told by Held when it has the locks, or has given up."""
        self.spent["locks"] += seconds
        self.say(f"Locks of {self.path} after {seconds:.3f} s" + (f"; {obstacle}" if obstacle else ""))

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
        return self._header_at(entry.offset, entry.end - entry.offset)

    def _header_at(self, offset: int, length: int) -> bytes:
        for most in (4096, HEADER_MOST):
            octets = self._block(min(most, length), offset) if length else b""
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

    def _verify(self, refresh=lambda: None) -> None:
        """DropBroken unless what was scanned is still there; mail that was added behind it does no harm."""
        if self.descriptor is None:
            return
        try:
            status = os.fstat(self.descriptor)
        except OSError as error:
            raise DropBroken("Mailbox cannot be read.", reason=f"{self.path}: {error.strerror}") from None
        if self.stamp == (status.st_size, status.st_ctime_ns, status.st_nlink):
            return
        if status.st_nlink == 0:
            raise self._changed("removed")
        if status.st_size < self.size:
            raise self._changed("cut short")
        known = iter(self.entries)
        try:
            if not all(entry == next(known, None) for entry in self._entries(refresh)) \
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

    def _remove(self, entries: "list[Entry]", held: Held) -> None:
        size = os.fstat(self.descriptor).st_size
        runs, to = removing(self.entries, entries, self.size, size)
        try:
            self._may_write(to + sum(end - begin for begin, end in runs))
            if runs:
                self._update(held, lambda redo: redo.remove(runs, to, size))
            elif os.fstat(self.descriptor).st_size != size:
                self._remove(entries, held)  # delivered by somebody who minds no lock
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

    def _mark(self, read: "list[Entry]", gone: "list[Entry]", held: Held) -> None:
        """Write into the headers of `read` that they were read, now that those before them in `gone` are. When that
        cannot be, it is not worth an error: nothing is lost."""
        ends = dict(zip([entry.offset for entry in self.entries],
                        [later.offset for later in self.entries[1:]] + [self.size]))
        holes = sorted((entry.offset, ends[entry.offset] - entry.offset) for entry in gone)
        changes, moved = [], 0
        try:
            for entry in sorted(read, key=lambda entry: entry.offset):
                while holes and holes[0][0] < entry.offset:
                    moved += holes.pop(0)[1]
                offset = entry.offset - moved
                change = read_mark(self._header_at(offset, entry.end - entry.offset))
                if change:
                    changes.append((offset + change[0], *change[1:]))
            if changes:
                size = os.fstat(self.descriptor).st_size
                segments, front, literal = inserting(changes, size)
                self._update(held, lambda redo: redo.insert(segments, front, size, literal))
        except (OSError, Refused, DropBroken) as error:
            self.notes.append(f"{self.path}: messages could not be marked as read: "
                              f"{getattr(error, 'strerror', '') or error}")

    def _merge(self, held: Held) -> None:
        """Put the mail that an older popper left in the session lock's file in front of the mailbox."""
        parcel = self.locks.parcel()
        try:
            octets = os.fstat(parcel).st_size
            if not octets:                   # merged by a session that was interrupted
                return
            try:
                next(scan(lambda count, offset: os.pread(parcel, count, offset), octets), None)
            except NotMailbox as error:
                self.notes.append(f"{self.locks.session_file} is left alone, it is no mailbox: {error}")
                return
            between = separator(os.pread(parcel, 4, max(0, octets - 4)))
            size = os.fstat(self.descriptor).st_size
            segments = [(PARCEL, 0, octets), (RECORD, 0, len(between)), (MAILBOX, 0, size)]
            self._update(held, lambda redo: redo.insert(segments, 0, size, between), parcel)
            self.notes.append(f"{self.path}: {octets} octets of mail that an older popper left in "
                              f"{self.locks.session_file} were put in front")
            self._list(held)
        except OSError as error:
            if os.path.lexists(self.locks.record_file):
                raise Refused("Mail of an older session cannot be merged now.", TEMPORARY,
                              f"{self.locks.session_file}: {error.strerror}") from None
            # Nothing has moved: who is let in may make room.
            self.notes.append(f"{self.locks.session_file} cannot be merged now: {error.strerror}")
        finally:
            closed(parcel)

    def _update(self, held: Held, work, parcel: "int | None" = None) -> None:
        """Do work(redo) under the protection of a record, which goes when the work is done or never began."""
        record = self.locks.record()
        redo = self._redo(record, held, parcel)
        try:
            work(redo)
        except OSError:
            if not redo.begun:
                self.locks.forget()
            raise
        except Unnoted:
            self.locks.forget()
            raise
        finally:
            closed(record)
        self.locks.forget()

    def _redo(self, record: int, held: Held, parcel: "int | None") -> Redo:
        parcel = None if parcel == -1 else parcel
        return Redo(self.descriptor, record, self.fsync, self.locks.sync_names, parcel, self.noted, held.refresh)

    def _recover(self, held: Held) -> None:
        """Finish an update that was interrupted, if there is a record of one."""
        try:
            os.lstat(self.locks.record_file)
        except FileNotFoundError:
            return
        record = self.locks.record()
        parcel = self.locks.parcel()
        try:
            done = self._redo(record, held, parcel).recover()
        except Foreign as error:
            try:
                self.locks.set_aside()
                where = self.locks.foreign_file
            except (OSError, Refused):
                where = self.locks.record_file
            self.alarms.append(f"{self.path}: the record of an interrupted update does not fit it: {error}. The mailbox"
                               f" was left alone, the record is {where}")
            raise self._in_need(where) from None
        except Unnoted as error:
            done = f"bulletins were taken out again, for their receipt could not be written: {error}"
        except OSError as error:
            raise Refused("Mailbox cannot be repaired now.", TEMPORARY,
                          f"update of {self.path} cannot be finished: {error.strerror}") from None
        finally:
            closed(record)
            if parcel >= 0:
                closed(parcel)
        self.locks.forget()
        self.notes.append(f"{self.path}: {done}")

    def _refuse_foreign(self) -> None:
        """Refuse a mailbox whose update was interrupted in a way that nobody understands: no guesses."""
        try:
            ours = os.lstat(self.locks.foreign_file).st_uid == os.geteuid()
        except FileNotFoundError:
            return
        if ours:                             # anybody may make a file of this name in some spools
            raise self._in_need(self.locks.foreign_file)

    def _in_need(self, record: str) -> Refused:
        return Refused("Mailbox needs repair, tell your administrator.", PERMANENT,
                       f"{self.path}: see popperctl mailbox repair; {record} is there")


def separator(tail: bytes) -> bytes:
    """What has to stand between octets that end like this and an envelope line."""
    if not tail or tail.endswith((b"\n\n", b"\n\r\n")):
        return b""
    end = b"\r\n" if tail.endswith(b"\r\n") else b"\n"
    return end if tail.endswith(b"\n") else end + end
