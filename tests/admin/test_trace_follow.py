"""popperctl trace follow: lines and sessions as they come, whatever becomes of the file."""

import json
import os
import signal
import subprocess
import sys

import pytest

from conftest import TREE
from popper.admin import following
from popper.admin.following import Follower, ended, spoken
from popper.admin.traces import Choice
from tracing import asked, begun, logged_in, opened, quitted, session, written
from tracing import conf, popperctl, trace    # noqa: F401, fixtures

JOE = written(session(*logged_in(), *quitted()))
ANN = written(session(*logged_in("ann", address="192.0.2.7"), *quitted("ann", "192.0.2.7"), pid=4712))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "popper.trace"


@pytest.fixture
def follow(path):
    """follow() -> a Follower of the trace, closed at the end."""
    made = []

    def make(**how):
        made.append(Follower(str(path), **how))
        return made[-1]
    yield make
    for follower in made:
        follower.close()


def add(path, text):
    with open(path, "a") as file:
        file.write(text)


def marks(follower):
    return [mark for _, mark, _, _ in follower.new()]


def coming(texts):
    """What comes until there is nothing new."""
    return list(iter(lambda: next(texts), None))


# -- the file ----------------------------------------------------------------------------------------------------------

def test_lines_as_they_are_added(path, follow):
    add(path, JOE)
    follower = follow()
    assert marks(follower) == []
    add(path, ANN)
    assert marks(follower) == ["4712"] * ANN.count("\n") and marks(follower) == []


def test_half_a_line_is_waited_for(path, follow):
    follower = follow()
    add(path, JOE[:100])
    before = len(marks(follower))
    add(path, JOE[100:])
    assert before < 2 and before + len(marks(follower)) == JOE.count("\n")


def test_a_file_that_is_not_there_yet(path, follow):
    follower = follow()
    assert marks(follower) == []
    add(path, JOE)
    assert len(marks(follower)) == JOE.count("\n")


def test_a_file_that_is_renamed(path, follow):
    """logrotate renames, and makes a new one; a session that has the old one open goes on there."""
    follower = follow()
    add(path, JOE[:200])
    assert set(marks(follower)) == {"4711"}
    path.rename(f"{path}.1")
    add(path, ANN)
    add(f"{path}.1", JOE[200:])
    found = marks(follower)
    assert found.count("4712") == ANN.count("\n") and found.count("4711") >= JOE.count("\n") - 4


def test_old_files_are_given_up(path, follow):
    follower = follow()
    for number in range(10):
        add(path, JOE)
        assert len(marks(follower)) == JOE.count("\n")
        path.rename(f"{path}.{number}")
    assert len(follower.files) <= following.MOST_OLD + 1
    opened_by_us = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(
        f"/proc/self/fd/{fd}")]
    assert sum(str(path) in name for name in opened_by_us) == len(follower.files)


def test_a_file_that_is_emptied(path, follow):
    """logrotate's copytruncate."""
    add(path, JOE + ANN)
    follower = follow()
    path.write_text("")
    add(path, JOE)
    assert marks(follower) == ["4711"] * JOE.count("\n")


def test_a_line_without_end_does_not_fill_the_memory(path, follow, monkeypatch):
    monkeypatch.setattr(following, "MOST_LINE", 1000)
    follower = follow()
    for _ in range(5):
        add(path, "x" * 999)
        assert marks(follower) == [] and len(follower.files[0].rest) <= 1000
    add(path, "\n" + JOE)
    assert marks(follower) == ["4711"] * JOE.count("\n")


# -- what is shown -----------------------------------------------------------------------------------------------------

def test_lines_for_people_and_for_programs(path, follow):
    texts = spoken(follow(), Choice())
    add(path, JOE)
    for_programs, for_people = zip(*coming(texts))
    assert for_people[0] == ('12:00:00.000     4711  -             '
                             '   (v0.1.0) Servicing request from "192.0.2.1" at 192.0.2.1')
    assert for_people[2:5] == (
        "12:00:00.000     4711  -             S: +OK UCB Pop server (version 0.1.0) at pop.example.org starting.",
        "12:00:00.020     4711  joe           C: user joe",
        "12:00:00.020     4711  joe           S: +OK Password required for joe.")
    assert for_programs[3] == {"when": "2026-11-21T12:00:00.020", "session": "4711", "pid": 4711, "user": "joe",
                               "address": "192.0.2.1", "who": "client", "text": "user joe"}


