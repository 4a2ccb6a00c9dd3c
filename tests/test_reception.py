"""Who comes, is given to a front or turned away, gets a name, and goes; and that no front is believed blindly."""

import os
import socket
from signal import SIGKILL
from types import SimpleNamespace

import pytest

from popper import loop
from popper import reception as module
from popper.access import ALLOW, DENY, LATER_ON, networks_of
from popper.handover import FROM_PROXY, LIVE, NOTED, Login, pack, pack_lines, unpack
from popper.journal import NAME
from popper.limits import Seldom
from popper.options import Options
from popper.peer import LATER, UNKNOWN, VERIFIED, Finding
from popper.reception import QUEUE_MOST, Reception



class Loop:
    """Keeps what is watched and what is due."""

    def __init__(self):
        self.readers, self.writers, self.dates = {}, {}, []

    def watch(self, fd, read):
        assert fd >= 0
        self.readers[fd] = read

    def ignore(self, fd):
        self.readers.pop(fd, None)

    def when_writable(self, fd, write):
        self.writers[fd] = write

    def after(self, seconds, what):
        self.dates.append((seconds, what))

    pause = loop.Loop.pause

    def due(self, seconds):
        """Do what was to be done after so many seconds."""
        now = [what for each, what in self.dates if each == seconds]
        self.dates = [each for each in self.dates if each[0] != seconds]
        for what in now:
            what()


class House:
    """What is in force. log: (level, text) of every line."""

    def __init__(self, **options):
        self.options = Options()
        for name, value in options.items():
            assert hasattr(self.options, name)
            setattr(self.options, name, value)
        self.rules = self.trace = None
        self.seen = frozenset()
        self.lines, self.closed = [], 0
        self.seldom = Seldom()
        self.log = SimpleNamespace(critical=lambda text: self.lines.append(("critical", text)))

    def journal(self, mark, watched):
        def close():
            self.closed += 1
        return SimpleNamespace(concerns=lambda who: self.lines.append((mark, who)), unconcerned=lambda: None,
                               close=close,
                               replay=lambda lines, name: self.lines.extend((name, text) for _, _, text in lines))

    def watched(self):
        return self.seen

    def tell_seldom(self, what, text):
        self.lines.append((what, text))

    def nameless(self, address):
        return None if self.options.lookup and address != "local" else Finding(UNKNOWN, address)


class Front:
    """A line of the crew that keeps what it is sent, and says what it is given to say."""

    pid = 4711

    def __init__(self, fd):
        self.fd, self.sent, self.says, self.takes, self.queue = fd, [], [], True, []

    def fileno(self):
        return self.fd

    def send(self, octets, fd=-1):
        self.sent.append((octets[:1], [each.decode() for each in unpack(octets)]))
        if fd >= 0:
            os.close(fd)
        return self.takes

    def flush(self):
        return self.takes

    def receive(self):
        return self.says.pop(0) if self.says else None

    def taken(self):
        sent, self.sent = self.sent, []
        return sent


class Hall:
    def __init__(self, monkeypatch, **options):
        self.loop, self.house, self.logins, self.killed = Loop(), House(**options), [], []
        monkeypatch.setattr(module.os, "kill", lambda pid, number: self.killed.append((pid, number)))
        self.reception = Reception(self.loop, self.house, lambda *arguments: self.logins.append(arguments))
        self.front, self.looker = Front(1001), Front(1002)
        self.reception.fronts, self.reception.looker = [self.front], self.looker
        for each in (self.front, self.looker):
            self.loop.watch(each.fileno(), None)

    def come(self, address="192.0.2.1", port=40000):
        """-> what the client reads at once"""
        ours, theirs = socket.socketpair()
        with ours:
            self.reception._take(theirs.detach(), address, port)
            ours.setblocking(False)
            return ours.recv(1000)

    def hear(self, letter, *fields, fd=-1):
        self.front.says.append((pack(letter, *fields), fd))
        self.reception.hear_front(self.front)

    def named(self, address, status, name, complaint=""):
        self.looker.says.append((pack(b"!", *(each.encode() for each in (address, status, name, complaint))), -1))
        self.reception.hear_looker()


