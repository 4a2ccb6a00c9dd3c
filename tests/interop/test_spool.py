"""Whole sessions in the real spool beside a user's own programs, which lock there with the rights of group mail."""

import os
import poplib
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients import wire
from conftest import wait_until
from others import SPOOL_LOCKERS, as_owner
from popper.storage.locks import STALE
from processes import make_old
from test_delivery import AtCall, in_order, letter, octets_of, processes, procmail, serve     # noqa: F401  fixtures

pytestmark = pytest.mark.root


class Users:
    """A program that locks, run by the owner of a mailbox."""

    def __init__(self, locker, account):
        self.locker = locker
        self.mailbox = account.mailbox
        self.lock = Path(f"{account.mailbox}.lock")
        self.before = as_owner(account)
        self.busy = locker.busy

    def run(self, what):
        return self.locker.run(what, self.mailbox, *self.before)

    def start(self, what):
        return subprocess.Popen([*self.before, *self.locker.command(what, self.mailbox)], stderr=subprocess.DEVNULL)


@pytest.fixture(params=SPOOL_LOCKERS)
def program(request, spool):
    return Users(SPOOL_LOCKERS[request.param], spool)


@pytest.fixture
def client(serve, spool, tmp_path):
    """The programs of a user with one letter, whose server waits for locks as long as `seconds` says."""
    def start(seconds):
        conf = tmp_path / "popper.conf"
        conf.write_text(f"lock_timeout {seconds}\n")
        return serve("-C", str(conf))
    spool.deliver(b"")
    procmail(spool, letter(1))
    return start


def test_theirs_is_respected(client, program):
    client = client(0)
    before = octets_of(client.account)
    assert program.run("take") == 0 and program.lock.exists()
    with pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\] .* lock busy"), client.session():
        pass
    assert program.lock.lstat().st_uid == client.account.entry.pw_uid
    assert program.run("leave") == 0 and not program.lock.exists()
    with client.session() as pop:
        pop.dele(1)
        assert program.run("take") == 0
        with pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\] .* lock busy"):
            pop.quit()
    assert program.run("leave") == 0
    assert octets_of(client.account) == before


def test_theirs_is_waited_for(client, program):
    client = client(60)

    def log_in():
        with client.session() as pop:
            return in_order(pop)
    assert program.run("take") == 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(log_in)
        wait_until(lambda: f".{client.account.name}.pop" in client.left_over())
        assert not waiting.done() and program.run("leave") == 0
        assert waiting.result(60) == [wire(letter(1))]


def test_theirs_is_broken_when_old(client, program):
    """mutt's may not even be read by who made it."""
    client = client(60)
    assert program.run("take") == 0
    make_old(program.lock, STALE + 20)
    with client.session() as pop:
        assert in_order(pop) == [wire(letter(1))]
        assert not program.lock.exists()


def test_ours_is_respected_and_waited_for(client, program):
    """A session that is stopped in its UPDATE holds its locks; the program has its own when the session has ended."""
    client = client(60)
    account = client.account
    kept = procmail(account, letter(2))
    with client.session() as pop:
        pop.dele(1)
        session, _ = processes(client)
        with AtCall(session, "pwrite64", "STOP") as update:
            pop.sock.sendall(b"QUIT\r\n")
            update.wait_for_stop()
            try:
                ours = program.lock.lstat()
                assert program.run("take") == program.busy
                waiting = program.start("wait")
                assert os.path.samestat(program.lock.lstat(), ours)
            finally:
                os.kill(session, signal.SIGCONT)
        with waiting:
            assert pop.file.readline().endswith(b" signing off.\r\n")
            assert waiting.wait(60) == 0
    assert octets_of(account) == kept and program.lock.exists()
    assert program.run("leave") == 0 and client.left_over() == set()
