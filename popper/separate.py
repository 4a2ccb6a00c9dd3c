"""AUTHORIZATION by a process of its own, for a connection that a super-server handed to root: the parent writes the
greeting and, from the password on, goes on as the user; what a stranger says it never reads.
"""

import os
import time
import _socket

from popper import handover, privilege, stranger
from popper.account import shown_name
from popper.errors import PERMANENT, ConfigError
from popper.handover import FROM_PROXY, LIVE, NOTED, pack


class Separate:
    """source, sink: the connection. claimed(): asked when a proxy has told whose connection it is, which `peer` then
    says: why that one may not come in, or None; None: no proxy is expected."""

    def __init__(self, options, host: str, log, peer, source: int, sink: int, claimed=None) -> None:
        self.options = options
        self.host = host
        self.log = log
        self.peer = peer
        self.source = source
        self.sink = sink
        self.claimed = claimed
        self.child = 0                       # who speaks to the stranger, as long as it is there

    def run(self, make, greeted: bool, started: str) -> None:
        """Hold the session. make(beat, opened) -> a Server that does not answer refusals."""
        blocking = [(fd, os.get_blocking(fd)) for fd in {self.source, self.sink}]
        for fd, _ in blocking:
            os.set_blocking(fd, False)
        try:
            self.line = self._fork(greeted, started)
        except ConfigError as mistake:
            self.log.critical(str(mistake))
            os.write(self.sink, b"-ERR [SYS/PERM] This server is not configured properly.\r\n")
            return
        server = make(self._reap, self._let_go)
        server.channel.blocking = blocking   # as it was found, not as the child needs it
        login = self._listen(server.tally.spent)
        if login is not None:
            asked = time.monotonic()
            self.log.replay(login.lines, self.peer.name)
            server.resume(login)
            if server.refusal:
                self.line.send(handover.refused(server.refusal, login.number, asked, self.options.fail_delay))
                self._listen(server.tally.spent)
        self._let_go()
        if self.child:
            os.waitpid(self.child, 0)
        if login is None or server.refusal:  # else the channel has done so
            for fd, was in blocking:
                os.set_blocking(fd, was)

    def _fork(self, greeted: bool, started: str):
        """Fork who speaks to the stranger. -> our end of the line"""
        ids = privilege.unprivileged(self.options.unprivileged_user)
        stranger.preload(self.options)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        flags = LIVE if self.log.trace is not None else NOTED if self.log.debugging else 0
        flags |= FROM_PROXY if self.claimed else 0
        self.child = os.fork()
        if self.child:
            closed(theirs)
            return ours
        try:
            privilege.close_all_but(2, self.source, self.sink, theirs.fileno())
            privilege.confine(ids, theirs.fileno() + 8)
            front = stranger.Front(self.options, self.host, theirs, alone=True)
            front.started = started
            front.add(1, self.source, self.sink, self.peer.address, self.peer.port, flags, greeted)
            front.run()
        finally:
            os._exit(0)

    def _listen(self, spent: "dict[str, float]") -> "handover.Login | None":
        """What the child has to say, until it has a login, or the stranger has gone: None."""
        while True:
            try:
                octets = self.line.recv(handover.LARGEST)
            except ConnectionResetError:     # it left something of ours unread; what it said is still to be had
                continue
            except OSError:
                octets = b""
            try:
                if octets[:1] == b"L":
                    return handover.Login.unpacked(octets)
                if octets[:1] == b"P" and self.claimed:
                    self._hear_of_proxy(*handover.unpack(octets)[1:])
                    continue
                if octets[:1] in (b"N", b"E"):
                    fields = handover.unpack(octets)
                    lines = handover.unpack_lines(fields[1])
                    if octets[:1] == b"E":
                        self.log.concerns(shown_name(fields[2]))
                    if handover.needs_name(lines):
                        self.peer.introduce(self.log, spent)
                    self.log.replay(lines, self.peer.name)
                    if octets[:1] == b"E":
                        return None
                    continue
            except (ValueError, IndexError, TypeError):
                octets = b""
            self.log.critical(f"The process that spoke to {self.peer.address} has "
                              + ("said what it should not" if octets else "ended without a word"))
            return None

    def _hear_of_proxy(self, address: bytes, port: bytes) -> None:
        from popper.limits import is_address
        text = address.decode("ascii")
        if text != self.peer.address:
            if not is_address(text):
                raise ValueError(f"{address!r} is no address")
            self.peer.__init__(text, int(port))
        refusal = self.claimed()
        self.line.send(pack(b"X", b"1", PERMANENT.encode(), refusal.encode()) if refusal else pack(b"G", b"1"))

    def _let_go(self) -> None:
        """Nobody speaks to the child any more: it ends."""
        closed(self.line)

    def _reap(self, *_) -> None:
        """See whether it has ended."""
        if self.child and os.waitpid(self.child, os.WNOHANG)[0]:
            self.child = 0


def closed(line) -> None:
    """Close a socket; what close(2) says of it changes nothing."""
    try:
        line.close()
    except OSError:
        pass
