"""popper and a real Dovecot on one mailbox, into which a real procmail delivers."""

import os
import poplib
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients import wire
from conftest import wait_until
from others import Dovecot, unread, without_dovecots
from popper.storage.locks import SpoolLocks
from processes import forks, in_child
from test_delivery import (AtCall, client, in_order, is_waiting_for_a_lock, letter, octets_of, procmail,  # noqa: F401
                           processes, serve)

pytestmark = [pytest.mark.root, forks]


@pytest.fixture(scope="module")
def running(account):
    server = Dovecot(account.password)
    yield server
    server.stop()


@pytest.fixture
def dovecot(running):
    """A Dovecot that has not seen the mailbox before, and has nothing to complain of in the end."""
    running.forget()
    yield running
    assert running.complaints() == []


@pytest.fixture
def impatient(serve, spool, tmp_path):
    """A popper that does not wait for locks."""
    spool.deliver(b"")
    (tmp_path / "popper.conf").write_text("lock_timeout 0\n")
    return serve("-C", str(tmp_path / "popper.conf"))


def deliver(account, *numbers):
    for number in numbers:
        unread(account)
        procmail(account, letter(number))


def listed(pop):
    """[(number, text), ...] of a maildrop, whatever Dovecot wrote into the headers. Where all had been deleted it
    leaves a message that is none, which it shows to nobody itself."""
    found = enumerate(map(without_dovecots, in_order(pop)), 1)
    return [(number, text) for number, text in found if INTERNAL not in text]


def looked_at(dovecot, account):
    """Let Dovecot see a mailbox before it counts: the first time it reads and rewrites all of it, which takes its locks
    for seconds."""
    with dovecot.session(account) as other:
        other.quit()


def texts(pop):
    return [text for _, text in listed(pop)]


def wires(*numbers):
    return [wire(letter(number)) for number in numbers]


def pop3_of(account):
    """The number of Dovecot's one process that serves this account, when there is one."""
    found = subprocess.run(["pgrep", "-x", "-u", account.name, "pop3"], capture_output=True, text=True).stdout.split()
    return int(found[0]) if len(found) == 1 else None


INTERNAL = b"\r\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\r\n"
BUSY = r"-ERR \[IN-USE\] .* lock busy"


# -- one holds, the other waits ----------------------------------------------------------------------------------------

def test_dovecots_lock_is_respected(impatient, dovecot):
    """It reads under an fcntl lock, which it keeps while its client is busy."""
    account = impatient.account
    deliver(account, 1, 2)
    with dovecot.session(account) as other:
        other.retr(1)
        with pytest.raises(poplib.error_proto, match=BUSY), impatient.session():
            pass
        other.quit()
    with impatient.session() as pop:
        assert texts(pop) == wires(1, 2)


def test_an_update_does_not_begin_while_dovecot_reads(impatient, dovecot):
    account = impatient.account
    deliver(account, 1, 2)
    looked_at(dovecot, account)
    with impatient.session() as pop, dovecot.session(account) as other:
        pop.dele(1)
        other.retr(1)
        with pytest.raises(poplib.error_proto, match=BUSY):
            pop.quit()
    with dovecot.session(account) as other:
        assert texts(other) == wires(1, 2)


def test_dovecots_lock_is_waited_for(client, dovecot):
    account = client.account
    deliver(account, 1)

    def log_in():
        with client.session() as pop:
            return texts(pop)
    with ThreadPoolExecutor(1) as pool, dovecot.session(account) as other:
        other.retr(1)
        waiting = pool.submit(log_in)
        wait_until(lambda: client.left_over() >= {f".{account.name}.pop"})
        other.quit()
        assert waiting.result(60) == wires(1)


def test_dovecot_waits_for_an_update(client, dovecot):
    """Stopped while it moves mail down, the session holds its locks; Dovecot comes to see the mailbox after that."""
    account = client.account
    deliver(account, 1, 2, 3)

    def log_in():
        with dovecot.session(account) as other:
            return texts(other)
    with client.session() as pop, ThreadPoolExecutor(1) as pool:
        pop.dele(1)
        session, _ = processes(client)
        with AtCall(session, "pwrite64", "STOP") as update:
            pop.sock.sendall(b"QUIT\r\n")
            update.wait_for_stop()
            waiting = pool.submit(log_in)
            try:
                wait_until(lambda: is_waiting_for_a_lock(wait_until(lambda: pop3_of(account))))
                assert not waiting.done()
            finally:
                os.kill(session, signal.SIGCONT)
            assert pop.file.readline().endswith(b" signing off.\r\n")
        assert waiting.result(60) == wires(2, 3)


# -- locks whose holder is gone ----------------------------------------------------------------------------------------

def test_a_lock_that_dovecot_left(client, dovecot):
    """Killed as it begins to write; the dotlock names it, and it is seen at once that it is no more."""
    account = client.account
    deliver(account, 1, 2)
    looked_at(dovecot, account)
    before = octets_of(account)
    lock = Path(f"{account.mailbox}.lock")
    with dovecot.session(account) as other:
        other.dele(1)
        number = wait_until(lambda: pop3_of(account))
        with AtCall(number, "pwrite64", "KILL"), pytest.raises((poplib.error_proto, OSError)):
            other.quit()
        assert lock.read_text() == f"{number}:{os.uname().nodename}"
    dovecot.wait_for_complaint("killed with signal 9")
    assert octets_of(account) == before
    with client.session() as pop:
        assert texts(pop) == wires(1, 2)
        assert client.left_over() == {f".{account.name}.pop"}


