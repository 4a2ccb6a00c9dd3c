"""Dotlock and fcntl together: both or neither, and for a bounded wait."""

import fcntl
import os
import subprocess
import threading

import pytest
from conftest import wait_until
from holders import Holder, descriptor, locks                 # noqa: F401  fixtures
from places import lock, mailbox                              # noqa: F401  fixtures
from processes import forks, is_fcntl_locked, refusal

from popper.errors import IN_USE, TEMPORARY
from popper.storage.held import Held

pytestmark = forks


def lockfile(lock):
    """Whether procmail's program gets a dotlock."""
    return subprocess.run(["lockfile", "-r0", str(lock)], capture_output=True, timeout=60).returncode == 0


def test_both_locks_are_held_and_both_given_back(locks, mailbox, lock, descriptor):
    with Held(locks, descriptor, str(mailbox), 10):
        assert lock.exists() and is_fcntl_locked(mailbox)
    assert not lock.exists() and not is_fcntl_locked(mailbox)
    assert mailbox.read_bytes() == b"mail\n"


def test_the_whole_file_is_locked_and_what_comes_behind_it(locks, mailbox, descriptor):
    """procmail locks from the end on."""
    with Held(locks, descriptor, str(mailbox), 10):
        os.truncate(mailbox, 0)
        assert is_fcntl_locked(mailbox)


def test_both_are_given_back_when_something_goes_wrong(locks, mailbox, lock, descriptor):
    with pytest.raises(ZeroDivisionError):
        with Held(locks, descriptor, str(mailbox), 10):
            1 / 0
    assert not lock.exists() and not is_fcntl_locked(mailbox)


def test_no_fcntl_lock_without_the_dotlock(locks, mailbox, lock, descriptor):
    lock.write_text("0")
    refused = refusal(Held(locks, descriptor, str(mailbox), 0).__enter__)
    assert (refused.code, refused.text) == (IN_USE, f"{mailbox} lock busy!  Is another session active?")
    assert lock.read_text() == "0" and not is_fcntl_locked(mailbox)


def test_no_dotlock_without_the_fcntl_lock(locks, mailbox, lock, descriptor):
    holder = Holder(mailbox)
    refused = refusal(Held(locks, descriptor, str(mailbox), 0).__enter__)
    holder.release()
    assert (refused.code, refused.text) == (IN_USE, f"{mailbox} lock busy!  Is another session active?")
    assert not lock.exists()


def test_a_lock_that_is_given_back_in_time_is_waited_for(locks, mailbox, lock, descriptor):
    holder, answers = Holder(mailbox), []
    lock.write_text("0")

    def hold():
        with Held(locks, descriptor, str(mailbox), 60):
            answers.append(lock.exists())
    waiter = threading.Thread(target=hold)
    waiter.start()
    lock.unlink()
    holder.release()
    waiter.join(60)
    assert answers == [True] and not lock.exists()


def test_the_dotlock_is_free_while_the_fcntl_lock_is_waited_for(locks, mailbox, lock, descriptor):
    """Who takes them in the other order must be able to finish."""
    holder = Holder(mailbox)
    waiter = threading.Thread(target=lambda: Held(locks, descriptor, str(mailbox), 60).__enter__())
    waiter.start()
    for _ in range(3):
        wait_until(lambda: lockfile(lock))
        lock.unlink()
    holder.release()
    waiter.join(60)
    assert lock.exists()
    fcntl.lockf(descriptor, fcntl.LOCK_UN)


def test_the_wait_is_bounded(locks, mailbox, lock, descriptor):
    lock.write_text("0")
    assert refusal(Held(locks, descriptor, str(mailbox), 1).__enter__).code == IN_USE


def test_a_mailbox_that_cannot_be_locked_at_all(locks, mailbox, lock):
    """Not a matter of waiting: an error that is not "held by another"."""
    descriptor = os.open(mailbox, os.O_RDONLY)
    refused = refusal(Held(locks, descriptor, str(mailbox), 60).__enter__)
    os.close(descriptor)
    assert (refused.code, refused.text) == (TEMPORARY, f"{mailbox} cannot be locked: Bad file descriptor.")
    assert not lock.exists()


def test_without_a_mailbox_the_dotlock_alone(locks, mailbox, lock):
    with Held(locks, None, str(mailbox), 0):
        assert lock.exists()
    assert not lock.exists()
