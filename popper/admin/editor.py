"""What the administrator wrote: in a file, on standard input, or in the editor of his choice; what was typed is not
lost."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

from popper.admin.compose import without_comments
from popper.admin.console import Failed

ORDINARY = ("editor", "sensible-editor", "nano", "vi")      # where neither VISUAL nor EDITOR says which
ANSWERS_MOST = 1024            # characters of an answer


@contextlib.contextmanager
def written(console, file: "str | None", given: bytes, most: int, again: str):
    """What stands in the file, on standard input (no file, or `-`), or, at a terminal, what became of the given text.

    most: octets that are read of a file. When the `with` fails, what was typed stays in a file, and this says where;
    again: the command that takes that file.
    """
    if file and file != "-":
        with open(file, "rb") as source:
            yield without_comments(source.read(most))
        return
    if not sys.stdin.isatty():
        yield without_comments(sys.stdin.buffer.read(most))
        return
    kept = Kept(given)
    try:
        if file:
            console.complain("type the text, and Ctrl-D at the end")
            kept.write(sys.stdin.buffer.read(most))
        else:
            kept.edit()
        yield without_comments(kept.read())
    except BaseException:
        if kept.is_changed:
            console.complain(f"the text is kept in {kept.path}; {again} {kept.path}")
        else:
            kept.remove()
        raise
    kept.remove()


def asked(console, question: str) -> str:
    """An answer at the terminal, "" where there is none."""
    if not sys.stdin.isatty():
        return ""
    console.err.write(question)
    console.err.flush()
    return sys.stdin.readline(ANSWERS_MOST).strip()


def command() -> str:
    """The editor that is wanted, "" where there is none."""
    return os.environ.get("VISUAL") or os.environ.get("EDITOR") or next(filter(shutil.which, ORDINARY), "")


class Kept:
    """A file with the text that is being written; it stays until `remove`. begin, end: of its name."""

    def __init__(self, octets: bytes, begin: str = "bulletin.", end: str = ".txt") -> None:
        self.given = octets
        descriptor, self.path = tempfile.mkstemp(end, begin)
        with open(descriptor, "wb") as file:
            file.write(octets)

    def edit(self, otherwise: str = ", or give the text as a file") -> None:
        """Let it be edited. Raises Failed when there is no editor or it fails. otherwise: what helps besides EDITOR."""
        chosen = command()
        if not chosen:
            raise Failed(f"no editor: set EDITOR{otherwise}", os.EX_UNAVAILABLE)
        # By the shell, as everybody does who honours these: they may have arguments.
        status = subprocess.run(["/bin/sh", "-c", f'{chosen} "$@"', chosen, self.path]).returncode
        if status:
            raise Failed(f"{chosen} ended with status {status}", os.EX_UNAVAILABLE)

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, octets: bytes) -> None:
        """Have these octets in it."""
        with open(self.path, "wb") as file:
            file.write(octets)

    @property
    def is_changed(self) -> bool:
        """Whether anybody wrote anything."""
        return self.read() != self.given

    def remove(self) -> None:
        os.unlink(self.path)
