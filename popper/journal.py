"""What is told to the administrator: syslog lines, debugging, the trace file.

With a trace file every line goes there and none to syslog, as the original had it: stamp, PID in brackets, text, one
write a line. Whatever came from the network is passed through `wire.printable` by whoever builds the line, and
`masked` hides what must not be logged; neither a password nor the text of a message gets here.
"""

import os
import syslog
import time

from popper.errors import ConfigError

SECRET_FROM = {b"pass": 1, b"apop": 2, b"rpop": 1, b"auth": 2}     # word: how many words of the line may be shown
LEVELS = {syslog.LOG_CRIT: "critical", syslog.LOG_WARNING: "warning", syslog.LOG_NOTICE: "notice",
          syslog.LOG_INFO: "info", syslog.LOG_DEBUG: "debug"}


def masked(line: bytes) -> bytes:
    """A command line with its password or digest replaced."""
    words = line.split(None, 2)
    shown = SECRET_FROM.get(words[0].lower()) if words else None
    if shown is None or len(words) <= shown:
        return line
    return b" ".join(words[:shown]) + b" xxxxxxxxx"


def open_trace(path: str) -> int:
    """The descriptor of a trace file, for appending, mode 0600; ConfigError when it is not a plain file of ours."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigError(f'Unable to open trace file "{path}": {error.strerror} ({error.errno})') from None
    status = os.fstat(descriptor)
    regular = status.st_mode & 0o170000 == 0o100000
    if not regular or status.st_nlink != 1 or status.st_uid != os.geteuid():
        os.close(descriptor)
        what = "not owned by this server's user" if regular and status.st_nlink == 1 else "not a plain file"
        raise ConfigError(f'Unable to open trace file "{path}": it is {what}')
    os.fchmod(descriptor, 0o600)
    return descriptor


class Journal:
    """Where log lines go. `debugging`: whether debug lines are wanted at all; ask before building one."""

    def __init__(self, ident: str, options, trace: "int | None" = None) -> None:
        self.trace = trace
        self.debugging = options.debug or trace is not None
        self.stderr = options.log == "stderr"
        self.ident = ident
        if trace is None and not self.stderr:
            syslog.openlog(ident, syslog.LOG_PID, getattr(syslog, "LOG_" + options.facility.upper()))

    def write(self, level: int, text: str) -> None:
        try:
            if self.trace is not None:
                os.write(self.trace, f"{time.asctime()} [{os.getpid()}] {text}\n".encode("utf-8", "replace"))
            elif self.stderr:
                os.write(2, f"{self.ident}[{os.getpid()}]: {LEVELS[level]}: {text}\n".encode("utf-8", "replace"))
            else:
                syslog.syslog(level, text.encode("utf-8", "replace").decode())
        except OSError:
            pass                             # a full disk under the trace must not disturb a session

    def critical(self, text: str) -> None:
        self.write(syslog.LOG_CRIT, text)

    def warning(self, text: str) -> None:
        self.write(syslog.LOG_WARNING, text)

    def notice(self, text: str) -> None:
        self.write(syslog.LOG_NOTICE, text)

    def info(self, text: str) -> None:
        self.write(syslog.LOG_INFO, text)

    def debug(self, text: str) -> None:
        if self.debugging:
            self.write(syslog.LOG_DEBUG, text)
