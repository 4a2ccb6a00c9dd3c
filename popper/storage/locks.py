"""Files beside a mailbox `DIR/NAME`: the dotlock `NAME.lock`, the session lock `.NAME.pop`, the record `.NAME.redo`.

The dotlock keeps delivery agents and mail readers away while the mailbox is scanned or updated, and only then. It is
made by link(2) and judged by comparing inodes, which holds over NFS. With it goes a lock of the system, fcntl, flock
or both: what the others on this spool use (`storage.held`). The session lock is flock'ed for the whole session, so it
ends with its process, and a Qpopper on the same spool sees it. The record of an update (`storage.redo`) is opened and
removed here because that may take the same rights: see `storage.keeper`.
"""

import errno
import fcntl
import os

from popper.errors import IN_USE, PERMANENT, TEMPORARY, Refused

NEEDS_A_HAND = (errno.EPERM, errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ELOOP)
HELD_LONG = 3600               # seconds that one is believed which names a live process of this host
STALE = 300                    # seconds; liblockfile's figure. Measured by the file server's clock
LOCKS = "/proc/locks"
OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def busy(path: str, reason: str = "") -> Refused:
    """The refusal that fetchmail recognises by its words."""
    return Refused(f"{path} lock busy!  Is another session active?", IN_USE, reason)


