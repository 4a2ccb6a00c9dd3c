"""The trace file, the masking of secrets,
and whole lines whatever happens (ucb-popper.md 9; security.md rows 11-13)."""

import os
import re
import socket
import stat
import subprocess
import sys
import syslog as levels
import time

import pytest
from conftest import with_syslog
from hypothesis import given, settings
from hypothesis import strategies as st

from popper import journal as module
from popper.errors import ConfigError
from popper.journal import NAME, Journal, Notes, followed, masked, open_trace, watched
from popper.options import Options

many = settings(deadline=None, max_examples=200, database=None, derandomize=True)
LINE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 123]\d "
                  r"\d\d:\d\d:\d\d\.\d{3} \d{4} \[(\d+)\] (.*)\n")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace"


@pytest.fixture
def trace(path):
    descriptor = open_trace(str(path))
    yield descriptor
    os.close(descriptor)


def journal(trace=None, **settings):
    options = Options()
    for name, value in settings.items():
        setattr(options, name, value)
    return Journal("popper", options, trace)


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        open_trace(str(path))
    return str(caught.value)


# -- lines of the trace ----------------------------------------------------------------------------------------------

def test_a_line_has_stamp_and_process_in_the_shape_of_the_original(path, trace):
    """`Thu Nov 24 18:22:48.123 1996 [PID] TEXT`: the original's, with the milliseconds of Qpopper 4."""
    before = int(time.time())
    journal(trace).notice("Stats: joe 0 0 0 0 host 10.0.0.1")
    line = path.read_text()
    assert LINE.fullmatch(line).group(3, 4) == (str(os.getpid()), "Stats: joe 0 0 0 0 host 10.0.0.1")
    assert before <= time.mktime(time.strptime(line[:19] + line[23:28])) <= time.time()


def test_every_severity_goes_to_the_trace(path, trace):
    log = journal(trace)
    for say in (log.critical, log.warning, log.notice, log.info, log.debug):
        say(say.__name__)
    assert [LINE.fullmatch(line).group(4) for line in path.read_text().splitlines(True)] == \
        ["critical", "warning", "notice", "info", "debug"]


@pytest.mark.parametrize("text", [
    "short", "x" * 5000, "y" * 100000, "gr\u00fc\u00dfe", "\udcf6 of an old file system", "%s%n{0}"])
def test_a_line_is_one_write(text):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        journal(theirs.fileno()).notice(text)
        record = ours.recv(1 << 20).decode()
        assert LINE.fullmatch(record).group(4) == text.encode("utf-8", "replace").decode()
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


WRITER = """
import sys
from popper.journal import Journal, open_trace
from popper.options import Options
log = Journal("popper", Options(), open_trace(sys.argv[1]))
sys.stdin.read()
for number in range(200):
    log.notice(f"{number} " + sys.argv[2] * (number * 50))
"""


def test_many_processes_write_whole_lines(path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter], stdin=subprocess.PIPE)
               for letter in "abcd"]
    for writer in writers:
        writer.stdin.close()                 # all of them begin
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    seen = {str(writer.pid): [] for writer in writers}
    for line in path.read_text().splitlines(True):
        process, text = LINE.fullmatch(line).group(3, 4)
        seen[process].append(text)
    for writer, letter in zip(writers, "abcd"):
        assert seen[str(writer.pid)] == [f"{number} " + letter * (number * 50) for number in range(200)]


def test_a_line_that_a_full_disk_cut_in_two_spoils_no_other(path, trace, monkeypatch):
    log = journal(trace)
    log.notice("before")
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, octets: write(fd, octets[:40]))
    log.notice("cut in two")
    monkeypatch.undo()
    log.notice("after")
    log.notice("and after")
    lines = path.read_text().splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["before", lines[1].partition("] ")[2], "after", "and after"]
    assert len(lines[1]) == 40


def test_a_full_disk_disturbs_nobody():
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        journal(full).warning("nobody reads this")
        with pytest.raises(OSError):
            os.write(full, b"x")
    finally:
        os.close(full)


# -- which lines are wanted, and where they go -----------------------------------------------------------------------

def test_a_trace_means_debugging(trace):
    assert journal(trace).debugging is True
    assert journal(debug=True, log="stderr").debugging is True
    assert journal(log="stderr").debugging is False