def as_user(account, call):
    """What a call gives for the owner of a mailbox, with the group of the spool."""
    def become():
        os.setgroups([])
        os.setresgid(*[account.mailbox.parent.stat().st_gid] * 3)
        os.setresuid(*[account.entry.pw_uid] * 3)
    return in_child(call, become)


def test_dovecot_breaks_ours_at_once(client, dovecot):
    """A popper and its keeper were killed: what it left says so in the words that Dovecot knows."""
    account = client.account
    deliver(account, 1)
    assert as_user(account, SpoolLocks(str(account.mailbox)).dot) == "True"
    assert f"{account.name}.lock" in client.left_over()
    with dovecot.session(account) as other:
        assert texts(other) == wires(1)
    dovecot.wait_for_complaint("unlink(")    # tried first without the rights of the spool's group
    assert client.left_over() == set()


# -- one changes what the other serves ---------------------------------------------------------------------------------

@pytest.mark.parametrize("asked, deleted", [
    ("RETR 2", ()), ("RETR 2", (1,)), ("RETR 3", (1, 2, 3)), ("QUIT", ()), ("QUIT", (3,)), ("QUIT", (1, 2, 3))],
    ids=str)
def test_what_dovecot_changed_during_a_session(client, dovecot, syslog, asked, deleted):
    """It rewrites headers when it first sees a message, and moves mail when one is deleted. Our session ends, with
    nothing deleted and one line in the log; the mailbox is as Dovecot left it."""
    account = client.account
    deliver(account, 1, 2, 3)
    kept = [number for number in (1, 2, 3) if number not in deleted]
    with client.session() as pop:
        pop.dele(1)
        pop.dele(2) if asked == "QUIT" else None
        with dovecot.session(account) as other:
            for number in deleted:
                other.dele(number)
            other.quit()
        after = octets_of(account)
        since = len(syslog.lines)
        pop.sock.sendall(asked.encode() + b"\r\n")
        assert pop.file.read() == b"-ERR [SYS/TEMP] Mailbox changed by another program; nothing was deleted.\r\n"
    syslog.wait_for("another program", since)
    wait_until(lambda: not client.left_over())
    said = [text for text in syslog.texts[since:] if "by another program" in text]
    assert len(said) == 1 and f"{account.mailbox} was " in said[0], said
    assert octets_of(account) == after
    with client.session() as pop:
        assert texts(pop) == wires(*kept)


def test_what_we_deleted_during_a_session_of_dovecot(client, dovecot):
    """Its session goes on with what is left, and deletes the right one."""
    account = client.account
    deliver(account, 1, 2, 3, 4)
    looked_at(dovecot, account)
    with dovecot.session(account) as other:
        with client.session() as pop:
            pop.dele(1)
            pop.dele(3)
            pop.quit()
        with pytest.raises(poplib.error_proto, match="expunged"):
            other.retr(1)
        assert b"Subject: letter 2" in other.retr(2)[1]
        other.dele(2)
        other.quit()
    with client.session() as pop:
        assert texts(pop) == wires(4)


def test_unique_ids_stay_when_dovecot_has_rewritten_the_headers(client, dovecot):
    """A client that knew them downloads nothing again."""
    account = client.account
    deliver(account, 1, 2, 3)
    with client.session() as pop:
        before = pop.uidl()[1]
    untouched = octets_of(account)
    with dovecot.session(account) as other:
        theirs = other.uidl()[1]
        other.retr(1)
        other.quit()
    assert octets_of(account) != untouched
    with client.session() as pop:
        assert pop.uidl()[1] == before
        pop.dele(1)
        pop.quit()
    with dovecot.session(account) as other:
        assert [line.split()[1] for line in other.uidl()[1]] == [line.split()[1] for line in theirs[1:]]


# -- a ledger; the one of all at once is in tests/torture/test_neighbours.py ------------------------------------------

def test_turn_by_turn(client, dovecot):
    """Letters are delivered, and fetched by one server and the other in turn, in every mixture of kept and deleted:
    each comes out once, whole and in order, whoever fetches it."""
    account = client.account
    letters = [letter(number, 100 + 300 * (number * 7 % 23)) for number in range(18)]
    waiting, fetched, number = [], [], 0
    for turn in range(12):
        for _ in range((1, 0, 3, 2)[turn % 4]):
            unread(account)
            procmail(account, letters[number])
            waiting.append(number)
            number += 1
        with dovecot.session(account) if turn % 2 else client.session() as pop:
            found = listed(pop)
            assert [text for _, text in found] == [wire(letters[number]) for number in waiting], turn
            taken = [at for at in range(len(found)) if turn >> at % 5 & 1]
            for at in taken:
                pop.dele(found[at][0])
            pop.quit()
        fetched += [waiting[at] for at in taken]
        waiting = [number for number in waiting if number not in fetched]
    assert sorted(fetched + waiting) == list(range(18)) and len(fetched) > 6
    with client.session() as pop:
        assert texts(pop) == [wire(letters[number]) for number in waiting]
