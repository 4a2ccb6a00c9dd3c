"""One session, from the greeting to the end: octets in, lines, replies, octets out, and what the log says of it.

The dispatcher sees every line and every reply, so it alone traces and counts. The only place that catches whatever a
session may raise.
"""

import _signal
import os
import time

from popper import VERSION
from popper.account import Credentials, shown_name
from popper.channel import Channel
from popper.errors import AUTH, TEMPORARY, DropBroken, Flooded, HungUp, PeerGone, Refused, TimedOut
from popper.journal import Journal, masked
from popper.session import HALT, PASS, TRANSACTION, Session
from popper.tally import Tally
from popper.wire import TERMINATOR, TOO_LONG, Incoming, Lines, Reply, printable


class Server:
    """Serves one connection. login(credentials) -> Maildrop; submission(account) -> a factory of sinks, or None."""

    def __init__(self, channel: Channel, host: str, peer, login, options, log: Journal, submission=None) -> None:
        self.channel = channel
        self.session = Session(host)
        self.peer = peer
        self.login = login
        self.options = options
        self.log = log
        self.submission = submission
        self.lines = Lines()
        self.tally = channel.tally
        self.begun = time.monotonic()
        self.login_deadline = self.begun + options.login_timeout
        self.in_body = False
        self.mistakes = 0                    # replies -ERR that are the client's own fault, and what to say of them
        self.mistake = ""
        self.ending = "QUIT"                 # what ends it, for the trace

    def run(self, greeted: bool = False, started: str = "") -> None:
        """Hold the session. greeted: the greeting has been sent already; started: how, for the trace."""
        session = self.session
        try:
            try:
                _hear_signals()
                self._begin(greeted, started)
                while session.state != HALT:
                    self._answer(self._line())
                self._let_go()               # first the locks, then the sign-off: who reads it may come back at once
                self.channel.flush()
            finally:
                _ignore_signals()
        except DropBroken as trouble:
            self.ending = "the maildrop"
            self._last_words(Reply(False, trouble.text, trouble.code, str(trouble)))
        except Flooded as flood:
            self.ending = "a refusal"
            self._last_words(Reply(False, str(flood)))
        except HungUp as gone:
            self.ending = f"a {gone}"
            self._abort("POP hangup")
        except PeerGone:
            self.ending = "the client, without QUIT"
            self._abort("POP EOF or I/O Error")
        except TimedOut as silence:
            self.ending = "a timeout"
            limits = [self.options.timeout] + [self.options.login_timeout] * (session.state != TRANSACTION)
            seconds = min(filter(None, limits))
            self.log.notice(f"(v{VERSION}) Timeout ({seconds} secs) during nw {silence} from {self._who()}")
            self._abort("")
        except Exception as bug:             # one session's fault stays one session's; no locals: they hold secrets
            place = bug.__traceback__
            while place.tb_next:
                place = place.tb_next
            where = f"{os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}"
            self.ending = "an error of ours"
            self.log.critical(f"{self._who()}: internal error at {where}: {type(bug).__name__}: {bug}")
            self._last_words(Reply(False, "Internal error, closing.", TEMPORARY))
        finally:
            self._let_go()
            self._end()

    # -- lines and replies ---------------------------------------------------------------------------------------

    def _begin(self, greeted: bool, started: str) -> None:
        greeting = self.session.greeting()
        if greeted:
            self.tally.sent += len(greeting.status())
        else:
            self.channel.put(greeting.status())
        if self.log.debugging:
            self.log.debug(f'(v{VERSION}) Servicing request from "{self.peer.name}" at {self.peer.address}')
            if started:
                self.log.debug(started)
            self.log.debug(_text_of(greeting))

    def _line(self):
        """The next command line, or TOO_LONG. What is queued is sent before anything is waited for."""
        if self.session.state != TRANSACTION and time.monotonic() >= self.login_deadline:
            raise TimedOut("read")           # also for who never lets us wait
        line = self.lines.take()
        if line is None:
            self.channel.flush()
            deadline = self.channel.deadline()
            if self.session.state != TRANSACTION:
                deadline = self.login_deadline if deadline is None else min(deadline, self.login_deadline)
            while line is None:
                self.lines.feed(self.channel.read(deadline))
                line = self.lines.take()
                if line is None and self.lines.flooding:
                    raise Flooded("Input without a line end, closing.")
        if self.log.debugging:
            shown = "(line too long)" if line is TOO_LONG else printable(masked(line), 1024)
            self.log.debug(f'Received: "{shown}"')
        return line

    def _answer(self, line) -> None:
        session = self.session
        asked_password = session.state == PASS
        reply = session.receive(line)
        if isinstance(reply, Credentials):
            reply = self._log_in(reply)
        elif asked_password and session.state == HALT and reply.ok:
            self.peer.introduce(self.log, self.tally.spent)
            self.log.warning(f"Possible probe of account {shown_name(session.user)} from host {self.peer.name}"
                             f" ({self.peer.address})")
        if session.state == HALT and not reply.ok:
            self.ending = "a refusal"
        self._send(reply)
        if reply.sink is not None:
            self._send(self._collect(reply.sink))

    def _log_in(self, credentials: Credentials) -> Reply:
        self.channel.flush()
        try:
            drop = self.login(credentials)
        except Refused as refusal:
            return self.session.refused(refusal)
        if self.submission is not None:
            self.session.submission = self.submission(self.login.account)
        return self.session.opened(drop)

    def _send(self, reply: Reply) -> None:
        """Queue a reply. Its status line leaves with the first block of its body, and the dot with the last: when
        the store fails on the way the client never sees an end that looks like one."""
        self._record(reply)
        if reply.body is None:
            self.channel.put(reply.status())
            return
        body, sent = iter(reply.body), 0
        begun, waited = time.monotonic(), self.tally.spent["client"]
        block = next(body, None)             # before the status line: a store that fails here is an honest -ERR
        head = (reply.status(),)
        while block is not None:
            following = next(body, None)
            self.in_body = True
            if self.log.bodies:
                for line in block.split(b"\r\n"):
                    self.log.debug(f'Sending line "{printable(line, 1024)}"')
            self.channel.put(*head, block, *(() if following is not None else (TERMINATOR,)))
            sent += len(block)
            block, head = following, ()
        if head:
            self.channel.put(*head, TERMINATOR)
        self.in_body = False
        if self.log.debugging:
            self.log.debug(f"Sent {sent} octets in {time.monotonic() - begun:.3f} s,"
                           f" {self.tally.spent['client'] - waited:.3f} s of it waiting for the client")

    def _collect(self, sink) -> Reply:
        """Take in the text of XTND XMIT; nothing of it is sent when it does not end."""
        self.channel.flush()
        text = Incoming()
        octets = self.lines.rest()
        try:
            while True:
                sink.write(text.feed(octets))
                if text.done:
                    break
                octets = self.channel.read(self.channel.deadline())
            self.lines.feed(text.rest)
            if self.log.debugging:
                self.log.debug(f'Pop transmit from "{shown_name(self.session.user)}" on "{self.peer.name}"'
                               f": {sink.octets} octets")
            return self.session.submitted(sink)
        finally:
            sink.abandon()

    # -- what the log says ---------------------------------------------------------------------------------------

    def _record(self, reply: Reply) -> None:
        """Log a reply. Trouble of ours is told at once; what a client did wrong, once for the whole session."""
        if not reply.ok and (reply.code or reply.reason):
            told = reply.reason and reply.code != AUTH
            reason = f" ({printable(reply.reason.encode('utf-8', 'replace'), 512)})" if told else ""
            self.log.notice(f"{self._who()}: {_text_of(reply)}{reason}")
        elif not reply.ok and (not self.mistakes or self.session.state == HALT):
            self.mistake = _text_of(reply)
        if self.log.debugging:
            self.log.debug(_text_of(reply))
        self.mistakes += not reply.ok and not reply.code and not reply.reason

    def _who(self) -> str:
        return f"{shown_name(self.session.user) or '(null)'} at {self.peer.name} ({self.peer.address})"

    def _last_words(self, reply: Reply) -> None:
        """Say why, if the client is between replies, and let go. After part of a body: silence, and no dot."""
        self.session.state = HALT
        self._record(reply)
        try:
            if not self.in_body:
                self.channel.put(reply.status())
            self.channel.flush()
        except (PeerGone, TimedOut):
            pass

    def _abort(self, why: str) -> None:
        """The client went without QUIT, or was cut off: nothing is sent, nothing deleted unless the site has it so."""
        if why and self.session.state == TRANSACTION:
            self.log.notice(f"{self._who()}: -ERR {why}")
        try:
            self.session.aborted(self.options.update_on_abort)
        except (Refused, DropBroken) as trouble:
            self.log.notice(f"{self._who()}: -ERR POP mailbox update failed. ({trouble})")

    def _let_go(self) -> None:
        """Log what UPDATE did, and give the maildrop back."""
        session, drop, tally = self.session, self.session.drop, self.tally
        if drop is None:
            return
        session.drop = None
        if self.log.debugging and session.updated:
            for number in sorted(drop.deleted):
                entry = drop.entries[number - 1]
                self.log.debug(f"Deleting message {number} at offset {entry.offset} of length {entry.octets}")
        drop.close()
        for note in drop.store.notes:
            self.log.warning(note)
        if session.updated is not None and self.options.statistics:
            if session.updated:
                tally.deleted, tally.deleted_octets = len(drop.deleted), drop.total - drop.octets
            tally.left, tally.left_octets = len(drop.entries) - tally.deleted, drop.total - tally.deleted_octets
            self.log.notice(tally.stats(drop.user, self.peer.name, self.peer.address))

    def _end(self) -> None:
        self.channel.close()                 # the client need not wait for what follows
        self.peer.introduce(self.log, self.tally.spent)
        if self.mistakes:
            more = f" (and {self.mistakes - 1} more)" if self.mistakes > 1 else ""
            self.log.notice(f"{self._who()}: {self.mistake}{more}")
        if self.log.debugging:
            user = shown_name(self.session.user) or "(null)"
            self.log.debug(f'(v{VERSION}) Ending request from "{user}" at ({self.peer.name}) {self.peer.address}: '
                           f"{self.tally.received} octets received, {self.tally.sent} sent")
            spent = ", ".join(f"{what} {seconds:.3f}" for what, seconds in self.tally.spent.items())
            self.log.debug(f"Ended by {self.ending}; seconds: {spent}, all {time.monotonic() - self.begun:.3f}")


SIGNALS = (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGINT)


def _hear_signals() -> None:
    """Let the signals that end a process end the session like a broken connection, its locks given back."""
    def hang_up(number, frame):
        _ignore_signals()
        raise HungUp(f"signal {number}")

    for number in SIGNALS:
        _signal.signal(number, hang_up)


def _ignore_signals() -> None:
    for number in SIGNALS:
        _signal.signal(number, _signal.SIG_IGN)


def _text_of(reply: Reply) -> str:
    return reply.status().decode("ascii").rstrip("\r\n")
