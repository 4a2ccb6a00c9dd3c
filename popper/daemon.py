"""popper on its own: the master. It keeps sockets, crew and children, and does what signals and the control socket say.

Everything is imported before the first fork and frozen out of the collector's sight: a login costs one fork of a small
process. This process reads nothing that a stranger sends, and knows no mailbox.
"""

import _signal
import gc
import os
import resource
import select
import time

from popper import VERSION, crew, serve, submit          # noqa: F401  for the children
from popper.control import Control
from popper.errors import ConfigError
from popper.forking import HEARD
from popper.house import House
from popper.journal import open_trace
from popper.listeners import adopt, listen, name_of, place_of, prepare
from popper.logins import Logins
from popper.loop import Loop
from popper.options import CONFIG
from popper.reception import Reception
from popper.sessions import LOGIN, OPENING, Sessions

FRONTS = 2                     # processes that speak AUTHORIZATION
LIMITS = ("maxsessions", "sameaddrmax", "maxstrangers", "accepts")
HELD_LONGEST = 5               # seconds that an upgrade waits for logins that are held back
GRACE = 5                      # seconds for strangers to say who they are, once the server is to end


class Master:
    """house: what is in force. bound: listening sockets by what asked for them, (address, port) or a descriptor.
    reread() -> Options, or ConfigError. notify: a notify.Notify."""

    def __init__(self, house: House, bound: dict, reread, notify, sessions: "Sessions | None" = None) -> None:
        options = house.options
        self.house = house
        self.bound = bound
        self.reread = reread
        self.notify = notify
        self.since = time.time()
        self.idle: "float | None" = None     # since when nobody is there
        self.ending = False
        self.crew: "dict[int, crew.Line]" = {}           # by pid
        self.loop = Loop()
        self.sessions = sessions or Sessions(options.maxsessions)
        self.logins = Logins(self.loop, house, self.sessions)
        self.reception = self.logins.reception = Reception(self.loop, house, self.logins.come)
        self.control: "Control | None" = None
        self.pid_file = None

    def run(self, at_last=lambda: None) -> None:
        """Until the end that somebody asked for, or until nobody has come for `autoclose` seconds. at_last: called
        once it serves."""
        self.wakeup, theirs = os.pipe()
        for fd in (self.wakeup, theirs):
            os.set_blocking(fd, False)
        for number in HEARD:
            _signal.signal(number, lambda number, frame: None)
        _signal.set_wakeup_fd(theirs)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        self.loop.watch(self.wakeup, self._hear_signals)
        self._open_control()
        self.hire()
        gc.freeze()
        self._listen()
        if self.notify.interval:
            self._live()
        self._reap()                         # who ended while one program became the other
        at_last()
        self.notify.ready("listening on " + ", ".join(self.places()))
        self.loop.run(self._is_over, self._until_close)
        for line in list(self.crew.values()):
            line.close()
        if self.control:
            self.control.close()

    # -- who listens ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        for spec, listener in self.bound.items():
            if listener.fileno() not in self.loop.readers:
                prepare(listener, self.house.options.debug)
                self.loop.watch(listener.fileno(), lambda listener=listener: self.reception.accept(listener))
                address, port = place_of(listener)
                self.house.log.info(f"listening on {address} port {port}")

    def places(self) -> "list[str]":
        return [name_of(place_of(listener)) for listener in self.bound.values()]

    def _open_control(self) -> None:
        options = self.house.options
        try:
            fresh = Control(options.control, options.control_group, self.control)
        except ConfigError as trouble:
            self.house.log.warning(str(trouble))         # it serves all the same
            return
        self._close_control()
        self.control = fresh
        self.loop.watch(fresh.fileno(), self._hear_control)

    def _hear_control(self) -> None:
        control = self.control
        try:
            control.answer(self)
        except OSError as error:
            self.house.tell_seldom("control", f"control: {error.strerror}")
            self.loop.pause(control, 0.1)

    def _close_control(self) -> None:
        if self.control:
            self.loop.ignore(self.control.fileno())
            self.control.close()
            self.control = None

    # -- the crew ------------------------------------------------------------------------------------------------

    def hire(self) -> None:
        """Fork whoever is missing; who cannot be forked now, later."""
        house, options, reception = self.house, self.house.options, self.reception
        try:
            while len(reception.fronts) < FRONTS and not self.ending:
                started = f"Started by the daemon; uid {os.geteuid()}, configuration {options.config or CONFIG}"
                front = crew.front(options, house.host, house.ids, self._descriptors(), started)
                reception.fronts.append(front)
                self.join(front, reception.hear_front)
            if reception.looker is None and options.lookup and not self.ending:
                reception.looker = crew.looker(options.dns_timeout)
                self.join(reception.looker, lambda looker: reception.hear_looker())
        except OSError as error:
            house.log.critical(f"a process that is needed cannot be forked: {error.strerror}")
            self.loop.after(1, self.hire)

    def join(self, line, hear) -> None:
        self.crew[line.pid] = line
        self.loop.watch(line.fileno(), lambda: hear(line))

    def retire(self, line) -> None:
        """Have it end when it has nothing to do any more."""
        line.closing = True
        if line in self.reception.fronts:
            self.reception.fronts.remove(line)
        if line is self.reception.looker:
            self.reception.looker = None
            self.loop.ignore(line.fileno())
            line.close()
        else:
            self.reception.send(line, crew.DRAIN)

    def _descriptors(self) -> int:
        """How many a front may need, as far as the system lets us."""
        wanted = self.house.options.maxstrangers + self.house.options.maxsessions + 64
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed

    # -- who has ended -------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self.sessions.children:
                self.logins.over(pid, status)
            elif pid in self.crew:
                self._crew_gone(self.crew.pop(pid))

    def _crew_gone(self, line) -> None:
        line.gone = True
        self.loop.ignore(line.fileno())
        line.close()
        self.reception.front_gone(line, frozenset(child.number for child in self.sessions.children.values()))
        if line in self.reception.fronts:
            self.reception.fronts.remove(line)
        if line is self.reception.looker:
            self.reception.looker = None
        if line.closing or self.ending:
            return
        self.house.log.critical(f"process {line.pid} of this server has ended; another takes its place")
        if self.reception.fronts or time.monotonic() < line.since + 1:
            self.loop.after(1, self.hire)    # it may end again
        else:
            self.hire()

    # -- dates -----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        self.notify.watchdog()
        self.loop.after(self.notify.interval, self._live)

    def _is_idle(self) -> bool:
        return not self.reception.connections and not self.sessions.children

    def _until_close(self) -> "float | None":
        """When nobody has come for too long; stops when that is now."""
        wait = self.house.options.autoclose
        if not wait or self.ending:
            return None
        now = time.monotonic()
        if not self._is_idle():
            self.idle = None
            return None
        if self.idle is None:
            self.idle = now
        if now < self.idle + wait:
            return self.idle + wait
        self.house.log.info(f"nobody came for {wait} seconds")
        self.stop()
        return now

    def _is_over(self) -> bool:
        return self.ending and self._is_idle()

    # -- what it is told ---------------------------------------------------------------------------------------------

    def _hear_signals(self) -> None:
        signals = os.read(self.wakeup, 512)
        self._reap()
        if _signal.SIGHUP in signals:
            self.reload()
        if _signal.SIGUSR2 in signals:
            self.upgrade()
        for number in signals:
            if number in (_signal.SIGTERM, _signal.SIGINT):
                self.stop(now=self.ending)

    def do(self, command: str) -> str:
        """A command of the control socket; -> a complaint, or ""."""
        if command == "reload":
            return self.reload()
        if command == "upgrade":
            return self.upgrade(0.2)
        self.stop(now=command == "stop-now")
        return ""

    def stop(self, now: bool = False) -> None:
        """Listen no more, and end when the last session has; now: and have these end."""
        if not self.ending:
            self.ending = True
            self.notify.stopping()
            for listener in self.bound.values():
                self.loop.ignore(listener.fileno())
                listener.close()
            self.bound.clear()
            if self.pid_file:
                self.pid_file.remove()
            self.house.log.info(f"ending; {len(self.sessions)} sessions go on")
            for line in list(self.crew.values()):
                if line is not self.reception.looker:
                    self.retire(line)
            self.loop.after(GRACE, self.reception.send_all_away)
        if now:
            self.house.log.info(f"ending now, and {len(self.sessions)} sessions with it")
            for pid in [*self.sessions.children, *self.crew]:
                os.kill(pid, _signal.SIGTERM if pid in self.sessions.children else _signal.SIGKILL)

    def reload(self) -> str:
        """Read the configuration anew, reopen logs and sockets; -> what is wrong: then all stays as it was."""
        if self.ending:
            return "popper is ending"
        self.notify.reloading()
        try:
            house, bound = self._prepared()
        except ConfigError as mistake:
            self.house.log.critical(f"not reloaded: {mistake}")
            self.notify.ready(f"not reloaded: {mistake}")
            return str(mistake)
        options = house.options
        for spec in [spec for spec in self.bound if spec not in bound]:
            self.loop.ignore(self.bound[spec].fileno())
            self.bound.pop(spec).close()
        if self.house.trace is not None and self.house.trace != house.trace:
            os.close(self.house.trace)
        self.bound, self.house = bound, house
        self.logins.obey(house)
        self.reception.obey(house)
        for line in [*self.reception.fronts, *filter(None, (self.reception.looker,))]:
            self.retire(line)
        self._open_control()
        self.hire()
        self._listen()
        house.log.info("reloaded")
        self.notify.ready("listening on " + ", ".join(self.places()))
        return ""

    def _prepared(self) -> "tuple[House, dict]":
        """What the configuration makes now: a house, and sockets. ConfigError, and nothing has changed."""
        options = self.reread()
        trace = open_trace(options.trace) if options.trace else None
        try:
            return House(options, self.house.ident, trace), bind(options.bindto, self.bound)
        except ConfigError:
            if trace is not None:
                os.close(trace)
            raise

    def upgrade(self, delay: float = 0.0) -> str:
        """Become the program that is there now, with the same sockets; -> what is wrong: then all stays as it is."""
        from popper import takeover
        arguments = takeover.program()
        complaint = "popper is ending" if self.ending else takeover.complaint_of(arguments) or self._complaint()
        if complaint:
            self.house.log.critical(f"not upgraded: {complaint}")
        else:
            deadline = time.monotonic() + HELD_LONGEST
            self.loop.after(delay, lambda: self._become(arguments, deadline))
        return complaint

    def _complaint(self) -> str:
        """Whether the configuration asks for what cannot be had, or ""."""
        try:
            house, bound = self._prepared()
        except ConfigError as mistake:
            return str(mistake)
        if house.trace is not None:
            os.close(house.trace)
        for spec in [spec for spec in bound if spec not in self.bound]:
            bound[spec].close()
        return ""

    def _become(self, arguments: "list[str]", deadline: float) -> None:
        """Once nothing is on its way any more, or at the deadline, by the monotonic clock, when nothing gets lost."""
        from popper import takeover
        if self.ending:                      # somebody thought better of it
            return
        late = time.monotonic() >= deadline
        if late:
            self.logins.send_back()
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, HEARD)    # what comes now the new program hears
        unsent = any(line.queue for line in self.crew.values() if line is not self.reception.looker)
        heard = select.select([self.wakeup], [], [], 0)[0]          # nobody else has these
        if self.logins.waiting or heard or unsent and not late:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
            self.loop.after(0.1, lambda: self._become(arguments, deadline))
            return
        self.house.log.info(f"becoming {arguments[0]}")
        try:
            takeover.leave_to(arguments, self)
        except OSError as error:
            self.house.log.critical(f"not upgraded: {arguments[0]}: {error.strerror}")

    # -- what it tells -------------------------------------------------------------------------------------------------

    def status(self) -> dict:
        """For who asks at the control socket: called in a child."""
        self.sessions.map_again()
        options, reception = self.house.options, self.reception
        sessions = []
        for child in self.sessions.children.values():
            state, received, sent, _, _ = self.sessions.slot(child).read()
            sessions.append({"pid": child.pid, "user": child.user, "address": child.address, "name": child.name,
                             "state": state, "since": child.since, "received": received, "sent": sent})
        return {
            "version": VERSION, "pid": os.getppid(), "since": self.since,
            "state": "ending" if self.ending else "running",
            "configuration": options.config or CONFIG, "listening": self.places(),
            "limits": {name: getattr(options, name) for name in LIMITS},
            "strangers": reception.crowd.strangers, "waiting": self.logins.waiting,
            "counters": {"connections": reception.counted, **self.logins.counters,
                         "logins": self.logins.counters["logins"] + sum(
                             each["state"] not in (LOGIN, OPENING) for each in sessions),
                         "turned_away": reception.turned_away},
            "sessions": sessions,
            "guessers": [{"kind": kind, "what": what, "failures": failures, "wait": wait}
                         for kind, what, failures, wait in (self.house.guessers.held() if self.house.guessers else ())]}


