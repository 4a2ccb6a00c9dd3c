"""Dotlocks of the programs that others use, and ours: each respects the other's, and breaks one whose holder is gone by
its own rule."""

import os
import subprocess
import time

import pytest
from others import LOCKERS, needs
from processes import forks, in_child, make_old, refusal

from popper.errors import IN_USE
from popper.storage.held import Held
from popper.storage.locks import HELD_LONG, STALE, SpoolLocks

pytestmark = [forks, needs("lockfile", "dotlockfile", "mutt_dotlock", "procmail")]
HOST = os.uname().nodename
PROCMAIL = 1024                # seconds after which procmail breaks a lock, and lockfile where it is told so


@pytest.fixture
def mailbox(tmp_path):
    path = tmp_path / "joe"
    path.write_bytes(b"mail\n")
    return path


@pytest.fixture
def lock(mailbox):
    return mailbox.parent / "joe.lock"


@pytest.fixture
def locks(mailbox):
    locks = SpoolLocks(str(mailbox))
    yield locks
    locks.close()


@pytest.fixture
def descriptor(mailbox):
    descriptor = os.open(mailbox, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=LOCKERS)
def name(request):
    return request.param


@pytest.fixture
def locker(name):
    return LOCKERS[name]


def identity(lock):
    status = lock.lstat()
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime


# -- one holds, the other does not get it; who waits is in test_spool.py ----------------------------------------------

def test_theirs_is_respected(locker, locks, mailbox, lock, descriptor):
    assert locker.run("take", mailbox) == 0
    before = identity(lock)
    refused = refusal(Held(locks, descriptor, str(mailbox), 0).__enter__)
    assert (refused.code, refused.text) == (IN_USE, f"{mailbox} lock busy!  Is another session active?")
    assert identity(lock) == before
    assert locker.run("leave", mailbox) == 0 and not lock.exists()
    with Held(locks, descriptor, str(mailbox), 0):
        assert lock.exists()


def test_ours_is_respected(locker, locks, mailbox, lock, descriptor):
    with Held(locks, descriptor, str(mailbox), 0):
        ours = identity(lock)
        assert locker.run("take", mailbox) == locker.busy
        assert identity(lock) == ours
        locks.undot()
        assert locker.run("take", mailbox) == 0
    assert lock.exists()                     # theirs now: giving ours back again does not take it away
    assert locker.run("leave", mailbox) == 0


# -- theirs, when their holder is gone ---------------------------------------------------------------------------------

@pytest.mark.parametrize("age", [0, STALE - 20, STALE + 20, HELD_LONG + 20])
def test_theirs_is_broken_when_old(name, locker, locks, mailbox, lock, age):
    """`dotlockfile -p` writes the number of the process it was called from, which lives: that is believed for long."""
    assert locker.run("take", mailbox) == 0
    make_old(lock, age)
    broken = age > (HELD_LONG if name == "dotlockfile -p" else STALE)
    assert [locks.dot(), locks.dot()] == [False, broken]
    assert broken or locker.run("leave", mailbox) == 0


# -- ours, when a session was killed -----------------------------------------------------------------------------------

@pytest.fixture
def abandoned(mailbox, lock):
    """abandoned(age): our dotlock, left by a process that is no more, so many seconds old."""
    def abandon(age):
        assert in_child(SpoolLocks(str(mailbox)).dot) == "True"
        assert lock.exists()
        make_old(lock, age)
    return abandon


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, timeout=60).returncode


def look_at(lock):
    """dotlockfile takes the time at which a lock was last read before for the present time."""
    os.utime(lock, (time.time(), lock.stat().st_mtime))


@pytest.mark.parametrize("age, status", [(PROCMAIL - 20, 73), (PROCMAIL + 20, 0)])
def test_lockfile_breaks_ours(abandoned, lock, age, status):
    abandoned(age)
    assert run("lockfile", "-r0", "-l", PROCMAIL, "-s0", lock) == status


@pytest.mark.parametrize("flags, age, status", [
    (["-l"], STALE - 20, 4), (["-l"], STALE + 20, 0), (["-l", "-p"], 0, 0)], ids=["young", "old", "with PID"])
def test_dotlockfile_breaks_ours(abandoned, lock, flags, age, status):
    """By age; where it looks for numbers of processes, at once: it reads ours."""
    abandoned(age)
    look_at(lock)
    assert run("dotlockfile", *flags, "-r0", lock) == status


def test_dotlockfile_knows_that_we_live(locks, lock):
    """However old ours is, where it looks for numbers of processes."""
    assert locks.dot() is True
    make_old(lock, 100 * STALE)
    look_at(lock)
    assert run("dotlockfile", "-l", "-p", "-r0", lock) == 4
    assert lock.read_text() == f"{os.getpid()}:{HOST}\n"


def test_a_lock_that_is_kept_young_is_not_broken(locks, lock):
    """What a long update does each minute."""
    assert locks.dot() is True
    make_old(lock, STALE + 20)
    locks.touch()
    look_at(lock)
    assert run("dotlockfile", "-l", "-r0", lock) == 4
    assert run("lockfile", "-r0", "-l60", "-s0", lock) == 73
    assert lock.read_text() == f"{os.getpid()}:{HOST}\n"


def test_mutt_breaks_ours_when_told_to(abandoned, mailbox, lock):
    abandoned(100 * STALE)
    assert run("mutt_dotlock", "-r0", mailbox) == 3
    assert run("mutt_dotlock", "-f", "-r0", mailbox) == 0


@pytest.mark.parametrize("age, delivered", [(PROCMAIL - 20, False), (PROCMAIL + 20, True)])
def test_procmail_breaks_ours(abandoned, mailbox, lock, age, delivered):
    abandoned(age)
    procmail = subprocess.Popen(
        ["procmail", "-m", "LOCKSLEEP=1", "SUSPEND=0", f"DEFAULT={mailbox}", f"ORGMAIL={mailbox}", "SHELL=/bin/sh",
         "/dev/null"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"})
    with procmail:
        procmail.stdin.write(b"From joe@example.org Thu Nov 24 18:22:48 1996\nSubject: x\n\nbody\n")
        procmail.stdin.close()
        if delivered:
            assert procmail.wait(60) == 0
            assert b"Subject: x" in mailbox.read_bytes() and not lock.exists()
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                procmail.wait(0.5)
            assert mailbox.read_bytes() == b"mail\n" and lock.exists()
            procmail.kill()


def test_what_their_locks_say(name, locker, mailbox, lock):
    """This is what our rules were made for; a new version of theirs may bring other words."""
    assert locker.run("take", mailbox) == 0
    if name == "mutt_dotlock":
        assert (lock.lstat().st_mode & 0o777, lock.lstat().st_size) == (0, 0)
    else:
        assert lock.read_text() == {"lockfile": "0", "dotlockfile": "0\n", "dotlockfile -p": f"{os.getpid()}\n"}[name]
