"""What is done to a mailbox under its locks loses none of them: the system forgets an fcntl lock as soon as its process
closes the file, by whichever descriptor."""

import os

import pytest
from mboxes import numbered
from places import lock, mailbox                              # noqa: F401  fixtures
from processes import forks, in_child, is_fcntl_locked

from popper.bulletins import Popbull
from popper.storage.keeper import Keeper
from popper.storage.held import Held
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox

pytestmark = forks


@pytest.fixture(params=["SpoolLocks", "Keeper"])
def open_store(request, mailbox):
    """open_store(octets) -> an Mbox over a mailbox with them; None: over what is there."""
    opened = []

    def make(octets=None, **how):
        if octets is not None:
            mailbox.write_bytes(octets)
        locks = SpoolLocks(str(mailbox))
        if request.param == "Keeper":
            locks = Keeper(locks, lambda: None)
        locks.session()
        opened.append(Mbox(str(mailbox), locks, **{"lock_timeout": 0, "fsync": False, **how}))
        return opened[-1]
    yield make
    for store in opened:
        store.close()


@pytest.fixture
def kept(mailbox, monkeypatch):
    """Of each time that locks were held: whether the fcntl lock still stood when they were to be given back."""
    found = []

    def leave(held, *error):
        found.append(is_fcntl_locked(mailbox))
        return real(held, *error)
    real = Held.__exit__
    monkeypatch.setattr(Held, "__exit__", leave)
    return found


def interrupt(mailbox):
    """Leave a record, and half an update."""
    mailbox.write_bytes(numbered(1, 2, 3))

    def die():
        os.ftruncate = lambda *_: os._exit(0)
        store = Mbox(str(mailbox), SpoolLocks(str(mailbox)), lock_timeout=0, fsync=False)
        store.commit(store.scan()[:1])
    assert in_child(die) == ""
    assert (mailbox.parent / ".joe.redo").exists()
    (mailbox.parent / "joe.lock").unlink()   # its holder is dead, which a second try would see


def test_this_is_how_one_is_lost(mailbox, kept):
    descriptor = os.open(mailbox, os.O_RDWR)
    with Held(SpoolLocks(str(mailbox)), descriptor, str(mailbox), 0):
        os.close(os.open(mailbox, os.O_RDONLY))
    os.close(descriptor)
    assert kept == [False]


def test_a_scan(open_store, kept):
    assert len(open_store(numbered(1, 2, 3)).scan()) == 3
    assert kept == [True]


@pytest.mark.parametrize("gone", [[1], [2], [3], [1, 3], [1, 2, 3]], ids=str)
def test_an_update(open_store, kept, mailbox, gone):
    store = open_store(numbered(1, 2, 3))
    entries = store.scan()
    store.commit([entries[number - 1] for number in gone])
    assert mailbox.read_bytes().count(b"From ") == 3 - len(gone)
    assert kept == [True, True]


def test_marks_of_what_was_read(open_store, kept, mailbox):
    store = open_store(numbered(1, 2, 3), status=True)
    entries = store.scan()
    store.commit(entries[:1], entries[1:])
    assert mailbox.read_bytes().count(b"\nStatus: RO\n") == 2
    assert kept == [True, True]


@pytest.mark.parametrize("octets", [None, numbered(1)], ids=["no mailbox", "mailbox"])
def test_bulletins_and_their_receipt(open_store, kept, mailbox, octets):
    receipt = Popbull(str(mailbox.parent / ".popbull"))
    receipt.write(1)

    def noted(number):
        if (receipt.read() or 0) < number:
            receipt.write(number)
    mailbox.unlink()
    store = open_store(octets, noted=noted)
    store.scan()
    kept.clear()
    receipt.prepare(7)
    store.append([numbered(6), numbered(7)], 7)
    assert receipt.read() == 7 and mailbox.read_bytes().endswith(numbered(6, 7))
    assert kept == [True]


def test_mail_that_an_older_popper_left(open_store, kept, mailbox):
    (mailbox.parent / ".joe.pop").write_bytes(numbered(1))
    assert len(open_store(numbered(2)).scan()) == 2
    assert mailbox.read_bytes() == numbered(1, 2)
    assert kept == [True]


def test_the_end_of_an_update_that_was_interrupted(open_store, kept, mailbox):
    interrupt(mailbox)
    store = open_store()
    assert len(store.scan()) == 2 and store.notes
    assert not (mailbox.parent / ".joe.redo").exists()
    assert kept == [True]