def test_lines_on_standard_error(capfd):
    log = journal(log="stderr")
    log.warning("a warning")
    log.debug("not wanted")
    journal(log="stderr", debug=True).debug("wanted")
    said = capfd.readouterr().err
    assert said == f"popper[{os.getpid()}]: warning: a warning\npopper[{os.getpid()}]: debug: wanted\n"


SPEAKER = """
from popper.journal import Journal
from popper.options import Options
options = Options()
options.set("facility", "mail")
options.set("debug", "yes")
log = Journal("in.qpopper", options)
for say in (log.critical, log.warning, log.notice, log.info, log.debug):
    say(f"this is {say.__name__}")
log.notice("%s%n{0}")
log.notice("/home/j\\udcf6rg/mbox")
log.notice("the last line")
"""


@pytest.mark.root
def test_syslog_gets_facility_severity_ident_and_process(syslog):
    since = len(syslog.lines)
    speaker = subprocess.Popen(with_syslog(syslog, [sys.executable, "-c", SPEAKER]))
    assert speaker.wait(60) == 0
    syslog.wait_for("the last line", since)
    ours = [(priority, text) for priority, text in syslog.lines[since:] if "in.qpopper" in text]
    lines = {text.partition("]: ")[2]: (priority, text) for priority, text in ours}
    for word in ("critical", "warning", "notice", "info", "debug"):
        level = getattr(levels, "LOG_CRIT" if word == "critical" else f"LOG_{word.upper()}")
        priority, text = lines[f"this is {word}"]
        assert priority == levels.LOG_MAIL | level
        assert re.search(r"in\.qpopper\[\d+\]: ", text)
    assert "%s%n{0}" in lines                # nothing in a line is a format
    assert any(text.startswith("/home/j") for text in lines)


# -- the file --------------------------------------------------------------------------------------------------------

def test_a_new_trace_is_for_us_alone_whatever_the_umask(path):
    umask = os.umask(0)
    try:
        os.close(open_trace(str(path)))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_old_trace_is_appended_to_and_closed_to_others(path):
    path.write_text("an old line\n")
    path.chmod(0o666)
    descriptor = open_trace(str(path))
    journal(descriptor).notice("a new line")
    os.close(descriptor)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, second = path.read_text().splitlines()
    assert first == "an old line" and second.endswith("] a new line")


def test_a_trace_that_is_cut_meanwhile_goes_on_at_its_new_end(path, trace):
    log = journal(trace)
    log.notice("before")
    os.truncate(path, 0)
    log.notice("after")
    assert LINE.fullmatch(path.read_text()).group(4) == "after"


def test_a_symbolic_link_is_not_followed(path, tmp_path):
    """CVE-2001-1487, CVE-2005-1151."""
    target = tmp_path / "shadow"
    target.write_text("as it was")
    path.symlink_to(target)
    assert refusal(path).startswith(f'Unable to open trace file "{path}": ')
    path.unlink()
    path.symlink_to(tmp_path / "not there yet")
    refusal(path)
    assert target.read_text() == "as it was" and not (tmp_path / "not there yet").exists()


def test_a_file_with_another_name_is_refused(path, tmp_path):
    other = tmp_path / "other"
    other.write_text("as it was")
    mode = other.stat().st_mode
    os.link(other, path)
    assert refusal(path) == f'Unable to open trace file "{path}": it is not a plain file'
    assert other.read_text() == "as it was" and other.stat().st_mode == mode


@pytest.mark.parametrize("reader", [False, True])
def test_a_fifo_is_refused_and_not_waited_for(path, reader):
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if reader else None
    assert refusal(path).startswith(f'Unable to open trace file "{path}": ')
    if reader:
        os.close(end)


def test_directory_device_and_missing_directory_are_refused(tmp_path):
    assert "Is a directory (21)" in refusal(tmp_path)
    assert "it is not a plain file" in refusal("/dev/null")
    assert "No such file or directory (2)" in refusal(tmp_path / "none" / "trace")


@pytest.mark.root
def test_somebody_elses_file_is_refused(path):
    path.write_text("as it was")
    os.chown(path, 65534, 65534)
    assert refusal(path) == f'Unable to open trace file "{path}": it is not owned by this server\'s user'
    assert path.read_text() == "as it was"


def test_a_refused_trace_leaves_no_descriptor(path, tmp_path):
    before = os.listdir("/proc/self/fd")
    os.link(open_and_close(tmp_path / "other"), path)
    refusal(path)
    refusal("/dev/null")
    assert os.listdir("/proc/self/fd") == before


