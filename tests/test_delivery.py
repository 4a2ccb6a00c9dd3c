"""Mail arrives, programs lock and processes die while sessions are under way: real procmail, real inetd, real spool."""

import contextlib
import ctypes
import fcntl
import os
import poplib
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import clients
from clients import wire
from conftest import wait_until
from processes import has_ended

pytestmark = pytest.mark.root

ADDRESS = b"sender@example.org"
PR_SET_CHILD_SUBREAPER = 36
APPEND = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    file.write(sys.argv[2].encode())
"""


def letter(number, octets=200):
    """A text that nobody else has, of about so many octets, with lines to be stuffed."""
    return (b"From: %s\nTo: popjoe@example.com\nSubject: letter %d\nMessage-ID: <%d@example.org>\n\n" % (
        ADDRESS, number, number) + b".%d\nmore\n" % number * (octets // 8))


def octets_of(account):
    """A mailbox's octets, read without a trace: procmail waits a second when somebody read it a moment ago."""
    with open(os.open(account.mailbox, os.O_RDONLY | os.O_NOATIME), "rb") as file:
        return file.read()


def procmail(account, text):
    """Deliver as an MTA does it; -> the octets by which the mailbox grew, if nobody else changed it meanwhile."""
    before = account.mailbox.stat().st_size if account.mailbox.exists() else 0
    subprocess.run(["procmail", "-f", ADDRESS, "-d", account.name], input=text, check=True, timeout=100)
    return octets_of(account)[before:]


def three_letters(account):
    """Deliver so many; -> the mailbox's octets."""
    return b"".join(procmail(account, letter(number)) for number in (1, 2, 3))


def dotlock_agent(account, text):
    """Deliver under a dotlock alone."""
    subprocess.run(["sh", "-c", 'lockfile -1 "$1.lock" && cat >>"$1" && rm -f "$1.lock"', "sh", account.mailbox],
                   input=b"From %s Tue Jan  2 03:04:05 2024\n%s\n" % (ADDRESS, text), check=True, timeout=100)


