"""What popperctl says to persons, programs and terminals."""

import datetime
import io
import json
import os

import pytest

from ctl import Terminal
from popper.admin import console as module
from popper.admin.console import CLEAR_LINE, Console, Failed, ReaderGone, settled
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
    """A clock to set."""
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now
    monkeypatch.setattr(module, "time", Clock())
    monkeypatch.setenv("COLUMNS", "70")
    return module.time


def test_progress_is_seen_on_a_terminal_and_gone_at_the_end(clock):
    def work(console):
        with console.progress("joe", 200) as bar:
            bar.add(1)                       # too soon to be seen
            clock.now += 10
            bar.add(49)
            clock.now += 0.01
            bar.add(50)                      # too soon again
            console.say("half")
            clock.now += 0.01
            bar.add(50)                      # drawn again at once
    out, err = speak(work, terminal=True)
    assert out == "half\n"
    assert err == (CLEAR_LINE + "joe [######..................]  25%, 0:30 left" + CLEAR_LINE
                   + CLEAR_LINE + "joe [##################......]  75%, 0:03 left" + CLEAR_LINE)


def test_progress_goes_nowhere_but_to_a_terminal(clock):
    def work(console):
        with console.progress("joe", 2) as bar:
            clock.now += 10
            bar.add(1)
    assert speak(work) == ("", "")


def test_progress_of_nothing_and_beyond_the_end(clock):
    console = Console(Terminal(), Terminal())
    assert console.progress("joe", 0).line(100.0) == "joe [........................]   0%, 0:00 left"
    more = console.progress("joe", 2)
    more.add(5)
    assert more.line(130.0) == f"joe [{'#' * 24}] 100%, 0:00 left"


def test_a_complaint_takes_the_progress_away_first(clock):
    def work(console):
        with console.progress("joe", 2) as bar:
            clock.now += 10
            bar.add(1)
            console.complain("trouble")
    assert speak(work, terminal=True)[1].endswith(CLEAR_LINE + "popperctl: trouble\n")


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
