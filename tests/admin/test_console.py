"""What popperctl says to persons, programs and terminals."""

import datetime
import io
import json
import os
import re
import subprocess
import sys

import pytest

from conftest import TREE
from ctl import Terminal
from popper.admin import console as module
from popper.admin.console import Console, Failed, ReaderGone, settled
from popper.errors import ConfigError

ROWS = [{"user": "joe", "octets": 5, "since": datetime.datetime(2026, 1, 2, 3, 4, 5), "raw": b"\xff"}]
TITLES = {"user": "USER", "octets": "OCTETS"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in "NO_COLOR", "TERM", "COLUMNS":
        monkeypatch.delenv(name, raising=False)


def speak(act, terminal=False, as_json=False):
    """What `act` writes to (standard output, standard error)."""
    console = Console(*(Terminal() if terminal else io.StringIO() for _ in range(2)))
    console.json = as_json
    act(console)
    return console.out.getvalue(), console.err.getvalue()


def red(_):
    return "red"


def test_a_table_in_a_pipe_is_plain_and_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    rows = [{"user": "x" * 100, "octets": 5}]
    out, _ = speak(lambda console: console.table(TITLES, rows, red))
    assert out == f"USER{' ' * 96}  OCTETS\n{'x' * 100}       5\n"


def test_a_table_on_a_terminal_is_coloured_and_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    out, _ = speak(lambda console: console.table(TITLES, [{"user": "x" * 100, "octets": 5}], red), terminal=True)
    assert out == f"\x1b[1mUSER          OCTETS\x1b[m\n\x1b[31m{'x' * 11}…       5\x1b[m\n"


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_none_is_wanted(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    out, _ = speak(lambda console: (console.table(TITLES, ROWS, red), console.say("done", "green")), terminal=True)
    assert out == "USER  OCTETS\njoe        5\ndone\n"


def test_an_empty_no_color_is_none(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "")
    assert speak(lambda console: console.say("done", "green"), terminal=True)[0] == "\x1b[32mdone\x1b[m\n"


def test_json_is_one_document_with_all_that_is_known():
    out, _ = speak(lambda console: (console.say("about it"), console.table(TITLES, ROWS)), as_json=True)
    assert json.loads(out) == [{"user": "joe", "octets": 5, "since": "2026-01-02T03:04:05", "raw": "\\xff"}]


def test_json_of_a_name_that_is_no_utf8_is_ascii():
    out, _ = speak(lambda console: console.document(os.fsdecode(b"n\xe9")), as_json=True)
    assert out.isascii() and json.loads(out) == os.fsdecode(b"n\xe9")


def test_a_document_is_for_who_asked_for_it():
    assert speak(lambda console: console.document([1])) == ("", "")


def test_nothing_said_moves_a_cursor():
    out, err = speak(lambda console: (console.say("a\x1b[2Jb"), console.complain("c\rd\ne")))
    assert (out, err) == ("a\\x1b[2Jb\n", "popperctl: c\\x0dd\\x0ae\n")


def test_what_an_encoding_lacks_is_escaped(tmp_path):
    with open(tmp_path / "out", "w", encoding="latin-1") as out:
        console = Console(out, io.StringIO())
        console.say("日 é")
    assert (tmp_path / "out").read_bytes() == "\\u65e5 é\n".encode("latin-1")


def test_a_reader_that_went_away():
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(ReaderGone), open(writer, "w") as out:
        console = Console(out, io.StringIO())
        console.say("anybody?")
        try:
            console.flush()
        finally:
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


def test_a_full_disk_is_told():
    with pytest.raises(Failed) as failed, open("/dev/full", "w") as out:
        console = Console(out, io.StringIO())
        console.say("lost")
        try:
            console.flush()
        finally:
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    assert (failed.value.text, failed.value.status) == ("standard output: No space left on device", os.EX_IOERR)


# -- progress ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def clock(monkeypatch):
    """A clock to set, for the console and for tqdm."""
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(module, "time", Clock())
    monkeypatch.setattr(tqdm.std, "time", lambda: module.time.now)
    monkeypatch.setenv("COLUMNS", "70")
    return module.time


def screen(text):
    """What a terminal shows in its last line."""
    line = [" "] * 200
    at = 0
    for letter in text.rpartition("\n")[2]:
        if letter == "\r":
            at = 0
        else:
            line[at], at = letter, at + 1
    return "".join(line).rstrip()


def test_progress_is_seen_on_a_terminal_and_gone_at_the_end(clock):
    seen = []

    def work(console):
        def look():
            seen.append(screen(console.err.getvalue()))
        with console.progress("joe", 200) as bar:
            bar.add(50)                      # too soon to be seen
            look()
            clock.now += 10
            bar.add(50)
            look()
            clock.now += 5
            bar.add(50)
            look()
            console.say("on standard output")
            look()
            clock.now += 5
            bar.add(25)                      # drawn again
            look()
            console.complain("trouble")
            bar.add(25)
    out, err = speak(work, terminal=True)
    assert out == "on standard output\n"
    assert seen[0] == seen[3] == screen(err) == ""
    assert [re.sub(r"\[.*\]", "[]", line) for line in (seen[1], seen[2], seen[4])] == [
        "joe []  50%, ? left", "joe []  75%, 00:05 left", "joe []  88%, 00:03 left"]
    bars = [re.search(r"\[(#*)", line)[1] for line in (seen[1], seen[2], seen[4])]
    assert 0 < len(bars[0]) < len(bars[1]) < len(bars[2]) < 70 and all(len(line) < 70 for line in seen)
    assert [line for line in err.replace("\r", "\n").split("\n") if "trouble" in line] == ["popperctl: trouble"]


@pytest.mark.parametrize("terminal, total, kind", [(False, 2, "xterm"), (True, 2, "dumb"), (True, 0, "xterm")])
def test_progress_goes_nowhere_but_to_a_terminal_and_is_of_something(clock, monkeypatch, terminal, total, kind):
    monkeypatch.setenv("TERM", kind)

    def work(console):
        with console.progress("joe", total) as bar:
            clock.now += 10
            bar.add(1)
    assert speak(work, terminal=terminal) == ("", "")


def test_progress_beyond_the_end(clock):
    console = Console(Terminal(), Terminal())
    with console.progress("joe", 2) as bar:
        clock.now += 10
        bar.add(5)
        assert " 100%, " in screen(console.err.getvalue())
        clock.now += 10
        bar.add(5)
        assert " 100%, " in screen(console.err.getvalue())


def test_without_tqdm_there_is_no_bar(clock, monkeypatch):
    def none(name):
        raise ImportError(name)
    monkeypatch.setattr(module, "library", none)
    test_progress_goes_nowhere_but_to_a_terminal_and_is_of_something(clock, monkeypatch, True, 2, "xterm")


def test_tqdm_is_imported_only_when_there_is_something_to_draw():
    script = ("import io, sys; from popper.admin.console import Console\n"
              "class Terminal(io.StringIO):\n    isatty = lambda self: True\n"
              "for kind, seconds in (Terminal, 60), (io.StringIO, 0), (Terminal, 0):\n"
              "    with Console(kind(), kind()).progress('x', 2) as bar:\n"
              "        bar.SOON = seconds\n        bar.add(1)\n"
              "    print('tqdm' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", script], cwd=TREE, capture_output=True, text=True, check=True,
                          env={**os.environ, "TERM": "xterm"})
    assert (done.stdout, done.stderr) == ("False\nFalse\nTrue\n", "")


# -- configuration -----------------------------------------------------------------------------------------------------

def test_the_configuration_is_the_servers(tmp_path, monkeypatch):
    conf = tmp_path / "popper.conf"
    conf.write_text("timeout 17\n")
    assert settled({"-C": str(conf)}).timeout == 17
    monkeypatch.setattr("popper.options.CONFIG", str(conf))
    assert settled({"-C": None}).timeout == settled({}).timeout == 17


def test_a_mistake_in_the_configuration(tmp_path):
    conf = tmp_path / "popper.conf"
    conf.write_text("\ntimeout soon\n")
    with pytest.raises(ConfigError, match=f"^{conf}:2: timeout: "):
        settled({"-C": str(conf)})
