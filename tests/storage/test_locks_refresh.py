"""In long work the dotlock is made young again from time to time: others break an old one."""

import errno
import time

import pytest
from holders import descriptor, locks                         # noqa: F401  fixtures
from places import lock, mailbox                              # noqa: F401  fixtures
from processes import make_old

from popper.errors import TEMPORARY, Refused
from popper.storage.held import TOUCH, Held


class Clock:
    """A clock that goes when it is told to, in the stead of the monotonic one."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_the_dotlock_stays_young(locks, mailbox, lock, descriptor, monkeypatch):
    """A minute after it was made or refreshed, and not before: a fifth of what others wait."""
    clock = Clock(monkeypatch)
    with Held(locks, descriptor, str(mailbox), 0) as held:
        for _ in range(3):
            make_old(lock, 200)
            old = lock.stat().st_mtime
            for part in (0, TOUCH / 2, TOUCH / 2 - 1):
                clock.now += part
                held.refresh()
                assert lock.stat().st_mtime == old
            clock.now += 1
            held.refresh()
            assert time.time() - lock.stat().st_mtime < 100


def test_time_spent_waiting_does_not_count(locks, mailbox, lock, descriptor, monkeypatch):
    """A refreshment is due a minute after the locks were had."""
    clock, answers = Clock(monkeypatch), [False, False, True]

    def sleep(seconds):
        clock.now += TOUCH
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(locks, "dot", lambda: answers.pop(0))
    touched = []
    monkeypatch.setattr(locks, "touch", lambda: touched.append(clock.now))
    with Held(locks, descriptor, str(mailbox), 600) as held:
        held.refresh()
        assert touched == []
        clock.now += TOUCH
        held.refresh()
        held.refresh()
        assert touched == [clock.now]


@pytest.mark.parametrize("error", [Refused("System error, the lock keeper is gone.", TEMPORARY),
                                   OSError(errno.EROFS, "Read-only file system")], ids=["Refused", "OSError"])
def test_work_goes_on_when_the_dotlock_cannot_be_refreshed(locks, mailbox, descriptor, monkeypatch, error):
    """And it is tried again a minute later, not all the time."""
    clock, tried = Clock(monkeypatch), []

    def touch():
        tried.append(clock.now)
        raise error
    monkeypatch.setattr(locks, "touch", touch)
    with Held(locks, descriptor, str(mailbox), 0) as held:
        for _ in range(2 * TOUCH):
            clock.now += 1
            held.refresh()
    assert tried == [1000.0 + TOUCH, 1000.0 + 2 * TOUCH]


def test_without_a_dotlock_there_is_nothing_to_refresh(locks, mailbox, lock, descriptor, monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(locks, "touch", lambda: pytest.fail("touched"))
    with Held(locks, descriptor, str(mailbox), 0, ("fcntl",)) as held:
        clock.now += 2 * TOUCH
        held.refresh()


def test_a_refreshment_that_is_not_due_looks_at_the_clock_alone(locks, mailbox, descriptor):
    """It may be called for each block."""
    with Held(locks, descriptor, str(mailbox), 0) as held:
        locks, held.locks, held.descriptor = held.locks, None, None
        held.refresh()
        held.locks, held.descriptor = locks, descriptor
