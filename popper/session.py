"""The protocol: states, the command table, one short function for each command.

All that changes the state is in this file. This file knows no descriptor, path, clock or uid: it is given lines and
a maildrop, and gives back replies.
"""

from popper import VERSION, greeting, wire, xtnd
from popper.account import LONGEST_NAME, Credentials
from popper.errors import DropBroken, Refused
from popper.maildrop import Maildrop
from popper.wire import Reply, printable

USER, PASS = "wants USER", "wants PASS"      # AUTHORIZATION
TRANSACTION = "TRANSACTION"
HALT = "over"
MOST_WORDS = 5                 # a command and four arguments, as the original took them
MOST_BAD = 20                  # commands in a row that are no commands, after which the connection is closed

CAPABILITIES = ("TOP", "USER", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER",
                f"IMPLEMENTATION popper-{VERSION}")


class Session:
    """One session. host: our name in greeting and sign-off. submission: makes the sink for XTND XMIT, or None.

    receive(line) -> Reply, or Credentials for a PASS: then it is the caller's turn to say `opened` or `refused`.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.state = USER
        self.user = b""
        self.drop: "Maildrop | None" = None
        self.submission = None
        self.bad = 0
        self.updated: "bool | None" = None   # whether UPDATE was entered, and did what was asked

    def greeting(self) -> Reply:
        return Reply(True, greeting(self.host))

    def receive(self, line) -> "Reply | Credentials":
        """Answer one command line, or wire.TOO_LONG in place of one. Raises DropBroken when the maildrop is lost."""
        try:
            row, arguments = self._look_up(line)
        except Refused as complaint:
            self.bad += 1
            if self.bad >= MOST_BAD:
                self.state = HALT
                return Reply(False, "Too many bad commands, closing.")
            return Reply(False, complaint.text)
        self.bad = 0
        try:
            reply = row.handler(self, arguments)
        except Refused as refusal:
            self.state = row.otherwise
            return Reply(False, refusal.text, refusal.code, refusal.reason)
        if isinstance(reply, Reply):
            self.state = row.then or self.state
        return reply

    def opened(self, drop: Maildrop) -> Reply:
        """The login succeeded: locks held, maildrop in hand."""
        self.drop = drop
        self.state = TRANSACTION
        return Reply(True, f"{printable(self.user)} has {drop.count} message(s) ({drop.octets} octets).")

    def refused(self, refusal: Refused) -> Reply:
        """The login failed, and with it the session."""
        self.state = HALT
        text = refusal.text or f'Password supplied for "{printable(self.user)}" is incorrect.'
        return Reply(False, text, refusal.code, refusal.reason)

    def submitted(self, sink) -> Reply:
        """The text of XTND XMIT is complete."""
        try:
            sink.send()
        except Refused as refusal:
            return Reply(False, refusal.text, refusal.code, refusal.reason)
        return Reply(True, "Message sent successfully")

    def aborted(self, update: bool) -> None:
        """The session ended without QUIT. Nothing is deleted (RFC 1939.6), unless the site has it so."""
        if self.state == TRANSACTION and update:
            self.update()
        self.state = HALT

    def update(self) -> None:
        """Enter UPDATE; raises Refused or DropBroken when the deletions could not be made."""
        self.updated = False
        self.drop.update()
        self.updated = True

    def number(self, word: bytes) -> int:
        """The number a client means, or Refused; whether there is such a message is the maildrop's to say."""
        number = wire.number(word)
        if number is None:
            raise Refused(f'"{printable(word)}" is not a message number.')
        return number

    def _look_up(self, line) -> "tuple[Row, list[bytes]]":
        if line is wire.TOO_LONG:
            raise Refused(f"Command line too long (more than {wire.LONGEST_LINE} octets).")
        words = line.split()
        word = words[0].lower() if words else b""
        row = next((row for row in COMMANDS.get(word, ()) if self.state in row.states), None)
        if row is None:
            raise Refused(f'Unknown command: "{printable(word)}".')
        if row.verbatim:
            rest = line.lstrip()[len(word) + 1:]
            arguments = [rest] if rest else []
        else:
            arguments = words[1:]
            if len(words) > MOST_WORDS:
                raise Refused("Too many arguments supplied.")
        _check_count(word, len(arguments), row.least, row.most)
        return row, arguments


class Row:
    """A command in a state: how many arguments, who answers, and the state after +OK and after -ERR; None: the same."""

    __slots__ = ("word", "states", "least", "most", "handler", "then", "otherwise", "verbatim")

    def __init__(self, word, states, least, most, handler, then, otherwise, verbatim=False) -> None:
        self.word = word
        self.states = states
        self.least = least
        self.most = most
        self.handler = handler
        self.then = then
        self.otherwise = otherwise
        self.verbatim = verbatim             # the rest of the line is one argument, spaces and all


