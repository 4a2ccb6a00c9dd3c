"""Which locks are taken on a mailbox, and in which order: all of those asked for, or none (directive `locks`)."""

import errno
import fcntl
import itertools
import os

import pytest
from holders import Holder, descriptor, locks                 # noqa: F401  fixtures
from places import lock, mailbox                              # noqa: F401  fixtures
from processes import forks, in_child, refusal

from popper.errors import IN_USE, PERMANENT, TEMPORARY, Refused
from popper.options import DIRECTIVES, Options
from popper.storage import held as module
from popper.storage.held import Held, one_table

pytestmark = forks
ALL = ("dotlock", "fcntl", "flock")
ORDERS = [order for count in (1, 2, 3) for order in itertools.permutations(ALL, count)]


def locked(mailbox, lock):
    """The kinds of lock that another process could not take now."""
    def attempt():
        held = ["dotlock"] if lock.exists() else []
        with open(mailbox, "rb+") as file:
            for kind, take in (("fcntl", fcntl.lockf), ("flock", fcntl.flock)):
                try:
                    take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    held.append(kind)
        return " ".join(held)
    return set(in_child(attempt).split())


class Elsewhere:
    """One kind of lock in the hands of another program."""

    def __init__(self, kind, mailbox, lock):
        self.lock = lock if kind == "dotlock" else None
        if self.lock:
            lock.write_text("0")
        else:
            self.holder = Holder(mailbox, {"fcntl": "lockf", "flock": "flock"}[kind])

    def release(self):
        if self.lock:
            self.lock.unlink()
        else:
            self.holder.release()


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_the_locks_asked_for_are_held_and_no_other(locks, mailbox, lock, descriptor, order):
    with Held(locks, descriptor, str(mailbox), 0, order):
        assert locked(mailbox, lock) == set(order)
    assert locked(mailbox, lock) == set()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("order", ORDERS[:3] + ORDERS[-6:], ids=" ".join)
def test_all_or_none(locks, mailbox, lock, descriptor, order, kind):
    """A lock that another has: refused, and it alone is held. One that was not asked for is not heeded."""
    other = Elsewhere(kind, mailbox, lock)
    held = Held(locks, descriptor, str(mailbox), 0, order)
    if kind in order:
        refused = refusal(held.__enter__)
        assert (refused.code, refused.text) == (IN_USE, f"{mailbox} lock busy!  Is another session active?")
        assert locked(mailbox, lock) == {kind}
    else:
        with held:
            assert locked(mailbox, lock) == {kind, *order}
    assert locked(mailbox, lock) == {kind}
    other.release()
    with held:
        assert locked(mailbox, lock) == set(order)


class Recorded:
    """What Held does, in order: `dot` answers True as often as it should."""

    def __init__(self, monkeypatch, order, answers=None):
        self.events = []
        self.answers = answers or {}
        for call in ("lockf", "flock"):
            monkeypatch.setattr(fcntl, call, lambda descriptor, how, call=call: self._call(call, how))
        self.held = Held(self, 0, "/var/mail/joe", 0, order)

    def dot(self):
        self.events.append("+dotlock")
        return self.answer("dotlock") is None

    def undot(self):
        self.events.append("-dotlock")

    def _call(self, call, how):
        kind = {"lockf": "fcntl", "flock": "flock"}[call]
        assert how in (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN)
        self.events.append(("-" if how == fcntl.LOCK_UN else "+") + kind)
        if how != fcntl.LOCK_UN:
            self.answer(kind)

    def answer(self, kind):
        if isinstance(self.answers.get(kind), BaseException):
            raise self.answers[kind]
        return self.answers.get(kind)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_taken_in_order_and_given_back_in_the_reverse(monkeypatch, order):
    recorded = Recorded(monkeypatch, order)
    with recorded.held:
        assert recorded.events == ["+" + kind for kind in order]
    assert recorded.events[len(order):] == ["-" + kind for kind in reversed(order)]


@pytest.mark.parametrize("error, code", [
    (Refused("/var/mail/joe.lock cannot be made: Permission denied.", PERMANENT), PERMANENT),
    (OSError(errno.ENOLCK, "No locks available"), TEMPORARY), (OSError(errno.ESTALE, "Stale file handle"), TEMPORARY)],
    ids=["dotlock", "ENOLCK", "ESTALE"])
@pytest.mark.parametrize("order", ORDERS[-6:], ids=" ".join)
def test_an_error_is_no_reason_to_wait_nor_to_keep_a_lock(monkeypatch, order, error, code):
    for kind in ["dotlock"] if isinstance(error, Refused) else ["fcntl", "flock"]:
        recorded = Recorded(monkeypatch, order, {kind: error})
        recorded.held.seconds = 60
        assert refusal(recorded.held.__enter__).code == code
        taken = order[:order.index(kind)]
        assert recorded.events[:len(taken) + 1] == ["+" + kind for kind in (*taken, kind)]
        given_back = recorded.events[len(taken) + 1:]
        assert [event for event in given_back if event[1:] in taken] == ["-" + kind for kind in reversed(taken)]
        assert not any(event.startswith("+") for event in given_back)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
