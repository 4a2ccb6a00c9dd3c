"""What a password leads to: it waits its turn, then a child of its own finds out whether it is right, and serves."""

import gc
import os
import syslog
import time

from popper import inetd, journal, privilege
from popper.account import shown_name
from popper.conversation import Conversation
from popper.errors import AUTH, TEMPORARY, Refused
from popper.forking import fork
from popper.guessers import SEATS
from popper.handover import pack, refused
from popper.limits import neighbourhood
from popper.login import LOOK_AGAIN, NO_ACCESS
from popper.peer import Peer
from popper.sessions import LOGIN, OPENING, REFUSED, TRANSACTION, Child, Sessions
from popper.slots import packed


class Logins:
    """loop: a Loop; house: what is in force; sessions: the table of children."""

    def __init__(self, loop, house, sessions: Sessions) -> None:
        self.loop = loop
        self.house = house
        self.sessions = sessions
        self.reception = None                # who is told what became of a connection
        self.counters = dict.fromkeys(("logins", "denied", "received", "sent"), 0)
        self.seats: "dict[bytes, list[Child]]" = {}      # by neighbourhood: whose passwords are being tried

    def obey(self, house) -> None:
        self.house = house
        self.sessions.allow(house.options.maxsessions)

    def come(self, connection, login, fd: int) -> None:
        """A password has come."""
        connection.login, connection.descriptor = login, fd
        connection.came = connection.asked = time.monotonic()
        self.reception.when_named(connection, lambda: self._admit(connection))

    def send_back(self) -> None:
        """Nobody is held back any longer: they are to come again."""
        for connection in self.reception.connections.values():
            if connection.login is not None:
                self._refuse(connection, Refused("This server is being renewed, try again.", TEMPORARY))

    @property
    def waiting(self) -> int:
        """How many are held back."""
        return sum(connection.login is not None for connection in self.reception.connections.values())

    def _admit(self, connection) -> None:
        """Let it be tried, now or, after many that were wrong, later."""
        login = connection.login
        if login is None:                    # gone meanwhile
            return
        guessers, seat = self.house.guessers, self._seat(connection)
        if self._is_taken(seat):
            if time.monotonic() < connection.came + 2 * self.house.options.guess_delay_max:
                self.loop.after(LOOK_AGAIN, lambda: self._admit(connection))
            else:
                self._start(connection, True, seat)
            return
        wait = guessers.wait(connection.address, login.user) if guessers else 0.0
        if guessers and guessers.trouble:
            self.house.tell_seldom(f"guessers {guessers.trouble}", guessers.trouble)
        late = bool(guessers) and guessers.late
        if wait > 0:
            login.lines.append((time.time(), syslog.LOG_DEBUG, f"Too many logins failed: this one waits for {wait:.1f} s"))
            connection.asked = time.monotonic() + wait
            self.loop.at(connection.asked, lambda: self._try(connection, late))
        else:
            self._start(connection, late, seat)

    def _try(self, connection, late: bool) -> None:
        """Its turn has come."""
        if connection.login is None:         # gone meanwhile
            return
        seat = self._seat(connection)
        if not late and self._is_taken(seat):
            self._admit(connection)          # others have been tried since; it may have to wait longer for that
        else:
            self._start(connection, late, seat)

    def _start(self, connection, late: bool, seat: bytes) -> None:
        """late: too many before it had to wait already, and it is not tried at all."""
        refusal = self._turned_away("guess_delay_max", connection) if late else self._fork(connection, seat)
        if refusal:
            self._refuse(connection, refusal)
        else:
            connection.let_go()

    def _is_taken(self, seat: bytes) -> bool:
        """Whether as many of one address are being tried as may be at a time. What is being tried has not been counted
        yet."""
        return bool(seat) and sum(map(self._sits, self.seats.get(seat, ()))) >= SEATS

    def _seat(self, connection) -> bytes:
        """Whose seats it needs one of; b"": it is not counted, or is there so often that it need not be."""
        guessers, prefix = self.house.guessers, self.house.options.ipv6_prefix
        if not guessers or packed(connection.address, prefix) is None or guessers.knows(
                connection.address, connection.login.user) or guessers.trouble:
            return b""
        return neighbourhood(connection.address, prefix)

    def _sits(self, child: Child) -> bool:
        return self.sessions.slot(child).read()[0] == LOGIN

    def _sit_down(self, child: Child, seat: bytes) -> None:
        child.seat = seat
        if seat:
            self.seats[seat] = [child, *filter(self._sits, self.seats.get(seat, ()))]

    def _stand_up(self, child: Child) -> None:
        others = [each for each in self.seats.pop(child.seat, ()) if each is not child]
        if others:
            self.seats[child.seat] = others

    def _turned_away(self, objection: str, connection) -> Refused:
        code, text = self.reception.turn_away(objection, connection.address)
        return Refused(text, code)

    def _refuse(self, connection, refusal: Refused) -> None:
        self._trace(connection, refusal)
        connection.let_go()
        self.reception.tell(connection.number, refused(refusal, connection.number, connection.asked, 0))

    def _trace(self, connection, refusal: Refused) -> None:
        """Tell a trace of a session that ends here. The log has a line for many of these (Seldom)."""
        login, house = connection.login, self.house
        log = self.reception.journal(connection, shown_name(login.user))
        if log.debugging:
            peer = Peer(connection.address, connection.port)
            if connection.finding:
                peer.give(connection.finding, connection.seconds)
            log.replay(login.lines, peer.name)
            talk = Conversation(house.host, peer, log)
            talk.session.user = login.user
            talk.mistakes, talk.mistake = login.mistakes, login.mistake
            talk.record(talk.session.refused(refusal))
            talk.ending, waited = "a refusal", time.monotonic() - connection.came
            talk.end(login.received, login.sent, {"client": login.seconds}, login.seconds + waited)
        log.close()

    def _fork(self, connection, seat: bytes) -> "Refused | None":
        login = connection.login
        if self.sessions.is_full():
            return self._turned_away("maxsessions", connection)
        child = Child(connection.number, shown_name(login.user), login.user, connection.address,
                      connection.finding.name, connection.asked)
        self.sessions.reserve(child)
        try:
            pid = fork()
        except OSError as error:
            self.sessions.drop(child)
            self.house.tell_seldom("fork", f"fork: {error.strerror}")
            return Refused("System error, try again later.", TEMPORARY)
        if not pid:
            self._serve(child, connection, login, connection.descriptor)
        self.sessions.add(child, pid)
        self._sit_down(child, seat)
        self.reception.crowd.known(connection.number)
        return None

    def _serve(self, child: Child, connection, login, fd: int) -> None:
        """The life of a child."""
        status = 0
        house = self.house
        try:
            gc.disable()
            slot = self.sessions.own(child)
            privilege.close_all_but(0, 1, 2, fd, *(() if house.trace is None else (house.trace,)))
            trace = journal.followed(house.trace, house.options.trace)
            log = journal.Journal(house.ident, house.options, trace, house.watched(), self.reception.mark(child.number))
            peer = Peer(connection.address, connection.port)
            peer.give(connection.finding, connection.seconds)
            peer.trusted = house.trusts(peer.address)
            log.concerns(peer.address)
            log.replay(login.lines, peer.name)
            log.debug(f"Handed to process {os.getpid()}")
            server = inetd.session(house.options, log, house.host, peer, fd, fd, house.rules, False,
                                   slot.write, guessers=False, opened=lambda: slot.write(TRANSACTION, 0, 0))
            server.login.verified = lambda: slot.write(OPENING, 0, 0)
            server.resume(login)
            state, tally = slot.read()[0], server.tally
            if not server.refusal:
                slot.write(state, tally.received, tally.sent)
            else:
                slot.write(state, tally.received, tally.sent, server.refusal.code, server.refusal.text)
                status = REFUSED
        except BaseException as trouble:
            house.log.critical(f"a session could not begin: {type(trouble).__name__}: {trouble}")
        finally:
            os._exit(status)

    def over(self, pid: int, status: int) -> None:
        """A child has ended. status: as os.waitpid has it."""
        child = self.sessions.children[pid]
        state, received, sent, code, text = self.sessions.slot(child).read()
        self.sessions.drop(child)
        self._stand_up(child)
        number, guessers = child.number, self.house.guessers
        if os.WIFSIGNALED(status):
            self.house.log.warning(f"process {pid}, session of {child.user}, was killed by signal "
                                   f"{os.WTERMSIG(status)}")
        self.counters["received"] += received
        self.counters["sent"] += sent
        self.counters["logins"] += state not in (LOGIN, OPENING)
        if state != LOGIN and guessers:
            guessers.succeeded(child.address, child.raw_user)
        is_refused = os.waitstatus_to_exitcode(status) == REFUSED
        if is_refused and code == AUTH:
            self.counters["denied"] += 1
            if guessers and not text:
                guessers.failed(child.address, child.raw_user)
        if is_refused and text == NO_ACCESS:
            self.reception.turned_away["allow_deny"] += 1
        connection = self.reception.connections.get(number)
        if not is_refused or connection is None or connection.front.gone:
            self.reception.tell(number, pack(b"T", b"%d" % number))
            self.reception.leave(number)
            return
        self.reception.tell(number, refused(Refused(text, code), number, child.asked, self.house.options.fail_delay))
