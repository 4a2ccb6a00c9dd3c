"""AUTHORIZATION, spoken by a process with nothing to lose: no mailbox, no password file, no root (privilege.confine).

A front holds thousands of connections in one loop, or, under a super-server, one. When a password comes it is handed
over with all that was read and not used, and somebody else finds out whether it is right. The connection is then let
alone until it is heard what came of that: a login that failed is answered from here, late, and holds nobody up.
"""

import _heapq as heapq          # heapq's own text is slower to read than all of ours that needs it
import _signal
import _socket
import os
import select
import struct
import time

from popper import handover
from popper.account import Credentials
from popper.channel import READ_MOST, after, end_connection
from popper.conversation import Conversation
from popper.errors import Flooded, Refused
from popper.handover import FROM_PROXY, LIVE, NOTED, pack, unpack
from popper.journal import NAME, Notes
from popper.peer import Peer
from popper.session import HALT
from popper.tally import Tally
from popper.wire import TERMINATOR, Reply

LAST_WORDS = 5                 # seconds to take what was sent before a refusal, and that
UNSENT_MOST = 16384            # octets of replies that wait for a client to read them, before no more is read of it
IN, OUT = select.POLLIN, select.POLLOUT      # epoll's have the same values


class Stranger:
    """A connection whose client nobody knows yet."""

    __slots__ = ("number", "source", "sink", "talk", "begun", "login_deadline", "deadline", "received", "sent",
                 "unsent", "header", "credentials", "handed", "leaving", "live", "events")

    def __init__(self, number: int, source: int, sink: int, talk: Conversation, login_timeout: int) -> None:
        self.number = number
        self.source = source
        self.sink = sink
        self.talk = talk
        self.begun = time.monotonic()
        self.login_deadline = self.begun + login_timeout
        self.deadline = self.login_deadline  # when something must have come, or have been taken
        self.received = self.sent = 0
        self.unsent: "list[bytes]" = []
        self.header = None                   # a proxy.Header that is still being read
        self.credentials: "Credentials | None" = None    # that are handed over when all is sent
        self.handed = False                  # it is with somebody else; what is to be heard of that is awaited
        self.leaving = False                 # it has only to take what it was sent
        self.live = False                    # lines for the log are told at once
        self.events = 0                      # what is waited for


