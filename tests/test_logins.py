"""What a password leads to: waiting, a child, a refusal; and what is counted when the child has ended."""

import os
import signal
import socket
from types import SimpleNamespace

import pytest

from conftest import wait_until
from dialogue import PASSWORD, USER, site                    # noqa: F401  site is a fixture
from popper import VERSION, reception
from popper import logins as module
from popper.errors import AUTH, PERMANENT, TEMPORARY
from popper.guessers import SEATS
from popper.handover import Login, unpack
from popper.login import LOOK_AGAIN, NO_ACCESS, TOO_MANY_WRONG
from popper.logins import Logins
from popper.peer import UNKNOWN, Finding
from popper.reception import TURNED_AWAY, Connection
from popper.sessions import LOGIN, REFUSED, Sessions

WHO = ("192.0.2.1", b"mrose")


class Guessers:
    def __init__(self):
        self.seconds, self.late, self.trouble, self.told = 0.0, False, "", []
        self.known = False

    def knows(self, *who):
        return self.known

    def wait(self, *who):
        self.told.append(("wait", *who))
        return self.seconds

    def failed(self, *who):
        self.told.append(("failed", *who))

    def succeeded(self, *who):
        self.told.append(("succeeded", *who))


class Reception:
    """Keeps what fronts are told. names: called when a name is to be had."""

    def __init__(self):
        self.connections, self.told, self.left, self.knew, self.turned, self.asked = {}, [], [], [], [], None
        self.turned_away = {"allow_deny": 0}
        self.crowd = SimpleNamespace(known=self.knew.append)

    def when_named(self, connection, then):
        if self.asked is None:
            then()
        else:
            self.asked.append(then)

    def tell(self, number, octets):
        self.told.append((number, octets[:1], [each.decode() for each in unpack(octets)[1:]]))

    def leave(self, number):
        self.left.append(number)
        self.connections.pop(number).let_go()

    def turn_away(self, objection, address):
        self.turned.append((objection, address))
        return TURNED_AWAY[objection]

    journal = reception.Reception.journal

    def mark(self, number):
        return f"1.{number}"


class Journal:
    """That of a session that is traced, whose lines go to a list."""
    debugging = True

    def __init__(self, lines, mark):
        self.lines, self.mark = lines, mark

    def concerns(self, who):
        self.lines.append(f"{self.mark} concerns {who}")

    def replay(self, lines, name):
        for _, _, text in lines:
            self.debug(f"{text} ({name})")

    def debug(self, text):
        self.lines.append(f"{self.mark} {text}")

    notice = debug

    def unconcerned(self):
        pass

    close = unconcerned


class Desk:
    def __init__(self, options, monkeypatch, forks=True):
        self.seldom, self.debugs, self.now = [], [], 1000.0
        self.dates = []
        self.guessers = Guessers()
        self.house = SimpleNamespace(
            options=options, guessers=self.guessers, ident="popper", host="pop.example.org", trace=None, rules=None,
            tell_seldom=lambda *words: self.seldom.append(words), watched=frozenset, trusts=lambda address: False,
            journal=lambda mark, watched: Journal(self.debugs, mark),
            log=SimpleNamespace(debug=self.debugs.append, critical=self.debugs.append,
                                warning=self.debugs.append))
        self.sessions = Sessions(2)
        loop = SimpleNamespace(at=lambda when, what: self.dates.append((when, what)),
                               after=lambda seconds, what: self.dates.append((self.now + seconds, what)))
        self.logins = Logins(loop, self.house, self.sessions)
        self.logins.reception = self.reception = Reception()
        self.reception.house = self.house
        self.forked = []
        if not forks:
            monkeypatch.setattr(module.os, "fork", lambda: self.forked.append(1) or 10000 + len(self.forked))
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def come(self, number=1, user=b"mrose", password=b"x", fd=None, address="192.0.2.1"):
        connection = Connection(number, SimpleNamespace(gone=False), address, 1)
        connection.finding = Finding(UNKNOWN, address)
        self.reception.connections[number] = connection
        login = Login(number, user, password, b"", 20, 30, 0.5, 0, "", [])
        self.logins.come(connection, login, os.open(os.devnull, os.O_RDWR) if fd is None else fd)

    def all_leave(self):
        for number in list(self.reception.connections):
            self.reception.leave(number)

    def end(self, pid, code=0):
        self.logins.over(pid, code << 8)


