"""One session on a connection: octets in, replies out, locks given back at the end. The only place that catches
whatever a session may raise.
"""

import _signal
import os
import time

from popper.account import Credentials, shown_name
from popper.channel import Channel
from popper.conversation import Conversation
from popper.errors import TEMPORARY, Denied, DropBroken, Flooded, HungUp, PeerGone, Refused, TimedOut
from popper.journal import Journal
from popper.session import HALT, PASS, TRANSACTION
from popper.wire import TERMINATOR, TOO_LONG, Incoming, Reply, printable


class Server:
    """Serves one connection. login(credentials) -> Maildrop; submission(account) -> a factory of sinks, or None.

    answers_refusals: who is not let in is told so from here, `fail_delay` after his password came; else somebody else
    tells him, who finds `refusal`. opened(): called when the maildrop is in hand. beat(state, received, sent): called
    before each wait for the client.
    """

    def __init__(self, channel: Channel, host: str, peer, login, options, log: Journal, submission=None,
                 answers_refusals: bool = True, beat=None, opened=lambda: None) -> None:
        self.channel = channel
        self.tally = channel.tally
        self.talk = Conversation(host, peer, log, lambda: peer.introduce(log, self.tally.spent))
        self.session = self.talk.session
        self.peer = peer
        self.login = login
        self.options = options
        self.log = log
        self.submission = submission
        self.answers_refusals = answers_refusals
        self.refusal: "Refused | None" = None            # why the login failed
        self.beat = beat
        self.opened = opened
        self.begun = time.monotonic()
        self.login_deadline = self.begun + options.login_timeout
        self.in_body = False
        self.may_read = answers_refusals     # else this may be root, until somebody has logged in

    def run(self, greeted: bool = False, started: str = "") -> None:
        """Hold the session. greeted: the greeting has been sent already; started: how, for the trace."""
        self._hold(lambda: self._begin(greeted, started))

    def resume(self, handed) -> None:
        """Hold what is left of a session whose AUTHORIZATION was spoken elsewhere. handed: a handover.Login."""
        self._hold(lambda: self._go_on(handed))

    def _hold(self, begin) -> None:
        try:
            try:
                _hear_signals()
                begin()
                while self.session.state != HALT:
                    self._answer(self._line())
                self._let_go()               # first the locks, then the sign-off: who reads it may come back at once
                self.channel.flush()
            finally:
                _ignore_signals()
        except DropBroken as trouble:
            self.talk.ending = "the maildrop"
            self._last_words(Reply(False, trouble.text, trouble.code, str(trouble)))
        except Flooded as flood:
            self.talk.ending = "a refusal"
            self._last_words(Reply(False, str(flood)))
        except HungUp as gone:
            self.talk.ending = f"a {gone}"
            self._abort("POP hangup")
        except (PeerGone, TimedOut) as trouble:
            if self.session.state == HALT and self.talk.ending == "QUIT":
                pass                         # all is done; only the sign-off was not waited for
            elif isinstance(trouble, PeerGone):
                self.talk.ending = "the client, without QUIT"
                self._abort("POP EOF or I/O Error")
            else:
                self.talk.timed_out(str(trouble), self._limit())
                self._abort("")
        except Exception as bug:             # one session's fault stays one session's; no locals: they hold secrets
            place = bug.__traceback__
            while place.tb_next:
                place = place.tb_next
            where = f"{os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}"
            self.talk.ending = "an error of ours"
            self.log.critical(f"{self.talk.who()}: internal error at {where}: {type(bug).__name__}: {bug}")
            self._last_words(Reply(False, "Internal error, closing.", TEMPORARY))
        finally:
            self._let_go()
            self._end()

    # -- lines and replies ---------------------------------------------------------------------------------------

    def _begin(self, greeted: bool, started: str) -> None:
        greeting = self.talk.greeting(started)
        if greeted:
            self.tally.sent += len(greeting.status())
        else:
            self.channel.put(greeting.status())

    def _go_on(self, handed) -> None:
        """From the password on."""
        self.begun -= handed.seconds
        self.tally.received, self.tally.sent = handed.received, handed.sent
        self.tally.spent["client"] = handed.seconds
        self.talk.lines.feed(handed.rest)
        self.talk.mistakes, self.talk.mistake = handed.mistakes, handed.mistake
        self.session.user, self.session.state = handed.user, PASS
        self._send(self._log_in(Credentials(handed.user, handed.password)))

    def _limit(self) -> int:
        """Seconds that the client could take, at most."""
        limits = [self.options.timeout] + [self.options.login_timeout] * (self.session.state != TRANSACTION)
        return min(filter(None, limits))

    def _line(self):
        """The next command line, or TOO_LONG. What is queued is sent before anything is waited for."""
        if self.session.state != TRANSACTION and time.monotonic() >= self.login_deadline:
            raise TimedOut("read")           # also for who never lets us wait
        line = self.talk.line()
        if line is None:
            self.channel.flush()
            if self.beat:
                self.beat(self.session.state, self.tally.received, self.tally.sent)
            deadline = self.channel.deadline()
            if self.session.state != TRANSACTION:
                deadline = self.login_deadline if deadline is None else min(deadline, self.login_deadline)
            while line is None:
                self.talk.lines.feed(self.channel.read(deadline))
                line = self.talk.line()
        return line

    def _answer(self, line) -> None:
        if self.beat and self.session.state == TRANSACTION and line is not TOO_LONG and line[:4].lower() == b"quit":
            self.beat("UPDATE", self.tally.received, self.tally.sent)
        reply = self.talk.answer(line)
        if isinstance(reply, Credentials):
            reply = self._log_in(reply)
        self._send(reply)
        if reply.sink is not None:
            self._send(self._collect(reply.sink))

    def _log_in(self, credentials: Credentials) -> Reply:
        begun = time.monotonic()
        self.channel.flush()
        try:
            drop = self.login(credentials)
        except Refused as refusal:
            self.refusal = refusal
            if self.answers_refusals and isinstance(refusal, Denied):      # each as late, whatever its cause
                time.sleep(max(0.0, begun + self.options.fail_delay - time.monotonic()))
            self.talk.ending = "a refusal"
            return self.session.refused(refusal)
        self.may_read = True
        self.opened()
        if self.submission is not None:
            self.session.submission = self.submission(self.login.account)
        return self.session.opened(drop)

    def _send(self, reply: Reply) -> None:
        """Queue a reply. Its status line leaves with the first block of its body, and the dot with the last: when
        the store fails on the way the client never sees an end that looks like one."""
        self.talk.record(reply)
        if self.refusal and not self.answers_refusals:
            return
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
        octets = self.talk.lines.rest()
        try:
            while True:
                sink.write(text.feed(octets))
                if text.done:
                    break
                octets = self.channel.read(self.channel.deadline())
            self.talk.lines.feed(text.rest)
            if self.log.debugging:
                self.log.debug(f'Pop transmit from "{shown_name(self.session.user)}" on "{self.peer.name}"'
                               f": {sink.octets} octets")
            return self.session.submitted(sink)
        finally:
            sink.abandon()

    # -- the end -------------------------------------------------------------------------------------------------

    def _last_words(self, reply: Reply) -> None:
        """Say why, if the client is between replies, and let go. After part of a body: silence, and no dot."""
        self.session.state = HALT
        self.talk.record(reply)
        try:
            if not self.in_body:
                self.channel.put(reply.status())
            self.channel.flush()
        except (PeerGone, TimedOut):
            pass

    def _abort(self, why: str) -> None:
        """The client went without QUIT, or was cut off: nothing is sent, nothing deleted unless the site has it so."""
        if why and self.session.state == TRANSACTION:
            self.log.notice(f"{self.talk.who()}: -ERR {why}")
        try:
            self.session.aborted(self.options.update_on_abort)
        except (Refused, DropBroken) as trouble:
            self.log.notice(f"{self.talk.who()}: -ERR POP mailbox update failed. ({trouble})")

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
        if not self.refusal or self.answers_refusals:
            self.channel.close(self.may_read)            # the client need not wait for what follows
        tally = self.tally
        self.log.concerns(shown_name(self.session.user))           # who never came as far as a password, too
        self.talk.end(tally.received, tally.sent, tally.spent, time.monotonic() - self.begun)


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
