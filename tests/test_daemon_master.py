"""The master in this process: what it does when, by a clock of the test's. Nobody is forked, and nothing is become."""

import os
import socket
from types import SimpleNamespace

import pytest

from dialogue import site                                     # noqa: F401  a fixture
from popper import crew, takeover
from popper import daemon as module
from popper import logins, loop, reception
from popper.crew import Line
from popper.daemon import HELD_LONGEST, Master
from popper.errors import TEMPORARY
from popper.handover import unpack
from popper.house import House
from popper.reception import Connection


class Notify:
    interval = None
    taken = {}

    def __init__(self):
        self.said = []

    def stopping(self):
        self.said.append("stopping")


class Stage:
    """A master, and who is with it. now: by its clock; hired: the far ends of those it took on."""

    def __init__(self, site, monkeypatch, **settings):
        self.options = site.options(control=str(site.place / "control"), guessers=str(site.place / "guessers"),
                                    bindto=(), **settings)
        self.monkeypatch = monkeypatch
        self.now = 1000.0
        self.hired = []
        monkeypatch.setattr(crew, "front", self._front)
        self.master = Master(House(self.options, "popper", None), {}, lambda: self.options, Notify())
        self.master.wakeup, self.far = os.pipe()

    def stop_the_clock(self):
        for each in (module, loop, logins, reception, crew):
            self.monkeypatch.setattr(each, "time", SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now))

    def _front(self, *_):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.hired.append(theirs)
        return Line(ours, 10000 + len(self.hired))

    def elapse(self, seconds):
        """Have that time pass, and what was due be done in its time."""
        end, dates = self.now + seconds, self.master.loop.dates
        while dates and dates[0][0] <= end:
            when, _, what = date = dates[0]
            dates.remove(date)
            dates.sort()
            self.now = max(self.now, when)
            what()
        self.now = end

    def all_gone(self):
        """Everybody that was hired has ended."""
        for pid in list(self.master.crew):
            self.master._crew_gone(self.master.crew.pop(pid))

    def come(self):
        """A connection; -> it"""
        connection = Connection(1, self.master.reception.fronts[0], "192.0.2.1", 40000)
        self.master.reception.connections[1] = connection
        self.master.reception.crowd.come(1, "192.0.2.1")
        return connection

    def close(self):
        master = self.master
        for line in (*master.crew.values(), *master.reception.fronts):
            line.close()
        for each in (*self.hired, *master.bound.values()):
            each.close()
        if master.control:
            master.control.close()
        for fd in (master.wakeup, self.far, master.sessions.descriptor):
            os.close(fd)
        master.sessions.memory.close()
        getattr(master.loop.poll, "close", int)()


