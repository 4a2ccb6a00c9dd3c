"""What the lines of one session of a trace say, taken apart, and what is remembered of others of the same user, within
bounds: the ground on which `explain` stands."""

import collections
import re

from popper.admin.traces import HELD, OPEN, QUIT, Session, Sessions

MOST_USERS = 20000             # of whom earlier sessions are remembered
MOST_MESSAGES = 300000         # that are remembered of all of them
SILENT_MOST = 3600.0           # seconds that a session may be silent and still be there
MOST_RECENT = 10               # sessions of a user that may overlap with a later one

_LOGIN = re.compile(r"Login of (\S+) failed: (.*)", re.S | re.A)
_COMPLAINT = re.compile(r"(?:.{0,600}: )?-ERR (?:\[([A-Z][A-Z/-]{1,30})\] )?(.*)", re.S | re.A)
_DNS = re.compile(r"Client (\S+) (?:is (\S+?)|has no name.*?), after (\d{1,9}\.\d{1,6}) s", re.A)
_LOCKS = re.compile(r"Locks of (.+?) after (\d{1,9}\.\d{1,6}) s(?:; (.*))?$", re.A)
_AUTHENTICATION = re.compile(r"Authentication took (\d{1,9}\.\d{1,6}) s", re.A)
_SCAN = re.compile(r"Scan of (.+): (\d{1,12}) messages, (\d{1,18}) octets, in (\d{1,9}\.\d{1,6}) s$", re.A)
_MESSAGE = re.compile(r"Msg (\d{1,9}) (?:\[uidl (\S{1,200}?)\] )?at offset (\d{1,18}) is (\d{1,18}) octets long", re.A)
_UPDATE = re.compile(r"Update of (.+?):? (?:(\d{1,9}) deleted, \d{1,9} left|failed),? (?:in|after) "
                     r"(\d{1,9}\.\d{1,6}) s$", re.A)
_SENT = re.compile(r"Sent (\d{1,18}) octets(?: in (\d{1,9}\.\d+) s, (\d{1,9}\.\d+) s of it waiting for the client)?$",
                   re.A)
_TIMEOUT = re.compile(r"\(v\S{1,64}\) Timeout \((\d{1,9}) secs\) during nw (read|write) ", re.A)
_BULLETINS = ("Unable to open bulletin ", "Bulletin directory ")
_BUG = re.compile(r".{0,600}: internal error at (\S+): (.*)", re.S | re.A)


class Retrieval:
    """A message that was asked for. announced, sent: octets, None for not known; seconds, waiting: for the client."""

    __slots__ = ("number", "announced", "sent", "seconds", "waiting")

    def __init__(self, number: int, announced: "int | None") -> None:
        self.number = number
        self.announced = announced
        self.sent: "int | None" = None
        self.seconds = self.waiting = 0.0


class Complaint:
    """A -ERR. reason: what popper's log says beyond the text; command: what it answers."""

    __slots__ = ("when", "code", "text", "reason", "command")

    def __init__(self, when: float, code: str, text: str, reason: str, command: str) -> None:
        self.when = when
        self.code = code
        self.text = text
        self.reason = reason
        self.command = command

    @property
    def is_denial(self) -> bool:
        """Whether the credentials were no good."""
        return self.code == "AUTH" or "Password supplied for" in self.text

    @property
    def is_lock(self) -> bool:
        """Whether somebody held the mailbox; Qpopper had no code for that at first."""
        return self.code == "IN-USE" or "lock busy" in self.text or "being unlocked" in self.text

    @property
    def is_mistake(self) -> bool:
        """Whether it was the client's."""
        return not self.code and not self.text.startswith("POP ") and not self.is_denial and not self.is_lock


