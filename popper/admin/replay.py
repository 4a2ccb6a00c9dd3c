"""The commands of a traced session said again to a server, and its replies held against those in the trace.

Of a reply the first line is compared. What may differ from server to server, or from day to day, is told apart: names
of hosts, numbers of processes and versions, unique-ids, counts. A password is never in a trace, and must be given.
"""

import contextlib
import getpass
import os
import re
import socket
import sys
import time

from popper.admin.console import Failed
from popper.admin.traces import OPEN, QUIT, Session
from popper.admin.traceview import CLIENT, SERVER, conversation

PATIENCE = 90.0                # seconds for a reply; Qpopper makes a wrong password wait for twenty
SILENCE = 2.0                  # seconds until no reply is taken for none where the trace has none either
LONGEST_REPLY = 65536          # octets of a line; more is nothing that a server says
MASK = "xxxxxxxxx"
TOO_LONG = "(line too long)"
# What kind of thing differs, as words; SAME and OTHER apart, a difference of these kinds is none.
SAME, OTHER = "same", "differs"
ADDRESS, PROCESS, VERSION, UNIQUE_ID, COUNT = "host", "process", "version", "unique-id", "count"

_ESCAPE = re.compile(r"\\x([0-9a-f]{2})", re.A)
_OCTET = re.compile(r"\\x([89a-f][0-9a-f])", re.A)      # what the reading of a trace makes of octets that are no text
_WORD = re.compile(r"<[^<>]*>|[\w.-]+|[^\w\s]", re.A)
_HOST = re.compile(r"(?=.*[A-Za-z])[\w-]+(?:\.[\w-]+)*", re.A)
_PLURALS = ("message", "messages", "octet", "octets")


class Step:
    """One command and what came back. command: as in the trace, "" for the greeting; pause: seconds before it; ours:
    whether the trace is popper's; reply: the first line of the reply, "" for none."""

    def __init__(self, command: str, pause: float, ours: bool = True) -> None:
        self.command = command
        self.pause = pause
        self.ours = ours
        self.reply = ""

    @property
    def words(self) -> "list[str]":
        """As a server takes it apart, in small letters."""
        return unescaped(self.command, self.ours).lower().split()


class Trouble(Exception):
    """The replay cannot go on; the text says why."""


def steps(session: Session) -> "list[Step]":
    """What was said in a session that kept its lines: the greeting, then every command."""
    found = [Step("", 0.0)]
    for turn in conversation(session):
        if turn["who"] == CLIENT:
            found.append(Step(turn["text"], sum(seconds for seconds, what in turn["waits"] if what == "client"),
                              session.ours))
        # Where a maildrop fails before its first octet the trace has a +OK that was never sent, then the -ERR that was.
        elif turn["who"] == SERVER and _is_reply(turn["text"], found[-1]):
            found[-1].reply = turn["text"]
    return found


def _is_reply(text: str, step: Step) -> bool:
    if " POP EOF" in text or " POP hangup" in text or " POP timeout" in text:
        return False                         # Qpopper says that to nobody any more
    return not step.reply or (text.startswith("-ERR ") and step.reply.startswith("+OK") and step.words[:1] != ["quit"])


def unescaped(command: str, ours: bool) -> str:
    """A command without what popper's trace writes for octets that cannot be shown. Qpopper's shows all as it came, so
    that a backslash there is one that the client sent."""
    return (_ESCAPE if ours else _OCTET).sub(lambda found: chr(int(found[1], 16)), command)


def octets_of(command: str, ours: bool = True) -> bytes:
    """What the client sent, out of how the trace shows it. Raises Trouble where that would be more than one line: no
    trace tells a backslash of the client's from its own, and who is traced must not command whoever replays it."""
    if command == TOO_LONG:
        return b"x" * 1100
    octets = unescaped(command, ours).encode("latin-1", "replace")
    if any(end in octets for end in (b"\r", b"\n", b"\0")):
        raise Trouble(f'"{command}" has an end of a line or a NUL in it; it is not said, and the rest is left out')
    return octets


def is_long(command: str) -> bool:
    """Whether a +OK to it is followed by lines, up to a dot."""
    words = command.lower().split()
    word = words[0] if words else ""
    return word in ("retr", "top", "capa") or (word in ("list", "uidl", "euidl", "auth") and len(words) == 1) or (
        word == "xtnd" and words[1:2] in (["xlst"], ["xlist"]))


