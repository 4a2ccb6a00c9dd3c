"""A host whose clock is wrong by hours or days, beside a file server whose clock is right: it neither steals a live
lock nor waits for ever for a dead one. Real faketime; the times of files are the kernel's."""

import os
import poplib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import clients
from conftest import TREE
from others import needs
from processes import dead_process, make_old
from popper.storage.locks import HELD_LONG, STALE

pytestmark = needs("faketime", "lockfile")
SKEWS = {"+2h": 7200, "-2h": -7200, "+2d": 172800, "-2d": -172800}
# libfaketime would else shift the times of files too, both those read and those set to now.
FAKING = {"NO_FAKE_STAT": "1", "FAKE_UTIME": "1"}
HOST = os.uname().nodename
TRIES = """
import sys, time
from popper.storage.locks import SpoolLocks
locks = SpoolLocks(sys.argv[1])
print(int(time.time()), locks.dot(), locks.dot())
"""
HOLDS = """
import os, sys, time
from popper.storage.locks import SpoolLocks
locks = SpoolLocks(sys.argv[1])
locks.host = "elsewhere.example"
locks.private = sys.argv[1] + ".elsewhere"
print(int(time.time()), locks.dot(), flush=True)
for line in sys.stdin:
    locks.touch()
    print("touched", flush=True)
os._exit(0)
"""


def there(skew, text, *arguments):
    """The command line of a Python program on a host whose clock is so wrong."""
    return ["faketime", "-f", skew, sys.executable, "-c", text, *map(str, arguments)]


def environment():
    return {**os.environ, **FAKING, "PYTHONPATH": str(TREE)}


def tries(skew, mailbox):
    """Whether the dotlock is had there at the first and at a second try; the clock there being wrong indeed."""
    done = subprocess.run(there(skew, TRIES, mailbox), env=environment(), capture_output=True, text=True, check=True)
    now, *answers = done.stdout.split()
    assert abs(int(now) - time.time() - SKEWS[skew]) < 100
    return [answer == "True" for answer in answers]


@pytest.fixture
def mailbox(tmp_path):
    path = tmp_path / "joe"
    path.write_bytes(b"mail\n")
    return path


@pytest.fixture
def lock(mailbox):
    return mailbox.parent / "joe.lock"


@pytest.mark.parametrize("skew", SKEWS)
def test_age_is_by_the_clock_of_the_file_server(mailbox, lock, skew):
    subprocess.run(["lockfile", "-r0", str(lock)], check=True)
    for age, broken in (0, False), (STALE - 30, False), (STALE + 30, True):
        make_old(lock, age)
        assert tries(skew, mailbox) == [False, broken], age
    assert lock.read_text() != "0"


@pytest.mark.parametrize("skew", SKEWS)
def test_whose_holder_is_known_by_number(mailbox, lock, skew):
    """That he is dead, or lives, does not hang on a clock; and nobody is believed for ever."""
    lock.write_text(f"{dead_process()}:{HOST}\n")
    assert tries(skew, mailbox) == [False, True]
    for age, broken in (STALE + 30, False), (HELD_LONG + 30, True):
        lock.write_text(f"{os.getpid()}:{HOST}\n")
        make_old(lock, age)
        assert tries(skew, mailbox) == [False, broken], age


@pytest.mark.parametrize("skew", SKEWS)
def test_a_lock_that_was_made_there(mailbox, lock, skew):
    """Nobody else breaks it: not the host whose clock is wrong the other way round, nor who goes by the right time. It
    is kept young by the file server's clock, and broken when nobody does that any more."""
    other = skew.translate(str.maketrans("+-", "-+"))
    with subprocess.Popen(there(skew, HOLDS, mailbox), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as holder:
        now, made = holder.stdout.readline().split()
        assert made == "True" and abs(int(now) - time.time() - SKEWS[skew]) < 100
        assert abs(lock.stat().st_mtime - time.time()) < 100
        make_old(lock, STALE - 30)
        assert tries(other, mailbox) == [False, False]
        holder.stdin.write("touch\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "touched\n"
        assert abs(lock.stat().st_mtime - time.time()) < 100
        assert tries(other, mailbox) == [False, False]
        assert subprocess.run(["lockfile", "-r0", f"-l{STALE}", "-s0", str(lock)], capture_output=True).returncode == 73
    make_old(lock, STALE + 30)
    assert tries(other, mailbox) == [False, True]


# -- whole sessions ---------------------------------------------------------------------------------------------------

@pytest.fixture
def sessions_there(installed, spool, start_inetd, tmp_path):
    """sessions_there(skew, lock_timeout) -> the programs of a user whose server's clock is wrong."""
    running = []

    def start(skew, seconds):
        conf = tmp_path / f"{len(running)}.conf"
        conf.write_text(f"lock_timeout {seconds}\n")
        server = start_inetd("/usr/bin/env", *(f"{name}={value}" for name, value in FAKING.items()), "faketime", "-f",
                             skew, str(installed / "sbin" / "popper"), "-C", str(conf))
        shutil.rmtree(Path(spool.entry.pw_dir) / "client", ignore_errors=True)
        running.append(clients.Client(spool, server.port))
        return running[-1]
    yield start
    running[-1].remove()


@pytest.mark.root
@pytest.mark.parametrize("skew", SKEWS)
def test_a_session_there(sessions_there, spool, skew):
    letter = clients.ENVELOPE + b"Subject: one\n\nbody\n\n"
    spool.deliver(letter)
    lock = Path(f"{spool.mailbox}.lock")
    subprocess.run(["lockfile", "-r0", str(lock)], check=True)
    make_old(lock, STALE - 30)
    before = lock.stat().st_mtime
    client = sessions_there(skew, 0)
    with pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\] .* lock busy"), client.session():
        pass
    assert lock.stat().st_mtime == before and spool.mailbox.read_bytes() == letter
    make_old(lock, STALE + 30)
    client = sessions_there(skew, 20)
    with client.session() as pop:
        assert pop.retr(1)[1] == [b"Subject: one", b"", b"body"]
        pop.dele(1)
        pop.quit()
    assert spool.mailbox.read_bytes() == b"" and client.left_over() == set()
