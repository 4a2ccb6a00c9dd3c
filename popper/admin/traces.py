"""Sessions out of the lines of a trace: each line told to its session by its mark, a session out when it has ended.

A session goes from `Servicing request` to `Ended by`, in Qpopper's to `Ending request` (ucb-popper.md 9); marks come
again, for they are numbers of processes. Memory grows with the sessions that are open at one time.
"""

import collections
import datetime
import ipaddress
import re

from popper.admin.tracelines import moment
from popper.peer import plain

MOST_OPEN = 100000             # sessions that are open at one time; a killed one is until its number comes again
MOST_ENDING = 1000             # sessions whose last line may still come
MOST_LINES = 200000            # lines that are kept of a session
MOST_NUMBERS = 1 << 22         # numbers that Linux gives to processes; sessions of one daemon that are told apart
MOST_MET = 1 << 24             # of all of them

QUIT, CLOSED, TIMEOUT, SIGNAL = "quit", "closed", "timeout", "signal"
REFUSED, ERROR, MAILDROP, OPEN, UNKNOWN = "refused", "error", "maildrop", "open", "unknown"
# outcome: how a person is told
OUTCOMES = {QUIT: "by QUIT", CLOSED: "by the client, without QUIT", TIMEOUT: "by a timeout", SIGNAL: "by a signal",
            REFUSED: "by a refusal", ERROR: "by an error of popper's", MAILDROP: "with the maildrop", OPEN: "",
            UNKNOWN: "in a way that the trace does not tell"}
_ENDINGS = (("QUIT", QUIT), ("the client", CLOSED), ("a timeout", TIMEOUT), ("a signal", SIGNAL),
            ("a refusal", REFUSED), ("an error", ERROR), ("the maildrop", MAILDROP))
_LOST = (("POP EOF", CLOSED), ("POP hangup", SIGNAL), ("POP timeout", TIMEOUT))

_SERVICING = re.compile(r'\(v[^\s()]{1,64}\) Servicing request from "([^"]*)" at (\S+)', re.A)
_ENDING = re.compile(r'\(v[^\s()]{1,64}\) Ending request from "([^"]*)" at (?:\(([^()]*)\) )?(\S+?)'
                     r"(?:: (\d{1,18}) octets received, (\d{1,18}) sent)?$", re.A)
_LOGIN = re.compile(r'\(v[^\s()]{1,64}\) POP login by user "([^"]*)" at \(([^()]*)\) (\S+)', re.A)
_ENDED = re.compile(r"Ended (?:by|with) ([^;]*)(?:; (.*))?$", re.A)
_SPENT = re.compile(r"([A-Za-z]{1,20}) (\d{1,9}\.\d{1,6})\b", re.A)
_SECONDS = re.compile(r" (?:after|took|in) (\d{1,9}\.\d{1,6}) s\b", re.A)
_SENT = re.compile(r"Sent (\d{1,18}) octets(?: in (\d{1,9}\.\d+) s, (\d{1,9}\.\d+) s of it waiting for the client)?$",
                   re.A)
_IS = re.compile(r"Client (\S+) is (\S+?), after ", re.A)
_HANDED = re.compile(r"Handed to process (\d{1,10})$", re.A)
_CODE = re.compile(r"-ERR \[([A-Z][A-Z/-]{1,30})\]", re.A)
_ANNOUNCED = re.compile(r"\+OK (\d{1,18}) octets", re.A)
# what is in a complaint of Qpopper's that has no code: the code that it would have today
_MEANT = (("password supplied for", "AUTH"), ("lock busy", "IN-USE"), ("being unlocked", "IN-USE"))
# beginning of a line that says how long something took: what for
_TOOK = (("Client ", "DNS"), ("Locks of ", "locks"), ("Session lock of ", "locks"),
         ("Authentication took ", "authentication"), ("Scan of ", "scan"), ("Update of ", "disk"))
HELD = re.compile(r"Too many logins failed: this one waits for (\d{1,9}\.\d{1,6}) s$", re.A)
_UNNAMED = ('Client at "', 'Client address "')           # beginnings of complaints about the name of a client
FAIL_DELAY = "fail_delay"      # what a wrong password is made to wait, by the directive of that name
GUESSERS = "guessers"          # what a login is held back for, after many wrong passwords