def _check_count(word: bytes, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        few = "few" if count < least else "many"
        raise Refused(f"Too {few} arguments for the {printable(word)} command.")


# -- AUTHORIZATION -------------------------------------------------------------------------------------------------

def user(session: Session, arguments) -> Reply:
    if len(arguments[0]) > LONGEST_NAME:
        raise Refused(f"User name too long (more than {LONGEST_NAME} octets).")
    session.user = arguments[0]
    return Reply(True, f"Password required for {printable(session.user)}.")


def pass_(session: Session, arguments) -> Credentials:
    return Credentials(session.user, arguments[0])


def rpop(session: Session, arguments) -> Reply:
    raise Refused("Permission denied.")      # trust in port numbers lets nobody in (RFC 1225 aside)


def leave(session: Session, arguments) -> Reply:
    return sign_off(session)


def capa(session: Session, arguments) -> Reply:
    return Reply(True, "Capability list follows", body=wire.blocks_of(
        f"{capability}\r\n".encode() for capability in CAPABILITIES))


# -- TRANSACTION ---------------------------------------------------------------------------------------------------

def stat(session: Session, arguments) -> Reply:
    return Reply(True, f"{session.drop.count} {session.drop.octets}")


def list_(session: Session, arguments) -> Reply:
    drop = session.drop
    if arguments:
        number = session.number(arguments[0])
        return Reply(True, f"{number} {drop.entry(number).octets}")
    return Reply(True, f"{drop.count} messages ({drop.octets} octets)", body=wire.blocks_of(
        b"%d %d\r\n" % (number, entry.octets) for number, entry in drop.listed()))


def retr(session: Session, arguments) -> Reply:
    number = session.number(arguments[0])
    entry = session.drop.retrieve(number)
    return Reply(True, f"{entry.octets} octets", body=wire.outgoing(session.drop.store.read(entry)))


def top(session: Session, arguments) -> Reply:
    entry = session.drop.entry(session.number(arguments[0]))
    lines = wire.number(arguments[1])
    if lines is None:
        raise Refused(f'"{printable(arguments[1])}" is not a number of lines.')
    return Reply(True, "Message follows", body=wire.top(wire.outgoing(session.drop.store.read(entry)), lines))


def dele(session: Session, arguments) -> Reply:
    number = session.number(arguments[0])
    session.drop.delete(number)
    return Reply(True, f"Message {number} has been deleted.")


def noop(session: Session, arguments) -> Reply:
    return Reply(True, "")


def rset(session: Session, arguments) -> Reply:
    session.drop.reset()
    return Reply(True, f"Maildrop has {session.drop.count} messages ({session.drop.octets} octets)")


def last(session: Session, arguments) -> Reply:
    return Reply(True, f"{session.drop.last} is the last message seen.")


def uidl(session: Session, arguments) -> Reply:
    drop = session.drop
    if arguments:
        number = session.number(arguments[0])
        return Reply(True, f"{number} {drop.unique_id(number).decode()}")
    ids = drop.unique_ids()
    return Reply(True, "uidl command accepted.", body=wire.blocks_of(
        b"%d %s\r\n" % (number, ids[number - 1]) for number, _ in drop.listed()))


def xtnd_(session: Session, arguments) -> Reply:
    word, *rest = arguments
    if word.lower() not in xtnd.WORDS:
        raise Refused(f'Unknown command: "xtnd {printable(word.lower())}".')
    least, most, handler = xtnd.WORDS[word.lower()]
    _check_count(b"xtnd " + word.lower(), len(rest), least, most)
    return handler(session, rest)


def quit_(session: Session, arguments) -> Reply:
    """UPDATE; the sign-off follows it, so its arrival means that the deletions are made (ucb-popper.md 2.4)."""
    try:
        session.update()
    except DropBroken as trouble:
        raise Refused(trouble.text, trouble.code, str(trouble)) from trouble
    return sign_off(session)


def sign_off(session: Session) -> Reply:
    return Reply(True, f"Pop server at {session.host} signing off.")


#        word     states           least most handler  after +OK    after -ERR   verbatim
_ROWS = (
    Row(b"user", (USER, PASS),        1, 1,  user,     PASS,        USER),
    Row(b"pass", (PASS,),             1, 1,  pass_,    TRANSACTION, HALT,        True),
    Row(b"rpop", (PASS,),             1, 1,  rpop,     USER,        USER),
    Row(b"quit", (USER, PASS),        0, 0,  leave,    HALT,        HALT),
    Row(b"capa", (USER, PASS),        0, 0,  capa,     None,        None),
    Row(b"stat", (TRANSACTION,),      0, 0,  stat,     TRANSACTION, TRANSACTION),
    Row(b"list", (TRANSACTION,),      0, 1,  list_,    TRANSACTION, TRANSACTION),
    Row(b"retr", (TRANSACTION,),      1, 1,  retr,     TRANSACTION, TRANSACTION),
    Row(b"dele", (TRANSACTION,),      1, 1,  dele,     TRANSACTION, TRANSACTION),
    Row(b"noop", (TRANSACTION,),      0, 0,  noop,     TRANSACTION, TRANSACTION),
    Row(b"last", (TRANSACTION,),      0, 0,  last,     TRANSACTION, TRANSACTION),
    Row(b"rset", (TRANSACTION,),      0, 0,  rset,     TRANSACTION, TRANSACTION),
    Row(b"top",  (TRANSACTION,),      2, 2,  top,      TRANSACTION, TRANSACTION),
    Row(b"uidl", (TRANSACTION,),      0, 1,  uidl,     TRANSACTION, TRANSACTION),
    Row(b"xtnd", (TRANSACTION,),      1, 99, xtnd_,    TRANSACTION, TRANSACTION),
    Row(b"capa", (TRANSACTION,),      0, 0,  capa,     TRANSACTION, TRANSACTION),
    Row(b"quit", (TRANSACTION,),      0, 0,  quit_,    HALT,        HALT),
)
COMMANDS: "dict[bytes, list[Row]]" = {}
for _row in _ROWS:
    COMMANDS.setdefault(_row.word, []).append(_row)
