"""A file system with habits that NFS has and local ones have not: nfs_habits.py BEHIND MOUNT [HABIT...]

It shows the directory BEHIND, as a client shows what lies on a server; whoever works in BEHIND itself is another
client. A file that is removed while it is open keeps a hidden name until it is closed. Habits:

    link=lost       every link(2) is done, but the answer is lost; the client asks again and reports EEXIST
    unlink=lost     the same for unlink(2): done, and reported as ENOENT
    attr=SECONDS    what a name stands for, and size, times and links of a file, are believed for so long, even that a
                    name is not there. Asked anew after a change of one's own, of a directory for all its names, at
                    open(2), and after fcntl has locked

Needs fusepy and libfuse2. Runs until MOUNT is unmounted.
"""

import ctypes
import errno
import fcntl
import os
import struct
import sys
import time

from fuse import FUSE, FuseOSError, Operations, fuse_get_context

FLOCK = struct.Struct("hhqqi4x")             # struct flock of Linux: type, whence, start, length, pid
F_OFD_GETLK, F_OFD_SETLK = 36, 37            # locks of an open file, not of this process: it is many clients
HABITS = {"link": ("lost",), "unlink": ("lost",), "attr": None}


class Client(Operations):
    """One client. behind: the server's directory; habits: {name: value}."""

    use_ns = True

    def __init__(self, behind: str, habits: "dict[str, str]") -> None:
        self.behind = behind
        self.habits = habits
        self.believed_for = float(habits.get("attr", 0))
        self.believed: "dict[str, tuple]" = {}       # path: (until when, attributes or an OSError)
        self.owners: "dict[int, int]" = {}           # open file: which process of the client has locks on it

    def _real(self, path: str) -> str:
        return self.behind + path

    def _changed(self, *paths: str) -> None:
        """Ask the server at the next look."""
        for path in paths:
            self.believed.pop(path, None)

    def _named(self, *paths: str) -> None:
        """A directory was changed. The answer to that says whether others changed it too, so what its names stand for
        is asked anew; what is believed of the files they stand for is not."""
        self._changed(*paths)
        around = os.path.dirname(paths[0])
        for path, (_, answer) in list(self.believed.items()):
            if os.path.dirname(path) == around and path != around:
                try:
                    same = os.lstat(self._real(path)).st_ino == answer["st_ino"]
                except (OSError, TypeError):
                    same = False
                if not same:
                    self._changed(path)

    def _believe(self, path: str, ask):
        """What `ask` gives or raises, or what it gave or raised not long ago."""
        until, answer = self.believed.get(path, (0, None))
        if time.monotonic() >= until:
            try:
                answer = ask()
            except OSError as error:
                answer = error
            self.believed[path] = time.monotonic() + self.believed_for, answer
        if isinstance(answer, OSError):
            raise FuseOSError(answer.errno)
        return answer

    # -- names ---------------------------------------------------------------------------------------------------

    def getattr(self, path, info=None):
        return self._believe(path, lambda: _attributes(os.lstat(self._real(path)) if info is None else
                                                       os.fstat(info.fh)))

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self._real(path))]

    def mkdir(self, path, mode):
        os.mkdir(self._real(path), mode)
        self._give(path)
        self._named(path)

    def rmdir(self, path):
        os.rmdir(self._real(path))
        self._named(path)

    def unlink(self, path):
        os.unlink(self._real(path))
        self._named(path)
        if "unlink" in self.habits:
            raise FuseOSError(errno.ENOENT)

    def rename(self, old, new):
        os.rename(self._real(old), self._real(new))
        self._named(old, new)

    def link(self, target, source):
        os.link(self._real(source), self._real(target))
        self._named(source, target)
        if "link" in self.habits:
            raise FuseOSError(errno.EEXIST)

    def chmod(self, path, mode):
        os.chmod(self._real(path), mode)
        self._changed(path)

    def chown(self, path, uid, gid):
        os.chown(self._real(path), uid, gid, follow_symlinks=False)
        self._changed(path)

    def utimens(self, path, times=None):
        os.utime(self._real(path), ns=times)
        self._changed(path)

    def statfs(self, path):
        status = os.statvfs(self._real(path))
        return {name: getattr(status, name) for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail",
                                                         "f_files", "f_ffree", "f_favail", "f_namemax")}

    # -- open files ----------------------------------------------------------------------------------------------

    def open(self, path, info):
        self._changed(path)
        try:                                 # appending is the kernel's work: it gives the offset with each write
            info.fh = os.open(self._real(path), info.flags & ~os.O_APPEND)
        except FileNotFoundError:            # so the kernel asks whether the name is there, and may make it
            raise FuseOSError(errno.ESTALE) from None
        return 0

    def create(self, path, mode, info):
        info.fh = os.open(self._real(path), (info.flags & ~os.O_APPEND) | os.O_CREAT, mode)
        self._give(path)
        self._named(path)
        return 0

    def _give(self, path: str) -> None:
        """To whoever asked for it, as this process is root."""
        uid, gid, _ = fuse_get_context()
        inherited = os.stat(os.path.dirname(self._real(path)))
        os.chown(self._real(path), uid, inherited.st_gid if inherited.st_mode & 0o2000 else gid)

    def read(self, path, size, offset, info):
        return os.pread(info.fh, size, offset)

    def write(self, path, octets, offset, info):
        written = os.pwrite(info.fh, octets, offset)
        self._changed(path)
        return written

    def truncate(self, path, length, info=None):
        os.truncate(self._real(path) if info is None else info.fh, length)
        self._changed(path)

    def fsync(self, path, datasync, info):
        os.fsync(info.fh)

    def release(self, path, info):
        os.close(info.fh)

    def lock(self, path, info, command, lock):
        """fcntl locks, for all clients of the server. Whoever gets one sees the file as it is now."""
        kind, whence, start, length, _ = FLOCK.unpack(ctypes.string_at(lock, FLOCK.size))
        if kind == fcntl.F_UNLCK and self.owners.get(info.fh) != info.lock_owner:
            return                           # a child of the owner closes what it inherited
        how = F_OFD_GETLK if command == fcntl.F_GETLK else F_OFD_SETLK       # nobody waits: this process is all clients
        answer = fcntl.fcntl(info.fh, how, FLOCK.pack(kind, whence, start, length, 0))
        ctypes.memmove(lock, answer, FLOCK.size)
        if kind != fcntl.F_UNLCK and command != fcntl.F_GETLK:
            self.owners[info.fh] = info.lock_owner
            self._changed(path)


def _attributes(status: os.stat_result) -> "dict[str, int]":
    found = {name: getattr(status, name) for name in ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid",
                                                      "st_size", "st_rdev", "st_blksize", "st_blocks")}
    return found | {name: getattr(status, name + "_ns") for name in ("st_atime", "st_mtime", "st_ctime")}


def main(behind: str, mount: str, *words: str) -> int:
    habits = dict(word.split("=", 1) for word in words)
    wrong = [name for name, value in habits.items() if name not in HABITS or HABITS[name] and value not in HABITS[name]]
    if wrong:
        print(f"{', '.join(wrong)}: no such habit", file=sys.stderr)
        return 64
    os.umask(0)
    # Nothing is kept by the kernel: what is believed is decided above, and other clients' changes are seen.
    FUSE(Client(os.path.realpath(behind), habits), mount, raw_fi=True, foreground=True, nothreads=True,
         allow_other=True, default_permissions=True, use_ino=True, direct_io=True, attr_timeout=0,
         entry_timeout=0, negative_timeout=0)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
