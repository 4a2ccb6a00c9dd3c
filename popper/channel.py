"""The two descriptors of a connection: read some, write all, each with a deadline.

Both descriptors are non-blocking; waiting is poll(2), so a peer that does not read is timed out like one that does
not write. What is queued leaves in one writev: a reply in several segments is what delayed acknowledgements punish
with 40 ms.
"""

import _socket
import os
import select
import time

from popper.errors import PeerGone, TimedOut

READ_MOST = 16384
QUEUE_MOST = 65536             # octets of replies to pipelined commands that are held back for one write
UNREAD_MOST = 262144           # octets of a connection being closed that are read and thrown away
VECTOR_MOST = 512              # blocks in one writev; IOV_MAX is 1024


class Channel:
    """A connection. timeout: seconds one read or write may wait, 0: for ever. tally: a Tally to count octets in."""

    def __init__(self, source: int, sink: int, timeout: int, tally) -> None:
        self.source = source
        self.sink = sink
        self.timeout = timeout
        self.tally = tally
        self.queue: "list[bytes]" = []
        self.queued = 0
        self.blocking = [(fd, os.get_blocking(fd)) for fd in {source, sink}]
        for fd, _ in self.blocking:
            os.set_blocking(fd, False)

    def read(self, deadline: "float | None" = None) -> bytes:
        """At least one octet, at most READ_MOST. PeerGone at the end, TimedOut at the deadline (monotonic clock)."""
        try:
            octets = os.read(self.source, READ_MOST)
        except BlockingIOError:
            self._wait(self.source, select.POLLIN, deadline)
            return self.read(deadline)
        except OSError as error:
            raise PeerGone(error.strerror) from None
        if not octets:
            raise PeerGone("EOF")
        self.tally.received += len(octets)
        return octets

    def deadline(self) -> "float | None":
        return time.monotonic() + self.timeout if self.timeout else None

    def put(self, *blocks: bytes) -> None:
        """Queue octets; they leave together, at the next flush or now when there are many."""
        self.queue.extend(blocks)
        self.queued += sum(map(len, blocks))
        if self.queued > QUEUE_MOST:
            self.flush()

    def flush(self) -> None:
        """Write all that is queued. PeerGone, or TimedOut when the peer takes nothing for `timeout` seconds."""
        queue, self.queue, self.queued = self.queue, [], 0
        while queue:
            try:
                written = os.writev(self.sink, queue[:VECTOR_MOST])
            except BlockingIOError:
                self._wait(self.sink, select.POLLOUT, self.deadline())
                continue
            except OSError as error:
                raise PeerGone(error.strerror) from None
            self.tally.sent += written
            queue = after(queue, written)

    def close(self, read: bool = True) -> None:
        """End a connection, though the process may go on for a while; leave a terminal or pipe as it was found.
        read: what is left to read may be read."""
        for fd, blocking in self.blocking:
            try:
                if os.fstat(fd).st_mode & 0o170000 == 0o140000:
                    end_connection(fd, read)
                    null = os.open(os.devnull, os.O_RDWR)
                    os.dup2(null, fd)
                    os.close(null)
                else:
                    os.set_blocking(fd, blocking)
            except OSError:
                pass
        self.blocking = []

    def _wait(self, fd: int, event: int, deadline: "float | None") -> None:
        poll = select.poll()
        poll.register(fd, event)
        begun = time.monotonic()
        left = None if deadline is None else max(0.0, deadline - begun) * 1000
        ready = poll.poll(left)
        self.tally.spent["client"] += time.monotonic() - begun
        if not ready:
            raise TimedOut("read" if event == select.POLLIN else "write")


def end_connection(fd: int, read: bool = True) -> None:
    """Say goodbye on a socket; its descriptor stays the caller's. What the client has sent is read first, if that may
    be: closing over it would be a reset, and a reset can overtake our last reply."""
    try:
        connection = _socket.socket(fileno=fd)
    except OSError:                          # a pipe
        return
    try:
        connection.shutdown(_socket.SHUT_WR)
        for _ in range(UNREAD_MOST // READ_MOST if read else 0):
            if not connection.recv(READ_MOST):
                break
    except OSError:
        pass
    finally:
        connection.detach()


def after(blocks: "list[bytes]", written: int) -> "list[bytes]":
    """What is left of a queue of blocks when that many octets of it are gone."""
    for index, block in enumerate(blocks):
        if written < len(block):
            return [memoryview(block)[written:], *blocks[index + 1:]]
        written -= len(block)
    return []
