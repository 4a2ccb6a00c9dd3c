"""A POP3 client that reads like a transcript, and a site for it to call: users, mailboxes, and sessions of its own.

A session is served by a forked child that finds things as inetd leaves them: descriptors 0 and 1 are the connection,
descriptor 2 is the log. Run by root, the users of a site have a uid of their own, and the child gives up root for it;
run by anybody else, they are that user. Modules are imported before the fork, as popper.daemon does it.

    pop = site.session()
    assert pop.ok("USER mrose") == "Password required for mrose."
    assert pop.err("PASS wrong").startswith("[AUTH] ")
    assert pop.end() == b""
"""

import gc
import os
import select
import shutil
import signal
import socket
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import pytest

from conftest import wait_until
from popper import VERSION, daemon, inetd                         # noqa: F401  the daemon imports what a session needs
from popper.auth import crypt, file                               # noqa: F401  imported before root is given up
from popper.journal import open_trace
from popper.options import DIRECTIVES, Options
from secrecy import overheard

ROOT = os.geteuid() == 0
UID = GID = 54321              # of a site's users, when root runs the tests; nobody's else
USER, PASSWORD = "mrose", "tanstaaf"
HOST = "pop.example.org"
PATIENCE = 30                  # seconds until a test that waits for an answer gives up

ENVELOPE = b"From sender@example.org Tue Jan  2 03:04:05 2024\n"
ONE = b"From: ann@example.org\nSubject: one\nMessage-ID: <1@example.org>\n\nThe first message.\n"
TWO = b"From: bob@example.org\nSubject: two\nMessage-ID: <2@example.org>\n\n.leading dot\nsecond line\nthird line\n"
THREE = b"From: eve@example.org\nSubject: three\nMessage-ID: <3@example.org>\n\nThe third.\n\n.\nNot yet the end.\n"


def mbox(*texts):
    """The octets of a mailbox that holds these messages."""
    return b"".join(ENVELOPE + text + b"\n" for text in texts)


def wire(text):
    """A stored message as it should cross the wire, dot-stuffing apart."""
    return text.replace(b"\n", b"\r\n")


