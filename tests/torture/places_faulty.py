"""File systems that are hard on a mailbox, mounted for the while: PLACES = {name: context manager of a Place}.

They need root, and the kernel's help; Unavailable says in one line what is missing.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HABITS = Path(__file__).with_name("nfs_habits.py")
PAGE = 4096


class Unavailable(Exception):
    """This machine has no such file system; the text says why."""


class Place:
    """Where spools are made. directory: as the server sees it; behind: as another host does; tight: whether there is
    hardly any room."""

    tight = False

    def __init__(self, directory: Path, behind: "Path | None" = None) -> None:
        self.directory = directory
        self.behind = behind or directory

    def fill(self, free: int) -> None:
        """Leave so many pages free, where the place is one that can be filled."""

    def relieve(self) -> None:
        """Make room, as an administrator would."""


class Disk(Place):
    """A file system on a disk of its own."""

    def __init__(self, directory: Path, image: Path) -> None:
        super().__init__(directory)
        self.image = image

    def fail(self) -> None:
        """Have it go read-only with files open for writing, as ext4 does when it finds an error. (What mount itself
        calls read-only waits until nobody writes.)"""
        _run("mount", "-o", "remount,abort", self.directory)

    def repair(self) -> None:
        """What an administrator does then."""
        _run("umount", self.directory)
        subprocess.run(["e2fsck", "-p", self.image], capture_output=True)
        _run("mount", "-o", "loop", self.image, self.directory)


class Full(Place):
    """A place that can be filled."""

    tight = True

    def fill(self, free: int) -> None:
        self.relieve()
        room = os.statvfs(self.directory).f_bfree - free
        (self.directory / "ballast").write_bytes(bytes(room * PAGE))

    def relieve(self) -> None:
        (self.directory / "ballast").write_bytes(b"")


@contextlib.contextmanager
def workshop():
    """A directory that every user may pass through; in memory, where there is such a place."""
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="popper-", dir=memory if os.access(memory, os.W_OK) else None))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def plain():
    """Whatever the machine has."""
    with workshop() as base:
        yield Place(base)


@contextlib.contextmanager
def ext4(options: str = ""):
    """A disk of its own, in a file."""
    with workshop() as base:
        image = base / "image"
        with open(image, "wb") as file:
            file.truncate(24 << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        with _mounted(base / "disk", "-o", "loop" + ("," + options if options else ""), image):
            yield Disk(base / "disk", image)


@contextlib.contextmanager
def nearly_full():
    """A tmpfs in which a delivery agent has left hardly a page."""
    with workshop() as base, _mounted(base / "full", "-t", "tmpfs", "-o", "size=1m,mode=755", "none"):
        yield Full(base / "full")


@contextlib.contextmanager
def nfs(*habits: str):
    """A directory seen through a client with habits of NFS."""
    if not os.path.exists("/dev/fuse"):
        raise Unavailable("no /dev/fuse")
    if os.geteuid() != 0:
        raise Unavailable("mounting needs root")
    with workshop() as base:
        behind, mount = base / "server", base / "client"
        behind.mkdir()
        mount.mkdir()
        client = subprocess.Popen([sys.executable, HABITS, behind, mount, *habits], stdin=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True)
        try:
            while not os.path.ismount(mount):
                if client.poll() is not None:
                    raise Unavailable(f"no FUSE: {client.stderr.read().strip().splitlines()[-1]}")
                time.sleep(0.01)
            yield Place(mount, behind)
        finally:
            subprocess.run(["umount", "--lazy", mount], capture_output=True)
            client.kill()
            client.wait()
            client.stderr.close()


@contextlib.contextmanager
def _mounted(mount: Path, *arguments):
    mount.mkdir()
    _run("mount", *arguments, mount)
    try:
        os.chmod(mount, 0o755)
        yield
    finally:
        _run("umount", "--lazy", mount)


def _run(*words) -> None:
    """Run a program that makes a place, or Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("mounting needs root")
    try:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    except FileNotFoundError:
        raise Unavailable(f"no {words[0]}") from None
    if done.returncode:
        raise Unavailable(" ".join(done.stderr.split()) or f"{words[0]} failed")


PLACES = {
    "ext4": ext4,
    "tmpfs nearly full": nearly_full,
    "NFS habit link=lost, unlink=lost": lambda: nfs("link=lost", "unlink=lost"),
    "NFS habit attr=5": lambda: nfs("attr=5"),
}