def open_and_close(path):
    path.touch()
    return path


def test_the_descriptor_is_not_inherited(trace):
    assert os.get_inheritable(trace) is False


# -- secrets ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line, shown", [
    (b"PASS secret", b"PASS xxxxxxxxx"),
    (b"pass secret", b"pass xxxxxxxxx"),
    (b"pAsS  two words ", b"pAsS xxxxxxxxx"),
    (b"  PASS secret", b"PASS xxxxxxxxx"),
    (b"\tPASS\tsecret", b"PASS xxxxxxxxx"),
    (b"PASS\x0bsecret\x0c", b"PASS xxxxxxxxx"),
    (b"PASS\rsecret", b"PASS xxxxxxxxx"),
    (b"RPOP secret", b"RPOP xxxxxxxxx"),
    (b"USER joe secret", b"USER joe xxxxxxxxx"),
    (b"APOP joe c4c9334bac560ecc979e58001b3e22fb", b"APOP joe xxxxxxxxx"),
    (b"apop  joe\tc4c9 more", b"apop joe xxxxxxxxx"),
    (b"AUTH PLAIN AGpvZQBzZWNyZXQ=", b"AUTH PLAIN xxxxxxxxx"),
    (b"auth  plain\t AGpvZQBzZWNyZXQ= =", b"auth plain xxxxxxxxx"),
])
def test_secrets_are_masked(line, shown):
    assert masked(line) == shown


@pytest.mark.parametrize("line", [
    b"", b" ", b"PASS", b"pass ", b"APOP", b"APOP joe", b"AUTH", b"AUTH PLAIN", b"USER joe", b"RETR 1", b"LIST pass 2",
    b"XTND XLST pass", b"\0\xff"])
def test_lines_without_a_secret_are_shown_as_they_came(line):
    assert masked(line) == line


blank = st.text(" \t\r\x0b\x0c", min_size=1, max_size=3).map(str.encode)
cased = st.sampled_from([b"pass", b"rpop", b"apop joe", b"auth plain"]).flatmap(
    lambda word: st.sampled_from([word, word.upper(), word.title(), word.swapcase()]))


@many
@given(st.one_of(st.just(b""), blank), cased, blank, st.lists(st.just(b"SECRET"), min_size=1, max_size=3), blank)
def test_no_case_and_no_spacing_lets_a_secret_through(before, command, between, secret, after):
    line = before + command.replace(b" ", between) + between + between.join(secret) + after
    assert b"SECRET" not in masked(line)
    assert masked(line).endswith(b" xxxxxxxxx")


# -- a trace of one user or address ----------------------------------------------------------------------------------

@pytest.fixture
def syslogged(monkeypatch):
    """[(severity, text), ...] that went to syslog."""
    lines = []
    monkeypatch.setattr("popper.journal.syslog.syslog", lambda level, text: lines.append((level, text)))
    return lines


def watching(path, *who):
    return Journal("popper", _with({}, trace_file=str(path)), None, frozenset(who))


def _with(settings, **more):
    options = Options()
    for name, value in {**settings, **more}.items():
        setattr(options, name, value)
    return options


def test_who_is_watched_is_traced_from_the_beginning_and_syslog_goes_on(path, syslogged):
    log = watching(path, "joe")
    log.debug('Received: "user joe"')
    log.notice("before")
    assert not path.exists()
    log.concerns("joe")
    log.debug("after")
    texts = [LINE.fullmatch(line).group(4) for line in path.read_text().splitlines(True)]
    assert texts == ['Received: "user joe"', "before", f'Tracing session of "joe" in file "{path}"', "after"]
    assert syslogged == [(levels.LOG_NOTICE, "before"), (levels.LOG_NOTICE, texts[2])]
    os.close(log.trace)


def test_who_is_not_watched_leaves_no_trace(path, syslogged):
    log = watching(path, "joe")
    log.debug("a secret of ann's")
    log.concerns("ann")
    log.unconcerned()
    log.concerns("joe")                      # too late: another user's lines are none of his
    assert not path.exists() and not log.debugging and log.held == [] and syslogged == []


def test_a_trace_that_cannot_be_opened_disturbs_nobody(tmp_path, syslogged):
    log = watching(tmp_path / "none" / "trace", "joe")
    log.concerns("joe")
    log.debug("lost")
    assert len(syslogged) == 1 and "Unable to open trace file" in syslogged[0][1] and not log.debugging


