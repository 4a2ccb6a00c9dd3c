"""What is said in a session: lines out of octets, replies to them, and what the log says of both.

Every line and every reply of every state passes here, so this alone traces them and counts mistakes. Knows no
descriptor and no clock: `serve` waits for octets and sends them, and so does `stranger`, each in its own way.
"""

from popper import VERSION
from popper.account import Credentials, shown_name
from popper.errors import AUTH, Flooded
from popper.journal import HIDDEN, SECRET_FROM, masked
from popper.session import COMMANDS, HALT, PASS, USER, Session
from popper.wire import TOO_LONG, Lines, Reply, printable


class Conversation:
    """The session, its input, and its log. peer: has address and name; log: a Journal or Notes; introduce: called
    before the peer's name is needed for the log."""

    def __init__(self, host: str, peer, log, introduce=lambda: None) -> None:
        self.session = Session(host)
        self.peer = peer
        self.log = log
        self.introduce = introduce
        self.lines = Lines()
        self.mistakes = 0                    # replies -ERR that are the client's own fault, and what to say of them
        self.mistake = ""
        self.secret = False                  # whether what is being answered may be a password
        self.after_auth = False              # whether it was AUTH before: who asked has no ear for our answer
        self.ending = "QUIT"                 # what ended it, for the trace

    def greeting(self, started: str = "") -> Reply:
        """started: how the server was started, for the trace."""
        greeting = self.session.greeting()
        if self.log.debugging:
            self.log.debug(f'(v{VERSION}) Servicing request from "{self.peer.address}" at {self.peer.address}')
            if started:
                self.log.debug(started)
            self.log.debug(text_of(greeting))
        return greeting

    def line(self) -> "bytes | object | None":
        """The next command line, or TOO_LONG, or None: more octets are to be fed to `lines`. Raises Flooded."""
        line = self.lines.take()
        if line is None:
            if self.lines.flooding:
                raise Flooded("Input without a line end, closing.")
        elif self.log.debugging:
            # A backslash too: what is shown can then be told back to a server.
            shown = "(line too long)" if line is TOO_LONG else printable(
                self._shown(line).replace(b"\\", b"\\x5c"), 1024)
            self.log.debug(f'Received: "{shown}"')
        return line

    def _shown(self, line: bytes) -> bytes:
        """A line as it may be logged."""
        if self._may_be_secret(line):
            return HIDDEN
        words, state = line.split(None, 1), self.session.state
        if len(words) > 1 and _word(line) not in SECRET_FROM and (
                state == PASS or state == USER and _word(line) not in COMMANDS):
            return words[0] + b" " + HIDDEN  # a password may begin with any word
        return masked(line)

    def _may_be_secret(self, line) -> bool:
        """Whether a line that is no command may be a password all the same: mistyped, or sent to who did not ask."""
        state = self.session.state
        if line is TOO_LONG or state not in (USER, PASS):
            return False
        word = _word(line)
        if not word or word in COMMANDS or word in SECRET_FROM:
            return False
        return state == PASS or self.after_auth or word[:1] == b"p" or b"pass" in line.lower()

    def answer(self, line) -> "Reply | Credentials":
        """Answer a line; Credentials: it is the caller's turn to log in. What is sent is to be passed to `record`."""
        session = self.session
        asked_password = session.state == PASS
        self.secret = self._may_be_secret(line)
        word = b"" if line is TOO_LONG else _word(line)
        self.after_auth = word == b"auth" or self.after_auth and word not in COMMANDS
        reply = session.receive(line)
        if asked_password and session.state == HALT and reply.ok:
            self.introduce()
            self.log.warning(f"Possible probe of account {shown_name(session.user)} from host {self.peer.name}"
                             f" ({self.peer.address})")
        if session.state == HALT and not reply.ok:
            self.ending = "a refusal"
        return reply

    def record(self, reply: Reply) -> None:
        """Log a reply. Trouble of ours is told at once; what a client did wrong, once for the whole session."""
        if not reply.ok and (reply.code or reply.reason):
            told = reply.reason and reply.code != AUTH
            reason = f" ({printable(reply.reason.encode('utf-8', 'replace'), 512)})" if told else ""
            self.log.notice(f"{self.who()}: {text_of(reply)}{reason}")
        elif not reply.ok and (not self.mistakes or self.session.state == HALT):
            self.mistake = self._text(reply)
        if self.log.debugging:
            self.log.debug(self._text(reply))
        self.mistakes += not reply.ok and not reply.code and not reply.reason

    def _text(self, reply: Reply) -> str:
        """A reply as it is logged: one that repeats what may be a password does not."""
        text = text_of(reply)
        begin, quote, _ = text.partition('"')
        return f'{begin}"{HIDDEN.decode()}".' if self.secret and quote and not reply.ok else text

    def timed_out(self, silence: str, seconds: int) -> None:
        """silence: "read" or "write"; seconds: the limit that was passed."""
        self.ending = "a timeout"
        self.log.notice(f"(v{VERSION}) Timeout ({seconds} secs) during nw {silence} from {self.who()}")

    def end(self, received: int, sent: int, spent: "dict[str, float]", seconds: float) -> None:
        """The last lines. received, sent: octets; spent: seconds, by what for; seconds: all of them."""
        self.introduce()
        if self.mistakes:
            more = f" (and {self.mistakes - 1} more)" if self.mistakes > 1 else ""
            self.log.notice(f"{self.who()}: {self.mistake}{more}")
        if self.log.debugging:
            user = shown_name(self.session.user) or "(null)"
            self.log.debug(f'(v{VERSION}) Ending request from "{user}" at ({self.peer.name}) {self.peer.address}: '
                           f"{received} octets received, {sent} sent")
            times = ", ".join(f"{what} {each:.3f}" for what, each in spent.items())
            self.log.debug(f"Ended by {self.ending}; seconds: {times}, all {seconds:.3f}")

    def who(self) -> str:
        return f"{shown_name(self.session.user) or '(null)'} at {self.peer.name} ({self.peer.address})"


def _word(line: bytes) -> bytes:
    """The word of a command line, in lower case."""
    return b"".join(line.split(None, 1)[:1]).lower()


def text_of(reply: Reply) -> str:
    """The status line of a reply, as it is logged."""
    return reply.status().decode("ascii").rstrip("\r\n")
