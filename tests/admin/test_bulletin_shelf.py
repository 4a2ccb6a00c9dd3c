"""Numbers are given once, and no file of the directory is ever half there."""

import errno
import os
import random
import signal
import traceback

import pytest

from desk import desk, popperctl             # noqa: F401, fixtures
from popper.admin import shelf as module
from popper.admin.console import Failed
from popper.admin.shelf import LAST, LOCK, NEW, Shelf
from popper.bulletins import candidates, read_bulletin
from popper.errors import Refused
from processes import Program, forks

pytestmark = forks
MANY = 200
LAST_LINE = "This is the last line."
HOLD = """
import filelock, sys
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
    print("free", flush=True)
"""


def children(count, act):
    """act(number) in so many processes at once; -> their numbers as processes."""
    found = []
    for number in range(count):
        child = os.fork()
        if not child:
            status = 70
            try:
                status = act(number)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        found.append(child)
    return found


def look(desk, whole, known=()):
    """One poll, as a session makes it: each bulletin that is there is a whole one. -> their names.

    known: names that need not be looked at.
    """
    directory = os.open(desk.directory, os.O_RDONLY)
    try:
        found = candidates(directory)
        for _, name in found:
            if name in known:
                continue
            try:
                octets = read_bulletin(directory, name, 1048576)
            except Refused as refused:
                assert "No such file" in refused.text, refused.text      # withdrawn since
                continue
            assert whole(octets), octets
    finally:
        os.close(directory)
    return {name for _, name in found}


def test_two_hundred_at_once_get_two_hundred_numbers_and_nobody_sees_half_a_bulletin(desk, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 600)      # however busy this machine is
    text = "".join(f"{'x' * 60}\n" for _ in range(200)) + LAST_LINE + "\n"
    running = children(MANY, lambda number: desk.call("add", "-s", f"from {number}", text=text).status)
    polls, seen = 0, set()
    while running:
        # Each as soon as it is there, for it does not change then.
        seen = look(desk, lambda octets: octets.endswith(f"{LAST_LINE}\n".encode()), seen)
        polls += 1
        child, status = os.waitpid(-1, os.WNOHANG)
        if child in running:
            running.remove(child)
            assert status == 0
    assert polls > 10
    assert [int(name.partition(".")[0]) for name in desk.names] == list(range(1, MANY + 1))
    assert sorted(name.partition(".")[2] for name in desk.names) == sorted(f"from_{number}" for number in range(MANY))
    assert sorted(os.listdir(desk.directory)) == sorted([LAST, LOCK, *desk.names])


def test_nobody_sees_half_a_bulletin_while_it_is_edited_and_withdrawn(desk):
    texts = [letter * 50 + "\n" for letter in "abcd"]
    desk.add(texts[0] * 300)

    def change(number):
        for turn in range(5):
            assert desk.call("edit", "1", text=texts[(number + turn) % 4] * 300).status in (0, 75)
        desk.add(texts[number] * 300)
        desk.call("withdraw", str(number + 2))
        return 0
    running = children(2, change)
    while running:
        look(desk, lambda octets: octets.partition(b"\n\n")[2] in [text.encode() * 300 for text in texts])
        child, status = os.waitpid(-1, os.WNOHANG)
        if child in running:
            running.remove(child)
            assert status == 0


def test_one_that_is_killed_leaves_no_half_bulletin_and_no_lock(desk):
    """Killed at any moment; the next one takes away what it left, and goes on counting."""
    chance = random.Random(17)
    for _ in range(40):
        (child,) = children(1, lambda number: desk.call("add", "-s", "a", text="x" * 3000 + LAST_LINE).status)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        signal.sigtimedwait([signal.SIGCHLD], chance.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        look(desk, lambda octets: octets.endswith(f"{LAST_LINE}\n".encode()))
    last = int(desk.names[-1].partition(".")[0]) if desk.names else 0
    desk.add()
    assert int(desk.names[-1].partition(".")[0]) > last
    assert not [name for name in os.listdir(desk.directory) if name.startswith(NEW)]


@pytest.mark.parametrize("call, code, status", [("fsync", errno.ENOSPC, 74), ("rename", errno.EIO, 74),
                                                ("fchmod", errno.EPERM, 77)])
def test_what_cannot_be_written_is_not_there(desk, monkeypatch, call, code, status):
    desk.add()
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))
    with monkeypatch.context() as patched:
        patched.setattr(module.os, call, fail)
        assert desk.call("add", "-s", "b", text="x").status == status
    assert desk.names == ["1.moving"]
    assert not [name for name in os.listdir(desk.directory) if name.startswith(NEW)]
    desk.add()
    assert len(desk.names) == 2


def test_what_somebody_else_holds_is_waited_for_and_then_told(desk, monkeypatch):
    desk.add()
    holder = Program(HOLD, desk.directory / LOCK)
    try:
        monkeypatch.setattr(module, "PATIENCE", 0)
        done = desk.call("add", "-s", "b", text="x")
        assert (done.status, desk.names) == (75, ["1.moving"])
        assert "another popperctl has held it for 0 seconds" in done.err
        monkeypatch.setattr(module, "PATIENCE", 60)
        assert desk.call("list").status == 0          # who only looks does not wait
        (child,) = children(1, lambda number: desk.call("add", "-s", "b", text="x").status)
        assert holder.say("") == "free"
        assert os.waitpid(child, 0)[1] == 0
    finally:
        holder.close()
    assert desk.names == ["1.moving", "2.b"]


def test_without_filelock_it_says_what_to_install(desk, monkeypatch):
    def missing(name):
        raise ImportError(name)
    monkeypatch.setattr(module, "library", missing)
    done = desk.call("add", "-s", "b", text="x")
    assert done.status == 69 and "apt install python3-filelock" in done.err
    assert desk.call("list").status == 0


@pytest.mark.parametrize("octets", [b"", b"x\n", b"-5\n", b"1 2\n"])
def test_a_counter_that_holds_no_number_is_not_guessed_at(desk, octets):
    (desk.directory / LAST).write_bytes(octets)
    done = desk.call("add", "-s", "b", text="x")
    assert done.status == 65 and f"{desk.directory}/{LAST} holds no number; write the highest" in done.err
    assert desk.names == []


def test_a_counter_that_is_a_link_is_not_followed(desk):
    (desk.directory / LAST).symlink_to("/etc/hostname")
    assert desk.call("add", "-s", "b", text="x").status == 74
    assert desk.names == []


def test_the_counter_never_goes_back(desk):
    with Shelf(str(desk.directory)) as shelf, shelf.locked():
        for number, counter in (5, 5), (3, 5), (9, 9), (9, 9):
            shelf.note(number)
            assert shelf.counter() == counter
        assert shelf.last() == 9
    with pytest.raises(Failed):
        Shelf(str(desk.directory / "nowhere"))