@pytest.fixture
def hall(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    yield lambda **options: Hall(monkeypatch, **options)
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left open"


def a_descriptor():
    return os.open(os.devnull, os.O_RDONLY)


def a_login(number=1):
    return Login(number, b"mrose", b"x", b"", 0, 0, 0.0, 0, "", []).packed()


# -- who comes -------------------------------------------------------------------------------------------------------

def test_a_connection_is_given_to_a_front(hall):
    one = hall()
    assert one.come("::ffff:192.0.2.1") == b""
    assert one.front.taken() == [(b"C", ["1", "192.0.2.1", "40000", "0"])]
    assert one.reception.connections[1].address == "192.0.2.1" and one.reception.crowd.strangers == 1
    assert one.reception.counted == 1


def test_fronts_take_turns(hall):
    one, other = hall(), Front(1003)
    one.reception.fronts.append(other)
    for _ in range(4):
        one.come()
    assert len(one.front.sent) == len(other.sent) == 2


@pytest.mark.parametrize("debug, seen, trace, flags", [(False, (), None, 0), (True, (), None, NOTED),
                                                       (False, ("joe",), None, NOTED), (False, (), 7, LIVE)])
def test_what_is_noted_of_it(hall, debug, seen, trace, flags):
    one = hall(debug=debug)
    one.house.seen, one.house.trace = frozenset(seen), trace
    one.come()
    assert one.front.taken()[0][1][3] == str(flags)


@pytest.mark.parametrize("options, count, why", [
    (dict(sameaddrmax=2), 2, "Too many connections from your address, try again later."),
    (dict(accepts=2), 2, "Too many connections, try again later.")])
def test_one_too_many_is_told_so_and_counted(hall, options, count, why):
    one = hall(**options)
    assert [one.come() for _ in range(count)] == [b""] * count
    assert one.come() == f"-ERR [SYS/TEMP] {why}\r\n".encode()
    (limit, _), = options.items()
    assert one.reception.turned_away == {**dict.fromkeys(module.TURNED_AWAY, 0), limit: 1}
    assert len(one.reception.connections) == count and one.house.lines[-1][0] == limit


def test_who_may_not_come_in(hall):
    one, asked = hall(), []
    one.house.rules = SimpleNamespace(decide=lambda *question: asked.append(question) or (DENY, "popper.allow:3"))
    assert one.come() == b"-ERR [SYS/PERM] You may not come in from your address.\r\n"
    assert one.come("local") and asked == [("192.0.2.1",), ("",)]
    assert one.house.lines[0][1] == "Refused connection from 192.0.2.1 by popper.allow:3"
    assert one.reception.turned_away["allow_deny"] == 2 and one.front.sent == []


@pytest.mark.parametrize("verdict", [ALLOW, LATER_ON])
def test_who_may_come_in_or_whose_user_decides(hall, verdict):
    one = hall()
    one.house.rules = SimpleNamespace(decide=lambda *question: (verdict, "popper.allow:3"))
    assert one.come() == b"" and len(one.front.sent) == 1


def test_without_a_front_nobody_can_be_served(hall):
    one = hall()
    one.reception.fronts = []
    assert one.come().startswith(b"-ERR [SYS/TEMP] ") and one.reception.connections == {}


def test_a_flood_of_strangers_pushes_out_itself(hall):
    one = hall(maxstrangers=10, sameaddrmax=0)
    one.come("198.51.100.1")
    for _ in range(12):
        one.come("192.0.2.1")
    gone = [fields for letter, fields in one.front.taken() if letter == b"X"]
    assert [fields[0] for fields in gone] == ["2", "3", "4"]
    assert gone[0][1:] == ["SYS/TEMP", "Too many connections, try again later."]
    assert one.reception.crowd.strangers == 10 and one.reception.turned_away["maxstrangers"] == 3


def test_out_of_descriptors_it_waits_a_moment(hall):
    one = hall()
    listener = SimpleNamespace(fileno=lambda: 77)

    def _accept():
        raise OSError(24, "Too many open files")
    listener._accept = _accept
    one.loop.watch(77, "accept")
    one.reception.accept(listener)
    assert 77 not in one.loop.readers and one.house.lines == [("accept", "accept: Too many open files")]
    one.loop.due(0.1)
    assert one.loop.readers[77] == "accept"


def test_a_real_listener(hall):
    one = hall()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()) as client:
            one.reception.accept(listener)
            assert one.front.taken() == [(b"C", ["1", "127.0.0.1", str(client.getsockname()[1]), "0"])]


