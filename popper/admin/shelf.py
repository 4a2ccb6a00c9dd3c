"""The directory of bulletins as the administrator changes it: numbers that never go back, and nothing ever half there.

Two files of ours lie among the bulletins; their names begin with a dot, so that they are none:

    .lock    what two popperctl keep each other out with; only its owner can open it, or any user could hold it
    .last    the highest number that was ever used; it outlives the bulletin that had it

A change is written beside its place, synced, and moved there in one rename: a session that looks at that moment sees
the file as it was, or as it is, or none.
"""

import contextlib
import os
import stat
import sys
from shlex import quote

from popper.admin.console import Failed
from popper.bulletins import candidates, open_directory, read_bulletin
from popper.errors import Refused
from popper.library import library
from popper.popbull import DIGITS_MOST

LOCK, LAST, NEW, GONE = ".lock", ".last", ".new.", ".withdrawn."
PATIENCE = 60                  # seconds that another popperctl may take
COUNTER_MOST = 64              # octets of LAST that are looked at


class Shelf:
    """A directory of bulletins, open: one from which the server would deliver, or Failed says what to do about it.

    descriptor: of the directory, until the `with` ends.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        try:
            self.descriptor = open_directory(directory, os.geteuid())
        except Refused as refused:
            raise Failed(f"{refused.text}; {_remedy(directory)}", os.EX_CONFIG) from None

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_) -> None:
        os.close(self.descriptor)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def bulletins(self) -> "list[tuple[int, str]]":
        """(number, name) of each name that has a number, in the order in which users get them."""
        return candidates(self.descriptor)

    def find(self, word: str) -> "tuple[int, str]":
        """(number, name) of the bulletin that a number or a name means, or Failed."""
        found = [each for each in self.bulletins() if word in (str(each[0]), each[1])]
        if len(found) > 1:
            raise Failed(f"{', '.join(name for _, name in found)} have the number {word}: say which by its name",
                         os.EX_DATAERR)
        if not found:
            number = int(word) if word.isascii() and word.isdigit() and len(word) <= DIGITS_MOST else 0
            raise Failed(f"there is no bulletin {word} in {self.directory}" + (
                "; it was withdrawn, or its number skipped" if 0 < number <= self.last() else ""), os.EX_NOINPUT)
        return found[0]

    def bulletin(self, name: str, most: int) -> bytes:
        """What stands in a bulletin, or Failed with what the server would log. most: octets."""
        try:
            return read_bulletin(self.descriptor, name, most)
        except Refused as refused:
            raise Failed(refused.text, os.EX_DATAERR) from None

    def last(self) -> int:
        """The highest number that was ever used here, 0 for none, as far as files tell."""
        return max([self.counter(), *(number for number, _ in self.bulletins())])

    def counter(self) -> int:
        """What LAST says, 0 where it is not there yet."""
        try:
            text = self.read(LAST, COUNTER_MOST).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return 0
        if not (text.isascii() and text.isdigit()):
            raise Failed(f"{self.path(LAST)} holds no number; write the highest number that was ever used into it",
                         os.EX_DATAERR)
        return int(text)

    def read(self, name: str, most: int) -> bytes:
        """The first octets of a file in it, which must be one."""
        with open(self._open(name), "rb") as file:
            return file.read(most)

    def _open(self, name: str) -> int:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.descriptor)

    @contextlib.contextmanager
    def locked(self):
        """Keep other popperctl out, and take away what one that was killed left behind."""
        try:
            filelock = library("filelock")
        except ImportError:
            raise Failed(f"filelock is missing for {sys.executable}: apt install python3-filelock, or "
                         f"{sys.executable} -m pip install filelock", os.EX_UNAVAILABLE) from None
        with contextlib.suppress(FileExistsError):
            os.close(self._create(LOCK))
        try:
            lock = filelock.FileLock(self.path(LOCK), timeout=PATIENCE)
            lock.acquire()
        except filelock.Timeout:
            raise Failed(f"{self.path(LOCK)}: another popperctl has held it for {PATIENCE} seconds; is one waiting for "
                         "an answer?", os.EX_TEMPFAIL) from None
        try:
            for name in os.listdir(self.descriptor):
                if name.startswith(NEW):
                    os.unlink(name, dir_fd=self.descriptor)
            yield
        finally:
            lock.release()

    # -- with the lock -----------------------------------------------------------------------------------------------

    def next(self, asked: int, users: str, most: int) -> int:
        """The number of a new bulletin: above all that were used, or Failed.

        asked: for this one, or 0; users: who had bulletins with higher numbers, up to `most`, or "".
        """
        last = self.last()
        if asked and asked <= last:
            raise Failed(f"number {asked} cannot be used: numbers rise, and {last} was used; without --number it is "
                         f"{last + 1}", os.EX_USAGE)
        # Later, when somebody writes a large number into his own receipt, that is his affair.
        if users and not asked and not self.counter():
            raise Failed(f"{users} had bulletins up to {most} already, and would never get number {last + 1}: "
                         f"say --number {most + 1}, or --number {last + 1} if that does not matter", os.EX_DATAERR)
        number = asked or last + 1
        if number >= 10 ** DIGITS_MOST:
            raise Failed("the number would have too many digits for that of a bulletin", os.EX_DATAERR)
        return number

    def note(self, number: int) -> None:
        """Number was used, from now on and whatever becomes of its file."""
        if number > self.counter():
            self.place(LAST, b"%d\n" % number)

    def place(self, name: str, octets: bytes, most: int = 0) -> None:
        """Put a file in place, whole and on disk, in one step; whatever had the name is gone with it.

        most: of a bulletin, which the server is asked to read first; 0 for a file of ours, behind which comes one.
        """
        new = f"{NEW}{os.getpid()}"
        descriptor = self._create(new)
        try:
            with open(descriptor, "wb") as file:
                file.write(octets)
                file.flush()
                os.fchmod(descriptor, 0o644)     # whatever the umask
                os.fsync(descriptor)
            if most:
                self.bulletin(new, most)
            os.rename(new, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=self.descriptor)
            raise
        if most:
            os.fsync(self.descriptor)

    def withdraw(self, name: str) -> str:
        """Take a bulletin away; -> the name under which its owner finds it."""
        kept = GONE + name
        os.rename(name, kept, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        os.fsync(self.descriptor)
        with contextlib.suppress(OSError):   # a file of somebody else's in a directory of ours, or no file at all
            with open(self._open(kept), "rb") as file:
                os.fchmod(file.fileno(), 0o600)
        return kept

    def _create(self, name: str) -> int:
        """A new file that nobody else can open, open for writing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self.descriptor)


def _remedy(directory: str) -> str:
    """What makes a directory one that the server takes."""
    path = quote(directory)
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        return f"mkdir -p -m 755 {path}"
    except OSError:
        return "can this user enter it?"
    if not stat.S_ISDIR(status.st_mode):
        return "name a directory"
    if status.st_uid not in (0, os.geteuid()):
        return f"chown root {path}, or, if popper does not run as root, call popperctl as whoever it runs as"
    return f"chmod 755 {path}"
