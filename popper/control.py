"""The control socket: what a daemon tells and does for who may open it, root or a group that the configuration names.

One line of JSON comes, one goes. What takes work is done by a child, so that whoever asks holds nobody up.
"""

import _socket
import errno
import grp
import os
import time

from popper.errors import ConfigError
from popper.forking import fork

LONGEST = 4096                 # octets of a request
PATIENCE = 1.0                 # seconds for it to come whole
ENDING = b'"state": "ending"'  # in the answer to `status`
COMMANDS = ("status", "reload", "stop", "stop-now", "upgrade")


class Control:
    """The listening socket at a path. ConfigError when it cannot be. ours: one that this is to follow."""

    def __init__(self, path: str, group: str, ours: "Control | None" = None) -> None:
        self.path = path
        try:
            gid = grp.getgrnam(group).gr_gid if group else -1
        except KeyError:
            raise ConfigError(f"control_group: there is no group {group}") from None
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            _clear(path, ours.inode if ours else 0)
            mask = os.umask(0o177)
            try:
                self.socket.bind(path)
            finally:
                os.umask(mask)
            if group:
                os.chown(path, -1, gid)
                os.chmod(path, 0o660)
            self.socket.listen(8)
        except OSError as error:
            self.socket.close()
            raise ConfigError(f"control: no socket can be made at {path}: {error.strerror or error}") from None
        self.socket.setblocking(False)
        self.inode = os.lstat(path).st_ino

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        """The path goes, unless it is another's by now."""
        try:
            if os.lstat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except OSError:
            pass
        self.socket.close()

    def answer(self, master) -> None:
        """Do what somebody asks for. master: has `status`, and `do(command)` -> a complaint or "". OSError: nobody can
        be let in."""
        try:
            fd, _ = self.socket._accept()
        except (BlockingIOError, ConnectionError):       # gone already
            return
        asked = _socket.socket(fileno=fd)
        try:
            command = _command(_line(asked))
            if command == "status":
                _answer_beside(asked, master)
            else:
                complaint = master.do(command) if command else f"expected a command, one of {' '.join(COMMANDS)}"
                asked.sendall(b'{"ok": true}\n' if not complaint else _json({"ok": False, "error": complaint}))
        except OSError:
            pass                             # he has gone, or says nothing
        finally:
            asked.close()


def _clear(path: str, ours: int) -> None:
    """Make room for a socket at a path: its directory, and no socket left by a daemon that was killed. ours: inode of
    one that may be replaced though somebody listens at it."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if status.st_mode & 0o170000 == 0o140000 and status.st_uid == os.geteuid():
        if status.st_ino != ours and _is_heard(path):
            raise OSError(errno.EADDRINUSE, "another server listens there")
        os.unlink(path)


def _is_heard(path: str) -> bool:
    """Whether a server is to be reached at a socket, and not one that only waits for its last sessions."""
    asking = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        asking.settimeout(PATIENCE)
        asking.connect(path)
        asking.sendall(b'{"command": "status"}\n')
        said = b""
        while piece := asking.recv(65536):
            said += piece
        return ENDING not in said
    except (TimeoutError, BlockingIOError):  # as many wait for its answer as it lets wait
        return True
    except OSError:
        return False
    finally:
        asking.close()


def _line(asked) -> bytes:
    octets, deadline = b"", time.monotonic() + PATIENCE
    while b"\n" not in octets and len(octets) < LONGEST:
        asked.settimeout(max(0.001, deadline - time.monotonic()))
        piece = asked.recv(LONGEST)
        if not piece:
            break
        octets += piece
    return octets


def _command(octets: bytes) -> str:
    """The command of a request, or "" for none that is known. Only what popperctl sends is understood: JSON's reader
    would have to be imported, and kept."""
    words = octets.replace(b" ", b"").strip()
    return next((command for command in COMMANDS if words == b'{"command":"%s"}' % command.encode()), "")


def _answer_beside(asked, master) -> None:
    """In a child: reckoning, and JSON, are no work for who has connections to accept."""
    if fork():
        return                               # it is reaped with the others
    try:
        asked.sendall(_json({"ok": True, **master.status()}))
    finally:
        os._exit(0)


def _json(document: dict) -> bytes:
    import json
    return json.dumps(document).encode() + b"\n"