def test_what_cannot_be_sent_at_once_is_sent_when_it_can(hall):
    one = hall()
    one.front.takes = False
    one.come()
    one.loop.writers[1001]()
    assert one.loop.writers[1001] is not None
    one.front.takes = True
    one.loop.writers[1001]()
    assert one.loop.writers[1001] is None


# -- names -----------------------------------------------------------------------------------------------------------

def test_dns_is_asked_once_for_all_of_an_address(hall):
    one, done = hall(), []
    for _ in range(3):
        one.come()
    assert one.looker.taken() == [(b"?", ["192.0.2.1"])]
    for number in (1, 2):
        one.reception.when_named(one.reception.connections[number], lambda number=number: done.append(number))
    assert done == []
    one.named("192.0.2.1", VERIFIED, "client.example.org")
    assert done == [1, 2] and one.reception.connections[3].finding.name == "client.example.org"
    one.reception.when_named(one.reception.connections[3], lambda: done.append(3))
    assert done == [1, 2, 3] and one.reception.questions == {}


def test_dns_that_does_not_answer_is_not_waited_for(hall):
    one, done = hall(dns_timeout=5), []
    one.come()
    one.reception.when_named(one.reception.connections[1], lambda: done.append(1))
    one.loop.due(5)
    assert done == [1] and one.reception.connections[1].finding.status == LATER
    assert "no answer in time" in one.reception.connections[1].finding.complaint
    one.named("192.0.2.1", VERIFIED, "client.example.org")       # too late
    assert one.reception.connections[1].finding.status == LATER


def test_a_date_of_an_old_question_leaves_a_new_one_alone(hall):
    one = hall(dns_timeout=5)
    one.come()
    one.named("192.0.2.1", LATER, "192.0.2.1")
    one.come()
    _, old = one.loop.dates.pop(0)
    old()
    assert one.reception.connections[2].finding is None


def test_nobody_is_asked_where_none_is_to_be(hall):
    one, done = hall(lookup=False), []
    one.come()
    one.reception.when_named(one.reception.connections[1], lambda: done.append(1))
    assert done == [1] and one.looker.sent == []


def test_in_a_flood_only_who_logs_in_is_asked_for(hall):
    one = hall(maxstrangers=10, sameaddrmax=0)
    for number in range(8):
        one.come(f"192.0.2.{number}")
    assert len(one.looker.taken()) == 5
    one.reception.when_named(one.reception.connections[8], lambda: None)
    assert one.looker.taken() == [(b"?", ["192.0.2.7"])]


@pytest.mark.parametrize("octets", [b"!", b"!\0", pack(b"!", b"192.0.2.1"), pack(b"!", *[b"x"] * 5)])
def test_a_looker_that_talks_nonsense_is_ended(hall, octets):
    one = hall()
    one.come()
    one.looker.says = [(octets, a_descriptor())]
    one.reception.hear_looker()
    assert one.killed == [(4711, 9)] and 1002 not in one.loop.readers
    assert one.house.lines[-1][0] == "critical"


def test_a_name_that_would_forge_a_line_is_shown(hall):
    one = hall()
    one.come()
    one.named("192.0.2.1", VERIFIED, "a\nb")
    assert one.reception.connections[1].finding.name == "a?b"