class SpoolLocks:
    """The locks and the record, held and made by this process."""

    def __init__(self, mailbox: str) -> None:
        directory, name = os.path.split(mailbox)
        self.mailbox = mailbox
        self.lock = mailbox + ".lock"
        self.session_file = f"{directory}/.{name}.pop"
        self.record_file = f"{directory}/.{name}.redo"
        self.foreign_file = self.record_file + ".foreign"       # a record that did not fit, until somebody has looked
        self.backlog = 0                     # octets of mail that an older popper left in the session lock's file
        self.directory = directory
        self.host = os.uname().nodename
        self.private = f"{directory}/.{name}.{self.host}"       # who has the session lock is alone here with it
        self.descriptor: "int | None" = None
        self.held: "tuple[int, int] | None" = None
        self.text = b""                      # what stands in a dotlock of ours

    def session(self) -> int:
        """Take the session lock, or Refused. -> backlog"""
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
                raise busy(self.mailbox, f"{self.session_file}: {_holder(status)}") from None
            if _inode(self.session_file) == (status.st_dev, status.st_ino):
                self.backlog = checked(descriptor, self.session_file).st_size
                self.descriptor = descriptor
                return self.backlog
            os.close(descriptor)             # its owner removed it between our open and our flock
        raise Refused("Maildrop being unlocked; try again.", IN_USE)

    def dot(self) -> bool:
        """Try once to make the dotlock."""
        try:
            descriptor = os.open(self.private, OPEN | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            try:
                gone(self.private)           # left by a process that was killed
            except OSError as error:
                raise self._unmakeable(error) from None
            return self.dot()
        except OSError as error:
            raise self._unmakeable(error) from None
        self.text = f"{os.getpid()}:{self.host}\n".encode()      # liblockfile knows the number, Dovecot both
        try:
            try:
                os.fchmod(descriptor, 0o644)         # who waits for it may want to read whose it is
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
        except OSError as error:
            raise self._unmakeable(error) from None
        finally:
            try:
                closed(descriptor)
                os.unlink(self.private)
            except OSError:
                pass                         # the next one to come removes it

    def _unmakeable(self, error: OSError) -> Refused:
        return Refused(f"{self.lock} cannot be made: {error.strerror}.", _code(error))

    def touch(self) -> None:
        """Make our dotlock as young as one made now, by the file server's clock."""
        if self._is_ours():
            os.utime(self.lock, follow_symlinks=False)

    def undot(self) -> None:
        """Take our dotlock away, unless it is another's by now."""
        try:
            if self._is_ours():
                gone(self.lock)
        finally:
            self.held = None

    def record(self) -> int:
        """Open the record, or make an empty one. -> its descriptor."""
        try:
            descriptor = os.open(self.record_file, OPEN | os.O_CREAT, 0o600)
        except OSError as error:
            raise Refused(f"{self.record_file} cannot be opened: {error.strerror}.", _code(error)) from None
        checked(descriptor, self.record_file)
        return descriptor

    def set_aside(self) -> None:
        """The record does not fit: nobody is to work by it, nor to forget it."""
        os.rename(self.record_file, self.foreign_file)

    def discard(self) -> None:
        """Somebody has looked: the record that did not fit goes."""
        os.unlink(self.foreign_file)

    def parcel(self) -> int:
        """-> a descriptor of the session lock's file, for the mail in it, or -1"""
        return os.dup(self.descriptor) if self.descriptor is not None else -1

    def make_mailbox(self) -> None:
        """Make an empty mailbox where there is none."""
        try:
            os.close(os.open(self.mailbox, OPEN | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass                             # delivered just now
        except OSError as error:
            raise Refused(f"{self.mailbox} cannot be made: {error.strerror}.", _code(error)) from None

    def sync_names(self) -> None:
        """Make the names in the spool durable, where that can be had: a directory that one may not read, or a file
        system that knows no such thing, is no reason to delete no mail."""
        try:
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                raise
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """The update is finished, or never began: the record goes."""
        gone(self.record_file)

    def close(self) -> None:
        """Give both locks back. The session file goes, unless it holds mail."""
        descriptor, self.descriptor = self.descriptor, None
        try:
            self.undot()
            if descriptor is not None:
                status = os.fstat(descriptor)
                gone(self.private + ".stale")            # of a session that was killed while it broke a lock
                if status.st_size == 0 and _inode(self.session_file) == (status.st_dev, status.st_ino):
                    gone(self.session_file)
        except OSError:
            pass                             # an empty file that nobody has locked hinders nobody
        finally:
            closed(descriptor)

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
        """Whether the process is there that the lock names by PID:HOST, PID@HOST, or on two lines. None: that cannot
        be said. A PID alone may be of another host, and proves nothing when there is no such process here."""
        try:
            words = self._read().replace(b":", b" ").replace(b"@", b" ").split()
        except OSError:
            return None                      # mutt makes locks that even their owner may not read
        if not words or words[1:2] not in ([], [os.fsencode(self.host)]) or not words[0].isdigit() \
                or not 0 < int(words[0]) < 1 << 31:
            return None
        try:
            os.kill(int(words[0]), 0)
        except ProcessLookupError:
            return False if words[1:] else None
        except OSError:
            pass
        return not (words[1:] and _is_zombie(int(words[0])))

    def _is_ours(self) -> bool:
        """Whether the dotlock is the one we made. The number of an inode is soon given again."""
        return bool(self.held) and _inode(self.lock) == self.held and self.text.startswith(self._read())

    def _read(self) -> bytes:
        """What stands in the dotlock."""
        return beginning(self.lock)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be reaped, which may take for ever (proc(5))."""
    try:
        return beginning(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False


def gone(path: str) -> None:
    """Remove a name. Over NFS the answer may be lost, and asked again, the server finds none: that is as good."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def closed(descriptor: "int | None") -> None:
    """Close, once: after an error the descriptor is closed, or nobody knows (close(2))."""
    if descriptor is not None:
        try:
            os.close(descriptor)
        except OSError:
            pass


def checked(descriptor: int, path: str) -> os.stat_result:
    """The status of a file in a spool; Refused, and the file closed, when there is something wrong with it."""
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        closed(descriptor)
        raise Refused(f"{path} cannot be looked at: {error.strerror}.", TEMPORARY) from None
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


def holder(status: os.stat_result) -> int:
    """The process of this host that holds a flock on a file, or 0: the system does not tell of others."""
    try:
        with open(LOCKS, "rb") as table:     # text would want a codec, which the user may not be able to import
            rows = [line.split() for line in table]
    except OSError:
        return 0
    place = b"%02x:%02x:%d" % (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
    for row in rows:                         # 1: FLOCK  ADVISORY  WRITE 708 08:01:1311 0 EOF (proc(5))
        if row[1:2] == [b"FLOCK"] and row[5:6] == [place]:
            return int(row[4])
    return 0


def _holder(status: os.stat_result) -> str:
    pid = holder(status)
    return f"held by process {pid}" if pid > 0 else "held by another process"


def beginning(path: str) -> bytes:
    """The first octets of a small file that anybody may have made."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 256)
    finally:
        os.close(descriptor)


def _code(error: OSError) -> str:
    return PERMANENT if error.errno in NEEDS_A_HAND else TEMPORARY


def _inode(path: str) -> "tuple[int, int] | None":
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
