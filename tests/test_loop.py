"""A loop that waits for descriptors and dates: what is done when, and in which order."""

import os
import socket
import time

import pytest

from popper import loop as module
from popper.loop import Loop


@pytest.fixture(params=["epoll", "poll"])
def loop(request, monkeypatch):
    """One of each kind, as the system has it."""
    if request.param == "poll":
        monkeypatch.delattr(module.select, "epoll")
    one = Loop()
    assert type(one.poll).__name__ == request.param
    return one


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


class Clock:
    """Time that passes only when somebody waits; what `poll` was to wait is in `waited`."""

    def __init__(self, monkeypatch, loop):
        self.now = 1000.0
        self.waited = []
        self.loop, self.poll, loop.poll = loop, loop.poll, self
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def __call__(self, seconds):
        self.waited.append(seconds)
        found = self.poll_now()
        if not found:
            assert seconds is not None, "this would wait for ever"
            self.now += seconds / self.loop.scale
        return found

    def poll_now(self):
        return self.real(0)


@pytest.fixture
def clock(monkeypatch, loop):
    one = Clock(monkeypatch, loop)
    one.real, real = one.poll.poll, one.poll
    loop.poll = type("Poll", (), {"poll": staticmethod(one), "register": real.register, "modify": real.modify,
                                  "unregister": real.unregister})()
    return one


def test_what_is_to_be_done_when_something_can_be_read(loop, pair):
    ours, theirs = pair
    heard = []
    loop.watch(ours.fileno(), lambda: heard.append(ours.recv(10)))
    theirs.send(b"one")
    loop.run(lambda: heard)
    theirs.send(b"two")
    loop.run(lambda: len(heard) == 2)
    assert heard == [b"one", b"two"]


def test_a_hang_up_is_something_to_read(loop, pair):
    ours, theirs = pair
    heard = []
    loop.watch(ours.fileno(), lambda: heard.append(ours.recv(10)))
    theirs.close()
    loop.run(lambda: heard)
    assert heard == [b""]


def test_writing_is_waited_for_as_long_as_it_is_wanted(loop, pair):
    ours, _ = pair
    done = []

    def write():
        done.append("written")
        if len(done) == 3:
            loop.when_writable(ours.fileno(), None)
            loop.after(0, lambda: done.append("nothing more"))
    loop.watch(ours.fileno(), lambda: done.append("read"))
    loop.when_writable(ours.fileno(), write)
    loop.run(lambda: "nothing more" in done)
    assert done == ["written"] * 3 + ["nothing more"]
    assert loop.writers == {} and list(loop.readers) == [ours.fileno()]


def test_what_is_ignored_is_not_heard(loop, pair):
    ours, theirs = pair
    heard = []
    loop.watch(ours.fileno(), lambda: heard.append("read"))
    loop.when_writable(ours.fileno(), lambda: heard.append("written"))
    theirs.send(b"x")
    loop.ignore(ours.fileno())
    loop.ignore(ours.fileno())               # nothing happens where nothing is watched
    loop.after(0, lambda: heard.append("date"))
    loop.run(lambda: heard)
    assert heard == ["date"] and loop.readers == loop.writers == {}


def test_one_that_is_ignored_by_another_in_the_same_turn_is_not_heard(loop):
    pairs = [socket.socketpair() for _ in range(2)]
    heard = []

    def read(which):
        heard.append(which)
        for ours, _ in pairs:
            loop.ignore(ours.fileno())
    for which, (ours, theirs) in enumerate(pairs):
        loop.watch(ours.fileno(), lambda which=which: read(which))
        theirs.send(b"x")
    loop.run(lambda: heard)
    assert len(heard) == 1
    for each in (*pairs[0], *pairs[1]):
        each.close()


def test_a_descriptor_may_be_watched_again_by_its_number(loop, pair):
    ours, theirs = pair
    heard = []
    loop.watch(ours.fileno(), lambda: heard.append("old"))
    loop.ignore(ours.fileno())
    loop.watch(ours.fileno(), lambda: heard.append("new"))
    theirs.send(b"x")
    loop.run(lambda: heard)
    assert heard == ["new"]


def test_dates_come_in_order_and_those_of_one_time_as_they_were_made(loop, clock):
    done = []
    for seconds in (3, 1, 2, 1):
        loop.after(seconds, lambda seconds=seconds: done.append((seconds, clock.now)))
    loop.at(1002.5, lambda: done.append("at"))
    loop.run(lambda: len(done) == 5)
    assert [each if each == "at" else each[0] for each in done] == [1, 1, 2, "at", 3]
    assert all(abs(now - 1000 - seconds) < 0.01 for seconds, now in (each for each in done if each != "at"))
    assert [round(each / loop.scale, 3) for each in clock.waited] == [1, 1, 0.5, 0.5]


def test_dates_may_make_dates(loop, clock):
    done = []

    def again():
        done.append(clock.now)
        if len(done) < 4:
            loop.after(10, again)
    loop.at(500.0, again)                    # long past
    loop.run(lambda: len(done) == 4)
    assert [round(each) for each in done] == [1000, 1010, 1020, 1030]


def test_it_ends_when_it_is_over_and_does_nothing_more(loop, clock):
    loop.after(0, lambda: pytest.fail("it was over"))
    loop.run(lambda: True)
    assert clock.waited == []


def test_a_further_date_wakes_it(loop, clock):
    turns = []
    loop.after(60, lambda: pytest.fail("that is later"))
    loop.run(lambda: len(turns) == 3, lambda: turns.append(1) or 1000.0 + 5 * len(turns))
    assert [round(each / loop.scale) for each in clock.waited] == [5, 5, 5]


def test_without_a_date_it_waits_for_ever(loop, pair, clock):
    ours, theirs = pair
    heard = []
    loop.watch(ours.fileno(), lambda: heard.append(ours.recv(10)))
    theirs.send(b"x")
    loop.run(lambda: heard)
    assert clock.waited == [None]


def test_a_thousand_silent_ones_and_one_that_speaks(loop):
    pairs = [os.pipe() for _ in range(300)]
    heard = []
    for reader, _ in pairs:
        loop.watch(reader, lambda reader=reader: heard.append((reader, os.read(reader, 1))))
    os.write(pairs[117][1], b"x")
    loop.run(lambda: heard)
    assert heard == [(pairs[117][0], b"x")]
    for each in pairs:
        loop.ignore(each[0])
        os.close(each[0])
        os.close(each[1])


def test_a_real_clock(loop):
    done = []
    begun = time.monotonic()
    loop.after(0.05, lambda: done.append(time.monotonic() - begun))
    loop.run(lambda: done)
    assert done[0] >= 0.05
