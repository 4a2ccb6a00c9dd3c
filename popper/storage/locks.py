"""Locks beside a mailbox `DIR/NAME`: the dotlock `NAME.lock` and the session lock `.NAME.pop`.

The dotlock keeps delivery agents and mail readers away while the mailbox is scanned or updated, and only then. It is
made by link(2) and judged by comparing inodes, which holds over NFS. The session lock is flock'ed for the whole
session, so it ends with its process, and a Qpopper on the same spool sees it.

Where the user may not write in the spool (Debian: root:mail 2775) a *keeper* holds both: a forked process with the
user's uid and the spool's group that understands four letters, so that the session itself never has that group.
"""

import _signal
import _socket
import fcntl
import os
import time

from popper.errors import IN_USE, PERMANENT, TEMPORARY, Refused

STALE = 300                    # seconds; liblockfile's figure. Measured by the file server's clock
OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def busy(path: str) -> Refused:
    """The refusal that fetchmail recognises by its words."""
    return Refused(f"{path} lock busy!  Is another session active?", IN_USE)


class SpoolLocks:
    """The two locks, held by this process."""

    def __init__(self, mailbox: str) -> None:
        directory, name = os.path.split(mailbox)
        self.mailbox = mailbox
        self.lock = mailbox + ".lock"
        self.session_file = f"{directory}/.{name}.pop"
        self.host = os.uname().nodename
        self.private = f"{directory}/.{name}.{self.host}.{os.getpid()}"
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
            status = os.fstat(descriptor)
            complaint = complaint_about(status)
            if complaint:
                os.close(descriptor)
                raise Refused(f"{self.session_file} {complaint}.", PERMANENT)
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
                os.unlink(self.private)      # left by a process of the same number that was killed
            except OSError as error:
                raise self._unmakeable(error) from None
            return False
        except OSError as error:
            raise self._unmakeable(error) from None
        self.text = f"{os.getpid()}\n{self.host}\n".encode()
        try:
            try:
                os.write(descriptor, self.text)
            except OSError:
                pass                         # a full disk: the name is the lock, and who deletes mail makes room
            ours = os.fstat(descriptor)
            try:
                os.link(self.private, self.lock)
            except OSError:
                pass                         # over NFS the answer may be lost: the inode decides
            if _inode(self.lock) == (ours.st_dev, ours.st_ino):
                self.held = (ours.st_dev, ours.st_ino)
                return True
            self._break_stale(ours.st_mtime)
            return False
        finally:
            os.close(descriptor)
            os.unlink(self.private)

    def _unmakeable(self, error: OSError) -> Refused:
        return Refused(f"{self.lock} cannot be made: {error.strerror}.",
                       PERMANENT if error.errno in (1, 2, 13, 20, 21, 30) else TEMPORARY)

    def undot(self) -> None:
        """Take our dotlock away, unless it is another's by now; the number of an inode is soon given again."""
        if self.held and _inode(self.lock) == self.held and self.text.startswith(self._read()):
            os.unlink(self.lock)
        self.held = None

    def close(self) -> None:
        """Give both back. The session file goes, unless it holds mail."""
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
            if now - status.st_mtime <= STALE and not self._holder_is_dead():
                return
            aside = self.private + ".stale"
            os.rename(self.lock, aside)
            moved = os.lstat(aside)
            if not os.path.samestat(moved, status) or moved.st_mtime_ns != status.st_mtime_ns:
                os.link(aside, self.lock)
            os.unlink(aside)
        except OSError:
            pass                             # gone meanwhile, or not ours to remove; the next try will tell

    def _holder_is_dead(self) -> bool:
        """Whether the lock names a process of this very host that no longer is: PID and host, or PID@host."""
        words = self._read().decode("latin-1").replace("@", "\n").split()
        if len(words) < 2 or words[1] != self.host or not words[0].isdigit() or not 0 < int(words[0]) < 1 << 31:
            return False
        try:
            os.kill(int(words[0]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False

    def _read(self) -> bytes:
        """What stands in the dotlock."""
        descriptor = os.open(self.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 256)
        finally:
            os.close(descriptor)


class Keeper:
    """The same four verbs, carried out by a forked process that keeps the spool's group.

    To be made while the group is effective; `shed` runs in the caller afterwards and gives it up for good.
    """

    def __init__(self, locks: SpoolLocks, shed) -> None:
        ours, theirs = _socket.socketpair()
        self.line = ours
        if not os.fork():
            try:
                ours.close()
                _keep(locks, theirs)
            finally:
                os._exit(0)
        theirs.close()
        shed()

    def session(self) -> int:
        return int(self._ask(b"S"))

    def dot(self) -> bool:
        return self._ask(b"D") == "1"

    def undot(self) -> None:
        self._ask(b"U")

    def close(self) -> None:
        """Wait until both are given back: the next session may follow at once."""
        if self.line is not None:
            try:
                self._ask(b"C")
            except Refused:
                pass
            self.line.close()
            self.line = None

    def _ask(self, letter: bytes) -> str:
        try:
            self.line.send(letter)
            answer = self.line.recv(1024).decode("utf-8", "replace")
        except OSError:
            answer = ""
        if not answer:
            raise Refused("System error, the lock keeper is gone.", TEMPORARY)
        if answer[0] == "!":
            code, text = answer[1:].split(" ", 1)
            raise Refused(text, code)
        return answer


def _keep(locks: SpoolLocks, line) -> None:
    """The keeper's life: no descriptor but its line, no signal but the end of the session."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)
    os.closerange(0, line.fileno())
    os.closerange(line.fileno() + 1, 256)
    locks.private = f"{locks.private}k"
    try:
        while letter := line.recv(1):
            try:
                if letter == b"S":
                    answer = str(locks.session())
                elif letter == b"D":
                    answer = "1" if locks.dot() else "0"
                elif letter == b"U":
                    answer = "1"
                    locks.undot()
                else:
                    answer = "1"
                    locks.close()
            except Refused as error:
                answer = f"!{error.code} {error.text}"
            line.send(answer.encode("utf-8", "replace"))
    finally:
        locks.close()


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
        self.locks.undot()


def complaint_about(status: os.stat_result) -> str:
    """What is wrong with a file in a spool, as words to follow its path, or "" (security.md rows 20, 21)."""
    if status.st_mode & 0o170000 != 0o100000:
        return "is not a regular file"
    if status.st_uid != os.geteuid():
        return "is not owned by this user"
    if status.st_nlink > 1:                  # none: removed since it was opened, which whoever locks it will see
        return "has more than one link"
    return ""


def _inode(path: str) -> "tuple[int, int] | None":
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