class Session:
    """What is known of one session, growing with its lines. mark: what its lines have in brackets.

    process: the number of the process that it is, None where that is a daemon's child whose number is not told; begun:
    the earliest time of a line; last: that of the latest line; logged_in: when, or None; outcome: one of OUTCOMES;
    code: of the last -ERR that had one; waits: {what for: seconds}; longest: (seconds, what for); lines:
    [(when, text), ...] where they are kept, without those of texts of messages; left_out: how many are missing in it.
    """

    __slots__ = ("mark", "process", "begun", "last", "ours", "serviced", "host", "address", "user", "logged_in",
                 "commands", "word", "received", "sent", "outcome", "code", "over", "waits", "longest", "lines",
                 "left_out", "_counted", "_how", "_failed", "_awaits", "_held")

    def __init__(self, mark: str, when: float, ours: bool, keeps: bool = False) -> None:
        self.mark = mark
        self.process = None if "." in mark else int(mark)
        self.begun = self.last = when
        self.ours = ours                     # popper's, not Qpopper's
        self.serviced = self.over = self._failed = self._awaits = False
        self.host = self.address = self.user = self.word = self.code = self._how = ""
        self.logged_in: "float | None" = None
        self.commands = self.received = self.left_out = self._counted = 0
        self.sent: "int | None" = None
        self._held = 0.0                     # what is left of the wait of a login that is held back
        self.outcome = OPEN
        self.waits: "dict[str, float]" = {}
        self.longest = (0.0, "")
        self.lines: "list[tuple[float, str]] | None" = [] if keeps else None

    def take(self, when: float, text: str) -> None:
        """One more line."""
        gap = when - self.last if when > self.last else 0.0
        self.last = when
        self.begun = min(self.begun, when)   # a daemon may note its first lines before it writes them
        if self._held and gap:
            held = min(gap, self._held)
            self._waited(GUESSERS, held)
            self._held, gap = self._held - held, gap - held
        if self.lines is not None:
            if text.startswith("Sending line ") or len(self.lines) >= MOST_LINES:
                self.left_out += 1
            else:
                self.lines.append((when, text))
        act = _ACTS.get(text[:2])
        if act is not None and act(self, text, gap):
            return
        if "-ERR " in text and (text[0] == "-" or ": -ERR " in text):
            self._complained(text, gap)
        elif gap:
            self._waited("popper", gap)

    def close(self) -> None:
        """No line comes any more."""
        if self.outcome == OPEN and self.over:
            self.outcome = self._how or (QUIT if self.word == "quit" else
                                         REFUSED if self.code and self.logged_in is None else UNKNOWN)
        if self.sent is None:
            self.sent = self._counted

    @property
    def is_of_daemon(self) -> bool:
        """Whether its mark begins with the number of a process that is not its own: the master's."""
        return "." in self.mark

    @property
    def is_one(self) -> bool:
        """Whether this is a session, and not what a daemon, say, has to tell."""
        return self.serviced or bool(self.commands or self.user)

    @property
    def seconds(self) -> float:
        """How long it lasted, as far as is known."""
        return max(0.0, self.last - self.begun)

    # Each of these takes a line that begins as `_ACTS` says; -> whether it was one of its kind.

    def _asked(self, text: str, gap: float) -> bool:
        if not text.startswith('Received: "'):
            return False
        self.commands += 1
        if gap:
            self._waited("client", gap)
        words = text[11:-1].split(None, 2) or [""]
        self.word = words[0].lower()
        self._awaits = True
        if self.logged_in is None and self.word in ("user", "apop") and len(words) > 1:
            self.user = words[1]
        return True

    def _answered(self, text: str, gap: float) -> bool:
        self._counted += len(text) + 2
        if gap:
            self._waited("popper", gap)
        answers, self._awaits = self._awaits, False      # Qpopper signs off with a +OK behind its -ERR
        if answers and self.logged_in is None and self.word in ("pass", "apop", "rpop", "auth"):
            self.logged_in = self.last
        elif not self.ours and self.word == "retr":
            announced = _ANNOUNCED.match(text)
            self._counted += int(announced[1]) if announced else 0
        return True

    def _gave(self, text: str, gap: float) -> bool:
        if text.startswith("Sending line "):             # what that waits for is the client
            self._waited("client", gap)
            return True
        found = _SENT.match(text)
        if not found:
            return text.startswith("Session lock of ") and self._took(text, gap)
        self._counted += int(found[1])
        spent, waiting = float(found[2] or 0), float(found[3] or 0)
        self._waited("client", waiting)
        self._waited("popper", spent - waiting)
        return True

    def _took(self, text: str, gap: float) -> bool:
        if text.startswith(_UNNAMED):
            return self._was_named(gap)
        for beginning, what in _TOOK:
            if text.startswith(beginning) and (found := _SECONDS.search(text)):
                self._waited(what, self._without_guessers(what, float(found[1])))
                if what == "DNS" and (found := _IS.match(text)):
                    self.host = found[2]
                return True
        self._failed = self._failed or text.startswith("Login of ")
        return False

    def _told(self, text: str, gap: float) -> bool:
        if found := _SERVICING.match(text):
            self.serviced = True
            self.host, self.address = found[1], found[2]
        elif found := _LOGIN.match(text):
            self.user, self.host, self.address = found.groups()
            self.logged_in = self.last
        elif found := _ENDING.match(text):
            self.over = True
            self.host, self.address = found[2] or self.host, found[3]
            if found[2] is not None and found[1] != "(null)":    # UCB names the host there
                self.user = found[1]
            if found[4]:
                self.received, self.sent = int(found[4]), int(found[5])
        elif ") Unable to get canonical name of client " in text:
            self._was_named(gap)
        elif ") Timeout (" in text:
            self._how = TIMEOUT
            self._waited("client", gap)
        else:
            return False
        return True

    def _was_named(self, gap: float) -> bool:
        """A complaint about the client's name; popper says in the next line how long DNS took, Qpopper never."""
        if not self.ours:
            self._waited("DNS", gap)
        return True

    def _ended(self, text: str, gap: float) -> bool:
        found = _ENDED.match(text)
        if not found:
            return False
        self.over = True
        self.outcome = next((outcome for words, outcome in _ENDINGS if found[1].startswith(words)), UNKNOWN)
        spent = {what: self._without_guessers(what, float(seconds))
                 for what, seconds in _SPENT.findall(found[2] or "") if what != "all"}
        if "authentication" in spent:                    # it counts as that there
            self.waits["authentication"] = self.waits.get("authentication", 0.0) + self.waits.pop(FAIL_DELAY, 0.0)
        for what, seconds in spent.items():
            unseen = round(seconds - self.waits.get(what, 0.0), 6)       # lines that are written late hide a pause
            if unseen > self.longest[0]:
                self.longest = (unseen, what)
        self.waits.update(spent)
        return True

    def _was_held(self, text: str, gap: float) -> bool:
        """Held back from now on."""
        found = HELD.match(text)
        if found:
            self._held += float(found[1])
            self._waited("popper", gap)
        return bool(found)

    def _without_guessers(self, what: str, seconds: float) -> float:
        """How long that took, where popper counts it from before a login was held back, as it does without a daemon."""
        if what != "authentication" or self.is_of_daemon:
            return seconds
        return max(0.0, seconds - self.waits.get(GUESSERS, 0.0))

    def _handed(self, text: str, gap: float) -> bool:
        """From a front of a daemon to the process that goes on with it."""
        if found := _HANDED.match(text):
            self.process = int(found[1])
        return False

    def _listed(self, text: str, gap: float) -> bool:
        return not gap and text[:4] == "Msg " and text[4:5].isdigit()

    def _transmitted(self, text: str, gap: float) -> bool:
        if not text.startswith("Pop transmit"):
            return False
        self._waited("client", gap)
        return True

    def _complained(self, text: str, gap: float) -> None:
        self._waited(FAIL_DELAY if self._failed else "client" if "-ERR POP " in text else "popper", gap)
        self._failed = self._awaits = False
        found = _CODE.search(text)
        if found:
            self.code = found[1]
        elif not self.ours:
            self.code = next((code for words, code in _MEANT if words in text.lower()), self.code)
        if "-ERR POP " in text:
            self._how = next((how for words, how in _LOST if words in text), self._how)
        if text.startswith("-"):
            self._counted += len(text) + 2

    def _waited(self, what: str, seconds: float) -> None:
        if seconds > 0:
            self.waits[what] = self.waits.get(what, 0.0) + seconds
            if seconds > self.longest[0]:
                self.longest = (seconds, what)