class Facts:
    """What the lines of a session say. Times as in `traces`; mailbox: its path, "" if not known."""

    def __init__(self) -> None:
        self.mailbox = ""
        self.dns: "tuple[str, str, float] | None" = None         # address, name or "", seconds
        self.authentication = self.scan = self.disk = 0.0
        self.held = 0.0                                          # seconds, after many wrong passwords
        self.locks: "list[tuple[float, str]]" = []               # seconds, who was in the way
        self.session_lock = False
        self.failures: "list[str]" = []                          # reasons of failed logins
        self.complaints: "list[Complaint]" = []
        self.messages: "dict[int, tuple[str, int, int]]" = {}    # number: (unique-id or "", offset, octets)
        self.retrieved: "dict[int, Retrieval]" = {}
        self.marked: "set[int]" = set()
        self.deleted = 0                                         # by UPDATE
        self.deleting = 0                                        # what Qpopper's log says of it
        self.failed_update = False
        self.timeout: "tuple[int, str] | None" = None            # seconds, "read" or "write"
        self.command = ""                                        # the latest
        self.awaits = False                                      # its answer has not come; a sign-off is none
        self.sending: "Retrieval | None" = None                  # what of it is not sent yet
        self.uidl = False
        self.bug: "tuple[str, str] | None" = None
        self.bulletins: "list[str]" = []                         # what kept them from the user

    def gone(self, session: Session) -> "set[int]":
        """The messages that it deleted."""
        return self.marked if (session.outcome == QUIT or self.deleted) and not self.failed_update else set()

    def finished(self, session: Session) -> "list[Retrieval]":
        """What was retrieved to its end; Qpopper does not tell of the end."""
        return [each for each in self.retrieved.values() if each.sent is not None or not session.ours]


# -- reading -----------------------------------------------------------------------------------------------------------

def facts(session: Session) -> Facts:
    """What the lines of a session say; it must have kept them."""
    found = Facts()
    told = ""                                # the latest complaint in the log's longer form, which comes first
    for when, text in session.lines:
        if text.startswith('Received: "'):
            found.command, found.awaits = text[11:-1], True
            found.sending = None
            found.uidl = found.uidl or found.command[:4].lower() in ("uidl", "euid")
        elif text.startswith("+OK"):
            if found.awaits:
                _granted(found, text)
            found.awaits = False
        elif "-ERR " in text and (complaint := _COMPLAINT.match(text)):
            if text.startswith("-ERR ") or not session.ours:
                reason = told[len(complaint[2]):].strip() if told.startswith(complaint[2]) else ""
                found.awaits = False
                found.complaints.append(Complaint(when, complaint[1] or "", complaint[2], reason[1:-1], found.command))
                told = ""
            else:
                told = complaint[2]
        elif "internal error at" in text and (bug := _BUG.match(text)):
            found.bug = bug.groups()
        else:
            _noted(found, text)
    if not session.is_of_daemon:             # what its waits are counted in, see traces
        found.authentication = max(0.0, found.authentication - found.held)
    return found


def _granted(found: Facts, text: str) -> None:
    """Take in a +OK."""
    words = found.command.lower().split()
    number = _number(words[1]) if len(words) > 1 else None
    if words[:1] == ["retr"] and number:
        found.sending = found.retrieved[number] = Retrieval(number, _number(text[4:].partition(" ")[0]))
    elif words[:1] == ["dele"] and number:
        found.marked.add(number)
    elif words[:1] == ["rset"]:
        found.marked.clear()


def _number(word: str) -> "int | None":
    return int(word) if word.isascii() and word.isdigit() and len(word) < 19 else None