@pytest.mark.parametrize("kind", ["fcntl", "flock"])
def test_the_two_ways_of_saying_that_another_has_it(monkeypatch, kind, number):
    """fcntl(2): POSIX leaves the choice."""
    recorded = Recorded(monkeypatch, ("dotlock", kind), {kind: OSError(number, "")})
    assert refusal(recorded.held.__enter__).code == IN_USE


def test_a_signal_between_two_locks_leaves_none(monkeypatch):
    """The idle limit and the end of a session are exceptions."""
    recorded = Recorded(monkeypatch, ALL, {"fcntl": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        recorded.held.__enter__()
    assert "-dotlock" in recorded.events


def test_a_lock_that_cannot_be_given_back_keeps_nothing_else(monkeypatch):
    """As when the keeper is gone: the rest is given back, and what was done counts."""
    recorded = Recorded(monkeypatch, ("fcntl", "dotlock"))

    def undot():
        raise Refused("System error, the lock keeper is gone.", TEMPORARY)
    recorded.undot = undot
    with recorded.held:
        pass
    assert recorded.events == ["+fcntl", "+dotlock", "-fcntl"]


def test_without_a_mailbox_the_dotlock_alone_whatever_was_asked_for(locks, mailbox, lock):
    with Held(locks, None, str(mailbox), 0, ("fcntl", "flock")):
        assert lock.exists()
    assert not lock.exists()


def test_the_directive_has_these_words_and_this_default(locks, mailbox, lock, descriptor):
    held = Held(locks, descriptor, str(mailbox), 0)
    assert DIRECTIVES["locks"][1] == held.kinds
    for order in ORDERS:
        chosen = Options()
        chosen.set("locks", " ".join(order))
        assert chosen.locks == order


# -- where flock is fcntl ----------------------------------------------------------------------------------------------

@pytest.fixture
def mounted(descriptor, tmp_path, monkeypatch):
    """mounted(type): have the mailbox seem to lie on a file system of this type."""
    device = os.fstat(descriptor).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"

    def mount(kind):
        table = tmp_path / "mountinfo"
        table.write_text("22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw\n"
                         f"{number} 1 99:99 / /decoy rw - nfs host:/decoy rw\n"
                         "30 1 0:999 / /other rw - nfs4 host:/other rw\n"
                         f"36 28 {number} / /a\\040- rw,noatime master:1 shared:2 - {kind} host:/mail rw,vers=4.2\n")
        monkeypatch.setattr(module, "MOUNTS", str(table))
    return mount


@pytest.mark.parametrize("kind, one", [("nfs", True), ("nfs4", True), ("cifs", True), ("smb3", True), ("ext4", False),
                                       ("tmpfs", False), ("fuse.sshfs", False), ("nfsd", False), ("-", False)])
def test_where_flock_is_fcntl(mounted, descriptor, kind, one):
    mounted(kind)
    assert one_table(descriptor) is one


@pytest.mark.parametrize("order, taken", [
    (("fcntl", "flock"), ("fcntl",)), (("flock", "fcntl"), ("flock",)), (("flock",), ("flock",)),
    (("dotlock", "fcntl", "flock"), ("dotlock", "fcntl")), (("flock", "dotlock", "fcntl"), ("flock", "dotlock")),
    (("dotlock", "fcntl"), ("dotlock", "fcntl")), (("dotlock", "flock"), ("dotlock", "flock"))], ids=str)
def test_the_later_of_two_that_are_one_is_left_out(locks, mailbox, lock, descriptor, mounted, order, taken):
    """Who holds one would be refused the other by himself, for ever."""
    mounted("nfs4")
    with Held(locks, descriptor, str(mailbox), 0, order):
        assert locked(mailbox, lock) == set(taken)
    mounted("ext4")
    with Held(locks, descriptor, str(mailbox), 0, order):
        assert locked(mailbox, lock) == set(order)


def test_where_that_cannot_be_found_out_both_are_taken(descriptor, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOUNTS", str(tmp_path / "none"))
    assert one_table(descriptor) is False
    (tmp_path / "empty").touch()
    monkeypatch.setattr(module, "MOUNTS", str(tmp_path / "empty"))
    assert one_table(descriptor) is False


def test_they_are_one_where_the_system_is_no_linux(descriptor, monkeypatch):
    """flock(2) says so of the BSDs."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("FreeBSD", "vm", "14.0", "", "amd64")))
    assert one_table(descriptor) is True


def test_this_machine_has_a_table_of_mounts(descriptor):
    """As it is made here: found and understood."""
    device = os.fstat(descriptor).st_dev
    with open(module.MOUNTS) as table:
        assert any(f" {os.major(device)}:{os.minor(device)} " in line for line in table) or os.major(device) == 0
    assert one_table(descriptor) is False
