"""XTND XMIT: what a client sends, handed to sendmail, whole or not at all.

The text is kept in an unlinked file until its last line is in, then becomes sendmail's standard input. Program and
arguments are fixed, the environment is made anew, no shell is involved, and it runs as the user.
"""

import _signal
import os
import time

from popper.errors import TEMPORARY, Refused

ARGUMENTS = ("-oi", "-oem", "-t", "--")
PATIENCE = 120                 # seconds until a sendmail that does not end is killed
PLACE = "/var/tmp"
DEFAULT_SIGNALS = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGHUP, _signal.SIGTERM, _signal.SIGINT)


class Submission:
    """One message on its way. write(text) as it comes, then send() or abandon()."""

    def __init__(self, program: str, user: str, home: str, most: int, patience: int = PATIENCE) -> None:
        self.program = program
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": home or "/", "USER": user,
                            "LOGNAME": user, "SHELL": "/bin/sh"}
        self.most = most
        self.patience = patience
        self.octets = 0
        self.trouble = ""
        self.file = _nameless_file()

    def write(self, text: bytes) -> None:
        """Take a piece of text; trouble is kept for send(), as the client is not to be interrupted."""
        self.octets += len(text)
        if self.octets > self.most:
            self.trouble = f"Message is larger than {self.most} octets"
        while text and not self.trouble:
            try:
                text = text[os.write(self.file, text):]
            except OSError as error:
                self.trouble = f"Unable to store message: {error.strerror}"

    def send(self) -> None:
        """Give it to sendmail; Refused unless that says it took it."""
        try:
            if self.trouble:
                raise Refused(self.trouble, TEMPORARY)
            os.lseek(self.file, 0, os.SEEK_SET)
            status = self._run()
        finally:
            self.abandon()
        if status is None:
            raise Refused("Unable to send message", TEMPORARY, f"{self.program} did not end in {self.patience} s")
        if status != 0:
            raise Refused("Unable to send message", "", f"{self.program} ended with {status}")

    def abandon(self) -> None:
        file, self.file = self.file, None    # first: a signal may come in between
        if file is not None:
            try:
                os.close(file)
            except OSError:
                pass

    def _run(self) -> "int | None":
        """The exit status, or None for one that had to be killed."""
        null = os.open(os.devnull, os.O_RDWR)
        try:
            child = os.posix_spawn(
                self.program, (self.program, *ARGUMENTS), self.environment, setpgroup=0,
                setsigmask=(), setsigdef=DEFAULT_SIGNALS,
                file_actions=[(os.POSIX_SPAWN_DUP2, self.file, 0), (os.POSIX_SPAWN_DUP2, null, 1),
                              (os.POSIX_SPAWN_DUP2, null, 2), *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited())])
        except OSError as error:
            raise Refused(f'Unable to execute "{self.program}"', TEMPORARY, error.strerror) from None
        finally:
            os.close(null)
        deadline, pause = time.monotonic() + self.patience, 0.001
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(pause)
            pause = min(0.05, pause * 2)
        os.killpg(child, 9)
        os.waitpid(child, 0)
        return None


def _inherited() -> "list[int]":
    """Descriptors beyond the usual three that whoever started us left open for children."""
    found = []
    for fd in range(3, 256):
        try:
            if os.get_inheritable(fd):
                found.append(fd)
        except OSError:
            pass
    return found


def _nameless_file() -> int:
    """A file that only its descriptor leads to."""
    try:
        return os.open(PLACE, os.O_RDWR | os.O_EXCL | os.O_TMPFILE, 0o600)
    except (OSError, AttributeError):
        pass
    name = f"{PLACE}/popper.{os.getpid()}.{os.urandom(8).hex()}"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Refused(f'Unable to create temporary message file "{name}": {error.strerror}', TEMPORARY) from None
    try:
        os.unlink(name)
    except OSError as error:
        os.close(descriptor)
        raise Refused(f'Unable to create temporary message file "{name}": {error.strerror}', TEMPORARY) from None
    return descriptor
