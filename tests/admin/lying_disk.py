"""A file system that lies: lying_disk.py BEHIND MOUNT [lost|zeros]

It shows the directory BEHIND. lost: every eighth write of more than a few octets is said to be done, and is not;
zeros: what it writes is NULs, as a server writes whose data came later than the length of its file.

Needs fusepy and libfuse2. Runs until MOUNT is unmounted.
"""

import os
import sys

from fuse import FUSE, Operations, fuse_get_context


class Disk(Operations):
    def __init__(self, behind, lie):
        self.behind = behind
        self.lie = lie
        self.writes = 0

    def _real(self, path):
        return self.behind + path

    def getattr(self, path, handle=None):
        status = os.lstat(self._real(path))
        return {key: getattr(status, key) for key in ("st_atime", "st_ctime", "st_gid", "st_ino", "st_mode", "st_mtime",
                                                      "st_nlink", "st_size", "st_uid")}

    def readdir(self, path, handle):
        return [".", "..", *os.listdir(self._real(path))]

    def open(self, path, flags):
        return os.open(self._real(path), flags & ~os.O_NOFOLLOW)

    def create(self, path, mode, info=None):
        handle = os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        os.fchown(handle, *fuse_get_context()[:2])
        return handle

    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    def write(self, path, octets, offset, handle):
        if len(octets) > 100:
            self.writes += 1
            if self.writes > 400 and self.writes % 8 == 0:
                if self.lie == "zeros":
                    os.pwrite(handle, bytes(len(octets)), offset)
                return len(octets)
        return os.pwrite(handle, octets, offset)

    def truncate(self, path, length, handle=None):
        os.truncate(self._real(path), length)

    def unlink(self, path):
        os.unlink(self._real(path))

    def link(self, target, source):
        os.link(self._real(source), self._real(target))

    def rename(self, old, new):
        os.rename(self._real(old), self._real(new))

    def chmod(self, path, mode):
        os.chmod(self._real(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self._real(path), uid, gid)

    def utimens(self, path, times=None):
        os.utime(self._real(path), times)

    def fsync(self, path, datasync, handle):
        os.fsync(handle)

    def release(self, path, handle):
        os.close(handle)


if __name__ == "__main__":
    FUSE(Disk(sys.argv[1], sys.argv[3]), sys.argv[2], foreground=True, nothreads=True, allow_other=True, use_ino=True,
         default_permissions=True)