def _noted(found: Facts, text: str) -> None:
    """Take in what is neither command nor reply."""
    if text.startswith("Msg ") and (line := _MESSAGE.match(text)):
        found.messages[int(line[1])] = line[2] or "", int(line[3]), int(line[4])
    elif line := _SENT.match(text):
        if found.sending is not None:
            found.sending.sent = int(line[1])
            found.sending.seconds, found.sending.waiting = float(line[2] or 0), float(line[3] or 0)
            found.sending = None
    elif line := _DNS.match(text):
        found.dns = line[1], line[2] or "", float(line[3])
    elif line := _LOGIN.match(text):
        found.failures.append(line[2])
    elif text.startswith("Session lock of "):
        found.session_lock = True
    elif line := _LOCKS.match(text):
        found.mailbox = line[1]
        found.locks.append((float(line[2]), line[3] or ""))
    elif line := HELD.match(text):
        found.held += float(line[1])
    elif line := _AUTHENTICATION.match(text):
        found.authentication = float(line[1])
    elif line := _SCAN.match(text):
        found.mailbox, found.scan = line[1], float(line[4])
    elif line := _UPDATE.match(text):
        found.disk += float(line[3])
        found.failed_update = line[2] is None
        found.deleted = max(found.deleted, int(line[2] or 0))
    elif line := _TIMEOUT.match(text):
        found.timeout = int(line[1]), line[2]
    elif text.startswith(_BULLETINS):
        found.bulletins.append(text)
    elif text.startswith("Deleting message "):
        found.deleting += 1


# -- what is remembered of others --------------------------------------------------------------------------------------

class Past:
    """What is remembered of a user: recent sessions; the latest that listed messages; the latest that retrieved."""

    def __init__(self) -> None:
        self.recent: "collections.deque[Session]" = collections.deque(maxlen=MOST_RECENT)
        self.lister: "Session | None" = None
        self.messages: "dict[int, tuple[str, int, int]]" = {}
        self.retriever: "Session | None" = None
        self.retrieved: "set[str]" = set()

    @property
    def weight(self) -> int:
        return len(self.messages) + len(self.retrieved)


class History:
    """What is remembered of the sessions that have ended; table: those that have not."""

    def __init__(self, table: Sessions) -> None:
        self.table = table
        self.users: "collections.OrderedDict[str, Past]" = collections.OrderedDict()
        self.weight = 0

    def of(self, user: str) -> Past:
        """What is known of a user."""
        return self.users.get(user) or Past()

    def holder(self, session: Session, when: float, pid: int) -> "Session | None":
        """Who had the mailbox of a session then, by the number of its process, if that is known, or by its user."""
        others = [*self.table.open.values(), *reversed(self.of(session.user).recent)]
        fitting = [other for other in others
                   if other is not session and other.user == session.user and other.logged_in is not None
                   and other.logged_in <= when and (other.outcome == OPEN or other.last >= when)]
        named = next((other for other in fitting if other.process == pid), None)
        # The number may be that of a session's keeper, which no line has; but a session that has long been silent, and
        # has no end, was killed, and holds nothing.
        return named or next((other for other in fitting if not pid or when - other.last <= SILENT_MOST), None)

    def add(self, session: Session, found: Facts) -> None:
        """Remember a session that has been explained."""
        if not session.user:
            return
        past = self.users.pop(session.user, None) or Past()
        self.weight -= past.weight
        self.users[session.user] = past
        if session.logged_in is not None:
            past.recent.append(session)
        gone = found.gone(session)
        if found.messages:
            past.lister, past.messages = session, _left(found.messages, gone)
        if retrieved := found.finished(session):
            past.retriever = session
            past.retrieved = {key_of(found, each) for each in retrieved if each.number not in gone}
        self.weight += past.weight
        while len(self.users) > MOST_USERS or (self.weight > MOST_MESSAGES and len(self.users) > 1):
            self.weight -= self.users.popitem(last=False)[1].weight


def _left(messages: "dict[int, tuple[str, int, int]]", gone: "set[int]") -> "dict[int, tuple[str, int, int]]":
    """What is left of a list when some were deleted; what was behind these has another place now, -1."""
    first = min(gone, default=len(messages) + 1)
    return {number: (unique, offset if number < first else -1, octets)
            for number, (unique, offset, octets) in messages.items() if number not in gone}


def key_of(found: Facts, retrieval: Retrieval) -> str:
    """By what a message is known again."""
    unique, offset, octets = found.messages.get(retrieval.number, ("", 0, 0))
    return unique or (f"{offset} {octets}" if octets else f"{retrieval.number}: {retrieval.announced}")