def test_lines_wait_until_it_is_known_whose_they_are(path, follow):
    texts = spoken(follow(), Choice(user="joe"))
    add(path, written(session(*begun())))
    add(path, written(session(*begun(), pid=4712)))
    assert coming(texts) == []
    add(path, written(session(*asked("ann"), *opened("ann"), *quitted("ann"), pid=4712, at=1)))
    assert coming(texts) == []
    add(path, written(session(*asked(), at=2)))
    assert [line["text"] for line, _ in coming(texts)] == [
        '(v0.1.0) Servicing request from "192.0.2.1" at 192.0.2.1',
        "Started out of inetd; uid 0, configuration /etc/popper.conf",
        "+OK UCB Pop server (version 0.1.0) at pop.example.org starting.", "user joe", "+OK Password required for joe.",
        "pass xxxxxxxxx"]
    add(path, written(session(*opened(), at=3)))
    assert len(coming(texts)) == len(opened())


def test_lines_of_a_session_that_never_ended_are_not_those_of_the_next(path, follow):
    """Numbers of processes come again."""
    texts = spoken(follow(), Choice(user="joe"))
    killed = session(*begun("192.0.2.7"), 'Received: "user ann"')
    add(path, written(killed) + JOE)
    found = [line for line, _ in coming(texts)]
    assert len(found) == JOE.count("\n") and {line["address"] for line in found} == {"192.0.2.1"}
    assert not any("ann" in line["text"] for line in found)


def test_what_is_held_back_is_bounded_and_forgotten(path, follow, monkeypatch):
    monkeypatch.setattr(following, "MOST_HELD", 10)
    texts = spoken(follow(), Choice(user="joe"))
    for pid in range(1, 50):
        add(path, written(session(*begun(), *['Received: "capa"', "+OK "] * 50, *quitted("(null)"), pid=pid)))
    assert coming(texts) == []
    held = texts.gi_frame.f_locals["held"]
    assert len(held) <= 1 and all(len(lines) <= 10 for lines in held.values())


def test_only_from_an_address(path, follow):
    texts = spoken(follow(), Choice(address="192.0.2.0/29"))
    add(path, JOE + ANN)
    assert {line["pid"] for line, _ in coming(texts)} == {4711, 4712}
    texts = spoken(follow(from_start=True), Choice(address="192.0.2.7"))
    assert {line["pid"] for line, _ in coming(texts)} == {4712}


def test_whole_sessions(path, follow):
    texts = ended(follow(), Choice(user="joe"))
    add(path, JOE[:300])
    assert coming(texts) == []
    add(path, JOE[300:] + ANN)
    (row, text), = coming(texts)
    assert (row["session"], row["outcome"]) == ("4711", "quit")
    assert text == "2026-11-21 12:00:00     4711  joe from 192.0.2.1: quit after 0.0 s, 3 commands, 667 octets sent"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["FIFO", "directory"])
def test_what_is_no_file_is_named(trace, path, make):      # noqa: F811
    make(path)
    done = trace("follow", path)
    assert (done.status, done.out) == (os.EX_NOINPUT, "")
    assert done.err == f"popperctl: {path} is not a regular file, and cannot be followed\n"


def test_what_is_no_file_meanwhile_is_waited_out(path, follow):
    add(path, JOE)
    follower = follow()
    path.rename(f"{path}.1")
    path.mkdir()
    add(f"{path}.1", ANN)
    assert marks(follower) == ["4712"] * ANN.count("\n")


# -- the command -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words, wanted", [
    ([], "C: quit"), (["--sessions"], "quit after"), (["--json"], '"text": "quit"')])
def test_the_command_goes_on_until_it_is_interrupted(tmp_path, path, words, wanted):
    conf = tmp_path / "popper.conf"
    conf.write_text(f"trace_file {path}\n")
    command = [sys.executable, "-m", "popper.admin", "trace", "follow", "--user", "joe", "-C", str(conf), *words]
    with subprocess.Popen(command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == f"popperctl: {path} is not there yet; waiting for it\n"
        add(path, ANN + JOE)
        line = next(line for line in process.stdout if wanted in line)
        if "--json" in words:
            assert json.loads(line)["user"] == "joe"
        process.send_signal(signal.SIGINT)
        rest, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "") and "ann" not in line + rest