@pytest.fixture
def desk(site, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    one = Desk(site.options(fail_delay=3), monkeypatch, forks=False)
    yield one
    os.close(one.sessions.descriptor)
    one.sessions.memory.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left open"


def test_a_login_is_a_child_and_no_stranger_any_more(desk):
    desk.come()
    child = desk.sessions.children[10001]
    assert (child.number, child.user, child.raw_user, child.address, child.asked) == (
        1, "mrose", b"mrose", "192.0.2.1", 1000.0)
    assert desk.reception.knew == [1] and desk.reception.told == [] and desk.logins.waiting == 0
    assert desk.guessers.told == [("wait", *WHO)]


def test_a_session_that_has_ended(desk):
    desk.come()
    child = desk.sessions.children[10001]
    desk.sessions.slot(child).write("TRANSACTION", 100, 2000)
    desk.end(10001)
    assert desk.logins.counters == {"logins": 1, "denied": 0, "received": 100, "sent": 2000}
    assert desk.reception.told == [(1, b"T", [])] and desk.reception.left == [1] and len(desk.sessions) == 0
    assert desk.guessers.told[-1] == ("succeeded", *WHO)


def refuse(desk, code, text=""):
    desk.come()
    pid = 10000 + len(desk.forked)
    desk.sessions.slot(desk.sessions.children[pid]).write(LOGIN, 10, 20, code, text)
    desk.now += 0.5
    desk.end(pid, REFUSED)


def test_a_wrong_password_is_answered_late_by_who_spoke_to_him(desk):
    refuse(desk, AUTH)
    assert desk.reception.told == [(1, b"A", ["2.500", AUTH, ""])] and desk.reception.left == []
    assert desk.logins.counters == {"logins": 0, "denied": 1, "received": 10, "sent": 20}
    assert desk.guessers.told[-1] == ("failed", *WHO)


def test_who_spoke_to_him_has_ended(desk):
    """Nobody is there who could answer: the connection is none any more, and counts no longer for its address."""
    desk.come()
    desk.reception.connections[1].front.gone = True
    desk.sessions.slot(desk.sessions.children[10001]).write(LOGIN, 10, 20, AUTH, "")
    desk.end(10001, REFUSED)
    assert desk.reception.left == [1] and desk.logins.counters["denied"] == 1


def test_an_account_that_may_not_come_in_is_denied_and_no_guess(desk):
    refuse(desk, AUTH, "Your account has expired.")
    assert desk.reception.told == [(1, b"A", ["2.500", AUTH, "Your account has expired."])]
    assert desk.logins.counters["denied"] == 1 and desk.guessers.told == [("wait", *WHO)]


@pytest.mark.parametrize("code", ["IN-USE", "SYS/TEMP", "SYS/PERM"])
def test_trouble_is_answered_at_once_and_no_wrong_password(desk, code):
    refuse(desk, code, "Some trouble.")
    assert desk.reception.told == [(1, b"A", ["0.000", code, "Some trouble."])]
    assert desk.logins.counters["denied"] == 0 and desk.guessers.told == [("wait", *WHO)]


@pytest.mark.parametrize("status, told", [
    (signal.SIGKILL, ["process 10001, session of mrose, was killed by signal 9"]), (70 << 8, [])])
def test_a_child_that_was_killed_is_let_go_of(desk, status, told):
    desk.come()
    desk.logins.over(10001, int(status))
    assert desk.debugs == told
    assert desk.reception.told == [(1, b"T", [])] and desk.reception.left == [1]
    assert desk.logins.counters["logins"] == 0 and desk.guessers.told == [("wait", *WHO)]


def test_it_waits_for_a_name(desk):
    desk.reception.asked = []
    desk.come()
    assert desk.forked == [] and desk.logins.waiting == 1
    desk.reception.asked.pop()()
    assert desk.forked and desk.logins.waiting == 0


def test_who_guesses_waits_and_is_tried_when_his_turn_has_come(desk):
    desk.guessers.seconds = 8.0
    desk.come()
    (when, what), = desk.dates
    assert when == 1008.0 and desk.forked == [] and desk.logins.waiting == 1
    assert [text for _, _, text in desk.reception.connections[1].login.lines] == [
        "Too many logins failed: this one waits for 8.0 s"]
    desk.now = when
    what()
    assert desk.sessions.children[10001].asked == 1008.0 and desk.logins.waiting == 0


def test_who_comes_too_late_is_not_tried_at_all(desk):
    desk.guessers.seconds, desk.guessers.late = 30.0, True
    desk.come()
    desk.guessers.late = False               # by then somebody else has asked
    desk.now += 30.0
    desk.dates[0][1]()
    assert desk.forked == [] and desk.reception.told == [(1, b"A", ["0.000", TEMPORARY, TOO_MANY_WRONG])]
    who, said = "mrose at 192.0.2.1 (192.0.2.1)", f"-ERR [SYS/TEMP] {TOO_MANY_WRONG}"
    assert desk.debugs == [
        "1.1 concerns 192.0.2.1", "1.1 concerns mrose",
        "1.1 Too many logins failed: this one waits for 30.0 s (192.0.2.1)", f"1.1 {who}: {said}", f"1.1 {said}",
        f'1.1 (v{VERSION}) Ending request from "mrose" at (192.0.2.1) 192.0.2.1: 20 octets received, 30 sent',
        "1.1 Ended by a refusal; seconds: client 0.500, all 30.500"]


def test_of_one_address_only_so_many_are_tried_at_a_time(desk):
    """What is being tried has not been counted yet: a hundred at once would be a hundred guesses."""
    desk.logins.sessions.allow(50)
    for number in range(1, 7):
        desk.come(number)
    assert len(desk.forked) == SEATS == 3 and desk.logins.waiting == 3
    assert desk.guessers.told == [("wait", *WHO)] * SEATS, "the others are asked about when they are let"
    desk.sessions.slot(desk.sessions.children[10001]).write("TRANSACTION", 0, 0)         # let in
    (when, what), *rest = desk.dates
    assert when == 1000.0 + LOOK_AGAIN
    desk.dates.clear()
    desk.guessers.seconds = 8.0
    for _, again in ((when, what), *rest):
        again()
    assert len(desk.forked) == SEATS and [when for when, _ in desk.dates] == [1008.0, 1008.0, 1008.0]
    desk.all_leave()


@pytest.mark.parametrize("state", ["OPENING", "TRANSACTION"])
def test_whose_password_was_right_needs_no_seat_any_more(desk, state):
    """However long it takes to lock and to read a maildrop: others of that address come in meanwhile."""
    desk.logins.sessions.allow(50)
    for number in range(1, 5):
        desk.come(number)
    for pid in 10001, 10002, 10003:
        desk.sessions.slot(desk.sessions.children[pid]).write(state, 0, 0)
    desk.dates[0][1]()
    assert len(desk.forked) == 4
    for pid in 10001, 10002, 10003, 10004:
        desk.end(pid)
    assert desk.logins.seats == {}


def test_who_is_known_there_takes_nobodys_seat(desk):
    desk.logins.sessions.allow(50)
    desk.guessers.known = True
    for number in range(1, 5):
        desk.come(number)
    desk.guessers.known = False
    for number in range(5, 9):
        desk.come(number)
    assert len(desk.forked) == 4 + SEATS
    desk.all_leave()


def test_neighbours_in_an_ipv6_prefix_share_seats(desk):
    desk.logins.sessions.allow(50)
    for number in range(1, 6):
        desk.come(number, address=f"2001:db8::{number}")
    assert len(desk.forked) == SEATS
    desk.come(6, address="2001:db8:0:1::1")
    assert len(desk.forked) == SEATS + 1
    desk.all_leave()


@pytest.mark.parametrize("address, trouble", [("local", ""), ("192.0.2.1", "guessers cannot be used.")])
def test_where_nobody_is_counted_there_are_no_seats(desk, address, trouble):
    desk.logins.sessions.allow(50)
    desk.guessers.trouble = trouble
    for number in range(1, 6):
        desk.come(number, address=address)
    assert len(desk.forked) == 5


def test_whose_turn_comes_together_with_others_is_asked_about_again(desk):
    """As of a name that is tried from many places, which nobody waits long for."""
    desk.logins.sessions.allow(50)
    desk.guessers.seconds = 8.0
    for number in range(1, 7):
        desk.come(number)
    dates, desk.dates = desk.dates, []
    desk.now = 1008.0
    for _, what in dates:
        what()
    assert len(desk.forked) == SEATS and desk.logins.waiting == 3
    assert [when for when, _ in desk.dates] == [1008.0 + LOOK_AGAIN] * 3
    desk.all_leave()


def test_who_got_in_from_there_is_tried_at_once(desk):
    desk.logins.sessions.allow(50)
    desk.guessers.known = True
    for number in range(1, 7):
        desk.come(number)
    assert len(desk.forked) == 6


def test_who_finds_no_seat_for_too_long_is_not_tried(desk):
    desk.logins.sessions.allow(50)
    for number in range(1, 5):
        desk.come(number)
    desk.now += 2 * desk.house.options.guess_delay_max
    (_, what), = desk.dates
    what()
    assert len(desk.forked) == SEATS and desk.reception.told == [(4, b"A", ["0.000", TEMPORARY, TOO_MANY_WRONG])]


def test_who_may_not_come_in_is_counted_as_turned_away(desk):
    refuse(desk, PERMANENT, NO_ACCESS)
    assert desk.reception.turned_away == {"allow_deny": 1} and desk.guessers.told == [("wait", *WHO)]


def test_who_has_gone_while_he_waited_is_not_tried(desk):
    desk.guessers.seconds = 8.0
    desk.come()
    desk.reception.leave(1)                  # and the descriptor is given back at once: `desk` counts them
    assert desk.logins.waiting == 0
    desk.dates[0][1]()
    assert desk.forked == [] and desk.logins.waiting == 0 and desk.reception.told == []


def test_who_is_held_back_may_be_sent_back(desk):
    """As it is before an upgrade. When his turn comes nothing is tried, and who is in has nothing to do with it."""
    desk.come(1)
    desk.guessers.seconds = 8.0
    desk.come(2)
    desk.logins.send_back()
    assert desk.reception.told == [(2, b"A", ["0.000", TEMPORARY, "This server is being renewed, try again."])]
    assert desk.logins.waiting == 0 and len(desk.sessions) == 1
    desk.dates[0][1]()
    assert len(desk.forked) == 1 and len(desk.reception.told) == 1
    assert desk.guessers.told == [("wait", *WHO)] * 2, "it was no guess"


def test_trouble_with_guessers_is_told_and_lets_in(desk):
    desk.guessers.trouble = "/run/popper/guessers cannot be used."
    desk.come()
    assert desk.seldom and desk.seldom[0][1] == desk.guessers.trouble and desk.forked


def test_without_guessers(desk):
    desk.house.guessers = None
    refuse(desk, AUTH)
    desk.come(2)
    desk.end(10002)
    assert desk.logins.counters["denied"] == 1


def test_too_many_sessions(desk):
    for number in (1, 2, 3):
        desk.come(number)
    assert len(desk.forked) == 2 and desk.reception.turned == [("maxsessions", "192.0.2.1")]
    assert desk.reception.told == [(3, b"A", ["0.000", TEMPORARY, "Too many sessions, try again later."])]
    desk.end(10001)
    desk.come(4)
    assert len(desk.forked) == 3


def test_no_process_to_be_had(desk, monkeypatch):
    def fork():
        raise OSError(11, "Resource temporarily unavailable")
    monkeypatch.setattr(module.os, "fork", fork)
    for number in range(5):
        desk.come(number)
    assert len(desk.sessions) == 0 and not desk.sessions.is_full() and desk.reception.knew == []
    assert desk.seldom[0] == ("fork", "fork: Resource temporarily unavailable")
    assert desk.reception.told[0] == (0, b"A", ["0.000", TEMPORARY, "System error, try again later."])


def test_a_reload_changes_how_many_there_may_be(desk):
    for number in (1, 2):
        desk.come(number)
    desk.house.options.maxsessions = 3
    desk.logins.obey(desk.house)
    desk.come(3)
    assert len(desk.forked) == 3


# -- real children ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("password, refused", [(PASSWORD, False), ("wrong", True)])
def test_a_child(site, monkeypatch, capfd, password, refused):
    desk = Desk(site.options(), monkeypatch)
    ours, theirs = socket.socketpair()
    with ours:
        desk.come(user=USER.encode(), password=password.encode(), fd=theirs.detach())
        (pid, child), = desk.sessions.children.items()
        if not refused:
            assert ours.recv(1000).startswith(f"+OK {USER} has 0 message(s)".encode())
            wait_until(lambda: desk.sessions.slot(child).read()[0] == "TRANSACTION")
            ours.sendall(b"QUIT\r\n")
            assert ours.recv(1000).startswith(b"+OK ")
        _, status = wait_until(lambda: (lambda found: found if found[0] else None)(os.waitpid(pid, os.WNOHANG)))
        state, received, sent, code, _ = desk.sessions.slot(child).read()
        assert (state, code) == ((LOGIN, AUTH) if refused else ("UPDATE", ""))
        assert received >= 20 and sent >= 30 and os.waitstatus_to_exitcode(status) == (REFUSED if refused else 0)
        desk.logins.over(pid, status)
        assert desk.logins.counters["denied" if refused else "logins"] == 1
        assert ours.recv(1000) == b""        # a refusal is not the child's to tell; its front has the connection too
    os.close(desk.sessions.descriptor)
    assert ("Failed attempted login" in capfd.readouterr().err) is refused
