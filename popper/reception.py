"""Who comes: each connection is given to a front, or turned away; DNS is asked what it is called; what the fronts say
of it is heard. What a front says is checked: it speaks to strangers.
"""

import os
import time
from _signal import SIGKILL

from popper import handover
from popper.access import DENY
from popper.account import shown_name
from popper.errors import PERMANENT, TEMPORARY
from popper.handover import FROM_PROXY, LIVE, NOTED, TROUBLE, pack, unpack
from popper.limits import Crowd, is_address
from popper.login import NO_ACCESS, TOO_MANY_WRONG
from popper.peer import LATER, UNNAMED, Finding, plain

AT_ONCE = 64                   # connections or messages that are taken before it is anybody else's turn
QUEUE_MOST = 1000              # messages that wait for a process, before it is taken for one that hangs
TURNED_AWAY = {                # why: what the client is told
    "maxsessions": (TEMPORARY, "Too many sessions, try again later."),
    "sameaddrmax": (TEMPORARY, "Too many connections from your address, try again later."),
    "maxstrangers": (TEMPORARY, "Too many connections, try again later."),
    "accepts": (TEMPORARY, "Too many connections, try again later."),
    "allow_deny": (PERMANENT, NO_ACCESS),
    "guess_delay_max": (TEMPORARY, TOO_MANY_WRONG),
}


class Connection:
    """A connection until it has ended. front: the crew.Line of who speaks to it; proxied: a proxy has yet to tell who
    it is. login, descriptor: what is held back of it; came: when that was; asked: when that, or its turn, by the
    monotonic clock."""

    __slots__ = ("number", "front", "address", "port", "proxied", "finding", "seconds", "dismissed", "login",
                 "descriptor", "came", "asked")

    def __init__(self, number: int, front, address: str, port: int, proxied: bool = False) -> None:
        self.number = number
        self.front = front
        self.address = address
        self.port = port
        self.proxied = proxied
        self.finding: "Finding | None" = None            # None: DNS has not answered yet
        self.seconds = 0.0                   # how long that took
        self.dismissed = False               # it has been told to go
        self.login, self.descriptor = None, -1
        self.came = self.asked = 0.0

    def let_go(self) -> None:
        """Hold nothing back any more: it is being tried, or refused, or the stranger has gone."""
        if self.login is not None:
            os.close(self.descriptor)
            self.login, self.descriptor = None, -1


class Question:
    """What DNS is being asked. connections: that wait for their names; then: what waits for that."""

    __slots__ = ("since", "connections", "then")

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.connections: "list[Connection]" = []
        self.then: list = []


