"""A mailbox with nothing in it and nobody at it needs no locks; any other does."""

import fcntl
import os

import pytest

from holders import Holder
from popper.storage import vacant
from popper.storage.vacant import Vacant, is_vacant

KINDS = ("dotlock", "fcntl")


@pytest.fixture
def mailbox(tmp_path):
    path = tmp_path / "joe"
    path.touch(0o600)
    return path


def test_empty(mailbox):
    assert is_vacant(str(mailbox), KINDS)


def test_missing(mailbox):
    mailbox.unlink()
    assert is_vacant(str(mailbox), KINDS)
    assert not mailbox.exists()


def test_in_a_directory_that_is_missing(mailbox):
    """A spool that is not mounted is not an empty one."""
    assert not is_vacant(f"{mailbox.parent}/none/joe", KINDS)


def test_below_a_file(mailbox):
    assert not is_vacant(f"{mailbox}/joe", KINDS)


def test_with_mail(mailbox):
    mailbox.write_bytes(b"\n")
    assert not is_vacant(str(mailbox), KINDS)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("beside", ["joe.lock", ".joe.pop", ".joe.redo", ".joe.redo.foreign"])
def test_with_something_beside_it(mailbox, beside, there):
    """A lock, a session, an update to be finished, one that did not fit: a mailbox that is not there may have them."""
    (mailbox.parent / beside).touch()
    if not there:
        mailbox.unlink()
    assert not is_vacant(str(mailbox), KINDS)


def test_with_a_lock_that_is_a_dangling_link(mailbox):
    (mailbox.parent / "joe.lock").symlink_to("nowhere")
    assert not is_vacant(str(mailbox), KINDS)


@pytest.mark.parametrize("kind, kinds, seen", [
    ("fcntl", KINDS, True), ("fcntl", ("dotlock",), True), ("flock", ("dotlock", "flock"), True), ("flock", KINDS, False)])
def test_locked_by_another(mailbox, kind, kinds, seen):
    """An fcntl lock is seen whatever is configured, for looking is free; flock where it is in use."""
    holder = Holder(mailbox, "lockf" if kind == "fcntl" else kind)
    try:
        assert is_vacant(str(mailbox), kinds) is not seen
    finally:
        holder.release()
    assert is_vacant(str(mailbox), kinds)


def odd(path, what):
    path.unlink()
    if what == "symlink":
        path.with_name("other").touch()
        path.symlink_to("other")
    elif what == "dangling symlink":
        path.symlink_to("nowhere")
    elif what == "hard link":
        path.touch()
        os.link(path, path.with_name("other"))
    elif what == "directory":
        path.mkdir()
    elif what == "FIFO":
        os.mkfifo(path)


@pytest.mark.parametrize("what", ["symlink", "dangling symlink", "hard link", "directory", "FIFO"])
def test_what_is_odd_is_for_others_to_complain_of(mailbox, what):
    odd(mailbox, what)
    assert not is_vacant(str(mailbox), KINDS)


@pytest.mark.root
def test_of_another_user(mailbox):
    os.chown(mailbox, 12345, -1)
    assert not is_vacant(str(mailbox), KINDS)


def test_rewritten_while_it_is_looked_at(mailbox, monkeypatch):
    """It was empty under somebody's lock, and has its mail again when the lock is looked at."""
    looked = vacant._is_locked

    def rewritten(descriptor, kinds):
        mailbox.write_bytes(b"From joe\n\n")
        return looked(descriptor, kinds)
    monkeypatch.setattr(vacant, "_is_locked", rewritten)
    assert not is_vacant(str(mailbox), KINDS)


def test_replaced_while_it_is_looked_at(mailbox, monkeypatch):
    looked = vacant._is_locked

    def replaced(descriptor, kinds):
        mailbox.with_name("new").write_bytes(b"From joe\n\n")
        os.rename(mailbox.with_name("new"), mailbox)
        return looked(descriptor, kinds)
    monkeypatch.setattr(vacant, "_is_locked", replaced)
    assert not is_vacant(str(mailbox), KINDS)


def test_nothing_is_left_behind(mailbox):
    before = len(os.listdir("/proc/self/fd"))
    is_vacant(str(mailbox), (*KINDS, "flock"))
    assert os.listdir(mailbox.parent) == ["joe"] and len(os.listdir("/proc/self/fd")) == before
    with open(mailbox, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_store(mailbox):
    store = Vacant(str(mailbox))
    assert store.locks.session() == 0 and store.scan() == store.entries == store.unique_ids() == []
    store.commit([], [])
    store.close()
    store.close()