class Front:
    """The loop. line: a socket to whoever gives connections and takes logins; alone: there will be no others."""

    def __init__(self, options, host: str, line, alone: bool = False) -> None:
        self.options = options
        self.host = host
        self.line = line
        self.alone = alone
        self.ending = alone                  # when the last stranger has gone
        self.started = ""                    # how, for the trace
        self.strangers: "dict[int, Stranger]" = {}       # by number
        self.by_descriptor: "dict[int, Stranger]" = {}
        self.due: "list[tuple[float, int]]" = []         # heap of (when to look again, number)
        self.refusals: "dict[int, Reply]" = {}           # what a stranger is to be told when its time has come
        # Files, as standard input may be one, are poll's; epoll's cost does not grow with the silent ones.
        self.poll = select.poll() if alone or not hasattr(select, "epoll") else select.epoll()
        self.scale = 1000 if isinstance(self.poll, type(select.poll())) else 1
        self.poll.register(line.fileno(), IN)

    def run(self) -> None:
        """Until the last one has gone, or whoever gives connections has."""
        for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
            _signal.signal(number, _signal.SIG_IGN)      # these are for whoever holds the other end of the line
        while self.strangers or not self.ending:
            now = time.monotonic()
            wait = max(0.0, self.due[0][0] - now) * self.scale if self.due else None
            for fd, event in self.poll.poll(wait):
                if fd == self.line.fileno():
                    if not self._hear_line():
                        return
                elif fd in self.by_descriptor:
                    self._guarded(self._attend, self.by_descriptor[fd], event)
            self._look_at_clock()

    def add(self, number: int, source: int, sink: int, address: str, port: int, flags: int,
            greeted: bool = False) -> None:
        """A new connection."""
        notes = Notes(bool(flags & (LIVE | NOTED)))
        peer = Peer(address, port)
        peer.name = NAME
        stranger = Stranger(number, source, sink, Conversation(self.host, peer, notes), self.options.login_timeout)
        stranger.live = bool(flags & LIVE)
        self.strangers[number] = self.by_descriptor[source] = self.by_descriptor[sink] = stranger
        if flags & FROM_PROXY:
            from popper.proxy import Header  # imported before the root directory was left: `preload`
            stranger.header = Header()
            self._await(stranger)
        else:
            self.greet(stranger, greeted)

    def greet(self, stranger: Stranger, greeted: bool = False) -> None:
        status = stranger.talk.greeting(self.started).status()
        if greeted:
            stranger.sent += len(status)
        else:
            stranger.unsent.append(status)
        self._guarded(self._converse, stranger)

    # -- the line ------------------------------------------------------------------------------------------------

    def _hear_line(self) -> bool:
        """Do what is asked for; false when nobody asks any more."""
        for _ in range(64):
            try:
                octets, passed, _, _ = self.line.recvmsg(handover.LARGEST, _socket.CMSG_SPACE(4),
                                                         _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not octets:
                return False
            self._told(octets[:1], unpack(octets), struct.unpack("i", passed[0][2])[0] if passed else -1)
        return True

    def _told(self, letter: bytes, fields: "list[bytes]", fd: int) -> None:
        if letter == b"C":
            if fd < 0:                       # no more descriptors are to be had: it got lost on its way
                self._tell(pack(b"E", fields[0], b"", b""))
                return
            os.set_blocking(fd, False)
            self.add(int(fields[0]), fd, fd, fields[1].decode(), int(fields[2]), int(fields[3]))
        elif letter == b"D":
            self.ending = True
        elif (stranger := self.strangers.get(int(fields[0]))) is None:
            return                           # gone meanwhile
        elif letter == b"G":
            self.greet(stranger)
        elif letter == b"T":
            self._forget(stranger)
        elif letter == b"A":
            refusal = Refused(fields[3].decode(), fields[2].decode())
            self.refusals[stranger.number] = stranger.talk.session.refused(refusal)
            self._look_again(stranger, time.monotonic() + float(fields[1]))
        elif letter == b"X":
            self._send_away(stranger, Reply(False, fields[2].decode(), fields[1].decode()))

    def _tell(self, octets: bytes, fd: int = -1) -> None:
        passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))] if fd >= 0 else []
        self.line.sendmsg([octets], passed)

    # -- strangers -----------------------------------------------------------------------------------------------

    def _guarded(self, work, stranger: Stranger, *more) -> None:
        """One stranger's trouble stays one stranger's."""
        try:
            work(stranger, *more)
        except (BrokenPipeError, ConnectionError):
            self._gone(stranger, "the client, without QUIT")
        except Flooded as flood:
            self._send_away(stranger, Reply(False, str(flood)))
        except Exception as bug:
            what = f"{type(bug).__name__}: {bug}"
            stranger.talk.log.critical(f"{stranger.talk.who()}: internal error before login: {what}")
            self._gone(stranger, "an error of ours")

    def _attend(self, stranger: Stranger, event: int) -> None:
        """Something has come, or can be sent."""
        if event & OUT and not self._flush(stranger):
            if not stranger.leaving:
                self._await(stranger)
            return
        if stranger.leaving:
            self._gone(stranger, "a refusal")
            return
        if event & ~OUT:                     # also when it has hung up: reading tells
            try:
                octets = os.read(stranger.source, READ_MOST)
            except BlockingIOError:
                return
            if not octets:
                self._gone(stranger, "the client, without QUIT")
                return
            stranger.received += len(octets)
            if stranger.header is not None:
                self._read_header(stranger, octets)
                return
            stranger.talk.lines.feed(octets)
        self._converse(stranger)

    def _read_header(self, stranger: Stranger, octets: bytes) -> None:
        """What a proxy tells of the client; whether that one may come in is not decided here."""
        header = stranger.header
        if header.feed(octets):
            stranger.header = None
            peer = stranger.talk.peer
            if header.address:
                peer.__init__(header.address, header.port)
                peer.name = NAME
            stranger.talk.lines.feed(header.rest)
            self._wait_for(stranger, 0)
            self._tell(pack(b"P", b"%d" % stranger.number, peer.address.encode(), b"%d" % peer.port))

    def _converse(self, stranger: Stranger) -> None:
        """Answer what has come, until more is needed, or a password is there, or the end. Who sends commands by the
        thousand has to take the answers to some before there are more."""
        talk, flushed, line = stranger.talk, True, b""
        while flushed and line is not None and talk.session.state != HALT and stranger.credentials is None:
            line = self._answer_some(stranger)
            flushed = self._flush(stranger)
        if not flushed:
            self._await(stranger)
        elif stranger.credentials is not None:
            self._hand_over(stranger)
        elif talk.session.state == HALT:
            self._gone(stranger, talk.ending)
        else:
            self._await(stranger)

    def _answer_some(self, stranger: Stranger) -> "bytes | object | None":
        """Answer as many lines as may be answered at once; -> the last one, None: there is no more."""
        talk, line = stranger.talk, b""
        while talk.session.state != HALT and sum(map(len, stranger.unsent)) <= UNSENT_MOST:
            line = talk.line()
            if line is None:
                break
            reply = talk.answer(line)
            if isinstance(reply, Credentials):
                stranger.credentials = reply
                break
            talk.record(reply)
            stranger.unsent.append(reply.status())
            if reply.body is not None:
                stranger.unsent += [*reply.body, TERMINATOR]
        return line

    def _flush(self, stranger: Stranger) -> bool:
        """Send what can be sent; whether that was all."""
        while stranger.unsent:
            try:
                written = os.writev(stranger.sink, stranger.unsent)
            except BlockingIOError:
                return False
            stranger.sent += written
            stranger.unsent = after(stranger.unsent, written)
        return True

    def _await(self, stranger: Stranger) -> None:
        """Wait for more of it: something to read, or its taking what it was sent."""
        if stranger.live and stranger.talk.log.lines:
            self._tell(pack(b"N", b"%d" % stranger.number, handover.pack_lines(stranger.talk.log.take())))
        self._wait_for(stranger, OUT if stranger.unsent else IN)
        idle = self.options.timeout
        limit = time.monotonic() + idle if idle else stranger.login_deadline
        self._look_again(stranger, min(limit, stranger.login_deadline))

    def _wait_for(self, stranger: Stranger, events: int) -> None:
        if events == stranger.events:
            return
        if stranger.events:
            self.poll.unregister(stranger.source if stranger.events == IN else stranger.sink)
        if events:
            self.poll.register(stranger.source if events == IN else stranger.sink, events)
        stranger.events = events

    def _look_again(self, stranger: Stranger, when: float) -> None:
        stranger.deadline = when
        if len(self.due) > 4 * len(self.strangers) + 64:          # most of them about times that were put off
            self.due = [(each.deadline, each.number) for each in self.strangers.values()
                        if not each.handed or each.leaving or each.number in self.refusals]
            heapq.heapify(self.due)
        heapq.heappush(self.due, (when, stranger.number))

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            when, number = heapq.heappop(self.due)
            stranger = self.strangers.get(number)
            if stranger is None or when < stranger.deadline:
                continue                     # gone, or given more time since
            reply = self.refusals.pop(number, None)
            if reply is not None:
                self._send_away(stranger, reply, record=False)
            elif stranger.leaving:
                self._gone(stranger, "a refusal")
            elif not stranger.handed:
                limits = [self.options.timeout, self.options.login_timeout]
                stranger.talk.timed_out("write" if stranger.unsent else "read", min(filter(None, limits)))
                self._gone(stranger, "a timeout")

    # -- the end of it -------------------------------------------------------------------------------------------

    def _hand_over(self, stranger: Stranger) -> None:
        """Nothing is left to be sent: who takes it over, as root at first, waits for no stranger."""
        talk, credentials = stranger.talk, stranger.credentials
        login = handover.Login(
            stranger.number, credentials.user, credentials.password, talk.lines.rest(), stranger.received,
            stranger.sent, time.monotonic() - stranger.begun, talk.mistakes, talk.mistake, talk.log.take())
        stranger.handed, stranger.credentials = True, None
        self._wait_for(stranger, 0)
        self._tell(login.packed(), -1 if self.alone else stranger.source)

    def _send_away(self, stranger: Stranger, reply: Reply, record: bool = True) -> None:
        """Answer once more, and let go. Whose password was tried is to hear what came of it, if he takes what
        was sent before in a while; for others there is no such time: they may have to make room."""
        stranger.talk.session.state = HALT
        if record:
            stranger.talk.record(reply)
        stranger.unsent.append(reply.status())
        if stranger.handed:                  # its log is told by whom it was handed to
            stranger.talk.log.debugging, stranger.talk.mistakes = False, 0
        try:
            stranger.leaving = not self._flush(stranger) and stranger.handed and not stranger.leaving
        except OSError:
            pass
        if stranger.leaving:
            self._wait_for(stranger, OUT)
            self._look_again(stranger, time.monotonic() + LAST_WORDS)
        else:
            self._gone(stranger, "a refusal")

    def _gone(self, stranger: Stranger, ending: str) -> None:
        """It has gone without a login."""
        if stranger.number not in self.strangers:
            return
        talk = stranger.talk
        talk.ending = ending
        seconds = time.monotonic() - stranger.begun
        spent = Tally().spent
        spent["client"] = seconds
        talk.end(stranger.received, stranger.sent, spent, seconds)
        end_connection(stranger.source)
        self._forget(stranger)
        self._tell(pack(b"E", b"%d" % stranger.number, handover.pack_lines(talk.log.take()), talk.session.user))

    def _forget(self, stranger: Stranger) -> None:
        self._wait_for(stranger, 0)
        del self.strangers[stranger.number]
        for descriptor in {stranger.source, stranger.sink}:
            del self.by_descriptor[descriptor]
        self.refusals.pop(stranger.number, None)
        if not self.alone:
            os.close(stranger.source)


def preload(options) -> None:
    """Import what a front may need once it can import nothing any more."""
    if options.proxy_from:
        from popper import proxy             # noqa: F401