def bind(wanted, bound: dict) -> dict:
    """Sockets for these addresses, those that are bound already among them; given descriptors stay whatever is wanted.
    ConfigError, and nothing has changed, when one cannot be had."""
    if any(isinstance(spec, int) for spec in bound):
        return dict(bound)
    found = {}
    try:
        for spec in wanted:
            found[spec] = bound.get(spec) or listen(*spec)
    except ConfigError:
        for spec, listener in found.items():
            if spec not in bound:
                listener.close()
        raise
    return found


def run(options, ident: str, trace: "int | None", reread, given: "list[int]" = (), notify=None) -> None:
    """Serve. given: descriptors that listen already, from whoever started us. ConfigError when it cannot be."""
    from popper import takeover
    from popper.detach import detach
    document = takeover.told()
    ready = detach() if options.daemon and document is None else None
    try:
        house = House(options, ident, trace)
        master = _taken_over(document, house, reread, notify) if document else _begun(house, given, reread, notify)
    except ConfigError as mistake:
        if ready is None:
            raise
        ready.failed(f"{ident}: {mistake}", 69)
        os._exit(69)
    master.run(ready.ready if ready else lambda: None)


def _begun(house: House, given: "list[int]", reread, notify) -> Master:
    from popper.detach import write_pid_file
    options = house.options
    pid_file = write_pid_file(options.pid_file) if options.pid_file else None
    try:
        master = Master(house, {fd: adopt(fd) for fd in given} or bind(options.bindto, {}), reread, notify)
    except ConfigError:
        if pid_file:
            pid_file.remove()
        raise
    master.pid_file = pid_file
    return master


def _taken_over(document: dict, house: House, reread, notify) -> Master:
    """What another program has left. To serve as it was is better than not at all: what cannot be had is told."""
    from popper import takeover
    from popper.detach import write_pid_file
    options = house.options
    master = Master(house, takeover.bound_of(document), reread, notify,
                    takeover.sessions_of(document, options.maxsessions))
    try:
        master.bound = bind(options.bindto, master.bound)
    except ConfigError as mistake:
        house.log.critical(str(mistake))
    try:
        master.pid_file = write_pid_file(options.pid_file) if options.pid_file else None
    except ConfigError as mistake:
        house.log.critical(str(mistake))
    takeover.restore(document, master)
    return master