_ACTS = {"Re": Session._asked, "+O": Session._answered, "Se": Session._gave, "(v": Session._told, "En": Session._ended,
         "Ha": Session._handed, "Ms": Session._listed, "Po": Session._transmitted,
         "To": Session._was_held, **{beginning[:2]: Session._took for beginning, _ in _TOOK if beginning[:2] != "Se"}}


class Sessions:
    """Takes lines in and puts them together. ended: sessions of which no line comes any more, to be taken out.
    keeps(mark): whether a session is to keep its lines."""

    def __init__(self, keeps=lambda mark: False) -> None:
        self.keeps = keeps
        self.open: "dict[str, Session]" = {}
        self.ended: "list[Session]" = []
        self.ending: "collections.deque[Session]" = collections.deque()
        self.met: "dict[str, bytearray]" = {}            # daemon, or "": by number, how many sessions; 2 for more
        self.room = MOST_MET

    def add(self, when: float, mark: str, text: str, ours: bool = True) -> Session:
        """The session that a line belongs to."""
        session = self.open.get(mark)
        if session is None or (session.serviced and text[:1] in "(TD" and _begins(text)):
            if session is not None:
                self._close(session)
            elif len(self.open) >= MOST_OPEN:
                self._close(next(iter(self.open.values())))
            session = self.open[mark] = Session(mark, when, ours, self.keeps(mark))
        over = session.over
        session.take(when, text)
        if session.over:
            if session.outcome != OPEN or session.sent is None:          # Qpopper says no more than that
                self._close(session)
            elif not over:
                self.ending.append(session)
                if len(self.ending) > MOST_ENDING:
                    self._close(self.ending.popleft())
        return session

    def rest(self) -> None:
        """There are no more lines: what is open goes to `ended` as it is."""
        for session in list(self.open.values()):
            self._close(session)

    def name(self, session: Session) -> str:
        """What to call a session: by its mark, with the time where that came more than once."""
        return self.name_of(session.mark, moment(session.begun))

    def name_of(self, mark: str, begun: datetime.datetime) -> str:
        """The same, where there is no more of it than that."""
        daemon, _, number = mark.rpartition(".")
        met, place = self.met.get(daemon, b""), int(number)
        known = place < MOST_NUMBERS and (self.room > 0 or place < len(met)) and met[place:place + 1] != b"\2"
        return mark if known else f"{mark}@{begun:%H:%M:%S}"

    def _close(self, session: Session) -> None:
        if self.open.get(session.mark) is not session:
            return
        del self.open[session.mark]
        session.close()
        if session.is_one:
            self.ended.append(session)
            self._count(session.mark)

    def _count(self, mark: str) -> None:
        """Remember that there was a session of this mark, as long as there is room."""
        daemon, _, number = mark.rpartition(".")
        place, met = int(number), self.met.setdefault(daemon, bytearray())
        more = place + 1 - len(met)
        if more > 0 and place < MOST_NUMBERS and self.room > 0:
            met.extend(bytes(more))
            self.room -= more
        if place < len(met):
            met[place] = min(2, met[place] + 1)


