"""Guessers whose clock stands still, for tests of what they cost and of the file they share."""

import pytest

from popper.guessers import Guessers

HERE, THERE, JOE, ANN = "192.0.2.9", "198.51.100.7", b"joe", b"ann"
BEGIN = 1790000000.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now=BEGIN):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "guessers"


@pytest.fixture
def held(path, clock):
    """The guessers of a session; another session's: `again()`."""
    held = Guessers(str(path), 30, clock=clock)
    yield held
    held.close()


@pytest.fixture
def again(path, clock):
    others = []

    def another(**settings):
        others.append(Guessers(str(path), **{"most": 30, "clock": clock, **settings}))
        return others[-1]
    yield another
    for other in others:
        other.close()


def fail(held, times, address=HERE, name=JOE):
    for _ in range(times):
        held.failed(address, name)


def fail_elsewhere(held, times, name=JOE):
    """Failures of a name from so many addresses."""
    for number in range(times):
        held.failed(f"203.0.113.{number % 250}", name)


def count(held, what):
    return {row[1]: row[2] for row in held.held()}.get(what, 0.0)
