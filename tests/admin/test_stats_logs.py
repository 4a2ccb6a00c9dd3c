"""Logs as files and lines: stamps and frames, packing, rotation, twins, and whatever else may stand in a file."""

import bz2
import datetime
import gzip
import io
import itertools
import lzma
import os
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as some

import corpus
from corpus import at, classic, journal, octets
from popper.admin import logline, logs

EVERY = (b"\n",)               # all lines hold this word


def read_line(line, reference=at(days=1), latest=2027):
    line = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
    return logline.line_of(line, logline.Stamps(reference, latest))


@pytest.fixture
def read(tmp_path):
    """read(*files, words=, since=) -> (lines, Reading, complaints)."""
    def call(*names, words=EVERY, since=None):
        complaints = []
        reading = logs.Reading([logs.Source(os.fspath(name)) for name in names], words, since,
                               complain=complaints.append)
        return list(reading), reading, complaints
    return call


@pytest.fixture
def log(tmp_path):
    """log(name, lines, changed=) -> a file with these lines, last written then."""
    def make(name, lines, changed=at(days=1)):
        path = tmp_path / name
        path.write_bytes(lines if isinstance(lines, bytes) else octets(lines))
        os.utime(path, (changed.timestamp(), changed.timestamp()))
        return path
    return make


# -- frames ------------------------------------------------------------------------------------------------------------

def test_a_trace_of_a_popper_on_its_own():
    """A session has a number behind that of the daemon."""
    line = corpus.trace(at(), "TEXT with: colons", "7.22")
    assert read_line(line) == (at(), "", "", "7.22", "TEXT with: colons")


@pytest.mark.parametrize("frame", corpus.FRAMES)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Los_Angeles"])
def test_every_frame_gives_the_same_line(monkeypatch, frame, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = read_line(corpus.FRAMES[frame](at(), "TEXT with: colons"))
        traced = frame.startswith("trace")
        hosted = not traced and frame != "container"
        assert found == (at(), "mail" if hosted else "", "" if traced else "popper", "7", "TEXT with: colons")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("line, wanted", [
    ("<22>Nov 16 09:00:00 mail popper[7]: x", ("mail", "popper", "7", "x")),
    ("Nov  6 09:00:00 mail qpopper: x", ("mail", "qpopper", "", "x")),
    ("Nov 16 09:00:00 2001:db8::1 in.qpopper[7]: x", ("2001:db8::1", "in.qpopper", "7", "x")),
    ("Nov 16 09:00:00 mail dovecot: pop3(joe)<1><a/+=>: x", ("mail", "dovecot", "", "pop3(joe)<1><a/+=>: x")),
    ("Nov 16 09:00:00 pop3(joe)<1><a/+=>: Info: x", ("", "pop3(joe)<1><a/+=>", "", "Info: x")),
    ("Nov 16 09:00:00 pop3-login: Info: x", ("", "pop3-login", "", "Info: x")),
    ("Nov 16 09:00:00 mail popper[7]: popper[9]: notice: x", ("mail", "popper", "9", "x")),
    ("Nov 16 09:00:00 mail popper[7]: x [pop_dropcopy.c:12]", ("mail", "popper", "7", "x")),
    ("Nov 16 09:00:00 mail popper[7]: x\r", ("mail", "popper", "7", "x")),
    ("Nov 16 09:00:00 mail popper[7]:", ("mail", "popper", "7", "")),
    ("<165>1 2026-11-16T09:00:00Z mail popper - - - x", ("mail", "popper", "", "x")),
    ("<165>1 2026-11-16T09:00:00Z mail popper 7 ID -", ("mail", "popper", "7", "")),
    ("2026-11-16 09:00:00 mail popper[7]: x", ("mail", "popper", "7", "x")),
    ("2026-11-16T09:00:00,5+0100 mail popper[7]: x", ("mail", "popper", "7", "x")),
])
def test_frames_with_this_and_that(line, wanted):
    assert read_line(line)[1:] == wanted


@pytest.mark.parametrize("line", [
    "", "\0", "popper[7]: x", "Nov 16 09:00:00", "Nov 16 09:00:00 mail", "Nov 31 09:00:00 mail popper[7]: x",
    "Nov 16 24:00:00 mail popper[7]: x", "Foo 16 09:00:00 mail popper[7]: x", "Nov 0  09:00:00 mail popper[7]: x",
    "Thu Nov 16 09:00:00 1066 [7] x", "Thu Nov 16 09:00:00 9999 [7] x", "2026-13-16T09:00:00Z mail popper[7]: x",
    "9999-12-31T23:59:59-23:59 mail popper[7]: x", "0001-01-01T00:00:00+23:59 mail popper[7]: x",
    "2026-11-16T09:00:00+99:99 mail popper[7]: x", "<165>1 2026-11-16T09:00:00Z mail popper", "{", "{}",
    '{"MESSAGE":"x"}', "{" * 30000, '{"a":' * 5000,
    '{"MESSAGE":[300],"SYSLOG_IDENTIFIER":"popper","__REALTIME_TIMESTAMP":"-1"}',
    '{"MESSAGE":{},"SYSLOG_IDENTIFIER":"popper","__REALTIME_TIMESTAMP":"1"}',
    '{"MESSAGE":"x","SYSLOG_IDENTIFIER":["a","b"],"__REALTIME_TIMESTAMP":"1790000000000000"}',
    '{"MESSAGE":"x","SYSLOG_IDENTIFIER":"popper","__REALTIME_TIMESTAMP":"99999999999999999999"}',
    '{"MESSAGE":"x","SYSLOG_IDENTIFIER":"popper","__REALTIME_TIMESTAMP":' + "9" * 5000 + "}",
    "²⁰²⁶-11-16T09:00:00Z mail popper[7]: x", "Nov ¹6 09:00:00 mail popper[7]: x",
], ids=lambda line: line[:40])
def test_what_is_no_line_is_none(line):
    assert read_line(line) is None


@given(some.builds(bytes.__add__, some.sampled_from(
    [b"", b"Nov 16 09:00:00 ", b"2026-11-16T09:00:00Z ", b"<1>1 2026-11-16T09:00:00Z m p 1 ", b'{"MESSAGE":']),
    some.binary()))
def test_no_octets_are_an_error(line):
    found = read_line(line)
    assert found is None or isinstance(found, logline.Line)


def test_octets_that_are_no_text_are_shown_as_such():
    assert read_line(b"Nov 16 09:00:00 mail popper[7]: a\xff\xfe\x1b").text == "a\\xff\\xfe\x1b"
    assert read_line(journal(at(), b"a\xff")).text == "a\\xff"


# -- years -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("written, stamp, year", [
    (datetime.datetime(2026, 11, 20), "Nov 20", 2026), (datetime.datetime(2026, 11, 20), "Nov 21", 2026),
    (datetime.datetime(2026, 11, 20), "Nov 22", 2025), (datetime.datetime(2026, 11, 20), "Dec 31", 2025),
    (datetime.datetime(2026, 1, 1), "Dec 31", 2025), (datetime.datetime(2026, 12, 31, 23), "Jan  1", 2027),
    (datetime.datetime(2026, 3, 1), "Feb 29", 2024), (datetime.datetime(2024, 3, 1), "Feb 29", 2024),
    (datetime.datetime(2103, 3, 1), "Feb 29", 2096),
])
def test_the_year_is_the_last_that_fits_the_age_of_the_file(written, stamp, year):
    assert read_line(f"{stamp} 09:00:00 mail popper[7]: x", written, 2200).when.year == year


