"""A mailbox that is ours alone for a moment: the dotlock and the system's locks, all together or none of them."""

import errno
import fcntl
import os
import struct
import time

from popper.errors import TEMPORARY, Refused
from popper.storage.locks import beginning, busy

TOUCH = 60                     # seconds after which a dotlock that is still needed is made young again
MOUNTS = "/proc/self/mountinfo"
ONE_TABLE = (b"nfs", b"nfs4", b"cifs", b"smb3")  # flock is fcntl there: flock(2), NFS details and CIFS details


class Held:
    """A context in which a mailbox is ours alone: all its locks together or none of them, for a bounded wait.

    locks: SpoolLocks or Keeper, for the dotlock. descriptor: the mailbox, open for reading and writing; None: there is
    none yet, and the dotlock is all. kinds: which locks, in which order: "dotlock", "fcntl", "flock". None is waited
    for while another is held, so whoever takes them in another order can finish. Refused after `seconds`.

    The system forgets an fcntl lock when its process closes the file, by whichever descriptor: nobody may open the
    mailbox a second time in here.
    """

    def __init__(self, locks, descriptor: "int | None", path: str, seconds: int,
                 kinds: "tuple[str, ...]" = ("dotlock", "fcntl"), waited=lambda seconds, obstacle: None) -> None:
        self.locks = locks
        self.descriptor = descriptor
        self.path = path
        self.seconds = seconds
        self.kinds = kinds if descriptor is not None else ("dotlock",)
        if {"fcntl", "flock"} <= set(self.kinds) and one_table(descriptor):
            later = max("fcntl", "flock", key=self.kinds.index)
            self.kinds = tuple(kind for kind in self.kinds if kind != later)
        self.waited = waited
        self.obstacle = ""                   # what was in the way first
        self.due = 0.0                       # when the dotlock is to be made young again, by the monotonic clock

    def __enter__(self) -> "Held":
        begun = time.monotonic()
        try:
            while not self._take():
                if time.monotonic() >= begun + self.seconds:
                    raise busy(self.path, self.obstacle)
                # Uneven, so that two who wait for each other's second lock do not meet again.
                time.sleep(0.05 + os.urandom(1)[0] / 730)
        finally:
            self.waited(time.monotonic() - begun, self.obstacle)
        self.due = time.monotonic() + TOUCH
        return self

    def __exit__(self, *_) -> None:
        self._give_back()

    def refresh(self) -> None:
        """To be called often in long work: others take an old dotlock for a dead one's."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + TOUCH
        try:
            if "dotlock" in self.kinds:
                self.locks.touch()
        except (Refused, OSError):
            pass                             # what was begun is better finished, and the other lock still stands

    def _take(self) -> bool:
        """Try once to take every lock; when one is not to be had, none is held."""
        try:
            for kind in self.kinds:
                if not self._try(kind):
                    self.obstacle = self.obstacle or self._told(kind)
                    break
            else:
                return True
        except BaseException:
            self._give_back()
            raise
        self._give_back()
        return False

    def _try(self, kind: str) -> bool:
        if kind == "dotlock":
            return self.locks.dot()
        lock = fcntl.lockf if kind == "fcntl" else fcntl.flock
        try:
            lock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)     # the whole file, and what comes behind it
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise Refused(f"{self.path} cannot be locked: {error.strerror}.", TEMPORARY) from None
        return True

    def _told(self, kind: str) -> str:
        """Who holds a lock, as far as he says."""
        try:
            if kind == "dotlock":
                lock = self.path + ".lock"
                words = _words(lock)
                age = time.time() - os.lstat(lock).st_mtime
                return f'{lock} said "{words}" and was {age:.0f} s old'
            if kind == "fcntl":
                asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                told = fcntl.fcntl(self.descriptor, fcntl.F_GETLK, asked)
                return f"process {struct.unpack('hhqqi', told)[4]} had a lock"
        except OSError:
            pass                             # gone already
        return f"another had a {kind} lock"

    def _give_back(self) -> None:
        """Let go of what is held, the last first; of one that is not held there is nothing to let go."""
        for kind in reversed(self.kinds):
            try:
                if kind == "dotlock":
                    self.locks.undot()
                else:
                    (fcntl.lockf if kind == "fcntl" else fcntl.flock)(self.descriptor, fcntl.LOCK_UN)
            except (Refused, OSError):
                pass                         # what was done is done; a dotlock whose holder is dead gets broken


def one_table(descriptor: int) -> bool:
    """Whether flock and fcntl are one lock to the system that keeps this file, so that who holds one would wait for
    himself with the other, and who waits for one heeds the other.

    flock(2): so it is over NFS and CIFS, and with the BSDs.
    """
    if os.uname().sysname != "Linux":
        return True
    device = os.fstat(descriptor).st_dev
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        with open(MOUNTS, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return False                         # with both, nobody is overlooked; at worst the mailbox seems busy
    for line in lines:                       # 36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw (proc(5))
        words = line.split()
        if words[2:3] == [number]:
            return words[words.index(b"-", 6) + 1] in ONE_TABLE
    return False


def _words(path: str) -> str:
    """The same as words for a log line."""
    words = " ".join(beginning(path).decode("ascii", "replace").split())
    return "".join(c if c.isprintable() and c != '"' else "?" for c in words)
