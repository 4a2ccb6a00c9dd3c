"""The administrator's end of the control socket: one question as JSON on a line, one answer as JSON on a line.

Whoever listens must be root or ourselves: what a stranger put in that place is not believed. An answer is waited for so
long and read so far, and no farther.
"""

import json
import os
import socket
import stat
import struct
import time

from popper.admin.console import Failed, settled
from popper.errors import ConfigError
from popper.options import CONFIG, Options

PATIENCE = 10                  # seconds, for all of an answer
LARGEST = 33554432             # octets of an answer: ten thousand sessions are a tenth of it
CREDENTIALS = struct.Struct("iII")           # struct ucred, unix(7): pid, uid, gid

# What is taken for true where a daemon of another version does not tell; see `Control.status`.
UNKNOWN = {"version": "", "pid": 0, "since": 0.0, "state": "running", "configuration": "", "listening": (),
           "limits": {}, "strangers": 0, "waiting": 0, "counters": {}, "sessions": (), "guessers": ()}


class NotRunning(Failed):
    """Nobody listens."""

    def __init__(self, path: str) -> None:
        super().__init__(f"popper is not running (no one answers at {path})", os.EX_UNAVAILABLE)


class Control:
    """path: of the socket; group: who may ask besides root, "" for nobody."""

    def __init__(self, path: str, group: str = "", patience: float = PATIENCE) -> None:
        self.path = path
        self.group = group
        self.patience = patience

    def status(self) -> dict:
        """What the daemon says of itself; whatever it leaves out is in it too."""
        return {**UNKNOWN, **self.ask("status")}

    def identity(self) -> "tuple[int, int, int] | None":
        """What tells the socket that is there now from one that another daemon puts in its place."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns

    def ask(self, command: str, refused: int = os.EX_UNAVAILABLE) -> dict:
        """The answer to a command. Raises NotRunning, and Failed: with the status `refused` and the daemon's own words
        when it says no."""
        deadline = time.monotonic() + self.patience
        try:
            with self._connected() as connection:
                connection.sendall(json.dumps({"command": command}).encode() + b"\n")
                octets = self._line(connection, deadline)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NotRunning(self.path) from None
        except PermissionError:
            who = f"root and the group {self.group}" if self.group else "root, or the group that control_group names,"
            raise Failed(f"{self.path}: only {who} may ask", os.EX_NOPERM) from None
        except (TimeoutError, BlockingIOError):
            raise Failed(f"{self.path}: no answer within {self.patience:g} s", os.EX_TEMPFAIL) from None
        except (ConnectionError, EOFError):
            raise Failed(f"{self.path}: popper ended, or closed the connection, and gave no answer",
                         os.EX_UNAVAILABLE) from None
        return self._understood(octets, refused)

    def _connected(self) -> socket.socket:
        found = os.stat(self.path)
        if not stat.S_ISSOCK(found.st_mode):
            raise Failed(f"{self.path}: is no socket", os.EX_UNAVAILABLE)
        self._check(found.st_uid)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            whole = int(self.patience)       # of seconds, as connect(2) of unix(7) waits for room in the queue
            microseconds = int((self.patience - whole) * 1e6)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, microseconds))
            connection.connect(self.path)
            # Another socket may have come to this place since; and this says who listens, not whose a file is.
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            self._check(CREDENTIALS.unpack(told)[1])
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, uid: int) -> None:
        if uid not in (0, os.geteuid()):
            raise Failed(f"{self.path}: the socket of user {uid}, who is neither root nor you, is not spoken to",
                         os.EX_NOPERM)

    def _line(self, connection: socket.socket, deadline: float) -> bytes:
        """The answer without its newline."""
        parts, octets = [], 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            part = connection.recv(65536)
            if not part:
                raise EOFError
            line, newline, _ = part.partition(b"\n")
            parts.append(line)
            octets += len(line)
            if octets > LARGEST:
                raise Failed(f"{self.path}: the answer is longer than {LARGEST} octets", os.EX_PROTOCOL)
            if newline:
                return b"".join(parts)

    def _understood(self, octets: bytes, refused: int) -> dict:
        try:
            answer = json.loads(octets)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
            raise Failed(f"{self.path}: the answer is not understood; is that popper?", os.EX_PROTOCOL)
        if not answer.pop("ok"):
            raise Failed(str(answer.get("error") or "refused, and no reason was given"), refused)
        return answer


def control(arguments: dict) -> Control:
    """The daemon that the configuration of -C tells of, also by a file with a mistake in it: just then one wants to
    look. Raises ConfigError for a file that cannot be read."""
    try:
        options = settled(arguments)
    except ConfigError:
        options = _salvaged(arguments.get("-C") or CONFIG)
    return Control(options.control, options.control_group)


def _salvaged(path: str) -> Options:
    """What the lines that begin with `control` say where the file as a whole is wrong."""
    options = Options()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split(None, 1) for line in file]
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path) from None
    for words in lines:
        if len(words) == 2 and words[0] in ("control", "control_group"):
            try:
                options.set(words[0], words[1].rstrip())
            except ConfigError:
                pass                         # of this one the default
    return options
