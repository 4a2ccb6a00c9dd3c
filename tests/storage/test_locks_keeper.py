"""The lock keeper: the same promises as SpoolLocks, kept by a process that ends with its session."""

import os
import signal

import pytest
from conftest import wait_until
from places import lock, mailbox                              # noqa: F401  fixtures
from processes import Program, forks, make_old, refusal

from popper.errors import IN_USE, PERMANENT, TEMPORARY
from popper.storage.keeper import Keeper
from popper.storage.held import Held
from popper.storage.locks import SpoolLocks

pytestmark = forks

SESSION = """
import sys
from popper.storage.keeper import Keeper
from popper.storage.locks import SpoolLocks
keeper = Keeper(SpoolLocks(sys.argv[1]), lambda: None)
keeper.session()
keeper.dot()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(mailbox):
    return mailbox.parent / ".joe.pop"


@pytest.fixture
def keeper(mailbox):
    keeper = Keeper(SpoolLocks(str(mailbox)), lambda: None)
    yield keeper
    keeper.close()
    assert os.listdir(mailbox.parent) == ["joe"]


def process_of(keeper, lock):
    """The number of the keeper's process, which its dotlock names."""
    assert keeper.dot() is True
    return int(lock.read_text().partition(":")[0])


def test_the_locks_are_another_processs(keeper, lock, file):
    assert keeper.session() == 0
    process = process_of(keeper, lock)
    assert process != os.getpid()
    assert file.exists()
    assert refusal(SpoolLocks(keeper_mailbox(lock)).session).code == IN_USE
    keeper.undot()
    assert not lock.exists() and file.exists()
    keeper.close()
    assert not file.exists()
    keeper.close()


def keeper_mailbox(lock):
    return str(lock).removesuffix(".lock")


def test_the_caller_sheds_and_the_keeper_does_not(mailbox):
    shed = []
    keeper = Keeper(SpoolLocks(str(mailbox)), lambda: shed.append(os.getpid()))
    assert shed == [os.getpid()]
    keeper.close()


def test_both_locks_through_a_keeper(keeper, mailbox, lock):
    descriptor = os.open(mailbox, os.O_RDWR)
    with Held(keeper, descriptor, str(mailbox), 10):
        assert lock.exists()
    assert not lock.exists()
    lock.write_text("0")
    assert refusal(Held(keeper, descriptor, str(mailbox), 0).__enter__).code == IN_USE
    lock.unlink()
    os.close(descriptor)


def test_a_lock_is_made_young_again(keeper, lock):
    keeper.touch()
    assert keeper.dot() is True
    young = lock.stat().st_mtime
    make_old(lock, 200)
    keeper.touch()
    assert lock.stat().st_mtime >= young


def test_refusals_come_through_with_code_and_words(keeper, mailbox, file):
    holder = SpoolLocks(str(mailbox))
    holder.session()
    refused = refusal(keeper.session)
    assert (refused.code, refused.text) == (IN_USE, f"{mailbox} lock busy!  Is another session active?")
    holder.close()
    os.mkfifo(file)
    refused = refusal(keeper.session)
    assert (refused.code, refused.text) == (PERMANENT, f"{file} is not a regular file.")
    file.unlink()
    assert keeper.session() == 0


def test_octets_of_left_over_mail_come_through(keeper, file):
    file.write_bytes(b"x" * 1234)
    assert keeper.session() == 1234
    keeper.close()
    assert file.stat().st_size == 1234
    file.unlink()


def test_a_name_in_any_octets(tmp_path):
    mailbox = os.fsdecode(os.fsencode(tmp_path) + b"/j\xf6rg")
    holder = SpoolLocks(mailbox)
    holder.session()
    keeper = Keeper(SpoolLocks(mailbox), lambda: None)
    assert "lock busy!" in refusal(keeper.session).text
    keeper.close()
    holder.close()


def test_the_locks_end_with_the_session_that_is_killed(mailbox, lock, file):
    """Security.md row 42; and the user's next login need not wait for anything."""
    session = Program(SESSION, mailbox)
    assert session.said == "held"
    assert lock.exists() and file.exists()
    session.kill()
    wait_until(lambda: os.listdir(mailbox.parent) == ["joe"])


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_no_signal_but_the_end_of_the_session_ends_it(keeper, lock, number):
    process = process_of(keeper, lock)
    os.kill(process, number)
    keeper.undot()
    assert not lock.exists()
    assert keeper.dot() is True


def test_a_keeper_that_is_gone(keeper, lock, file):
    """No lock is pretended; and what it left is stale at once."""
    keeper.session()
    process = process_of(keeper, lock)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    for call in (keeper.dot, keeper.touch, keeper.undot, keeper.session):
        refused = refusal(call)
        assert (refused.code, refused.text) == (TEMPORARY, "System error, the lock keeper is gone.")
    keeper.close()
    after = SpoolLocks(keeper_mailbox(lock))
    assert after.session() == 0
    assert [after.dot(), after.dot()] == [False, True]
    after.close()


def test_a_keeper_holds_no_descriptor_of_the_session(keeper, lock):
    """Else the client would not see the connection end."""
    reading, writing = os.pipe()
    with open(lock.parent / "joe", "rb"):
        second = Keeper(SpoolLocks(str(lock.parent / "ann")), lambda: None)
        process = process_of(second, lock.parent / "ann.lock")
        descriptors = [os.readlink(f"/proc/{process}/fd/{fd}") for fd in os.listdir(f"/proc/{process}/fd")]
        second.close()
    os.close(reading)
    os.close(writing)
    low = [what for what in descriptors if what.startswith("socket:")]
    assert len(descriptors) == len(low) == 1


def test_two_keepers_of_one_session_do_not_meet_on_a_private_name(keeper, mailbox, lock):
    """The caller itself may lock too: the name that is linked differs."""
    assert keeper.dot() is True
    own = SpoolLocks(str(mailbox))
    assert own.dot() is False
    keeper.undot()
    assert own.dot() is True
    own.close()