def test_the_age_of_a_file_is_when_it_was_written(read, log):
    old = log("mail.log.9", [classic(at(), "x")], datetime.datetime(2019, 12, 1))
    assert read(old)[0][0].when == datetime.datetime(2019, 11, 16, 9)


# -- files -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress,
                                  lambda text: gzip.compress(text[:100]) + gzip.compress(text[100:])])
def test_packed_files(read, log, pack):
    lines = [classic(at(seconds=number), f"text {number}") for number in range(60)]
    found, reading, complaints = read(log("mail.log.2", pack(octets(lines))))
    assert [line.text for line in found] == [f"text {number}" for number in range(60)]
    assert (reading.lines, reading.octets, reading.odd, reading.broken) == (60, len(octets(lines)), 0, 0)
    assert complaints == []


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_that_was_cut_off_counts_as_far_as_it_goes(read, log, pack):
    lines = octets(classic(at(seconds=number), os.urandom(50).hex()) for number in range(9000))
    packed = pack(lines)
    damaged, other = log("mail.log.2.gz", packed[:-len(packed) // 9]), log("other", [classic(at(), "x")])
    found, reading, complaints = read(damaged, other)
    assert reading.broken == 1 and len(complaints) == 1 and "mail.log.2.gz: " in complaints[0]
    assert 1000 < len(found) < 9001 and any(line.text == "x" for line in found)


@pytest.mark.parametrize("octets, told", [(b"\x1f\x8bnonsense", "mail.log: "), (b"\x28\xb5\x2f\xfd\x04", "zstd")])
def test_a_file_that_cannot_be_unpacked_is_told(read, log, octets, told):
    found, reading, complaints = read(log("mail.log", octets))
    assert (found, reading.broken, len(complaints)) == ([], 1, 1) and told in complaints[0]


def test_rotated_files_are_read_in_the_order_of_time(read, log):
    names = ["mail.log", "mail.log.1", "mail.log-20261101", "mail.log.10.gz"]
    paths = []
    for age, name in enumerate(names):
        lines = octets([classic(at(days=-age), name)])
        paths.append(log(name, gzip.compress(lines) if name.endswith("gz") else lines, at(days=-age)))
    assert [line.text for line in read(*paths)[0]] == names[::-1]
    assert len({logs.Source(os.fspath(path)).family for path in paths}) == 1


@pytest.mark.parametrize("names", [
    ["mail.log.10.gz", "mail.log.2", "mail.log.1", "mail.log"],
    ["mail.log-20261101.gz", "mail.log-20261108", "mail.log-20261115-1795000000", "mail.log"]])
@pytest.mark.parametrize("later", [0, 1, -1])
def test_rotated_files_that_were_copied_are_read_in_the_order_of_time(read, log, names, later):
    """Their times are those of the copying."""
    paths = []
    for number, name in enumerate(names):
        lines = octets([classic(at(hours=number), name)])
        lines = gzip.compress(lines) if name.endswith("gz") else lines
        paths.append(log(name, lines, at(days=9, hours=number * later)))
    assert [line.text for line in read(*paths)[0]] == [line.text for line in read(*paths[::-1])[0]] == names


def test_files_that_were_last_written_before_are_not_opened(read, log):
    old, new = log("a", [classic(at(), "x")], at(days=1)), log("b", [classic(at(days=3), "y")], at(days=4))
    found, reading, _ = read(old, new, since=at(days=2))
    assert [line.text for line in found] == ["y"] and [source.name for source in reading.sources] == [str(new)]


def test_a_line_of_two_logs_counts_once_and_twice_where_one_log_has_it_twice(read, log):
    same, twice, own = classic(at(), "same"), classic(at(hours=1), "twice"), classic(at(hours=2), "own")
    far = [classic(at(minutes=minute), f"far {minute}") for minute in range(1, 50)]
    mail = log("mail.log", [same, twice, twice, own])
    syslog = log("syslog", [same, *far, twice, twice, twice])
    texts = [line.text for line in read(mail, syslog)[0]]
    assert sorted(texts) == sorted(["same", *(f"far {minute}" for minute in range(1, 50)), *["twice"] * 3, "own"])
    assert [line.text for line in read(mail)[0]] == ["same", "twice", "twice", "own"]


def test_twins_are_known_by_all_but_the_host(read, log):
    lines = [classic(at(), "x", pid=1), classic(at(), "x", pid=2), classic(at(seconds=1), "x", pid=1),
             classic(at(), "y", pid=1), classic(at(), "x", "qpopper", 1)]
    other = log("syslog", [line.replace(" mail ", " mail.example.org ") for line in lines])
    assert len(read(log("mail.log", lines), other)[0]) == 5


def test_a_line_that_stands_in_a_trace_as_well_counts_once(read, log):
    """A trace does not tell the program."""
    mail = log("mail.log", [classic(at(), "x"), classic(at(seconds=1), "y")])
    trace = log("popper.trace", [corpus.trace(at(), "x"), corpus.trace(at(), "more")])
    assert sorted(line.text for line in read(mail, trace)[0]) == ["more", "x", "y"]


def test_twins_are_found_however_long_the_logs_are(read, log, monkeypatch):
    monkeypatch.setattr(logs, "TWINS", 3)
    lines = [classic(at(seconds=number), "x") for number in range(50)]
    assert len(read(log("mail.log", lines), log("syslog", lines))[0]) == 50


def test_what_is_not_there_or_no_file_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        logs.Source(str(tmp_path / "none"))
    with pytest.raises(IsADirectoryError):
        logs.Source(str(tmp_path))


# -- lines out of blocks -----------------------------------------------------------------------------------------------

@given(some.lists(some.binary(max_size=30).map(lambda line: line.replace(b"\n", b""))), some.integers(1, 40))
def test_blocks_are_cut_at_the_ends_of_lines(lines, most):
    text = b"".join(line + b"\n" for line in lines)
    stream = io.BytesIO(text)
    blocks = list(logs.whole_lines(lambda _: stream.read(most)))
    assert b"".join(blocks) == text and all(block.endswith(b"\n") for block in blocks)


def test_a_last_line_without_an_end_counts(read, log):
    assert [line.text for line in read(log("a", octets([classic(at(), "x")])[:-1]))[0]] == ["x"]


@pytest.mark.parametrize("length", [logs.LONGEST + 1, logs.BLOCK - 1, logs.BLOCK, 3 * logs.BLOCK + 5])
def test_lines_that_are_too_long_are_left_out_and_those_beside_them_are_not(read, log, length):
    lines = [classic(at(), "before"), classic(at(), "y" * length), classic(at(), "after")]
    assert [line.text for line in read(log("a", lines))[0]] == ["before", "after"]
    assert [line.text for line in read(log("b", octets(lines[:2])[:-1]))[0]] == ["before"]


def test_the_rest_of_a_line_that_is_too_long_is_not_taken_for_a_line(monkeypatch):
    monkeypatch.setattr(logs, "BLOCK", 8)
    stream = io.BytesIO(b"one\n" + b"y" * 30 + b"Nov\ntwo\n")
    assert b"".join(logs.whole_lines(lambda most: stream.read(5))) == b"one\ntwo\n"


@given(some.lists(some.sampled_from([b"", b"a", b"ab", b"b", b"xay", b"aa", b"\0"]), max_size=9))
def test_lines_with_a_word(lines):
    block = b"".join(line + b"\n" for line in lines)
    assert list(logs._lines_with((b"a", b"b"), block)) == [line for line in lines if b"a" in line or b"b" in line]
    assert list(logs._lines_with(EVERY, block)) == lines


def test_memory_does_not_grow_with_the_length_of_a_log(read, tmp_path):
    path = tmp_path / "big"
    line = octets(corpus.noise(1000))
    with open(path, "wb") as file:
        for _ in range(400):
            file.write(line)
    assert path.stat().st_size > 25 * logs.BLOCK
    tracemalloc.start()
    try:
        found, reading, _ = read(path, words=(b"Stats: ",))
        assert tracemalloc.get_traced_memory()[1] < 8 * logs.BLOCK
    finally:
        tracemalloc.stop()
    assert (found, reading.lines) == ([], 400000)


def test_ticks_add_up_to_what_the_files_take(log):
    files = [log("a", corpus.noise(20000)), log("b.gz", gzip.compress(octets(corpus.noise(20000))))]
    ticks = []
    sources = [logs.Source(str(path)) for path in files]
    assert list(logs.Reading(sources, (b"Stats: ",), tick=ticks.append)) == []
    assert sum(ticks) == sum(source.size for source in sources) == sum(path.stat().st_size for path in files)


# -- which logs there are ----------------------------------------------------------------------------------------------

def test_the_usual_logs_are_those_that_are_there(monkeypatch, tmp_path, log):
    monkeypatch.setattr(logs, "PLACES", tuple(str(tmp_path / name) for name in ("mail.log", "syslog", "none", "mail")))
    assert logs.usual() == ["journal"]
    (tmp_path / "mail").mkdir()
    names = ["mail.log", "mail.log.1", "mail.log.2.gz", "syslog-20261101", "trace[1]"]
    for name in [*names, "mail.logs", "mail.log.old", "xsyslog"]:
        log(name, b"")
    assert logs.usual(str(tmp_path / "trace[1]")) == [str(tmp_path / name) for name in names]
    assert logs.usual() == [str(tmp_path / name) for name in names[:-1]]


# -- the journal -------------------------------------------------------------------------------------------------------

@pytest.fixture
def journalctl(tmp_path, monkeypatch):
    """journalctl(script) -> a file with the words it was called with."""
    def make(script):
        program, said = tmp_path / "bin" / "journalctl", tmp_path / "said"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{said}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return said
    return make


def test_the_journal_is_asked_for_our_idents(read, journalctl, log):
    said = journalctl(f"cat {log('lines', [journal(at(), 'x'), journal(at(hours=1), b'a' + bytes([255]), 'dovecot')])}")
    found, reading, _ = read("journal", since=at())
    assert [(line.when, line.ident, line.text) for line in found] == [
        (at(), "popper", "x"), (at(hours=1), "dovecot", "a\\xff")]
    assert said.read_text().split() == ["-o", "json", "--no-pager", "-q",
                                        *(f"--identifier={each}" for each in logs.IDENTS),
                                        f"--since=@{int(at().timestamp())}"]
    assert reading.broken == 0


def test_a_journal_that_fails_is_told(read, journalctl, log):
    journalctl(f"cat {log('lines', [journal(at(), 'x')])}; echo 'No permission.' >&2; exit 1")
    found, reading, complaints = read("journal")
    assert [line.text for line in found] == ["x"]
    assert complaints == ["journal: No permission.; what came before that is counted"] and reading.broken == 1


def test_without_journalctl_it_says_so(read, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read("journal")[2] == ["journal: journalctl is not installed; what came before that is counted"]


def test_a_reader_that_stops_lets_journalctl_go(journalctl):
    journalctl(f"yes '{journal(at(), 'x')}'")
    lines = iter(logs.Reading([logs.Source("journal")], EVERY))
    assert len(list(itertools.islice(lines, 5))) == 5
    lines.close()                            # hangs when the program is not ended
