"""AUTHORIZATION in one loop: what strangers may do to a front, and to each other, which is nothing.

The loop runs here until there is nothing to be done, and time passes when a test says so.
"""

import contextlib
import fcntl
import os
import resource
import select
import socket
import sys
from types import SimpleNamespace

import popper
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper import VERSION, stranger
from popper.conversation import Conversation
from popper.crew import Line
from popper.errors import AUTH, TEMPORARY
from popper.handover import FROM_PROXY, LIVE, NOTED, Login, pack, unpack, unpack_lines
from popper.journal import NAME
from popper.options import Options
from popper.session import MOST_BAD
from popper.stranger import LAST_WORDS, UNSENT_MOST, Front
from popper.wire import LONGEST_FLOOD

HOST = "pop.example.org"
GREETING = f"+OK UCB Pop server (version {VERSION}) at {HOST} starting.\r\n".encode()
BYE = f"+OK Pop server at {HOST} signing off.\r\n".encode()
WANTED = b"+OK Password required for mrose.\r\n"
SIGNED_IN = b"USER mrose\r\nPASS tanstaaf\r\n"


class Rest(Exception):
    """There is nothing to be done before something comes, or before a date."""


class Poll:
    """The poll of a front that never waits."""

    def __init__(self, front, clock):
        self.front, self.clock, self.real = front, clock, front.poll
        self.register, self.unregister = self.real.register, self.real.unregister
        self.waits = []

    def poll(self, wait):
        found = self.real.poll(0)
        if not found and not (self.front.due and self.front.due[0][0] <= self.clock.now):
            self.waits.append(wait)
            raise Rest
        return found


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Office:
    """A front, and whoever gives it connections. told: (letter, fields, descriptor) of what it said."""

    def __init__(self, monkeypatch, **options):
        self.clock = Clock()
        self.signals = []
        monkeypatch.setattr(stranger, "time", self.clock)
        monkeypatch.setattr(stranger, "_signal", SimpleNamespace(
            SIGHUP=1, SIGINT=2, SIGTERM=15, SIG_IGN=1, signal=lambda number, what: self.signals.append((number, what))))
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line = Line(ours, 0)
        self.options = Options()
        for name, value in options.items():
            assert hasattr(self.options, name)
            setattr(self.options, name, value)
        self.front = Front(self.options, HOST, self.theirs)
        self.front.poll = self.poll = Poll(self.front, self.clock)
        self.told, self.clients, self.descriptors = [], [], []
        self.last, self.over = 0, False

    def run(self, seconds=0.0):
        """Let it do what there is to do, so much later; -> self"""
        self.clock.now += seconds
        while not self.over:
            try:
                self.front.run()
                self.over = True
            except Rest:
                if not self._hear() and self.line.flush():
                    return self
        self._hear()
        return self

    def _hear(self):
        count = len(self.told)
        while (message := self.line.receive()) is not None and message[0]:
            octets, fd = message
            if fd >= 0:
                self.descriptors.append(fd)
            self.told.append((octets[:1], unpack(octets), fd))
        return len(self.told) > count

    def call(self, address="192.0.2.1", flags=0, port=40000, small=False):
        """A connection; -> the client's end."""
        ours, theirs = socket.socketpair()
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setblocking(False)
        self.clients.append(ours)
        self.last += 1
        self.line.send(pack(b"C", b"%d" % self.last, address.encode(), b"%d" % port, b"%d" % flags), theirs.detach())
        return ours

    def tell(self, letter, *fields):
        self.line.send(pack(letter, *(str(field).encode() for field in fields)))
        return self.run()

    def say(self, client, octets, seconds=0.0):
        """-> what comes back, b"" at the end of it if that is the end"""
        while octets:
            try:
                octets = octets[client.send(octets):]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
            self.run()
        self.run(seconds)
        return heard(client)

    def taken(self):
        """What was said since."""
        told, self.told = self.told, []
        return told

    def login(self):
        """The one thing that was said: a login."""
        (letter, fields, fd), = self.taken()
        assert letter == b"L"
        return Login.unpacked(pack(b"L", *fields)), fd

    def ended(self):
        """The one thing that was said: that somebody has gone. -> [text of the log]"""
        (letter, fields, fd), = self.taken()
        assert letter == b"E" and fd == -1
        return [text for _, _, text in unpack_lines(fields[1])]

    def close(self):
        self.line.close()
        assert self.run().over, "it goes on without a line"
        for each in self.clients:
            each.close()
        for fd in self.descriptors:
            os.close(fd)
        for each in list(self.front.strangers.values()):
            if not self.front.alone:
                os.close(each.source)
        self.theirs.close()
        getattr(self.poll.real, "close", int)()


