"""The keeper: a forked process with the user's uid and the spool's group that does what `locks` does, when told.

Where the user may not write in the spool (Debian: root:mail 2775), giving the session that group would give it
everybody's mailbox. The keeper has the group, but understands a few letters and nothing else, and what it makes it
removes when the session ends, killed or not.
"""

import _signal
import _socket
import os
import struct
import syslog

from popper.errors import TEMPORARY, Refused
from popper.storage.locks import SpoolLocks


class Keeper:
    """The verbs of SpoolLocks, carried out in another process.

    To be made while the group is effective; `shed` runs in the caller afterwards and gives it up for good.
    """

    def __init__(self, locks: SpoolLocks, shed) -> None:
        self.session_file = locks.session_file
        self.record_file = locks.record_file
        self.foreign_file = locks.foreign_file
        self.backlog = 0
        ours, theirs = _socket.socketpair()
        self.line = ours
        if not os.fork():
            try:
                ours.close()
                _keep(locks, theirs)
            finally:
                os._exit(0)
        theirs.close()
        shed()

    def session(self) -> int:
        self.backlog = int(self._ask(b"S")[0])
        return self.backlog

    def dot(self) -> bool:
        return self._ask(b"D")[0] == "1"

    def touch(self) -> None:
        self._ask(b"T")

    def undot(self) -> None:
        self._ask(b"U")

    def record(self) -> int:
        return self._ask(b"R")[1]

    def sync_names(self) -> None:
        self._ask(b"N")

    def forget(self) -> None:
        self._ask(b"F")

    def set_aside(self) -> None:
        self._ask(b"A")

    def discard(self) -> None:
        self._ask(b"X")

    def parcel(self) -> int:
        return self._ask(b"P")[1]

    def make_mailbox(self) -> None:
        self._ask(b"M")

    def close(self) -> None:
        """Wait until both locks are given back: the next session may follow at once."""
        if self.line is not None:
            try:
                self._ask(b"C")
            except Refused:
                pass
            self.line.close()
            self.line = None

    def _ask(self, letter: bytes) -> "tuple[str, int]":
        """-> (answer, descriptor that came with it or -1)"""
        answer, descriptor = "", -1
        try:
            self.line.send(letter)
            octets, passed, _, _ = self.line.recvmsg(1024, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
            answer = octets.decode("utf-8", "replace")
            if passed:
                descriptor = struct.unpack("i", passed[0][2])[0]
        except OSError:
            pass
        if not answer:
            raise Refused("System error, the lock keeper is gone.", TEMPORARY)
        if answer[0] == "!":
            code, text = answer[1:].split(" ", 1)
            text, _, reason = text.partition("\0")
            raise Refused(text, code, reason)
        return answer, descriptor


def _keep(locks: SpoolLocks, line) -> None:
    """The keeper's life: no descriptor but its line, no signal but the end of the session."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)
    syslog.closelog()                        # its number may be another's soon: that of our line, in the worst case
    os.closerange(0, line.fileno())
    os.closerange(line.fileno() + 1, 256)
    verbs = {b"S": locks.session, b"D": locks.dot, b"T": locks.touch, b"U": locks.undot, b"R": locks.record,
             b"N": locks.sync_names, b"F": locks.forget, b"A": locks.set_aside, b"X": locks.discard, b"P": locks.parcel,
             b"M": locks.make_mailbox, b"C": locks.close}
    try:
        while letter := line.recv(1):
            passed = []
            try:
                result = verbs[letter]()
                answer = str(int(result or 0))
                if letter in b"RP":
                    passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", result))]
            except Refused as error:
                answer = f"!{error.code} {error.text}\0{error.reason}"
            except OSError as error:
                answer = f"!{TEMPORARY} System error, {error.strerror}."
            line.sendmsg([answer.encode("utf-8", "replace")], passed)
            if passed:
                os.close(result)
    finally:
        locks.close()
