"""Who asks DNS for a server that cannot wait: every question is answered, and each address is asked once for a while."""

import select
import socket
import threading

import pytest

from conftest import wait_until
from popper import looker as module
from popper.handover import pack, unpack
from popper.looker import ANSWERS_MOST, KEPT, KEPT_LATER, MOST, Looker
from popper.peer import FORGED, LATER, UNKNOWN, VERIFIED, Finding


class Desk:
    """Who asks, and a looker whose DNS and clock are ours."""

    def __init__(self):
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.settimeout(30)
        self.now = 100.0
        self.asked = []
        self.found = lambda address: Finding(VERIFIED, f"client-{address}.example.org")
        self.looker = Looker(theirs, 5, self.ask, lambda: self.now)

    def ask(self, address):
        self.asked.append(address)
        return self.found(address)

    def answer(self):
        octets = self.line.recv(4096)
        assert octets[:1] == b"!"
        return [each.decode() for each in unpack(octets)]

    def look_up(self, address):
        self.looker.look_up(address)
        return self.answer()

    def silent(self):
        assert select.select([self.line], [], [], 0)[0] == []


@pytest.fixture
def desk():
    one = Desk()
    yield one
    one.line.close()
    one.looker.line.close()


def test_a_finding(desk):
    assert desk.look_up("192.0.2.1") == ["192.0.2.1", VERIFIED, "client-192.0.2.1.example.org", ""]


@pytest.mark.parametrize("status, kept", [(VERIFIED, KEPT), (UNKNOWN, KEPT), (FORGED, KEPT), (LATER, KEPT_LATER)])
def test_a_finding_is_believed_for_a_while(desk, status, kept):
    desk.found = lambda address: Finding(status, address, "a complaint")
    first = desk.look_up("192.0.2.1")
    assert first == ["192.0.2.1", status, "192.0.2.1", "a complaint"]
    desk.now += kept - 0.1
    assert desk.look_up("192.0.2.1") == first and len(desk.asked) == 1
    desk.now += 0.2
    assert desk.look_up("192.0.2.1") == first and len(desk.asked) == 2


def test_who_asks_again_meanwhile_is_told_once(desk):
    go = threading.Event()
    desk.found = lambda address: go.wait(30) and Finding(UNKNOWN, address)
    for _ in range(3):
        desk.looker.look_up("192.0.2.1")
    desk.silent()
    go.set()
    assert desk.answer()[0] == "192.0.2.1"
    desk.silent()
    assert desk.asked == ["192.0.2.1"] and not desk.looker.asked


def test_answers_come_in_whatever_order_dns_has_them(desk):
    go = threading.Event()
    desk.found = lambda address: (address == "192.0.2.2" or go.wait(30)) and Finding(UNKNOWN, address)
    desk.looker.look_up("192.0.2.1")
    assert desk.look_up("192.0.2.2")[0] == "192.0.2.2"
    go.set()
    assert desk.answer()[0] == "192.0.2.1"


def test_so_many_questions_at_once_and_no_more(desk):
    go = threading.Event()
    desk.found = lambda address: go.wait(30) and Finding(UNKNOWN, address)
    for number in range(MOST):
        desk.looker.look_up(f"192.0.2.{number}")
    assert desk.look_up("198.51.100.1") == ["198.51.100.1", LATER, "198.51.100.1", ""]
    go.set()
    assert sorted(desk.answer()[0] for _ in range(MOST)) == sorted(f"192.0.2.{number}" for number in range(MOST))
    assert "198.51.100.1" not in desk.looker.answers     # who came then is asked for the next time
    assert desk.look_up("198.51.100.1")[1] == UNKNOWN


@pytest.mark.parametrize("trouble", [RuntimeError("a resolver's fault"), OSError(5, "EIO"), UnicodeError("x")])
def test_whatever_a_resolver_does_there_is_an_answer(desk, trouble):
    def found(address):
        raise trouble
    desk.found = found
    address, status, name, complaint = desk.look_up("192.0.2.1")
    assert (address, status, name) == ("192.0.2.1", LATER, "192.0.2.1") and type(trouble).__name__ in complaint
    assert not desk.looker.asked


def test_without_a_thread_there_is_an_answer_too(desk, monkeypatch):
    def none(work, arguments):
        raise RuntimeError("can't start new thread")
    with monkeypatch.context() as patch:
        patch.setattr(module._thread, "start_new_thread", none)
        assert desk.look_up("192.0.2.1") == ["192.0.2.1", LATER, "192.0.2.1", "can't start new thread"]
    assert desk.look_up("192.0.2.1")[1] == VERIFIED


def test_what_is_remembered_is_bounded(desk):
    desk.looker.answers = {str(number): (desk.now + 10, Finding(UNKNOWN, "")) for number in range(ANSWERS_MOST)}
    desk.look_up("192.0.2.1")
    assert list(desk.looker.answers) == ["192.0.2.1"]


def test_a_complaint_that_is_not_ascii_is_shown(desk):
    desk.found = lambda address: Finding(FORGED, address, "j\u00f6")
    assert desk.look_up("192.0.2.1")[3] == "j?"


def test_it_runs_until_nobody_asks_any_more(desk, monkeypatch):
    configured, ignored = [], []
    monkeypatch.setattr(module, "configure_resolver", configured.append)
    monkeypatch.setattr(module._signal, "signal", lambda number, what: ignored.append((number, what)))
    running = threading.Thread(target=desk.looker.run)
    running.start()
    desk.line.send(pack(b"?", b"192.0.2.1"))
    assert desk.answer()[0] == "192.0.2.1"
    desk.line.close()
    running.join(30)
    assert not running.is_alive() and configured == [5]
    assert {number for number, what in ignored if what == module._signal.SIG_IGN} == {1, 2, 15}


def test_an_answer_that_nobody_waits_for_any_more(desk):
    go = threading.Event()
    desk.found = lambda address: go.wait(30) and Finding(UNKNOWN, address)
    desk.looker.look_up("192.0.2.1")
    desk.line.close()
    go.set()
    wait_until(lambda: not desk.looker.asked)
    desk.looker.look_up("192.0.2.1")
