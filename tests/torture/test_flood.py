"""A daemon under a crowd: thousands that say nothing while users poll, and sessions that are killed as they go.

SILENT=, USERS=, POLLS= scale a run. What memory it took is printed.
"""

import os
import random
import resource
import signal
import socket
import threading
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import ONE, PASSWORD, TWO, Dialogue, mbox, site             # noqa: F401
from on_its_own import GREETING, descriptors, start                       # noqa: F401
from processes import is_zombie

SILENT, USERS = int(os.environ.get("SILENT", 2000)), int(os.environ.get("USERS", 200))
POLLS, AT_ONCE = int(os.environ.get("POLLS", 10000)), 50
LETTERS = mbox(ONE, TWO)


@pytest.fixture(autouse=True)
def descriptors_enough():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def users(site):                                                          # noqa: F811
    names = [f"user{number}" for number in range(USERS)]
    for name in names:
        site.add(name, PASSWORD)
        site.deliver(LETTERS, name)
    return names


def memory(pids):
    """Proportional set size in KiB, of all of them."""
    return sum(int(line.split()[1]) for pid in pids
               for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))


def polled(place, name):
    """A poll that must go well."""
    pop = Dialogue(socket.create_connection(place, 60))
    try:
        assert pop.reply() == GREETING
        pop.log_in(name, PASSWORD)
        assert pop.ok("STAT").startswith("2 ")
        pop.quit()
    finally:
        pop.socket.close()


def each_in_turn(words, threads, work):
    """Do work(word) for each, by so many threads; -> what went wrong."""
    words, wrong, lock = iter(words), [], threading.Lock()

    def go_on():
        while True:
            with lock:
                word = next(words, None)
            if word is None:
                return
            try:
                work(word)
            except BaseException as trouble:
                wrong.append(f"{word}: {trouble!r}")
    workers = [threading.Thread(target=go_on) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong


def test_thousands_that_say_nothing_keep_nobody_out(start, users):        # noqa: F811
    """Every poll of every user is answered, though each is one connection more than strangers may have: one of these
    has to go for it."""
    daemon = start(maxstrangers=SILENT, maxsessions=USERS + 10, sameaddrmax=0, login_timeout=600, timeout=600)
    place = daemon.listening()
    before = memory([daemon.pid, *daemon.crew()])
    silent = [socket.create_connection(place) for _ in range(SILENT)]
    wait_until(lambda: daemon.status["strangers"] == SILENT, 60)
    crew = daemon.crew()
    held = memory([daemon.pid, *crew])
    print(f"\n{SILENT} silent connections: {held} KiB, {held - before} more than none, "
          f"{(held - before) / SILENT:.2f} for each; {len(crew) + 1} processes")
    assert not each_in_turn(users, USERS, lambda name: polled(place, name))
    assert daemon.status["counters"]["logins"] == USERS
    assert len(crew) < 10 and held - before < 20 * SILENT
    for each in silent:
        each.close()
    wait_until(lambda: daemon.status["strangers"] == 0, 60)
    assert daemon.crew() == crew, "somebody of the crew has ended"


def test_ten_thousand_polls_with_sessions_killed_as_they_go(start, users, site):      # noqa: F811
    """Nothing is left of those that were killed: no zombie, no descriptor, no lock; and those that were not are
    answered."""
    daemon = start(sameaddrmax=0, maxsessions=300)
    place = daemon.listening()
    polled(place, users[0])
    crew = daemon.crew()
    had = {pid: len(descriptors(pid)) for pid in (daemon.pid, *crew)}
    free = {name: threading.Lock() for name in users}
    slain, answered, cut = set(), [], []
    over = threading.Event()

    def slay():
        while not over.wait(random.random() / 20):
            for each in random.sample(sessions := daemon.status["sessions"], min(1, len(sessions))):
                try:
                    os.kill(each["pid"], random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
                    slain.add(each["user"])
                except ProcessLookupError:
                    pass

    def poll_some(number):
        name = random.choice(users)
        with free[name]:
            try:
                polled(place, name)
                answered.append(number)
            except (ConnectionError, AssertionError):
                if name not in slain:        # a session that nobody touched is answered
                    raise
                cut.append(number)

    slayer = threading.Thread(target=slay)
    slayer.start()
    try:
        wrong = each_in_turn(range(POLLS), AT_ONCE, poll_some)
    finally:
        over.set()
        slayer.join()
    print(f"\n{POLLS} polls: {len(answered)} answered, {len(cut)} cut off, {len(slain)} users had a session killed")
    assert not wrong
    assert len(answered) > POLLS * 0.8 and slain
    wait_until(lambda: not daemon.status["sessions"] and daemon.status["strangers"] == 0, 60)
    wait_until(lambda: {pid: len(descriptors(pid)) for pid in (daemon.pid, *crew)} == had, 60)
    assert daemon.crew() == crew and not [pid for pid in daemon.children() if is_zombie(pid)]
    assert not each_in_turn(users, 20, lambda name: polled(place, name)), "somebody's lock is left"
    assert [path.name for path in site.spool.iterdir() if path.name not in users] == []
