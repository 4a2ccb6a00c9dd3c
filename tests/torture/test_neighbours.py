"""A long time beside other programs on one mailbox: a real Dovecot, a real procmail, several sessions at once.

Slow, therefore not part of `make check`: `make torture`.
"""

import poplib
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "interop"))

from clients import wire                                     # noqa: E402
from others import Dovecot                                   # noqa: E402
from popper.storage.locks import SpoolLocks                  # noqa: E402
from test_delivery import client, letter, procmail, serve    # noqa: E402, F401  fixtures
from test_dovecot import listed                              # noqa: E402

pytestmark = pytest.mark.root
EXPECTED = ("[IN-USE]", "by another program", "EOF", "expunged", "Message sizes changed")


@pytest.fixture
def dovecot(account):
    """dovecot(settings) -> a running one"""
    running = []

    def start(settings):
        running.append(Dovecot(account.password, settings))
        return running[-1]
    yield start
    for server in running:
        server.stop()


def test_a_lock_that_is_kept_young_is_not_broken_by_dovecot(client, dovecot):
    """Which a long update does each minute, a half of what Dovecot waits; here it waits for four seconds. The dotlock
    is one of another host, so that its number says nothing."""
    account = client.account
    procmail(account, letter(1))
    hasty = dovecot("mbox_dotlock_change_timeout = 4 s")
    locks = SpoolLocks(str(account.mailbox))
    locks.host = "elsewhere.example"
    lock = Path(f"{account.mailbox}.lock")
    assert locks.dot()

    def log_in():
        with hasty.session(account) as other:
            return listed(other)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(log_in)
        begun = time.monotonic()
        while time.monotonic() < begun + 20:
            locks.touch()
            assert not waiting.done() and lock.read_text() == locks.text.decode()
            time.sleep(1)
        assert waiting.result(60) == [(1, wire(letter(1)))]     # not touched any more, it was broken
    assert not lock.exists()


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_letters(client, dovecot, seed):
    """Two clients of each server fetch, and delete some of what they saw, while letters arrive: none is lost, torn, or
    twice in a mailbox. That both servers give one letter to their clients cannot be prevented, for nothing keeps the
    two from serving one mailbox at one time; nobody deletes what he has not fetched."""
    account = client.account
    chance = random.Random(seed)
    # As all others do it. In Debian's order Dovecot waits for procmail's dotlock while procmail waits for its fcntl
    # lock, until one of them has had enough, which takes minutes.
    server = dovecot("mbox_write_locks = dotlock fcntl")
    sizes = [100 + chance.choice((0, 300, 5000, 90_000)) for _ in range(100)]
    letters = {wire(letter(number, size)) for number, size in enumerate(sizes)}
    fetched, ended = set(), {"popper": 0, "Dovecot": 0}

    def deliver(begin):
        for number in range(begin, len(sizes), 2):
            procmail(account, letter(number, sizes[number]))

    def fetch(name, session, choice):
        for _ in range(10_000):
            last = all(each.done() for each in delivering)
            try:
                with session() as pop:
                    found = listed(pop)
                    seen = {text for _, text in found}
                    assert len(seen) == len(found) and seen <= letters
                    taken = [one for one in found if last or choice.random() < 0.5]
                    for number, _ in taken:
                        pop.dele(number)
                    pop.quit()
            except poplib.error_proto as refusal:
                assert any(words in str(refusal) for words in EXPECTED), refusal
                continue
            ended[name] += 1
            fetched.update(text for _, text in taken)
            if last and not found:
                return
        raise AssertionError("the mailbox was never empty")

    with ThreadPoolExecutor(6) as pool:
        delivering = [pool.submit(deliver, begin) for begin in (0, 1)]
        fetching = [pool.submit(fetch, name, session, random.Random(seed + number))
                    for number in (1, 2)
                    for name, session in (("popper", client.session), ("Dovecot", lambda: server.session(account)))]
        for done in (*delivering, *fetching):
            done.result()
    print(f"seed {seed}: sessions with an update: {ended}")
    assert min(ended.values()) > 0
    assert fetched == letters
    assert client.left_over() == set()