# -- what a front says -----------------------------------------------------------------------------------------------

def test_a_login(hall):
    one = hall()
    one.come()
    fd = a_descriptor()
    one.front.says = [(a_login(), fd)]
    one.reception.hear_front(one.front)
    (connection, login, given), = one.logins
    assert connection is one.reception.connections[1] and login.user == b"mrose" and given == fd
    os.close(fd)


def test_a_login_whose_connection_got_lost(hall):
    one = hall()
    one.come()
    one.front.taken()
    one.front.says = [(a_login(), -1)]
    one.reception.hear_front(one.front)
    assert one.front.taken() == [(b"A", ["1", "0", "SYS/TEMP", "System error, try again later."])]
    assert one.logins == one.killed == []


def test_who_has_gone_is_forgotten_and_logged(hall):
    one = hall()
    one.come()
    one.hear(b"E", b"1", pack_lines([(1.0, 5, "a line")]), b"mrose")
    assert one.reception.connections == {} and one.reception.crowd.places == {}
    assert [text for _, text in one.house.lines] == ["192.0.2.1", "mrose", "a line"] and one.house.closed == 1
    assert one.house.lines[0][0] == f"{os.getpid()}.1"


def test_a_line_with_the_name_of_who_has_gone_waits_for_it(hall):
    one = hall()
    one.come()
    one.hear(b"E", b"1", pack_lines([(1.0, 5, f"from {NAME}")]), b"")
    assert one.house.lines == []
    one.named("192.0.2.1", VERIFIED, "client.example.org")
    assert one.house.lines[-1] == ("client.example.org", f"from {NAME}")


def test_a_line_for_now_does_not_wait(hall):
    one = hall()
    one.come()
    one.hear(b"N", b"1", pack_lines([(1.0, 7, f"from {NAME}")]))
    assert one.house.lines[-1] == ("192.0.2.1", f"from {NAME}") and 1 in one.reception.connections


NONSENSE = [(b"E", b"2", b"", b""), (b"E", b"-1", b"", b""), (b"E", b"x", b"", b""), (b"E",), (b"E", b"1"),
            (b"E", b"1", b"\0\0", b""), (b"Z", b"1", b""), (b"C", b"1", b""), (b"P", b"1", b"198.51.100.7", b"1"), (b"L", b"1"),
            (b"N", b"1", pack(b"", b"1e300", b"5", b"x")), (b"N", b"1", pack(b"", b"1", b"9" * 30, b"x")),
            (b"E", b"9" * 5000, b"", b"")]


@pytest.mark.parametrize("with_descriptor", [False, True])
@pytest.mark.parametrize("message", NONSENSE)
def test_a_front_that_says_what_it_should_not_is_ended(hall, message, with_descriptor):
    one = hall()
    one.come()
    one.hear(*message, fd=a_descriptor() if with_descriptor else -1)
    assert one.killed == [(4711, 9)] and 1001 not in one.loop.readers and 1 in one.reception.connections
    assert one.house.lines[-1][1].startswith("process 4711 said what it should not: ")
    one.reception.front_gone(one.front)
    assert one.reception.connections == {} and one.reception.crowd.strangers == 0


def test_a_front_of_before_an_upgrade_names_no_user(hall):
    """It has not heard of that field, and its strangers are not to suffer for it."""
    one = hall()
    one.come()
    one.hear(b"E", b"1", b"")
    assert one.killed == [] and one.reception.connections == {}


def test_no_front_speaks_of_the_connections_of_another(hall):
    one, other = hall(), Front(1003)
    one.come()
    other.says = [(pack(b"E", b"1", b""), -1)]
    one.reception.hear_front(other)
    assert one.killed and 1 in one.reception.connections


def test_a_descriptor_where_none_belongs_is_closed(hall):
    one = hall()
    one.come()
    one.hear(b"N", b"1", b"", fd=a_descriptor())
    assert one.killed                        # and the fixture counts