END = "the end"


def heard(client):
    """Everything that has come: octets, or (octets, END) when it was closed."""
    octets = b""
    while True:
        try:
            more = client.recv(65536)
        except BlockingIOError:
            return octets
        except ConnectionResetError:
            return octets, END
        if not more:
            return octets, END
        octets += more


@pytest.fixture
def open_office(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    offices = []

    def make(**options):
        offices.append(Office(monkeypatch, **options))
        return offices[-1]
    yield make
    for each in offices:
        each.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left open"


@pytest.fixture
def office(open_office):
    return open_office()


# -- commands --------------------------------------------------------------------------------------------------------

def test_a_greeting(office):
    client = office.call()
    assert office.say(client, b"") == GREETING
    assert office.taken() == [] and office.signals == [(1, 1), (2, 1), (15, 1)] * (len(office.signals) // 3)


def test_commands_before_login(office):
    client = office.call()
    office.run()
    heard(client)
    assert office.say(client, b"USER mrose\r\n") == WANTED
    capabilities = office.say(client, b"CAPA\r\n")
    assert capabilities.startswith(b"+OK ") and capabilities.endswith(b"\r\n.\r\n") and b"\r\nUSER\r\n" in capabilities
    assert office.say(client, b"STAT\r\n").startswith(b"-ERR ")
    assert office.say(client, b"QUIT\r\n") == (BYE, END)
    assert office.ended()[-1] == f'mrose at {NAME} (192.0.2.1): -ERR Unknown command: "stat".'
    assert office.front.strangers == office.front.by_descriptor == {}


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_octet_by_octet(office, ending):
    client = office.call()
    office.run()
    heard(client)
    for octet in b"user mrose" + ending[:-1]:
        assert office.say(client, bytes((octet,))) == b""
    assert office.say(client, ending[-1:]) == WANTED


def test_a_password_is_handed_over_with_the_connection(office):
    client = office.call()
    office.run()
    heard(client)
    assert office.say(client, b"USER mrose\r\n", 2.5) == WANTED
    assert office.say(client, b"PASS  a pass word \r\n") == b""
    login, fd = office.login()
    assert (login.number, login.user, login.password) == (1, b"mrose", b" a pass word ")
    assert (login.rest, login.mistakes, login.mistake, login.lines) == (b"", 0, "", [])
    assert (login.received, login.sent) == (32, len(GREETING + WANTED)) and login.seconds == 2.5
    os.write(fd, b"+OK here\r\n")
    assert heard(client) == b"+OK here\r\n"
    assert not os.get_blocking(fd) and fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_everything_at_once(office):
    client = office.call()
    assert office.say(client, b"CAPA\r\nXYZZY\r\n" + SIGNED_IN + b"STAT\r\nRETR 1\r\nQU").endswith(WANTED)
    login, _ = office.login()
    assert login.rest == b"STAT\r\nRETR 1\r\nQU"
    assert (login.mistakes, login.mistake) == (1, '-ERR Unknown command: "xyzzy".')


def test_what_comes_behind_a_password_is_not_read_here(office):
    client = office.call()
    office.say(client, SIGNED_IN)
    login, fd = office.login()
    assert office.say(client, b"STAT\r\n") == b""
    assert os.read(fd, 100) == b"STAT\r\n" and login.rest == b"" and office.taken() == []


def test_the_largest_login_there_can_be(open_office):
    office = open_office()
    client = office.call(flags=NOTED)
    office.run()
    office.say(client, b"X" * 900 + b"\r\n")
    for _ in range(MOST_BAD - 2):
        office.say(client, b"Y" * 1000 + b"\r\n")
    client.send(b"USER " + b"u" * 60 + b"\r\nPASS " + b"p" * 1000 + b"\r\n" + b"STAT\r\n" * 20000)
    office.run()
    login, _ = office.login()
    assert len(login.password) == 1000 and login.rest.startswith(b"STAT\r\n") and len(login.lines) > MOST_BAD


def test_mistakes_are_counted_and_are_too_many_some_time(office):
    client = office.call()
    replies, end = office.say(client, b"XYZZY\r\n" * (MOST_BAD + 5))
    assert replies.endswith(b"-ERR Too many bad commands, closing.\r\n") and end is END
    assert office.ended() == [
        f"(null) at {NAME} (192.0.2.1): -ERR Too many bad commands, closing. (and {MOST_BAD - 1} more)"]


def test_a_probe_of_an_account_is_logged(office):
    client = office.call()
    office.say(client, b"USER mrose\r\n")
    assert office.say(client, b"QUIT\r\n") == (BYE, END)
    assert office.ended() == [f"Possible probe of account mrose from host {NAME} (192.0.2.1)"]


# -- floods and silence ----------------------------------------------------------------------------------------------

def test_a_flood_without_a_line_end(office):
    client, other = office.call(), office.call()
    office.run()
    heard(client)
    assert office.say(client, b"x" * LONGEST_FLOOD) == b""
    assert office.say(client, b"x" * 20000) == (b"-ERR Input without a line end, closing.\r\n", END)
    assert office.ended() == [f"(null) at {NAME} (192.0.2.1): -ERR Input without a line end, closing."]
    assert office.say(other, b"USER mrose\r\n").endswith(WANTED)


def test_a_client_that_hangs_up(office):
    clients = [office.call() for _ in range(3)]
    office.run()
    office.say(clients[1], b"USER mrose\r\nPA")
    clients[0].close()
    clients[1].shutdown(socket.SHUT_WR)
    office.run()
    assert [(letter, fields[0], fields[1]) for letter, fields, _ in office.taken()] == [
        (b"E", b"1", b""), (b"E", b"2", b"")]
    assert list(office.front.strangers) == [3]


def test_a_client_that_has_gone_before_its_greeting(office):
    client = office.call()
    client.close()
    office.run()
    assert office.ended() == [] and office.front.strangers == {}


def test_silence(open_office):
    office = open_office(timeout=10, login_timeout=100)
    client = office.call()
    office.run()
    assert office.say(client, b"USER mrose\r\n", 9.9) == GREETING + WANTED
    assert office.say(client, b"US") == b""
    office.run(9.9)
    assert heard(client) == b""
    office.run(0.2)
    assert heard(client) == (b"", END)
    assert office.ended() == [f"(v{VERSION}) Timeout (10 secs) during nw read from mrose at {NAME} (192.0.2.1)"]


def test_silence_where_no_limit_is_set_ends_with_the_time_for_a_login(open_office):
    office = open_office(timeout=0, login_timeout=100)
    client = office.call()
    office.run()
    assert office.say(client, b"", 99.9) == GREETING
    assert office.say(client, b"", 0.2) == (b"", END)
    assert "Timeout (100 secs)" in office.ended()[0]


def test_who_drips_has_until_the_time_for_a_login_is_over(open_office):
    office = open_office(timeout=10, login_timeout=100)
    client = office.call()
    office.run()
    heard(client)
    for _ in range(19):
        assert office.say(client, b"x", 5.0) == b""
    assert office.say(client, b"x", 5.1) == (b"", END)
    assert "Timeout (10 secs)" in office.ended()[0]


def test_a_client_that_does_not_read_is_not_read(open_office):
    office = open_office(timeout=10, login_timeout=1000)
    client = office.call(small=True)
    office.run()
    commands = b"CAPA\r\n" * 20000
    client.settimeout(0)
    sent = 0
    try:
        while sent < len(commands):
            sent += client.send(commands[sent:sent + 6000])
            office.run()
    except BlockingIOError:
        pass
    assert 0 < sent < len(commands)
    one, = office.front.strangers.values()
    assert 0 < sum(map(len, one.unsent)) < UNSENT_MOST + 2000
    assert office.poll.waits[-1] is not None and not one.handed
    replies = b""
    for _ in range(1000):                    # slower than the limit would have the whole of it
        replies += client.recv(1000)
        office.run(0.5)
        if replies.count(b"\r\n.\r\n") == sent // 6:
            break
    else:
        replies += heard(client)
    assert replies.count(b"\r\n.\r\n") >= 700 and office.taken() == []


def test_a_client_that_never_reads_is_timed_out_as_one(open_office):
    office = open_office(timeout=10, login_timeout=1000)
    client = office.call(small=True)
    office.run()
    for _ in range(100):
        try:
            client.send(b"CAPA\r\n" * 1000)
        except BlockingIOError:
            break
        office.run()
    office.run(10.1)
    assert office.ended() == [f"(v{VERSION}) Timeout (10 secs) during nw write from (null) at {NAME} (192.0.2.1)"]


def test_nothing_is_handed_over_before_all_is_sent(open_office):
    """Who takes it over is root at first, and is to wait for no stranger."""
    office = open_office()
    client = office.call(small=True)
    office.run()
    client.send(b"CAPA\r\n" * 100 + SIGNED_IN)
    office.run()
    assert office.taken() == []
    replies = b""
    while not replies.endswith(WANTED):
        replies += client.recv(1000)
        office.run()
    login, fd = office.login()
    assert (login.user, login.password) == (b"mrose", b"tanstaaf")
    assert login.sent == len(replies) == len(GREETING) + len(WANTED) + 100 * capa()


def test_commands_by_the_thousand_are_all_answered(office):
    """Also those that came with one read and are more than is answered at once."""
    client = office.call()
    office.run()
    heard(client)
    assert office.say(client, b"CAPA\r\n" * 300 + b"QUIT\r\n")[0].count(b"\r\n.\r\n") == 300


def capa():
    session = Conversation(HOST, SimpleNamespace(name="", address=""), SimpleNamespace(debugging=False)).session
    reply = session.receive(b"CAPA")
    return len(reply.status()) + sum(map(len, reply.body)) + 3


# -- what came of a login --------------------------------------------------------------------------------------------

def test_a_login_that_failed_is_answered_late(office):
    client = office.call()
    office.say(client, SIGNED_IN)
    office.taken()
    office.run(0.4)
    office.tell(b"A", 1, "1.6", AUTH, "")
    office.run(1.5)
    assert heard(client) == b"" and office.taken() == []
    office.run(0.2)
    assert heard(client) == (b'-ERR [AUTH] Password supplied for "mrose" is incorrect.\r\n', END)
    assert office.ended() == []              # whoever tried it has logged it
    assert office.front.refusals == office.front.strangers == {}


def test_who_waits_for_his_answer_holds_nobody_up_and_hears_it_in_his_turn(office):
    clients = [office.call() for _ in range(3)]
    for client in clients:
        office.say(client, SIGNED_IN)
    office.tell(b"A", 1, "30", AUTH, "")
    office.tell(b"A", 2, "10", AUTH, "")
    office.tell(b"A", 3, "0.000", TEMPORARY, "Too many sessions, try again later.")
    assert heard(clients[2]) == (b"-ERR [SYS/TEMP] Too many sessions, try again later.\r\n", END)
    late = office.call()
    assert office.say(late, b"USER mrose\r\n").endswith(WANTED)
    office.run(10.1)
    assert heard(clients[0]) == b"" and heard(clients[1])[1] is END
    office.run(20)
    assert heard(clients[0])[0].startswith(b"-ERR [AUTH] ")


def test_a_login_is_not_timed_out_while_it_is_tried(open_office):
    office = open_office(timeout=10, login_timeout=20)
    client = office.call()
    office.say(client, SIGNED_IN)
    office.taken()
    office.run(1000)
    assert heard(client) == b"" and office.taken() == []
    office.tell(b"A", 1, "0", AUTH, "")
    assert heard(client)[1] is END


def test_a_session_that_goes_on_without_us(office):
    client = office.call()
    office.say(client, SIGNED_IN)
    _, fd = office.login()
    office.tell(b"T", 1)
    assert office.front.strangers == {} and office.taken() == []
    os.write(fd, b"+OK still here\r\n")      # the connection is not shut down
    assert heard(client) == b"+OK still here\r\n"


@pytest.mark.parametrize("handed", [False, True])
def test_somebody_is_sent_away(office, handed):
    client = office.call()
    office.say(client, SIGNED_IN if handed else b"USER mrose\r\n")
    office.taken()
    office.tell(b"X", 1, TEMPORARY, "Too many connections, try again later.")
    assert heard(client) == (b"-ERR [SYS/TEMP] Too many connections, try again later.\r\n", END)
    assert office.ended() == [f"mrose at {NAME} (192.0.2.1): -ERR [SYS/TEMP] Too many connections, try again later."]


def test_word_of_somebody_who_has_gone_meanwhile(office):
    client = office.call()
    client.close()
    office.run().taken()
    for message in ((b"A", 1, "0", AUTH, ""), (b"T", 1), (b"G", 1), (b"X", 1, AUTH, "x"), (b"T", 99)):
        office.tell(*message)
    assert office.taken() == [] and not office.over and office.front.refusals == {}


def handed_and_full(office):
    """A client whose password is being tried, and who has not read what he was sent; -> he, and how much that is."""
    client = office.call(small=True)
    office.say(client, SIGNED_IN)
    _, fd = office.login()
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += os.write(fd, b"x")
    return client, sent


def test_who_reads_late_hears_what_came_of_his_password(office):
    client, sent = handed_and_full(office)
    office.tell(b"A", 1, "0", AUTH, "")
    office.run(LAST_WORDS / 2)
    assert office.taken() == [] and 1 in office.front.strangers
    assert client.recv(sent, socket.MSG_WAITALL) == b"x" * sent
    office.run()
    assert heard(client) == (b'-ERR [AUTH] Password supplied for "mrose" is incorrect.\r\n', END)
    assert office.front.strangers == {} and [letter for letter, _, _ in office.taken()] == [b"E"]


def test_who_never_reads_is_not_waited_for(office):
    client, _ = handed_and_full(office)
    office.tell(b"A", 1, "0", AUTH, "")
    office.run(LAST_WORDS + 0.1)
    assert office.front.strangers == {} and [letter for letter, _, _ in office.taken()] == [b"E"]
    client, _ = handed_and_full(office)
    office.tell(b"A", 2, "0", AUTH, "")
    office.tell(b"X", 2, TEMPORARY, "Too many connections, try again later.")
    assert office.front.strangers == {}, "who has to make room makes it at once"


def test_a_refusal_that_waits_is_forgotten_with_who_waited(office):
    client = office.call()
    office.say(client, SIGNED_IN)
    office.tell(b"A", 1, "5", AUTH, "")
    office.tell(b"X", 1, TEMPORARY, "This server is ending.")
    assert heard(client) == (b"-ERR [SYS/TEMP] This server is ending.\r\n", END)
    office.run(10)
    assert office.front.refusals == {}


# -- proxies ---------------------------------------------------------------------------------------------------------

HEADER = b"PROXY TCP4 198.51.100.7 192.0.2.80 40001 110\r\n"


def test_a_proxy_tells_who_it_is_and_nobody_is_greeted_before_it_is_known_whether_he_may_come_in(office):
    client = office.call(flags=FROM_PROXY)
    assert office.say(client, b"") == b""
    assert office.say(client, HEADER[:20]) == b"" and office.taken() == []
    assert office.say(client, HEADER[20:] + b"USER mrose\r\n") == b""
    assert office.taken() == [(b"P", [b"1", b"198.51.100.7", b"40001"], -1)]
    assert office.say(client, b"PASS tanst") == b""
    assert office.tell(b"G", 1) and heard(client) == GREETING + WANTED
    assert office.say(client, b"aaf\r\n") == b""
    login, _ = office.login()
    assert (login.user, login.password) == (b"mrose", b"tanstaaf")
    assert login.received == len(HEADER + SIGNED_IN)


def test_a_client_behind_a_proxy_has_its_own_address_in_the_log(office):
    client = office.call(flags=FROM_PROXY)
    office.say(client, HEADER)
    office.taken()
    office.tell(b"G", 1)
    assert office.say(client, b"XYZZY\r\nQUIT\r\n")[1] is END
    assert office.ended() == [f'(null) at {NAME} (198.51.100.7): -ERR Unknown command: "xyzzy".']


def test_a_connection_of_the_proxys_own(office):
    client = office.call(flags=FROM_PROXY)
    office.say(client, b"PROXY UNKNOWN\r\n")
    assert office.taken() == [(b"P", [b"1", b"192.0.2.1", b"40000"], -1)]


@pytest.mark.parametrize("octets", [b"USER mrose\r\n", b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\0\r\nQUIT\nxxxxxxxxx"])
def test_a_header_that_is_none(office, octets):
    client = office.call(flags=FROM_PROXY)
    reply, end = office.say(client, octets)
    assert reply.startswith((b"-ERR The PROXY header is wrong: ", b"-ERR A PROXY header must come first: "))
    assert reply.count(b"\r\n") == 1 and end is END and office.ended()


def test_a_header_that_does_not_come(open_office):
    office = open_office(timeout=10)
    client = office.call(flags=FROM_PROXY)
    office.say(client, HEADER[:-1], 9)
    assert office.say(client, b"", 1.1) == (b"", END) and "Timeout" in office.ended()[0]


def test_who_may_not_come_in_through_a_proxy(office):
    client = office.call(flags=FROM_PROXY)
    office.say(client, HEADER)
    office.taken()
    office.tell(b"X", 1, "SYS/PERM", "You may not come in from your address.")
    assert heard(client) == (b"-ERR [SYS/PERM] You may not come in from your address.\r\n", END)


# -- the log ---------------------------------------------------------------------------------------------------------

def test_without_debugging_nothing_is_noted(office):
    client = office.call()
    office.say(client, b"USER mrose\r\nCAPA\r\n")
    client.close()
    office.run()
    assert office.ended() == []


def test_lines_go_with_a_login_and_have_no_password(office):
    client = office.call(flags=NOTED)
    office.say(client, b"USER mrose\r\nPASS tanstaaf\r\n")
    login, _ = office.login()
    texts = [text for _, _, text in login.lines]
    assert texts[0] == f'(v{VERSION}) Servicing request from "192.0.2.1" at 192.0.2.1'
    assert 'Received: "USER mrose"' in texts and texts[-1] == 'Received: "PASS xxxxxxxxx"'
    assert "tanstaaf" not in repr(texts)


def test_lines_go_with_the_end(office):
    client = office.call(flags=NOTED)
    assert office.say(client, b"QUIT\r\n", 2.0)[1] is END
    texts = office.ended()
    assert any("Ending request" in text and f"6 octets received, {len(GREETING + BYE)} sent" in text for text in texts)
    assert texts[-1].startswith("Ended by QUIT; seconds:")


def test_lines_of_who_is_followed_live_are_told_at_once(office):
    client = office.call(flags=LIVE)
    office.front.started = "Started by the tests"
    office.run()
    (letter, fields, _), = office.taken()
    assert letter == b"N" and [text for _, _, text in unpack_lines(fields[1])][1:] == ["Started by the tests",
                                                                                      GREETING.decode().rstrip()]
    office.say(client, b"USER mrose\r\n")
    (letter, fields, _), = office.taken()
    assert letter == b"N" and [text for _, _, text in unpack_lines(fields[1])] == ['Received: "USER mrose"',
                                                                                  WANTED.decode().rstrip()]


def chatter(office):
    """A client whose every line is debugged, and who says far more than is kept; -> it"""
    client = office.call(flags=NOTED)
    for number in range(200):
        assert office.say(client, b"USER " + b"u" * 900 + b"%d\r\n" % number).startswith((b"-ERR ", GREETING))
    return client


def test_what_is_noted_of_a_stranger_is_bounded(office):
    chatter(office)
    one, = office.front.strangers.values()
    notes = [text for _, _, text in one.talk.log.lines]
    assert 10 < len(notes) < 40 and sum(map(len, notes)) < 17000
    assert office.taken() == []


def test_what_matters_is_told_though_no_more_details_are_kept(open_office):
    """A timeout, a probe, a flood: neither is lost behind what a stranger says before it."""
    office = open_office(timeout=10, login_timeout=1000)
    chatter(office)
    office.run(10.1)
    assert f"(v{VERSION}) Timeout (10 secs) during nw read from (null) at {NAME} (192.0.2.1)" in office.ended()
    client = chatter(office)
    assert office.say(client, b"USER mrose\r\nQUIT\r\n")[1] is END
    assert f"Possible probe of account mrose from host {NAME} (192.0.2.1)" in office.ended()
    client = chatter(office)
    assert office.say(client, b"x" * (LONGEST_FLOOD + 20000))[1] is END
    assert "-ERR Input without a line end, closing. (and 200 more)" in office.ended()[-1]


# -- many, and trouble -----------------------------------------------------------------------------------------------

def test_the_trouble_of_one_is_one_s_alone(office, monkeypatch):
    answer = Conversation.answer

    def stumble(self, line):
        if line == b"BUG":
            raise KeyError("a fault of ours")
        return answer(self, line)
    monkeypatch.setattr(Conversation, "answer", stumble)
    client, other = office.call(), office.call()
    office.run()
    assert office.say(client, b"BUG\r\n") == (GREETING, END)
    assert office.ended() == [f"(null) at {NAME} (192.0.2.1): internal error before login: KeyError: 'a fault of ours'"]
    assert office.say(other, b"USER mrose\r\n").endswith(WANTED)


def test_a_connection_that_got_lost_on_its_way(office):
    """No descriptor comes where no more may be had."""
    office.line.send(pack(b"C", b"77", b"192.0.2.1", b"40000", b"0"))
    office.run()
    assert office.taken() == [(b"E", [b"77", b"", b""], -1)] and not office.over


def test_thousands(open_office):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = 2000
    if hard != resource.RLIM_INFINITY and hard < 2 * many + 500:
        pytest.skip(f"only {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * many + 500), hard))
    try:
        office = open_office(timeout=100)
        clients = []
        for _ in range(many):
            clients.append(office.call(f"192.0.2.{len(clients) % 256}"))
            office.run(0.01)
        assert len(office.front.strangers) == many
        assert all(heard(client) == GREETING for client in clients)
        for client in clients[::2]:
            client.send(SIGNED_IN)
            office.run()
        assert all(heard(client) == WANTED for client in clients[::2])
        assert len(office.descriptors) == many // 2
        assert sorted(int(fields[0]) for letter, fields, _ in office.taken() if letter == b"L") == \
            list(range(1, many, 2))
        office.run(70)
        for _ in range(many):                # the others are silent
            office.run(0.05)
        assert all(heard(client) == (b"", END) for client in clients[1::2])
        assert [letter for letter, _, _ in office.taken()] == [b"E"] * (many // 2)
        for number in range(1, many, 2):
            office.tell(b"T", number)
        assert office.front.strangers == office.front.by_descriptor == office.front.refusals == {}
        for client in clients:
            client.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_remembered_of_dates_is_bounded(office):
    client, _ = office.call(), office.call()
    office.run()
    for _ in range(2000):
        client.send(b"x")
        office.run(0.001)
    assert len(office.front.due) <= 4 * 2 + 64 + 1
    assert heard(client) == GREETING


@settings(deadline=None, max_examples=150, database=None, derandomize=True)
@given(st.lists(st.sampled_from([b"USER mrose", b"PASS x", b"QUIT", b"CAPA", b"\r\n", b"\n", b"\0\xff",
                                 b" ", b"x" * 2000,
                                 b"RPOP y", b"APOP z w"])
                | st.binary(max_size=20), max_size=15), st.integers(1, 50), st.booleans())
def test_any_octets_in_any_pieces_have_the_same_end(pieces, size, proxied):
    """The same replies, and the same that is told of it, as when they come all at once."""
    octets, ends = b"".join(pieces), []
    for step in (size, len(octets) + 1):
        with pytest.MonkeyPatch.context() as patch:
            office = Office(patch)
            client = office.call(flags=FROM_PROXY * proxied)
            office.run()
            replies = heard(client)
            for at in range(0, len(octets), step):
                try:
                    client.send(octets[at:at + step])
                except BrokenPipeError:
                    break
                office.run()
            try:
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            office.run()
            said = heard(client)
            replies += said[0] if isinstance(said, tuple) else said
            told = office.taken()
            assert [letter for letter, _, _ in told] in ([b"E"], [b"L"])
            ends.append((replies, told[0][0], told[0][1][1] if told[0][0] == b"L" else b""))
            office.close()
    assert ends[0] == ends[1]


# -- the line --------------------------------------------------------------------------------------------------------

def test_it_ends_with_the_last_when_no_more_will_come(office):
    client = office.call()
    office.run()
    office.tell(b"D")
    assert not office.over
    assert office.say(client, b"QUIT\r\n")[1] is END and office.over


def test_it_ends_at_once_when_nobody_is_there(office):
    assert office.tell(b"D").over


def test_it_ends_when_nobody_holds_the_other_end_of_the_line(office):
    office.call()
    office.run()
    office.line.close()
    assert office.run().over


def test_a_burst_of_messages_does_not_starve_the_strangers(office):
    client = office.call()
    office.run()
    client.send(b"USER mrose\r\n")
    clients = [office.call() for _ in range(200)]
    office.run()
    assert heard(client) == GREETING + WANTED and all(heard(each) == GREETING for each in clients)


# -- alone, under a super-server -------------------------------------------------------------------------------------

@pytest.fixture
def alone(monkeypatch):
    """A front for one connection on two descriptors; -> (office, source, sink): our ends of two pipes."""
    office = Office(monkeypatch)
    office.poll.real.close()
    office.front = Front(office.options, HOST, office.theirs, alone=True)
    office.front.poll = office.poll = Poll(office.front, office.clock)
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    for fd in (theirs_in, theirs_out, ours_in):
        os.set_blocking(fd, False)
    yield office, theirs_in, theirs_out, ours_in, ours_out
    office.close()
    for fd in (theirs_in, theirs_out, ours_in, ours_out):
        os.close(fd)


def test_one_session_on_pipes(alone):
    office, theirs_in, theirs_out, ours_in, ours_out = alone
    office.front.add(1, theirs_in, theirs_out, "local", 0, 0)
    os.write(ours_out, b"USER mrose\r\nQUIT\r\n")
    assert office.run().over
    assert os.read(ours_in, 1000) == GREETING + WANTED + BYE
    assert office.ended() == [f"Possible probe of account mrose from host {NAME} (local)"]
    os.fstat(theirs_in), os.fstat(theirs_out)            # whoever opened them closes them


def test_one_session_that_was_greeted_already_and_logs_in(alone):
    office, theirs_in, theirs_out, ours_in, ours_out = alone
    office.front.add(1, theirs_in, theirs_out, "local", 0, 0, greeted=True)
    os.write(ours_out, SIGNED_IN + b"STAT\r\n")
    assert not office.run().over
    login, fd = office.login()
    assert fd == -1 and os.read(ours_in, 1000) == WANTED
    assert (login.rest, login.sent) == (b"STAT\r\n", len(GREETING + WANTED))
    office.tell(b"A", 1, "0", AUTH, "")
    assert office.over and os.read(ours_in, 1000).startswith(b"-ERR [AUTH] ")


def test_a_file_for_input(alone, tmp_path):
    """Epoll would not have it."""
    office, _, theirs_out, ours_in, _ = alone
    (tmp_path / "in").write_bytes(b"CAPA\r\nQUIT\r\n")
    with open(tmp_path / "in", "rb", buffering=0) as source:
        office.front.add(1, source.fileno(), theirs_out, "local", 0, 0)
        assert office.run().over
    assert os.read(ours_in, 1000).endswith(BYE)


def test_real_waiting_is_in_the_units_of_the_poll(monkeypatch):
    """Milliseconds for poll(2), seconds for epoll."""
    for alone in (False, True):
        office = Office(monkeypatch, timeout=10)
        if alone:
            office.poll.real.close()
            office.front = Front(office.options, HOST, office.theirs, alone=True)
            office.front.poll = office.poll = Poll(office.front, office.clock)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            office.front.add(1, theirs.fileno(), theirs.fileno(), "192.0.2.1", 1, 0)
            office.run()
            assert office.poll.waits[-1] == (10000 if isinstance(office.poll.real, type(select.poll())) else 10)
            office.front.strangers.clear()
            office.close()


def test_proxies_headers_are_at_hand_once_nothing_can_be_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "popper.proxy", raising=False)
    monkeypatch.delattr(popper, "proxy", raising=False)  # where `from popper import` would find it
    stranger.preload(SimpleNamespace(proxy_from=None))
    assert "popper.proxy" not in sys.modules
    stranger.preload(SimpleNamespace(proxy_from=object()))
    assert "popper.proxy" in sys.modules
