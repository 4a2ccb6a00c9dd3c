"""The manners of a daemon: to leave the terminal, to say there how its start went, and to keep a pid file.

A pid file is believed by its lock, not by its number, which another process may have by now. The lock is fcntl's: it
ends with its process, however that ends, is not shared by what that process forked, and stays when it becomes another
program by execve(2).
"""

import fcntl
import os
import sys

from popper.errors import ConfigError

OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
EX_OK, EX_SOFTWARE, EX_OSERR = 0, 70, 71
END = b"\0"                    # ends what the daemon says to who started it


class PidFile:
    """A pid file that is ours. Closing any descriptor of that file gives up the lock, so nobody else opens it here."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._pid = os.getpid()

    def remove(self) -> None:
        """Remove it, unless it is another's by now; a child of who wrote it removes nothing."""
        if os.getpid() != self._pid or self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if _is_at(descriptor, self.path):
                os.unlink(self.path)
        except OSError:
            pass                             # without its lock it hinders nobody
        finally:
            os.close(descriptor)


def write_pid_file(path: str) -> PidFile:
    """Write the number of this process into a file, which whoever started us can tell us by as long as we live.

    Raises ConfigError: another daemon lives, or the file is one that must not be written to. Only its owner may read
    it: who can open a file can lock it.
    """
    for _ in range(5):
        descriptor = _opened(path)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(descriptor, path):         # its owner removed it between our open and our lock
                os.close(descriptor)
                continue
            os.fchmod(descriptor, 0o600)
            line = b"%d\n" % os.getpid()
            os.pwrite(descriptor, line, 0)           # over what a dead daemon left, and the rest of that goes
            os.ftruncate(descriptor, len(line))
            return PidFile(path, descriptor)
        except BlockingIOError:
            number = os.pread(descriptor, 20, 0).partition(b"\n")[0]
            os.close(descriptor)
            who = f" as process {int(number)}" if number.isdigit() else ""
            raise ConfigError(f"already running{who}", path) from None
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(f"cannot be written: {error.strerror}", path) from None
    raise ConfigError("is removed again and again by another process", path)


def _opened(path: str) -> int:
    """Open a pid file, or make it, and its directory where that alone is missing, as /run/popper is after each boot;
    ConfigError when it is none of ours."""
    try:
        try:
            descriptor = os.open(path, OPEN, 0o600)
        except FileNotFoundError:
            _make_directory(os.path.dirname(path))
            descriptor = os.open(path, OPEN, 0o600)
        status = os.fstat(descriptor)
    except OSError as error:
        raise ConfigError(f"cannot be opened: {error.strerror}", path) from None
    complaint = "is not a regular file" if status.st_mode & 0o170000 != 0o100000 else \
        "belongs to another user" if status.st_uid != os.geteuid() else \
        "has more than one name" if status.st_nlink > 1 else ""
    if complaint:
        os.close(descriptor)
        raise ConfigError(complaint, path)
    return descriptor


def _make_directory(path: str) -> None:
    umask = os.umask(0o022)
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass                                 # made by another one just now
    finally:
        os.umask(umask)


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open file is what has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


class Ready:
    """The way from the daemon to who started it, who waits. The first word ends that."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self) -> None:
        """It serves: the command that started it ends with 0."""
        self._say("", EX_OK)

    def failed(self, complaint: str, status: int) -> None:
        """It does not: the command shows this line and ends with this status. The daemon is then to end too."""
        self._say(complaint, status)

    def _say(self, text: str, status: int) -> None:
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        octets = f"{status} {text}".encode("utf-8", "replace").replace(END, b"?") + END
        try:
            while octets:
                octets = octets[os.write(descriptor, octets):]
        except OSError:
            pass                             # nobody waits any more
        os.close(descriptor)


def detach() -> Ready:
    """Go on as a daemon: in a session without a terminal, in /, with /dev/null for the three standard descriptors.

    Comes back in the daemon only. The process that called it waits for the daemon's word and ends with its status.
    Raises ConfigError when there is no process or no pipe to be had.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream:                           # None: it was closed when we began
            stream.flush()
    try:
        null = os.open("/dev/null", os.O_RDWR)
        while null < 3:                      # what was closed is no place for the pipe
            null = os.dup(null)
        reader, writer = os.pipe()
        child = os.fork()
    except OSError as error:
        raise ConfigError(f"cannot become a daemon: {error.strerror}") from None
    if child:
        os.close(writer)
        _wait(reader, child)
    os.close(reader)
    ready = Ready(writer)
    try:
        os.setsid()
        if os.fork():                        # who leads a session may get a terminal again by opening one
            os._exit(EX_OK)
        os.chdir("/")
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.close(null)
    except OSError as error:
        ready.failed(f"popper: cannot become a daemon: {error.strerror}", EX_OSERR)
        os._exit(EX_OSERR)
    return ready


def _wait(reader: int, child: int) -> None:
    """End as the daemon says. What it forked may have the pipe open for longer, so that is not read to its end."""
    status, text = EX_SOFTWARE, "popper: the daemon ended before it was ready"
    try:
        os.waitpid(child, 0)
        said = b""
        while END not in said:
            piece = os.read(reader, 4096)
            if not piece:
                break
            said += piece
        else:
            number, _, text = said.partition(END)[0].decode("utf-8", "replace").partition(" ")
            status = int(number)
        if text:
            os.write(2, text.encode("utf-8", "replace") + b"\n")
    except KeyboardInterrupt:
        status = 130
    finally:
        os._exit(status)