def test_a_front_that_has_ended(hall):
    one = hall()
    one.front.says = [(b"", -1)]
    one.reception.hear_front(one.front)
    assert 1001 not in one.loop.readers and one.killed == [(4711, SIGKILL)], "if it only fell silent"


def test_a_front_that_does_not_listen_is_ended(hall):
    one = hall()
    one.front.takes = False
    one.front.queue = [b""] * (QUEUE_MOST - 1)
    one.reception.send(one.front, b"D")
    assert one.killed == []
    one.front.queue.append(b"")
    one.reception.send(one.front, b"D")
    assert one.killed == [(4711, SIGKILL)] and one.house.lines == [("critical", "process 4711 does not listen")]


def test_what_keeps_a_process_from_its_work_is_logged(hall):
    one = hall()
    one.front.says = [(pack(b"W", b"PermissionError: \x1bno"), -1), (b"", -1)]
    one.reception.hear_front(one.front)
    assert one.house.lines == [("trouble", "process 4711: PermissionError: ?no")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_was_sent_away_is_not_tried(hall, when):
    """A login and our telling him to go may cross."""
    one = hall()
    one.come()
    connection = one.reception.connections[1]
    if when == "before":
        connection.login, connection.descriptor = "a login that waits", os.open(os.devnull, os.O_RDONLY)
    one.reception.send_all_away()
    if when == "after":
        one.front.says = [(a_login(), os.open(os.devnull, os.O_RDONLY))]
        one.reception.hear_front(one.front)
    assert one.logins == [] and connection.login is None      # and `hall` counts descriptors


# -- proxies ---------------------------------------------------------------------------------------------------------

PROXY = dict(proxy_from=networks_of(["192.0.2.80"]), sameaddrmax=1)


def test_who_comes_through_a_proxy_counts_as_who_he_is(hall):
    one = hall(**PROXY)
    assert [one.come("192.0.2.80") for _ in range(3)] == [b""] * 3
    assert one.front.taken()[0] == (b"C", ["1", "192.0.2.80", "40000", str(FROM_PROXY)]) and one.looker.sent == []
    one.hear(b"P", b"1", b"198.51.100.7", b"5000")
    assert one.front.taken() == [(b"G", ["1"])] and one.looker.taken() == [(b"?", ["198.51.100.7"])]
    connection = one.reception.connections[1]
    assert (connection.address, connection.port) == ("198.51.100.7", 5000)
    one.hear(b"P", b"2", b"198.51.100.7", b"5001")
    (letter, fields), = one.front.taken()
    assert letter == b"X" and fields[2].startswith("Too many connections from your address")
    one.hear(b"E", b"2", b"", b"")
    one.hear(b"E", b"1", b"", b"")
    one.hear(b"P", b"3", b"2001:db8::1", b"5002")
    assert one.front.taken() == [(b"G", ["3"])] and one.reception.crowd.strangers == 1


@pytest.mark.parametrize("address", [b"client.example.org", b"", b"198.51.100.7\nx", b"\xff"])
def test_a_proxy_s_word_is_an_address(hall, address):
    one = hall(**PROXY)
    one.come("192.0.2.80")
    one.hear(b"P", b"1", address, b"5000")
    assert one.killed


def test_a_proxy_is_heard_once(hall):
    one = hall(**PROXY)
    one.come("192.0.2.80")
    one.hear(b"P", b"1", b"198.51.100.7", b"5000")
    one.hear(b"P", b"1", b"198.51.100.8", b"5000")
    assert one.killed and one.reception.connections[1].address == "198.51.100.7"


# -- the end ---------------------------------------------------------------------------------------------------------

def test_strangers_are_sent_away_at_the_end_and_sessions_stay(hall):
    one = hall()
    one.come()
    one.come()
    one.reception.crowd.known(1)
    one.front.taken()
    one.reception.send_all_away()
    assert one.front.taken() == [(b"X", ["2", "SYS/TEMP", "This server is ending."])]
    one.reception.tell(99, pack(b"T", b"99"))
    one.reception.leave(99)
    assert one.front.sent == []