class Connection:
    """Lines to a server, and first lines of replies back. Raises Trouble, OSError."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), PATIENCE)
        self.rest = b""

    def send(self, octets: bytes) -> None:
        try:
            self.socket.sendall(octets + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass                             # the reply will show it

    def reply(self, long: bool, patience: float = PATIENCE) -> str:
        """The first line of a reply, the other ones read over. "": none came, or the server has closed."""
        self.socket.settimeout(patience)
        try:
            first = self._line()
        except TimeoutError:
            if patience < PATIENCE:
                return ""
            raise Trouble(f"no reply within {PATIENCE:.0f} s") from None
        except ConnectionResetError:
            return ""
        if long and first.startswith(b"+OK"):
            while self._line() not in (b".", b""):
                pass
        return first.decode("latin-1")

    def take_back(self) -> None:
        """Say RSET, wherever the dialogue is, and read on until the server has closed: closing with anything unread
        could end its session before it has heard of it."""
        with contextlib.suppress(OSError):   # it is gone, or silent
            self.send(b"RSET")
            self.socket.settimeout(PATIENCE)
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(65536):
                pass

    def close(self) -> None:
        self.socket.close()

    def _line(self) -> bytes:
        """A line without its end; an empty one is b" ", the end of the connection b""."""
        while b"\n" not in self.rest:
            octets = self.socket.recv(65536)
            if not octets:
                return b""
            self.rest += octets
            if len(self.rest) > LONGEST_REPLY and b"\n" not in self.rest:
                raise Trouble("a line without an end came: this is no POP3 server")
        line, _, self.rest = self.rest.partition(b"\n")
        return line.rstrip(b"\r") or b" "


def dialogue(session: Session, connection: Connection, password: str, pace: bool = False, delete: bool = False):
    """Yield (command, reply in the trace, reply now, verdict) for each step. Raises Trouble when the two have parted.

    delete: whether QUIT is to delete; otherwise RSET is said before it, and before the end where no QUIT comes, as some
    servers delete then too (update_on_abort).
    """
    said, marked = steps(session), False
    greeting = connection.reply(False)
    yield "", said[0].reply, greeting, compared("", said[0].reply, greeting)
    try:
        for step in said[1:]:
            if pace:
                time.sleep(step.pause)
            if step.words[:2] == ["xtnd", "xmit"]:
                raise Trouble("XTND XMIT sends a message, whose text is not in the trace; the rest is left out")
            if step.words[:1] == ["quit"] and marked and not delete:
                marked = False
                _reset(connection)
            before, marked = marked, marked or step.words[:1] == ["dele"]
            now = yield from _said(step, connection, password)
            if now.startswith("-ERR"):
                marked = before
    finally:
        if marked and not delete:
            connection.take_back()
    if session.outcome != QUIT and marked and delete:
        raise Trouble("the session in the trace ended without QUIT, and so does this one: nothing is deleted, unless "
                      "the server does that then (update_on_abort)")


def _reset(connection: Connection) -> None:
    """Have the server forget what was marked, or raise Trouble."""
    connection.send(b"RSET")
    reply = connection.reply(False)
    if not reply.startswith("+OK"):
        raise Trouble(f"the server did not do RSET ({reply or 'no reply'}), and would delete at QUIT, which is left "
                      "out")


def _said(step: Step, connection: Connection, password: str):
    """Say one command, -> the reply; a login by APOP becomes one by USER and PASS, as its secret is not in the
    trace."""
    words, lines = step.words, [octets_of(step.command, step.ours)]
    if words[:1] == ["pass"]:
        lines = [b"PASS " + password.encode("utf-8", "surrogateescape")]
    elif words[:1] == ["apop"] and step.reply.startswith("+OK"):
        lines = [b"USER " + octets_of(step.command.split()[1], step.ours),
                 b"PASS " + password.encode("utf-8", "surrogateescape")]
    elif words[-1:] == [MASK]:
        lines = [lines[0].removesuffix(MASK.encode()).rstrip()]
    now = ""
    for line in lines:
        connection.send(line)
        now = connection.reply(is_long(step.command), PATIENCE if step.reply else SILENCE)
        if now.startswith("+ "):             # it asks for what the trace does not have
            connection.send(b"*")
            now = connection.reply(False)
    verdict = compared(step.command, step.reply, now)
    yield step.command, step.reply, now, verdict
    if step.reply and not now:
        raise Trouble("the server has closed the connection")
    if words[:1] in (["pass"], ["apop"]) and step.reply[:3] != now[:3]:
        raise Trouble("the login came out otherwise; what follows cannot be compared")
    return now


def compared(command: str, then: str, now: str) -> str:
    """SAME, or the kinds of differences that mean nothing, or OTHER."""
    then, now = then.rstrip(), now.rstrip()
    if then == now:
        return SAME
    before, after = _WORD.findall(then), _WORD.findall(now)
    if len(before) != len(after):
        return OTHER
    unique = command.lower().split()[:1] in (["uidl"], ["euidl"])
    kinds = {_kind(pair, at, unique, before) for at, pair in enumerate(zip(before, after)) if pair[0] != pair[1]}
    return OTHER if OTHER in kinds else ", ".join(sorted(kinds)) or OTHER


def _kind(pair: "tuple[str, str]", at: int, unique: bool, words: "list[str]") -> str:
    """What kind of difference two words make. at: where they stand among the words of the reply."""
    if all(word.startswith("<") for word in pair):
        return PROCESS
    if words[max(0, at - 1)] == "version":
        return VERSION
    if unique and at == 3:                   # + OK NUMBER UNIQUE-ID
        return UNIQUE_ID
    if all(word.isascii() and word.isdigit() for word in pair) or all(word in _PLURALS for word in pair):
        return COUNT
    if words[max(0, at - 1)] == "at" and all(_HOST.fullmatch(word) for word in pair):
        return ADDRESS
    return OTHER


# -- the command -------------------------------------------------------------------------------------------------------

def replay(session: Session, name: str, arguments: dict, console) -> int:
    """popperctl trace replay SESSION HOST:PORT, the session found; name: what it is called."""
    if session.outcome == OPEN:
        console.complain(f"the trace does not have the end of {name}")
    password = _password(arguments["--password-file"], session)
    server = arguments["HOST:PORT"]
    try:
        connection = Connection(*place(server))
    except OSError as error:
        raise Failed(f"{server}: {error.strerror or error}", os.EX_UNAVAILABLE) from None
    rows, trouble = [], ""
    try:
        with contextlib.closing(dialogue(session, connection, password, arguments["--pace"],
                                         arguments["--delete"])) as said:
            for command, then, now, verdict in said:
                rows.append({"command": command, "then": then or None, "now": now or None, "verdict": verdict})
                _tell(rows[-1], console)
    except Trouble as error:
        trouble = str(error)
    except OSError as error:
        trouble = f"{server}: {error.strerror or error}"
    finally:
        connection.close()
    differ = sum(row["verdict"] == OTHER for row in rows)
    console.document({"session": name, "server": server, "steps": rows, "differ": differ,
                      "trouble": trouble or None})
    if trouble:
        console.complain(trouble)
    console.say(f"{len(rows)} replies, {differ or 'none'} of them different", "red" if differ else "green")
    return os.EX_DATAERR if differ or trouble else os.EX_OK


def place(text: str) -> "tuple[str, int]":
    """HOST:PORT as the two; an IPv6 address stands in brackets. Raises Failed."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise Failed(f'"{text}" is not HOST:PORT', os.EX_USAGE)
    return host, int(port)


def _password(file: "str | None", session: Session) -> str:
    """What the client is to say after PASS, where it said any."""
    if file:
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:
            return lines.readline().rstrip("\r\n")
    if not any(step.words[:1] in (["pass"], ["apop"]) for step in steps(session)):
        return ""
    if not sys.stdin.isatty():
        raise Failed("no terminal to ask for the password on; name a file: --password-file FILE", os.EX_USAGE)
    return getpass.getpass(f"Password of {session.user}: ")


def _tell(row: dict, console) -> None:
    """What became of one command, for a person."""
    verdict, now = row["verdict"], row["now"] or "(nothing)"
    console.say(f"C: {row['command']}" if row["command"] else "(greeting)")
    if verdict == SAME:
        console.say(f"S: {now}")
        return
    colour = "red" if verdict == OTHER else ""
    console.say(f"S: {now}", colour)
    console.say(f"   {row['then'] or '(nothing)'}    in the trace: {verdict}", colour)