def _begins(text: str) -> bool:
    """Whether this is the first line of a session."""
    return text.startswith(("Tracing session and debugging ", "Debugging turned on")) or bool(_SERVICING.match(text))


def sessions(lines, table: Sessions):
    """The sessions that lines make up, each when it has ended, those without an end last."""
    for line in lines:
        table.add(*line)
        if table.ended:
            yield from table.ended
            table.ended.clear()
    table.rest()
    yield from table.ended
    table.ended.clear()


# -- choosing ----------------------------------------------------------------------------------------------------------

class Named:
    """The sessions that a name means: MARK, MARK@HH:MM:SS, MARK@YYYY-MM-DDTHH:MM:SS, as any fraction of a second may
    follow. Raises ValueError for what is no name."""

    SHAPE = re.compile(r"(\d{1,10}(?:\.\d{1,10})?)(?:@((?:\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d(?:\.\d{1,3})?))?", re.A)

    def __init__(self, name: str) -> None:
        found = self.SHAPE.fullmatch(name)
        if not found:
            raise ValueError(name)
        self.mark = found[1]
        self.time = found[2] or ""

    def fits(self, mark: str, begun: float) -> bool:
        """Whether it means the session of that mark that began then."""
        if mark != self.mark:
            return False
        full = exact(begun)
        return not self.time or (full if "T" in self.time else full.partition("T")[2]).startswith(self.time)


def exact(seconds: float) -> str:
    """A time as it may stand in the name of a session, to the millisecond."""
    return moment(seconds).isoformat(timespec="milliseconds")


class Choice:
    """Which sessions are wanted: of a user, from an address or network, with an outcome or the code of a refusal, some
    of which lies between two times. Raises ValueError for an address or outcome that is none."""

    CODES = ("auth", "in-use", "sys/temp", "sys/perm")

    def __init__(self, user: str = "", address: str = "", outcome: str = "", since: "float | None" = None,
                 until: "float | None" = None) -> None:
        self.user = user
        self.network = network_of(address) if address else None
        self.outcome = outcome.lower()
        self.since = since
        self.until = until
        if self.outcome and self.outcome not in (*OUTCOMES, *self.CODES):
            raise ValueError(outcome)

    def fits(self, session: Session) -> bool:
        """Whether a session is wanted."""
        code = session.code.lower() if session.outcome == REFUSED else ""
        return ((not self.user or session.user == self.user) and (self.network is None or self._has(session.address))
                and (not self.outcome or self.outcome in (session.outcome, code))
                and (self.since is None or session.last >= self.since)
                and (self.until is None or session.begun <= self.until))

    def _has(self, address: str) -> bool:
        try:
            return ipaddress.ip_address(plain(address)) in self.network
        except ValueError:
            return False


def network_of(text: str):
    """An address or network as traces have it, IPv4 that came over an IPv6 socket as IPv4. Raises ValueError."""
    network = ipaddress.ip_network(text if "/" in text else plain(text), strict=False)
    mapped = network.network_address.ipv4_mapped if network.version == 6 and network.prefixlen >= 96 else None
    return ipaddress.ip_network((mapped, network.prefixlen - 96)) if mapped else network