def fcntl_agent(account, text, alone=threading.Lock()):
    """Deliver under an fcntl lock alone. alone: such locks do not keep threads of one process apart."""
    octets = b"From %s Tue Jan  2 03:04:05 2024\n%s\n" % (ADDRESS, text)
    with alone, open(account.mailbox, "ab", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        for at in range(0, len(octets), 1000):
            file.write(octets[at:at + 1000])


@pytest.fixture
def serve(installed, spool, start_inetd):
    """serve(*arguments) -> a user's programs, with `server` the inetd that runs popper with these arguments.

    procmail waits eight seconds for a lock unless told otherwise.
    """
    running = []
    rules = Path(spool.entry.pw_dir) / ".procmailrc"
    rules.write_text("LOCKSLEEP=1\n")
    os.chown(rules, spool.entry.pw_uid, spool.entry.pw_gid)

    def serve(*arguments):
        server = start_inetd(installed / "sbin" / "popper", *arguments)
        client = clients.Client(spool, server.port)
        client.server = server
        running.append(client)
        return client
    yield serve
    for client in running:
        client.remove()
    rules.unlink()


@pytest.fixture
def client(serve, spool):
    """One such, with an empty mailbox."""
    spool.deliver(b"")
    return serve()


def in_order(pop):
    """The texts of a maildrop, as they cross the wire."""
    return [b"".join(line + b"\r\n" for line in pop.retr(number)[1]) for number in range(1, pop.stat()[0] + 1)]


def processes(client):
    """The processes of the one session under way: the session's, and its lock keeper's."""
    def child_of(parent):
        words = subprocess.run(["pgrep", "-u", client.account.name, "-P", str(parent)], capture_output=True).stdout
        (child,) = words.split()
        return int(child)
    session = child_of(client.server.process.pid)
    return session, child_of(session)


class AtCall:
    """Have a signal sent to a process at its next call of a kind."""

    def __init__(self, pid, call, name):
        self.tracer = subprocess.Popen(["strace", "-p", str(pid), "-e", f"trace={call}",
                                        "-e", f"inject={call}:signal={name}:when=1"], stderr=subprocess.PIPE)
        assert b"attached" in self.tracer.stderr.readline()

    def wait_for_stop(self):
        assert any(b"stopped by" in line for line in self.tracer.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tracer.kill()
        self.tracer.communicate()


def is_waiting_for_a_lock(pid):
    """Whether a process stands in the queue for an fcntl lock."""
    return any("->" in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


# -- delivery ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("gone", [(), (1,), (2,), (3,), (1, 3), (1, 2, 3)])
def test_mail_that_arrives_during_a_session_is_in_the_next(client, gone):
    """Not in this one, and not lost by QUIT, whatever that deletes, in the same file (1939.79, inv.01, inv.04)."""
    account = client.account
    pieces = [procmail(account, letter(number)) for number in (1, 2, 3)]
    inode = account.mailbox.stat().st_ino
    with client.session() as pop:
        late = procmail(account, letter(4))
        assert in_order(pop) == [wire(letter(number)) for number in (1, 2, 3)]
        with pytest.raises(poplib.error_proto, match="-ERR Message 4 does not exist"):
            pop.retr(4)
        for number in gone:
            pop.dele(number)
        later = procmail(account, letter(5))
        assert pop.stat()[0] == 3 - len(gone)
        pop.quit()
    kept = [number for number in (1, 2, 3) if number not in gone]
    assert octets_of(account) == b"".join([pieces[number - 1] for number in kept] + [late, later])
    assert account.mailbox.stat().st_ino == inode
    assert client.left_over() == set()
    with client.session() as pop:
        assert in_order(pop) == [wire(letter(number)) for number in (*kept, 4, 5)]


def test_the_first_mail_ever_arrives_during_a_session(client):
    """There was no mailbox: none is made by looking, and what procmail makes is left alone (1939.84)."""
    client.account.mailbox.unlink()
    with client.session() as pop:
        assert pop.stat() == (0, 0)
        assert not client.account.mailbox.exists()
        piece = procmail(client.account, letter(1))
        assert pop.stat() == (0, 0)
        pop.quit()
    assert octets_of(client.account) == piece
    with client.session() as pop:
        assert in_order(pop) == [wire(letter(1))]


def test_an_idle_session_keeps_nobody_waiting(client):
    """No lock that others heed is held between login and QUIT."""
    account = client.account
    procmail(account, letter(1))
    with client.session() as pop:
        pop.dele(1)
        assert client.left_over() == {f".{account.name}.pop"}
        subprocess.run(["lockfile", "-r0", f"{account.mailbox}.lock"], check=True)
        os.unlink(f"{account.mailbox}.lock")
        with open(account.mailbox, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        piece = procmail(account, letter(2))
        pop.noop()
        pop.quit()
    assert octets_of(account) == piece


@pytest.mark.parametrize("agent", [procmail, dotlock_agent, fcntl_agent])
def test_deliveries_and_sessions_at_once(client, agent):
    """A dozen letters, two who fetch and delete: each letter is fetched once and whole.

    Each session deletes every other message, so that mail moves. Who fetches ends when he finds the mailbox empty
    after the last delivery.
    """
    account = client.account
    inode = account.mailbox.stat().st_ino
    letters = [letter(number, 40_000 * number) for number in range(12)]
    ledger = []

    def fetch():
        for _ in range(10_000):
            last = all(delivery.done() for delivery in deliveries)
            try:
                with client.session() as pop:
                    texts = in_order(pop)[::2]
                    for number in range(1, 2 * len(texts), 2):
                        pop.dele(number)
                    pop.quit()
            except poplib.error_proto as refusal:
                assert "-ERR [IN-USE] " in str(refusal), refusal
                continue
            ledger.extend(texts)
            assert len(ledger) <= len(letters), "a letter was fetched twice"
            if last and not texts:
                return
        raise AssertionError("the mailbox was never empty")

    with ThreadPoolExecutor(14) as pool:
        deliveries = [pool.submit(agent, account, text) for text in letters]
        for done in [pool.submit(fetch), pool.submit(fetch), *deliveries]:
            done.result()
    assert sorted(ledger) == sorted(map(wire, letters))
    assert account.mailbox.stat().st_ino == inode
    assert account.mailbox.stat().st_size == 0
    assert client.left_over() == set()


def test_mail_that_arrives_during_an_update_waits_for_it(client):
    """Stopped while it moves mail down, the session holds both locks; what is delivered then comes behind the rest."""
    account = client.account
    pieces = [procmail(account, letter(number)) for number in (1, 2, 3)]
    with client.session() as pop:
        pop.dele(1)
        session, _ = processes(client)
        with AtCall(session, "pwrite64", "STOP") as update:
            pop.sock.sendall(b"QUIT\r\n")
            update.wait_for_stop()
            assert f"{account.name}.lock" in client.left_over()
            with subprocess.Popen([sys.executable, "-c", APPEND, account.mailbox, b"late\n"]) as agent:
                try:
                    wait_until(lambda: is_waiting_for_a_lock(agent.pid))
                finally:
                    os.kill(session, signal.SIGCONT)
            assert agent.returncode == 0
        assert pop.file.readline().endswith(b" signing off.\r\n")
    assert octets_of(account) == pieces[1] + pieces[2] + b"late\n"
    assert client.left_over() == set()


# -- locks ---------------------------------------------------------------------------------------------------------

def test_a_second_session_is_refused(client):
    """With the response code and the words that clients know; the first goes on, and then it is the second's turn
    (1939.80, 1939.81, 2449.17)."""
    account = client.account
    procmail(account, letter(1))
    with client.session() as first:
        with pytest.raises(poplib.error_proto) as refusal, client.session():
            pass
        assert refusal.value.args[0] == \
            b"-ERR [IN-USE] %s lock busy!  Is another session active?" % os.fsencode(account.mailbox)
        assert in_order(first) == [wire(letter(1))]
        first.quit()
    with client.session() as pop:
        pop.quit()
    assert client.left_over() == set()


def test_fetchmail_comes_back_later(client):
    """Its exit status 9 is `the server's lock is busy`."""
    procmail(client.account, letter(1))
    with client.session() as pop:
        texts, said = client.fetchmail(status=9)
        assert "POP3< -ERR [IN-USE] " in said and texts == []
        pop.quit()
    assert client.fetchmail()[0] == [letter(1)]


@contextlib.contextmanager
def dotlock(mailbox):
    subprocess.run(["lockfile", f"{mailbox}.lock"], check=True)
    yield
    os.unlink(f"{mailbox}.lock")


@contextlib.contextmanager
def fcntl_lock(mailbox):
    with open(mailbox, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("locked", [dotlock, fcntl_lock])
def test_a_mailbox_that_another_program_has_locked(serve, tmp_path, locked):
    """Login and UPDATE are refused as in use, having changed nothing (1939.46)."""
    (tmp_path / "popper.conf").write_text("lock_timeout 0\n")
    client = serve("-C", str(tmp_path / "popper.conf"))
    account = client.account
    account.deliver(b"")
    piece = procmail(account, letter(1))
    with locked(account.mailbox), pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\] .* lock busy"):
        with client.session():
            pass
    with client.session() as pop:
        pop.dele(1)
        with locked(account.mailbox), pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\] .* lock busy"):
            pop.quit()
    assert octets_of(account) == piece
    wait_until(lambda: not client.left_over())
    with client.session() as pop:
        assert in_order(pop) == [wire(letter(1))]


# -- kills ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def orphans():
    """Those whose parent was killed become ours to bury: where nobody does, they would seem to be alive."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def serves_and_accepts(client, numbers):
    """Assert that the mailbox has these letters, that mail can be delivered, and that nothing is left beside it."""
    account = client.account
    with client.session() as pop:
        assert in_order(pop) == [wire(letter(number)) for number in numbers]
        pop.quit()
    assert client.left_over() == set()
    procmail(account, letter(99))
    with client.session() as pop:
        assert in_order(pop) == [wire(letter(number)) for number in (*numbers, 99)]


def test_a_session_that_is_killed(client):
    """Its keeper ends with it and leaves nothing (1939.45, 1939.82)."""
    before = three_letters(client.account)
    with client.session() as pop:
        pop.dele(2)
        session, keeper = processes(client)
        os.kill(session, signal.SIGKILL)
        wait_until(lambda: has_ended(session) and has_ended(keeper))
        assert client.left_over() == set()
        assert octets_of(client.account) == before
    serves_and_accepts(client, (1, 2, 3))


def test_a_session_that_is_killed_in_its_update(client):
    """At the moment when the file is to be cut, locks held: the keeper gives them back."""
    before = three_letters(client.account)
    with client.session() as pop:
        pop.dele(3)
        session, keeper = processes(client)
        with AtCall(session, "ftruncate", "KILL"):
            with pytest.raises((poplib.error_proto, OSError)):
                pop.quit()
            wait_until(lambda: has_ended(session) and has_ended(keeper))
        assert client.left_over() == set()
        assert octets_of(client.account) == before
    serves_and_accepts(client, (1, 2, 3))


def test_a_session_that_is_killed_with_its_keeper(client, orphans):
    """The dotlock stays, and names who held it; the next session sees that this one is no more."""
    account = client.account
    three_letters(account)
    with client.session() as pop:
        pop.dele(3)
        session, keeper = processes(client)
        with AtCall(session, "fsync", "STOP") as update:
            pop.sock.sendall(b"QUIT\r\n")
            update.wait_for_stop()
            os.kill(keeper, signal.SIGKILL)
            os.kill(session, signal.SIGKILL)
            wait_until(lambda: has_ended(session))
            os.waitpid(keeper, 0)
    assert client.left_over() == {f"{account.name}.lock", f".{account.name}.pop"}
    serves_and_accepts(client, (1, 2))


def test_a_keeper_that_is_killed(client):
    """Without locks there is no UPDATE; the session says so and nothing is deleted (1939.46, 3206.03)."""
    before = three_letters(client.account)
    with client.session() as pop:
        pop.dele(2)
        _, keeper = processes(client)
        os.kill(keeper, signal.SIGKILL)
        with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\] "):
            pop.quit()
    assert octets_of(client.account) == before
    serves_and_accepts(client, (1, 2, 3))
