"""The crew of a daemon: processes that live as long as it does, each at the other end of a line.

What is sent down a line never waits: a process that does not listen has its messages kept for it.
"""

import _socket
import os
import select
import struct
import time

from popper import privilege, stranger
from popper.forking import fork
from popper.handover import LARGEST, TROUBLE, pack
from popper.looker import Looker

BUFFER = bytearray(LARGEST)    # for what comes; memory that is asked for anew each time costs its pages each time
IN, OUT = select.POLLIN, select.POLLOUT


class Line:
    """Our end. pid: of the process at the other one. closing: it has been told to end when it can; gone: it has."""

    def __init__(self, socket, pid: int) -> None:
        self.socket = socket
        self.pid = pid
        self.since = time.monotonic()
        self.closing = self.gone = False
        self.queue: "list[tuple[bytes, int]]" = []       # (message, descriptor or -1) that did not go yet

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, octets: bytes, fd: int = -1) -> bool:
        """Send a message, with a descriptor; false when it has to wait. The descriptor is not ours any more."""
        if self.queue or not self._send(octets, fd):
            self.queue.append((octets, fd))
            return False
        return True

    def flush(self) -> bool:
        """Send what had to wait; whether that was all."""
        while self.queue:
            if not self._send(*self.queue[0]):
                return False
            self.queue.pop(0)
        return True

    def _send(self, octets: bytes, fd: int) -> bool:
        passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))] if fd >= 0 else []
        try:
            self.socket.sendmsg([octets], passed, _socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno == 109:           # ETOOMANYREFS: as many descriptors as may be are on their way
                return False                 # else it has ended, which reading from it will tell
        if fd >= 0:
            os.close(fd)
        return True

    def receive(self) -> "tuple[bytes, int] | None":
        """A message and the descriptor that came with it, or -1; None: there is none now. b"": it has ended."""
        try:
            # CMSG_LEN: into what CMSG_SPACE rounds up to goes a second descriptor.
            size, passed, _, _ = self.socket.recvmsg_into([BUFFER], _socket.CMSG_LEN(4),
                                                          _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionResetError:         # it ended, and left something unread; what it said is still to be had
            return self.receive()
        except OSError:
            return b"", -1
        octets = bytes(memoryview(BUFFER)[:size])
        BUFFER[:size] = bytes(size)          # a password may have been in it, and children have it too
        return octets, struct.unpack("i", passed[0][2])[0] if passed else -1

    def close(self) -> None:
        for _, fd in self.queue:
            if fd >= 0:
                os.close(fd)
        self.queue = []
        self.socket.close()


def hire(work) -> Line:
    """Fork a process that does `work(socket)`, and has no other descriptor but that, and nothing at the standard ones.
    Raises OSError."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        pid = fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid:
        theirs.close()
        return Line(ours, pid)
    try:
        privilege.close_all_but(0, 1, 2, theirs.fileno())
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):                  # a terminal is not for strangers
            os.dup2(null, fd)
        os.close(null)
        work(theirs)
    except BaseException as trouble:
        theirs.send(pack(TROUBLE, f"{type(trouble).__name__}: {trouble}".encode("utf-8", "replace")[:512]))
    finally:
        os._exit(0)


def front(options, host: str, ids: "tuple[int, int]", descriptors: int, started: str) -> Line:
    """A process that speaks AUTHORIZATION."""
    def work(line) -> None:
        privilege.confine(ids, descriptors)
        speaker = stranger.Front(options, host, line)
        speaker.started = started
        speaker.run()

    return hire(work)


def looker(seconds: int) -> Line:
    """A process that asks DNS."""
    def work(line) -> None:
        privilege.become_nobody()
        Looker(line, seconds).run()

    return hire(work)


DRAIN = pack(b"D")