class Dialogue:
    """The client's side of a connection. What every reply must have, every reply is tried for."""

    def __init__(self, connection, child=None):
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self.child = child
        self.buffer = b""
        self.status = None                   # the child's exit status, when it has ended
        self.peak = 0                        # and the most octets of memory that it ever had

    def send(self, octets):
        self.socket.sendall(octets if isinstance(octets, bytes) else octets.encode("latin-1"))

    def pour(self, octets):
        """Send very much, reading what comes meanwhile, until the other side has had enough; -> how much it took."""
        sent, poll = 0, select.poll()
        poll.register(self.socket, select.POLLIN | select.POLLOUT)
        view = memoryview(octets)
        while sent < len(octets):
            event = poll.poll(PATIENCE * 1000)[0][1]
            try:
                if event & select.POLLOUT:
                    sent += self.socket.send(view[sent:sent + 65536], socket.MSG_DONTWAIT)
                if event & select.POLLIN:
                    more = self.socket.recv(65536)
                    self.buffer += more
                    if not more:
                        break
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
        return sent

    def line(self):
        """One line of whatever kind, without its CRLF."""
        while b"\n" not in self.buffer:
            octets = self.socket.recv(65536)
            assert octets, f"the connection was closed behind {self.buffer!r}"
            self.buffer += octets
        line, self.buffer = self.buffer.split(b"\n", 1)
        assert line.endswith(b"\r") and b"\r" not in line[:-1], f"not ended by CRLF: {line!r}"
        return line[:-1]

    def reply(self):
        """The first line of a reply: at most 512 octets, printable, +OK or -ERR and a space (1939.05, .06, 1957.01)."""
        line = self.line()
        assert len(line) + 2 <= 512, f"a reply line of {len(line) + 2} octets"
        assert line.startswith((b"+OK ", b"-ERR ")), line
        text = line.decode("ascii")
        assert text.isprintable(), text
        return text

    def ask(self, command):
        """Send one command; -> the first line of its reply."""
        self.send(command + ("\r\n" if isinstance(command, str) else b"\r\n"))
        return self.reply()

    def ok(self, command):
        """The text of the +OK that a command must get."""
        reply = self.ask(command)
        assert reply.startswith("+OK "), f"{command!r} got {reply!r}"
        return reply[4:]

    def err(self, command):
        """The text of the -ERR that a command must get."""
        reply = self.ask(command)
        assert reply.startswith("-ERR "), f"{command!r} got {reply!r}"
        return reply[5:]

    def raw_body(self):
        """What follows a +OK up to the terminator, as it crosses the wire."""
        octets, looked = bytearray(b"\r\n" + self.buffer), 0     # an empty body: its dot is at the start of a line too
        while (end := octets.find(b"\r\n.\r\n", looked)) < 0:
            looked = max(0, len(octets) - 4)
            more = self.socket.recv(65536)
            assert more, f"the connection was closed behind {octets[-100:]!r}"
            octets += more
        self.buffer = bytes(octets[end + 5:])
        return bytes(octets[2:end + 2])

    def text(self, command):
        """The octets of a multi-line reply, dot-stuffing undone."""
        self.ok(command)
        body = self.raw_body()
        lines = body.split(b"\r\n")
        assert not any(line.startswith(b".") and not line.startswith(b"..") for line in lines), "a line is not stuffed"
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)

    def lines(self, command):
        """The lines of a multi-line reply, as text."""
        return self.text(command).decode("ascii").splitlines()

    def log_in(self, user=USER, password=PASSWORD):
        self.ok(f"USER {user}")
        self.ok(f"PASS {password}")
        return self

    def end(self):
        """Wait until the other side has closed, and its process has ended; -> what came before that."""
        octets, self.buffer = self.buffer, b""
        try:
            while more := self.socket.recv(65536):
                octets += more
        except ConnectionResetError:
            pass                             # closed with something of ours unread
        self.socket.close()
        self.wait()
        return octets

    def quit(self):
        """QUIT, which must succeed and be the last that is heard."""
        text = self.ok("QUIT")
        assert self.end() == b""
        return text

    def hang_up(self):
        """Close without a word, and wait until the session has noticed."""
        self.socket.close()
        self.wait()

    def wait(self):
        """-> the exit status of the child, when it has ended."""
        if self.status is None and self.child:
            _, status, usage = wait_until(lambda: _if_ended(self.child), PATIENCE)
            self.status = os.waitstatus_to_exitcode(status)
            self.peak = usage.ru_maxrss * 1024
        return self.status

    def kill(self):
        self.socket.close()
        if self.status is None and self.child:
            os.kill(self.child, signal.SIGKILL)
            self.wait()

    def proc(self, field):
        """The rest of a line of /proc/PID/status of the session's process."""
        for line in Path(f"/proc/{self.child}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return line.partition(":")[2].strip()
        raise KeyError(field)

    def memory(self):
        """The most octets of memory that the session's process has had so far."""
        return self.peak or int(self.proc("VmHWM").split()[0]) * 1024


def _if_ended(child):
    ended = os.wait4(child, os.WNOHANG)
    return ended if ended[0] else None


class Site:
    """A directory with a password file, a spool and a log; and options that sessions are started with."""

    def __init__(self):
        self.place = Path(tempfile.mkdtemp(prefix="popper-site-"))
        self.place.chmod(0o755)
        self.spool = self.place / "mail"
        self.spool.mkdir()
        self.own(self.spool)
        self.passwords = self.place / "passwords"
        self.passwords.write_bytes(b"")
        self.log_file = self.place / "log"
        self.log_file.write_bytes(b"")
        self.may_fail = False                # whether "internal error" in the log is what the test wants
        self.sessions = []
        self.settings = dict(password_file=str(self.passwords), mailbox=f"{self.spool}/%u", auth=("file",),
                             guessers=f"{self.place}/guessers",
                             hostname=HOST, log="stderr", lookup=False, fail_delay=0, lock_timeout=5, fsync=False)
        self.add(USER, PASSWORD)

    def own(self, path, follow=True):
        """Make a file the users' own."""
        if ROOT:
            os.chown(path, UID, GID, follow_symlinks=follow)

    def add(self, user, password):
        """A user with a password, in the fastest scheme there is."""
        hashed = crypt.hashed(password.encode("latin-1"), b"$5$rounds=1000$saltofpopper$").decode()
        numbers = f"{UID}:{GID}" if ROOT else ":"
        with self.passwords.open("a") as lines:
            lines.write(f"{user}:{hashed}:{numbers}::{self.place}:/bin/sh\n")

    def mailbox(self, user=USER):
        return self.spool / user

    def deliver(self, octets, user=USER):
        """Put a mailbox in place. An old file, as most are: one changed this very moment is looked at twice."""
        path = self.mailbox(user)
        path.write_bytes(octets)
        self.own(path)
        os.utime(path, (time.time() - 3600,) * 2)
        return path

    def options(self, **settings):
        options = Options()
        for name, value in {**self.settings, **settings}.items():
            assert name in DIRECTIVES, name
            setattr(options, name, value)
        return options

    def session(self, tcp=False, before=None, greeting=True, **settings):
        """Call the site; -> Dialogue, the greeting read. before: run in the child before anything of popper."""
        ours, theirs = tcp_pair() if tcp else socket.socketpair()
        child = self.fork(theirs, self.options(**settings), before)
        theirs.close()
        pop = Dialogue(ours, child)
        self.sessions.append(pop)
        if greeting:
            assert pop.reply() == f"+OK UCB Pop server (version {VERSION}) at {HOST} starting."
        return pop

    def log_in(self, user=USER, password=PASSWORD, **settings):
        """A session in TRANSACTION."""
        return self.session(**settings).log_in(user, password)

    def fork(self, connection, options, before=None):
        log = os.open(self.log_file, os.O_WRONLY | os.O_APPEND)
        with warnings.catch_warnings():      # another thread may be reading a log meanwhile
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child:
            os.close(log)
            return child
        status = 70
        try:
            gc.disable()
            os.dup2(connection.fileno(), 0)
            os.dup2(0, 1)
            os.dup2(log, 2)
            os.closerange(3, 4096)
            if before:
                before()
            trace = open_trace(options.trace) if options.trace else None
            inetd.serve_one(options, "popper", trace, options.hostname, 0, 0, greeted=False)
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def log(self):
        """The lines of the log so far, as `severity: text`."""
        return [line.partition("]: ")[2] for line in self.log_file.read_text().splitlines()]

    def logged(self, words):
        """The lines of the log that have these words in them."""
        return [line for line in self.log() if words in line]

    def left_over(self):
        """The names in the spool that are no mailbox."""
        return sorted(path.name for path in self.spool.iterdir() if path.name.startswith(".") or "." in path.name)

    def close(self):
        for pop in self.sessions:
            pop.kill()
        wrong = [line for line in self.log_file.read_text(errors="replace").splitlines()
                 if "internal error" in line or "Traceback" in line]
        overheard(self.place)
        shutil.rmtree(self.place)
        assert self.may_fail or not wrong, wrong


def tcp_pair(address="127.0.0.1"):
    """Two ends of a TCP connection over the loopback: the caller's, from that address, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), source_address=(address, 0))
        theirs, _ = listener.accept()
    return ours, theirs


@pytest.fixture
def site():
    one = Site()
    yield one
    one.close()