class Reception:
    """loop: a Loop; house: what is in force; login(connection, handover.Login, descriptor): takes a password."""

    def __init__(self, loop, house, login) -> None:
        self.loop = loop
        self.house = house
        self.login = login
        self.fronts: list = []               # crew.Lines of those that are given connections
        self.looker = None
        self.connections: "dict[int, Connection]" = {}
        self.questions: "dict[str, Question]" = {}       # by address
        self.crowd = Crowd(house.options)
        self.last = 0                        # number of the last connection
        self.counted = 0
        self.turned_away = dict.fromkeys(TURNED_AWAY, 0)
        self.pid = os.getpid()

    def obey(self, house) -> None:
        self.house, self.crowd.options = house, house.options

    # -- who comes -----------------------------------------------------------------------------------------------

    def accept(self, listener) -> None:
        """Take who waits at a listening socket."""
        for _ in range(AT_ONCE):
            try:
                fd, address = listener._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == 103:       # ECONNABORTED: the client has gone again
                    continue
                self.house.tell_seldom("accept", f"accept: {error.strerror}")
                self.loop.pause(listener, 0.1)           # out of descriptors: do not spin
                return
            self._take(fd, *(address[:2] if isinstance(address, tuple) else ("local", 0)))

    def _take(self, fd: int, address: str, port: int) -> None:
        options, address = self.house.options, plain(address)
        self.counted += 1
        proxied = options.proxy_from is not None and options.proxy_from.has(address)
        objection = "accepts" if self.crowd.too_fast(time.monotonic()) else "" if proxied else self._objection(address)
        if objection or not self.fronts:
            code, text = self.turn_away(objection or "maxstrangers", address)
            try:
                os.write(fd, f"-ERR [{code}] {text}\r\n".encode())       # so new a socket takes it whole
            except OSError:
                pass
            os.close(fd)
            return
        self.last += 1
        connection = Connection(self.last, self.fronts[self.last % len(self.fronts)], address, port, proxied)
        self.connections[self.last] = connection
        self.crowd.come(self.last, address)
        flags = LIVE if self.house.trace is not None else NOTED if options.debug or self.house.watched() else 0
        self.send(connection.front, pack(b"C", b"%d" % self.last, address.encode(), b"%d" % port,
                                         b"%d" % (flags | FROM_PROXY * proxied)), fd)
        if not proxied:
            self._introduce(connection)
        self._make_room()

    def _objection(self, address: str) -> str:
        """Why an address may not come in now, a key of TURNED_AWAY, or ""."""
        if self.house.rules is not None:
            verdict, rule = self.house.rules.decide("" if address == "local" else address)
            if verdict == DENY:
                self.house.tell_seldom(f"allow_deny {rule}", f"Refused connection from {address} by {rule}")
                return "allow_deny"
        return "sameaddrmax" if self.crowd.is_full_for(address) else ""

    def turn_away(self, objection: str, address: str) -> "tuple[str, str]":
        """Count and log that somebody is turned away. -> (code, text) for him"""
        self.turned_away[objection] += 1
        if objection != "allow_deny":
            self.house.tell_seldom(objection, f"{objection}: a connection from {address} is refused")
        return TURNED_AWAY[objection]

    def _make_room(self) -> None:
        """When there are too many strangers, one of them goes."""
        number = self.crowd.one_too_many()
        if number is not None:
            self.crowd.known(number)         # it is on its way out
            self._send_away(number, "maxstrangers", self.connections[number].address)

    def _send_away(self, number: int, objection: str, address: str) -> None:
        code, text = self.turn_away(objection, address)
        self._dismiss(number, code, text)

    def _dismiss(self, number: int, code: str, text: str) -> None:
        """A login of it that comes now, or waits, is not tried any more: it will have been told this."""
        connection = self.connections[number]
        connection.dismissed = True
        connection.let_go()
        self.tell(number, pack(b"X", b"%d" % number, code.encode(), text.encode()))

    # -- what they are called ------------------------------------------------------------------------------------

    def _introduce(self, connection: Connection) -> None:
        """Have DNS asked, where that is wanted and there is no flood of strangers."""
        connection.finding = self.house.nameless(connection.address)
        if connection.finding is None and self.crowd.strangers <= self.house.options.maxstrangers // 2:
            self._ask(connection)

    def _ask(self, connection: Connection) -> Question:
        address = connection.address
        question = self.questions.get(address)
        if question is None:
            question = self.questions[address] = Question()
            if self.looker:
                self.send(self.looker, pack(b"?", address.encode()))
            self.loop.after(self.house.options.dns_timeout, lambda: self._no_answer(address, question))
        question.connections.append(connection)
        return question

    def when_named(self, connection: Connection, then) -> None:
        """Do something as soon as DNS has answered, or has not in time."""
        if connection.finding is None:
            connection.finding = self.house.nameless(connection.address)
        if connection.finding is None:
            self._ask(connection).then.append(then)
        else:
            then()

    def _no_answer(self, address: str, question: Question) -> None:
        if self.questions.get(address) is question:
            self._found(address, Finding(LATER, address, f"{UNNAMED} {address}: no answer in time"))

    def hear_looker(self) -> None:
        self._hear(self.looker, self._found_by_looker)

    def _found_by_looker(self, looker, octets: bytes, fd: int) -> None:
        if fd >= 0:
            raise ValueError("a descriptor")
        address, *found = map(handover.printable, unpack(octets))
        self._found(address, Finding(*found))

    def _found(self, address: str, finding: Finding) -> None:
        question = self.questions.pop(address, None)
        if question is None:
            return
        for connection in question.connections:
            connection.finding, connection.seconds = finding, time.monotonic() - question.since
        for then in question.then:
            then()

    # -- what the fronts say -------------------------------------------------------------------------------------

    def hear_front(self, front) -> None:
        self._hear(front, self._told)

    def _hear(self, line, told) -> None:
        """Hear what a process of the crew has to say. told(line, octets, descriptor or -1)."""
        for _ in range(AT_ONCE):
            message = line.receive()
            if message is None:
                return
            octets, fd = message
            try:
                if octets[:1] == TROUBLE:
                    self._tell_trouble(line, octets)
                elif octets:
                    told(line, octets, fd)
                else:
                    self._end(line)          # if it has not ended already
                    return
            except (ValueError, KeyError, IndexError, TypeError) as nonsense:
                self._end(line, f"said what it should not: {nonsense}")
                if fd >= 0:
                    os.close(fd)
                return

    def _end(self, line, complaint: str = "") -> None:
        if complaint:
            self.house.log.critical(f"process {line.pid} {complaint}")
        os.kill(line.pid, SIGKILL)
        self.loop.ignore(line.fileno())      # it will be reaped

    def _tell_trouble(self, line, octets: bytes) -> None:
        text = handover.printable(unpack(octets)[0])[:512]
        self.house.tell_seldom("trouble", f"process {line.pid}: {text}")

    def _told(self, front, octets: bytes, fd: int) -> None:
        letter = octets[:1]
        if letter == b"L":
            login = handover.Login.unpacked(octets)
            connection = self._connection(front, login.number)
            if connection.dismissed or connection.login is not None:
                if fd >= 0:
                    os.close(fd)
            elif fd < 0:                     # no more descriptors are to be had: it got lost on its way
                self.tell(login.number, pack(b"A", b"%d" % login.number, b"0", TEMPORARY.encode(),
                                             b"System error, try again later."))
            else:
                self.login(connection, login, fd)
            return
        fields = unpack(octets)
        connection = self._connection(front, int(fields[0]))
        if fd >= 0 or letter not in (b"E", b"N", b"P"):
            raise ValueError("a message of no kind")
        if letter == b"P":
            self._told_by_proxy(connection, fields[1].decode("ascii"), int(fields[2]))
            return
        lines, user = handover.unpack_lines(fields[1]), shown_name(b"".join(fields[2:3])) if letter == b"E" else ""
        if letter == b"E":
            self.leave(connection.number)
        if lines:
            if letter == b"E" and handover.needs_name(lines):
                self.when_named(connection, lambda: self._replay(connection, lines, user))
            else:
                self._replay(connection, lines, user)

    def _connection(self, front, number: int) -> Connection:
        connection = self.connections.get(number)
        if connection is None or connection.front is not front:
            raise ValueError(f"connection {number} is none of its own")
        return connection

    def _replay(self, connection: Connection, lines, user: str) -> None:
        """Log what was noted of a connection, whose client named this user."""
        log = self.journal(connection, user)
        log.replay(lines, connection.finding.name if connection.finding else connection.address)
        log.close()

    def journal(self, connection: Connection, user: str):
        """The log of a connection that has no process of its own, whose client named this user."""
        log = self.house.journal(self.mark(connection.number), self.house.watched())
        log.concerns(connection.address)
        log.concerns(user)
        log.unconcerned()
        return log

    def mark(self, number: int) -> str:
        """What the lines of a connection have in the trace."""
        return f"{self.pid}.{number}"

    def _told_by_proxy(self, connection: Connection, address: str, port: int) -> None:
        """A proxy says who it is: that is who counts."""
        number = connection.number
        if not connection.proxied or not is_address(address):
            raise ValueError(f"connection {number} is from elsewhere")
        connection.proxied = False
        objection = self._objection(address)
        connection.address, connection.port = address, port
        self.crowd.leave(number)
        self.crowd.come(number, address)
        if objection:
            self._send_away(number, objection, address)
        else:
            self._introduce(connection)
            self.tell(number, pack(b"G", b"%d" % number))

    # -- the end of it -------------------------------------------------------------------------------------------

    def leave(self, number: int) -> None:
        """A connection has ended."""
        connection = self.connections.pop(number, None)
        if connection is not None:
            connection.let_go()
        self.crowd.leave(number)

    def front_gone(self, front, sitting: "frozenset[int]" = frozenset()) -> None:
        """A front has ended, and with it its connections, but for those that are in a session."""
        for number in [each.number for each in self.connections.values() if each.front is front]:
            if number not in sitting:
                self.leave(number)

    def send_all_away(self) -> None:
        """Those who have not said yet who they are have had time to."""
        for number in self.crowd.all_strangers():
            self._dismiss(number, TEMPORARY, "This server is ending.")

    def tell(self, number: int, octets: bytes) -> None:
        """Send something about a connection to who speaks to it."""
        connection = self.connections.get(number)
        if connection is not None:
            self.send(connection.front, octets)

    def send(self, line, octets: bytes, fd: int = -1) -> None:
        if not line.send(octets, fd):
            self.loop.when_writable(line.fileno(), lambda: self._flush(line))
            if len(line.queue) == QUEUE_MOST:
                self._end(line, "does not listen")

    def _flush(self, line) -> None:
        if line.flush():
            self.loop.when_writable(line.fileno(), None)
