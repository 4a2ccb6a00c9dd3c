"""What every command of popperctl says, and how: to a person, to a program that asked with --json, to a terminal.

Standard output is for what was asked for, standard error for trouble and for the progress of long work.
"""

import contextlib
import datetime
import json
import os
import shutil
import time

from popper.admin import table
from popper.admin.usage import PROGRAM
from popper.library import library
from popper.options import Options, settle

BOLD, PLAIN = "\x1b[1m", "\x1b[m"
COLOURS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m"}


class Failed(Exception):
    """A command cannot go on. text: what, and what to do, in one line; status: an os.EX_*."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class ReaderGone(Exception):
    """Nobody reads standard output any longer, as behind `| head`."""


def settled(arguments: dict) -> Options:
    """The server's options out of the file that -C names, else /etc/popper.conf. Raises ConfigError."""
    return settle([("config", arguments["-C"])] if arguments.get("-C") else [])


class Console:
    """out, err: text files. json: whether one JSON document was asked for; `say` is silent then."""

    def __init__(self, out, err) -> None:
        self.out = out
        self.err = err
        self.json = False
        self.progressing: "Progress | None" = None
        for stream in out, err:
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def say(self, text: str, colour: str = "") -> None:
        """One line for a person."""
        if not self.json:
            self._write(self._coloured(table.plain(text), COLOURS.get(colour, "")) + "\n")

    def say_all(self, text: str) -> None:
        """Lines of our own for a person, as they are."""
        self._write(text + "\n")

    def octets(self, octets: bytes) -> None:
        """Octets of a message as they are; a terminal gets lines of printable text."""
        if self.out.isatty():
            for line in octets.decode("utf-8", "surrogateescape").split("\n"):
                self.say(line)
            return
        self.flush()
        stream = getattr(self.out, "buffer", None)
        self._to_reader(lambda: stream.write(octets) if stream else self.out.write(octets.decode("utf-8", "replace")))

    def document(self, value) -> None:
        """The JSON document, once in a command, when it was asked for; times in ISO 8601."""
        if self.json:
            self._write(_in_json(value) + "\n")

    def table(self, titles: "dict[str, str]", rows, colour=None) -> None:
        """Rows (a dict each) as a table, or as the JSON document: then with all that is in them.

        titles: {key: title} of the columns a person sees; rows: gone through more than once, and never held all at
        once; colour: row -> "red", "green", "yellow" or "".
        """
        if self.json:
            self._list(rows)
            return
        columns = shutil.get_terminal_size().columns if self.out.isatty() else None
        utf = "utf" in (getattr(self.out, "encoding", None) or "utf").lower()
        lines = table.lines(titles, rows, columns, "…" if utf else "~")
        self._write(self._coloured(next(lines), BOLD) + "\n")
        for row, line in zip(rows, lines):
            self._write(self._coloured(line, COLOURS.get(colour(row), "") if colour else "") + "\n")

    def _list(self, rows) -> None:
        """The JSON document, when it is a list, row by row."""
        before = "["
        for row in rows:
            self._write(before + "\n  " + _in_json(row).replace("\n", "\n  "))
            before = ","
        self._write("[]\n" if before == "[" else "\n]\n")

    def complain(self, text: str) -> None:
        """One line on standard error, by the name of the program."""
        self._hide_progress()
        with contextlib.suppress(OSError):
            self.err.write(f"{PROGRAM}: {table.plain(text)}\n")
            self.err.flush()

    def progress(self, what: str, total: int) -> "Progress":
        """A context for long work: `add` to it what has been done of `total`. Seen on a terminal only."""
        self.progressing = Progress(self.err, table.plain(what), total)
        return self.progressing

    def flush(self) -> None:
        """To be called last: what a full disk or a closed pipe does not take is told here at the latest."""
        self._to_reader(self.out.flush)

    def _write(self, text: str) -> None:
        self._hide_progress()
        self._to_reader(lambda: self.out.write(text))

    def _to_reader(self, act) -> None:
        try:
            act()
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise Failed(f"standard output: {error.strerror}", os.EX_IOERR) from None

    def _hide_progress(self) -> None:
        if self.progressing:
            self.progressing.hide()

    def _coloured(self, text: str, code: str) -> str:
        plain = not code or not self.out.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return text if plain else code + text + PLAIN


class Progress:
    """A bar on the terminal for work that lasts, drawn by tqdm where that is installed, and gone at the end."""

    SOON = 0.5                               # seconds of work from which on it is worth a bar

    def __init__(self, err, what: str, total: int) -> None:
        self.err = err if total and err.isatty() and os.environ.get("TERM") != "dumb" else None
        self.what = what
        self.total = total
        self.done = 0
        self.begun = time.monotonic()
        self.bar = None
        self.shown = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):
            if self.bar is not None:
                self.bar.close()
        self.err = self.bar = None
        self.shown = False

    def add(self, amount: int = 1) -> None:
        """So much more is done."""
        self.done += amount
        if not self.err:
            return
        with contextlib.suppress(OSError):
            if self.bar is not None:
                self.shown = bool(self.bar.update(min(self.done, self.total) - self.bar.n)) or self.shown
            elif time.monotonic() - self.begun >= self.SOON:
                self._draw()

    def hide(self) -> None:
        """Take the bar away; a later `add` draws it again."""
        if self.shown:
            self.shown = False
            with contextlib.suppress(OSError):
                self.bar.clear()

    def _draw(self) -> None:
        try:
            tqdm = library("tqdm").tqdm
        except ImportError:
            self.err = None                  # then there is none
            return
        tqdm.monitor_interval = 0            # no thread of its own
        self.shown = True
        self.bar = tqdm(total=self.total, initial=min(self.done, self.total), desc=self.what, file=self.err,
                        ncols=shutil.get_terminal_size().columns - 1, leave=False, ascii=True,
                        bar_format="{desc} [{bar}] {percentage:3.0f}%, {remaining} left")


def _in_json(value) -> str:
    return json.dumps(value, indent=2, default=_as_json)


def _as_json(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