@pytest.fixture
def stage(site, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    one = Stage(site, monkeypatch, autoclose=60)
    yield one
    one.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left open"


# -- the crew --------------------------------------------------------------------------------------------------------

def test_fronts_that_end_as_soon_as_they_begin_are_hired_again_once_a_second(stage):
    stage.stop_the_clock()
    stage.master.hire()
    for seconds in range(10):
        assert len(stage.hired) == 2 * (seconds + 1)
        stage.elapse(0.01)
        stage.all_gone()
        stage.elapse(0.98)
        assert len(stage.hired) == 2 * (seconds + 1), "they may end again"
        stage.elapse(0.03)


def test_fronts_that_lived_are_followed_by_others_at_once(stage):
    """Nobody is left who could be given a connection."""
    stage.stop_the_clock()
    stage.master.hire()
    stage.elapse(5)
    stage.all_gone()
    assert len(stage.hired) == 4 and len(stage.master.reception.fronts) == 2
    stage.elapse(10)
    assert len(stage.hired) == 4


# -- the control socket ----------------------------------------------------------------------------------------------

def test_a_control_socket_that_can_let_in_nobody_is_let_alone_for_a_moment(stage, monkeypatch, capfd):
    """Somebody waits at it all the time: a loop that heard it would do nothing else."""
    master, tried, room = stage.master, [], []
    master._open_control()
    answer = master.control.answer

    def crowded(master):
        tried.append(bool(room))
        if not room:
            raise OSError(24, "Too many open files")
        answer(master)
    monkeypatch.setattr(master.control, "answer", crowded)
    master.loop.after(0.25, lambda: room.append(1))
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(master.control.path)
        asking.sendall(b"\n")
        master.loop.run(lambda: any(tried) or len(tried) > 10)
        assert tried == [False] * (len(tried) - 1) + [True] and 2 <= len(tried) <= 4
        assert asking.recv(1000).startswith(b'{"ok": false, "error": "expected a command')
    assert capfd.readouterr().err.count("warning: control: Too many open files\n") == 1


# -- when nobody comes -----------------------------------------------------------------------------------------------

def test_the_time_until_it_ends_counts_from_when_the_last_one_has_gone(stage, capfd):
    """Who was there for long, and said nothing, let the loop sleep all the while."""
    stage.stop_the_clock()
    master = stage.master
    master.hire()
    assert master._until_close() == 1060.0
    stage.come()
    assert master._until_close() is None
    stage.elapse(1000)
    master.reception.leave(1)
    assert master._until_close() == 2060.0 and not master.ending
    stage.elapse(59.9)
    assert master._until_close() == 2060.0 and not master.ending
    stage.elapse(0.2)
    assert master._until_close() <= stage.now and master.ending and master._until_close() is None
    assert "info: nobody came for 60 seconds\n" in capfd.readouterr().err


def test_it_counts_anew_with_each_who_comes(stage):
    stage.stop_the_clock()
    stage.master.hire()
    for _ in range(3):
        stage.come()
        assert stage.master._until_close() is None
        stage.master.reception.leave(1)
        assert stage.master._until_close() == stage.now + 60
        stage.elapse(50)
        assert stage.master._until_close() == stage.now + 10


# -- an upgrade ------------------------------------------------------------------------------------------------------

@pytest.fixture
def become(stage, monkeypatch):
    """[when it became another program, ...]"""
    times = []
    monkeypatch.setattr(takeover, "program", lambda: ["/usr/sbin/popper"])
    monkeypatch.setattr(takeover, "complaint_of", lambda arguments: "")
    monkeypatch.setattr(takeover, "leave_to", lambda arguments, master: times.append(stage.now))
    stage.stop_the_clock()
    stage.master.hire()
    return times


def held_back(stage):
    """A connection whose login waits its turn; -> it"""
    connection = stage.come()
    connection.login, connection.descriptor = SimpleNamespace(user=b"mrose"), os.open(os.devnull, os.O_RDWR)
    connection.asked = stage.now
    return connection


def test_an_upgrade_waits_for_who_is_held_back_but_not_for_ever(stage, become):
    connection = held_back(stage)
    assert stage.master.upgrade() == ""
    stage.elapse(HELD_LONGEST - 0.01)
    assert become == [] and connection.login is not None
    stage.elapse(0.2)
    assert [round(when) for when in become] == [1000 + HELD_LONGEST]
    assert connection.login is None and stage.master.logins.waiting == 0
    message = stage.hired[0].recv(1000, socket.MSG_DONTWAIT)
    assert message[:1] == b"A" and unpack(message) == [
        b"1", b"0.000", TEMPORARY.encode(), b"This server is being renewed, try again."]


def test_an_upgrade_goes_on_as_soon_as_nobody_is_held_back(stage, become):
    connection = held_back(stage)
    stage.master.upgrade()
    stage.elapse(1)
    connection.let_go()                      # his turn has come
    stage.elapse(0.2)
    assert len(become) == 1 and become[0] < 1001.2


def test_an_upgrade_is_refused_where_it_could_not_listen(stage, become, capfd):
    stage.options = SimpleNamespace(**{**vars(stage.options), "bindto": (("192.0.2.1", 0),)})
    complaint = stage.master.upgrade()
    assert complaint == "cannot listen on 192.0.2.1:0: Cannot assign requested address"
    stage.elapse(10)
    assert become == [] and f"critical: not upgraded: {complaint}\n" in capfd.readouterr().err


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_opened_to_see_whether_it_can_be_is_given_back(stage, become, monkeypatch, capfd, fails):
    """Also where the program turns out to be none, when all stays as it was."""
    def leave_to(arguments, master):
        raise FileNotFoundError(2, "No such file or directory")
    if fails:
        monkeypatch.setattr(takeover, "leave_to", leave_to)
    wanted = {"bindto": (("127.0.0.1", 0),), "trace": stage.options.control + ".trace"}
    stage.options = SimpleNamespace(**{**vars(stage.options), **wanted})
    before = len(os.listdir("/proc/self/fd"))
    assert stage.master.upgrade() == ""
    stage.elapse(1)
    assert os.path.exists(stage.options.trace) and len(os.listdir("/proc/self/fd")) == before
    failure = "critical: not upgraded: /usr/sbin/popper: No such file or directory\n"
    assert len(become) == (not fails) and (failure in capfd.readouterr().err) is fails
