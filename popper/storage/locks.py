"""Files beside a mailbox `DIR/NAME`: the dotlock `NAME.lock`, the session lock `.NAME.pop`, the record `.NAME.redo`.

The dotlock keeps delivery agents and mail readers away while the mailbox is scanned or updated, and only then. It is
made by link(2) and judged by comparing inodes, which holds over NFS. The session lock is flock'ed for the whole
session, so it ends with its process, and a Qpopper on the same spool sees it. The record of an update (`storage.redo`)
is opened and removed here because that may take the same rights: see `storage.keeper`.
"""

import errno
import fcntl
import os
import time

from popper.errors import IN_USE, PERMANENT, TEMPORARY, Refused

NEEDS_A_HAND = (errno.EPERM, errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ELOOP)
HELD_LONG = 3600               # seconds that one is believed which names a live process of this host
STALE = 300                    # seconds; liblockfile's figure. Measured by the file server's clock
OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def busy(path: str) -> Refused:
    """The refusal that fetchmail recognises by its words."""
    return Refused(f"{path} lock busy!  Is another session active?", IN_USE)


class SpoolLocks:
    """The locks and the record, held and made by this process."""

    def __init__(self, mailbox: str) -> None:
        directory, name = os.path.split(mailbox)
        self.mailbox = mailbox
        self.lock = mailbox + ".lock"
        self.session_file = f"{directory}/.{name}.pop"
        self.record_file = f"{directory}/.{name}.redo"
        self.directory = directory
        self.host = os.uname().nodename
        self.private = f"{directory}/.{name}.{self.host}"       # who has the session lock is alone here with it
        self.descriptor: "int | None" = None
        self.held: "tuple[int, int] | None" = None
        self.text = b""                      # what stands in a dotlock of ours

    def session(self) -> int:
        """Take the session lock, or Refused. -> octets of mail that an older popper left in that file."""
        for _ in range(5):
            try:
                descriptor = os.open(self.session_file, OPEN | os.O_CREAT, 0o600)
            except OSError as error:
                raise Refused(f"System error, can't open {self.session_file}, do you own it?", PERMANENT,
                              error.strerror) from None
            status = checked(descriptor, self.session_file)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise busy(self.mailbox) from None
            if _inode(self.session_file) == (status.st_dev, status.st_ino):
                self.descriptor = descriptor
                return os.fstat(descriptor).st_size
            os.close(descriptor)             # its owner removed it between our open and our flock
        raise Refused("Maildrop being unlocked; try again.", IN_USE)

    def dot(self) -> bool:
        """Try once to make the dotlock."""
        try:
            descriptor = os.open(self.private, OPEN | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            try:
                os.unlink(self.private)      # left by a process that was killed
            except OSError as error:
                raise self._unmakeable(error) from None
            return self.dot()
        except OSError as error:
            raise self._unmakeable(error) from None
        os.fchmod(descriptor, 0o644)         # who waits for it may want to read whose it is
        self.text = f"{os.getpid()}\n{self.host}\n".encode()
        try:
            try:
                os.write(descriptor, self.text)
            except OSError:
                pass                         # a full disk: the name is the lock, and who deletes mail makes room
            ours = os.fstat(descriptor)
            self.held = (ours.st_dev, ours.st_ino)       # before it is: a signal may come in between
            try:
                os.link(self.private, self.lock)
            except OSError:
                pass                         # over NFS the answer may be lost: the inode decides
            if _inode(self.lock) == self.held:
                return True
            self.held = None
            self._break_stale(ours.st_mtime)
            return False
        finally:
            os.close(descriptor)
            os.unlink(self.private)

    def _unmakeable(self, error: OSError) -> Refused:
        return Refused(f"{self.lock} cannot be made: {error.strerror}.", _code(error))

    def undot(self) -> None:
        """Take our dotlock away, unless it is another's by now; the number of an inode is soon given again."""
        if self.held and _inode(self.lock) == self.held and self.text.startswith(self._read()):
            os.unlink(self.lock)
        self.held = None

    def record(self) -> int:
        """Open the record, or make an empty one. -> its descriptor."""
        try:
            descriptor = os.open(self.record_file, OPEN | os.O_CREAT, 0o600)
        except OSError as error:
            raise Refused(f"{self.record_file} cannot be opened: {error.strerror}.", _code(error)) from None
        checked(descriptor, self.record_file)
        return descriptor

    def sync_names(self) -> None:
        """Make the names in the spool durable."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """The update is finished, or never began: the record goes."""
        os.unlink(self.record_file)

    def close(self) -> None:
        """Give both locks back. The session file goes, unless it holds mail."""
        self.undot()
        if self.descriptor is not None:
            status = os.fstat(self.descriptor)
            if status.st_size == 0 and _inode(self.session_file) == (status.st_dev, status.st_ino):
                os.unlink(self.session_file)
            os.close(self.descriptor)
            self.descriptor = None

    def _break_stale(self, now: float) -> None:
        """Remove a dotlock whose holder is gone. Renamed first: between look and removal it may become a live one."""
        try:
            status = os.lstat(self.lock)
            if status.st_mode & 0o170000 != 0o100000 or status.st_size > 4096:
                return                       # no lock anybody made
            alive = self._holder_lives()
            if alive is not False and now - status.st_mtime <= (HELD_LONG if alive else STALE):
                return
            aside = self.private + ".stale"
            os.rename(self.lock, aside)
            try:
                moved = os.lstat(aside)
                if not os.path.samestat(moved, status) or moved.st_mtime_ns != status.st_mtime_ns:
                    os.link(aside, self.lock)
            finally:
                os.unlink(aside)
        except OSError:
            pass                             # gone meanwhile, or not ours to remove; the next try will tell

    def _holder_lives(self) -> "bool | None":
        """Whether the process that the lock names is there. None: it names none of this very host (PID and host, or
        PID@host)."""
        words = self._read().decode("latin-1").replace("@", "\n").split()
        if len(words) < 2 or words[1] != self.host or not words[0].isdigit() or not 0 < int(words[0]) < 1 << 31:
            return None
        try:
            os.kill(int(words[0]), 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True

    def _read(self) -> bytes:
        """What stands in the dotlock."""
        descriptor = os.open(self.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 256)
        finally:
            os.close(descriptor)


class Held:
    """A context in which a mailbox is ours alone: dotlock and fcntl together, both or neither, for a bounded wait."""

    def __init__(self, locks, descriptor: "int | None", path: str, seconds: int) -> None:
        self.locks = locks
        self.descriptor = descriptor
        self.path = path
        self.seconds = seconds

    def __enter__(self) -> "Held":
        deadline = time.monotonic() + self.seconds
        while True:
            if self.locks.dot():
                try:
                    if self.descriptor is not None:
                        fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return self
                except OSError as error:
                    self.locks.undot()
                    if error.errno not in (11, 13):
                        raise Refused(f"{self.path} cannot be locked: {error.strerror}.", TEMPORARY) from None
            if time.monotonic() >= deadline:
                raise busy(self.path)
            # Uneven, so that two who wait for each other's second lock do not meet again.
            time.sleep(0.05 + os.urandom(1)[0] / 730)

    def __exit__(self, *_) -> None:
        if self.descriptor is not None:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)
        try:
            self.locks.undot()
        except (Refused, OSError):
            pass                             # what was done is done; a dotlock whose holder is dead gets broken


def checked(descriptor: int, path: str) -> os.stat_result:
    """The status of a file in a spool; Refused, and the file closed, when there is something wrong with it."""
    status = os.fstat(descriptor)
    complaint = complaint_about(status)
    if complaint:
        os.close(descriptor)
        raise Refused(f"{path} {complaint}.", PERMANENT)
    return status


def complaint_about(status: os.stat_result) -> str:
    """What is wrong with a file in a spool, as words to follow its path, or "" (security.md rows 20, 21)."""
    if status.st_mode & 0o170000 != 0o100000:
        return "is not a regular file"
    if status.st_uid != os.geteuid():
        return "is not owned by this user"
    if status.st_nlink > 1:                  # none: removed since it was opened, which whoever locks it will see
        return "has more than one link"
    return ""


def _code(error: OSError) -> str:
    return PERMANENT if error.errno in NEEDS_A_HAND else TEMPORARY


def _inode(path: str) -> "tuple[int, int] | None":
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