def test_a_trace_of_all_has_no_use_for_names(path, trace):
    options = Options()
    options.trace_file = str(path) + ".other"
    log = Journal("popper", options, trace, frozenset(["joe"]))
    log.concerns("joe")
    log.unconcerned()
    assert log.debugging and not os.path.exists(options.trace_file)


def test_what_is_held_back_is_bounded(path, syslogged):
    log = watching(path, "joe")
    for number in range(5000):
        log.debug(str(number))
    assert len(log.held) == 1000


def test_watched_are_those_of_the_configuration_and_those_asked_for_until_their_time_is_over(tmp_path):
    for name, until in {"ann": time.time() + 60, "bob": time.time() - 1, "192.0.2.1": time.time() + 60}.items():
        (tmp_path / name).write_text(f"{until:.0f}\n")
    (tmp_path / "eve").write_text("for ever\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "ann")
    assert watched(_with({}, trace_dir=str(tmp_path), trace_user=("joe",))) == {"joe", "ann", "192.0.2.1"}
    assert watched(_with({}, trace_dir=str(tmp_path / "none"))) == frozenset()


def test_bodies_are_wanted_only_by_name_and_only_in_a_trace(trace):
    assert not journal(trace).bodies and not journal(None, trace_bodies=True).bodies
    assert journal(trace, trace_bodies=True).bodies


def test_a_file_that_was_renamed_is_opened_anew(path):
    first = open_trace(str(path))
    assert followed(first, str(path)) == first
    path.rename(path.with_suffix(".1"))
    second = followed(first, str(path))
    assert second != first and os.path.samestat(os.fstat(second), path.stat())
    path.unlink()
    path.mkdir()
    assert followed(second, str(path)) == second
    os.close(first)
    os.close(second)


# -- what others noted -----------------------------------------------------------------------------------------------

def test_notes_are_kept_with_their_time_and_taken_once(monkeypatch):
    monkeypatch.setattr(module.time, "time", lambda: 1e9)
    notes = Notes(True)
    notes.notice(f"from {NAME}")
    notes.debug("a detail")
    notes.critical("trouble")
    assert notes.take() == [(1e9, 5, f"from {NAME}"), (1e9, 7, "a detail"), (1e9, 2, "trouble")] and notes.take() == []


def test_notes_without_debugging_have_no_details():
    notes = Notes(False)
    notes.debug("a detail")
    notes.warning("a warning")
    assert [text for _, _, text in notes.take()] == ["a warning"]


def test_notes_are_bounded():
    notes = Notes(True)
    for _ in range(2):                       # room is given back
        for number in range(1000):
            notes.debug(f"{number} " + "x" * 1000)
        notes.notice("seen")                 # whatever has been said before
        *debug, last = [text for _, _, text in notes.take()]
        assert [text.partition(" ")[0] for text in debug] == [str(number) for number in range(len(debug))]
        assert 10 <= len(debug) <= 16 and last == "seen"


def test_what_was_noted_is_logged_with_its_own_time_and_the_name(path, trace):
    log = Journal("popper", Options(), trace, mark="17.4")
    log.replay([(1e9, 5, f"from {NAME} ({NAME})"), (1e9 + 0.25, 7, "a detail")], "pc.example.org")
    stamps = [module.stamped(seconds) for seconds in (1e9, 1e9 + 0.25)]
    assert path.read_text() == f"{stamps[0]} [17.4] from pc.example.org (pc.example.org)\n{stamps[1]} [17.4] a detail\n"


def test_details_that_were_noted_for_somebody_else_are_left_out(capfd):
    options = Options()
    options.log = "stderr"
    Journal("popper", options).replay([(1e9, 7, "a detail"), (1e9, 4, "a warning")], "pc")
    assert capfd.readouterr().err == f"popper[{os.getpid()}]: warning: a warning\n"


def test_a_trace_that_was_opened_for_somebody_is_given_back(path, syslogged):
    before = len(os.listdir("/proc/self/fd"))
    log = watching(path, "192.0.2.1")
    log.close()                              # nothing was opened yet
    log.concerns("192.0.2.1")
    log.notice("a line")
    log.close()
    assert len(os.listdir("/proc/self/fd")) == before and f"[{os.getpid()}] a line\n" in path.read_text()


def test_a_trace_of_all_is_not_ours_to_close(trace):
    Journal("popper", Options(), trace).close()
    os.fstat(trace)
