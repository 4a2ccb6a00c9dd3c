"""A client of the server under torture, and the hand that strikes the process at the other end.

A process is struck through a descriptor of its own (pidfd): no other one is hit when its number is given again.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
from pathlib import Path

from conftest import wait_until
from dialogue import PATIENCE, Dialogue
from processes import state_of


class Gone(Exception):
    """The other end was closed."""


class Connection:
    """A socket that says so when the other end is gone."""

    def __init__(self, connected):
        self.socket = connected

    def __getattr__(self, name):
        return getattr(self.socket, name)

    def recv(self, most):
        try:
            octets = self.socket.recv(most)
        except (ConnectionResetError, BrokenPipeError):
            raise Gone from None
        if not octets:
            raise Gone
        return octets

    def sendall(self, octets):
        try:
            self.socket.sendall(octets)
        except (ConnectionResetError, BrokenPipeError):
            raise Gone from None


class Process:
    """A process that is there, and cannot be taken for another one."""

    def __init__(self, pid, parent=None):
        self.pid = pid
        self.descriptor = os.pidfd_open(pid)
        if parent is not None and state_of(pid)[1] != parent:
            self.close()
            raise ProcessLookupError

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def wait(self, seconds=PATIENCE):
        """Whether it is over, that long from now at the latest."""
        return is_readable(self.descriptor, seconds)

    def children(self, which=lambda pid: True):
        """Those of its children that are still there, by their numbers."""
        found = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                with contextlib.suppress(OSError):               # one that ends just now is nobody's to look at
                    if which(pid):
                        found.append(Process(int(pid), self.pid))
        return found

    def close(self):
        os.close(self.descriptor)


def is_readable(descriptor, seconds):
    """Whether there is something to be read within that time. select() knows no descriptor above 1023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def uid_of(pid):
    """Of a process that has not ended; else None."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if "\nState:\tZ" in status else status.partition("\nUid:")[2].split()[0]


def serving(daemon, connected, crew=()):
    """The child of a daemon that serves a TCP connection of ours, or None if there is none (yet). crew: numbers of
    those of its children that serve nobody in particular."""
    ours, theirs = connected.getsockname()[1], connected.getpeername()[1]
    wanted = (f"0100007F:{theirs:04X}", f"0100007F:{ours:04X}")
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if tuple(fields[1:3]) == wanted:
            inode = f"socket:[{fields[9]}]"
            break
    else:
        return None
    found = daemon.children(lambda pid: int(pid) not in crew and any(
        _points_to(pid, fd, inode) for fd in os.listdir(f"/proc/{pid}/fd")))
    return found[0] if found else None


def _points_to(pid, fd, what):
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}") == what
    except OSError:
        return False


class Caller(Dialogue):
    """One connection. book: the ledger; visit: what it knows of this session, from PASS on."""

    def __init__(self, connected, ledger, find):
        super().__init__(Connection(connected))
        self.ledger = ledger
        self.visit = None
        self.find = find
        self.found = None
        self.popen = None                    # whoever has to be waited for at the end

    @property
    def process(self):
        """The process that serves us, or None."""
        if self.found is None:
            self.found = self.find()
        return self.found

    def keeper(self):
        """The lock keeper of that process, or None: a child with the same uid, who is not the one that spoke to us
        before."""
        children = self.process.children(lambda pid: uid_of(pid) == uid_of(self.process.pid)) if self.process else []
        for other in children[1:]:
            other.close()
        return children[0] if children else None

    def ask(self, command):
        rival = self.visit and self.visit.rival
        reply = super().ask(command)
        if self.visit and reply.startswith("+OK"):
            self.ledger.served(self.visit, rival)
        return reply

    def unstuffed(self):
        """The text that follows a +OK, dot-stuffing undone."""
        lines = self.raw_body().split(b"\r\n")
        assert not any(line.startswith(b".") and not line.startswith(b"..") for line in lines), "a line is not stuffed"
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)

    def rest(self):
        """All that still comes, until the other end is closed."""
        try:
            while True:
                self.buffer += self.socket.recv(65536)
        except Gone:
            self.reap()
            return self.buffer

    def drop(self, reset=False):
        """Close without a word. reset: and without the manners of TCP."""
        if reset and self.socket.family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def close(self):
        self.socket.close()
        if self.found is not None:
            self.found.close()
            self.found = None
        self.reap()

    def reap(self):
        """Bury who served us, if that is our duty: he would seem to be alive, and so his locks."""
        if self.popen is not None:
            try:
                self.popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise


class Strike:
    """Have one system call of a process go wrong: `what` is `signal=KILL`, or `error=EIO`, or the like, at the
    `when`-th call of its kind from now on."""

    def __init__(self, process, call, what, when, log):
        self.log = log
        self.tracer = subprocess.Popen(
            ["strace", "-p", str(process.pid), "-o", log, "-e", f"trace={call}",
             "-e", f"inject={call}:{what}:when={when}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if is_readable(self.tracer.stderr.fileno(), PATIENCE):
            self.tracer.stderr.readline()    # that it is attached, or why it is not

    def finish(self):
        """Let go. -> whether it happened."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.tracer.wait(0.2)            # it ends with the process
        self.tracer.terminate()
        self.tracer.communicate()
        said = Path(self.log).read_text(errors="replace") if os.path.exists(self.log) else ""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.log)
        return any(words in said for words in ("INJECTED", "killed by SIGKILL", "stopped by"))


def may_trace():
    """Whether this user may strace a process of his own."""
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        try:
            done = subprocess.run(["timeout", "-s", "INT", "1", "strace", "-p", str(sleeper.pid)], capture_output=True)
            return b"attached" in done.stderr
        finally:
            sleeper.kill()


def wait_for_port(log):
    """The port that a daemon says it listens on."""
    def said():
        for line in Path(log).read_text(errors="replace").splitlines():
            if "listening on" in line:
                return int(line.rpartition(" ")[2])
        return None
    return wait_until(said, PATIENCE)
