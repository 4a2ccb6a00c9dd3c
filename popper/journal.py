"""What is told to the administrator: syslog lines, debugging, the trace file.

With a trace file every line goes there and none to syslog, as the original had it: stamp, PID in brackets, text, one
write a line. A trace of one user or address gets these lines too, and syslog goes on as ever. Whatever came from the
network is passed through `wire.printable` by whoever builds the line, and `masked` hides what must not be logged: no
password gets here, and the text of a message only where `trace_bodies` asks for it.
"""

import os
import syslog
import time

from popper.errors import ConfigError

HIDDEN = b"xxxxxxxxx"
# word: how many words of its line may be shown
SECRET_FROM = {b"pass": 1, b"apop": 2, b"rpop": 1, b"auth": 2, b"user": 2}
LEVELS = {syslog.LOG_CRIT: "critical", syslog.LOG_WARNING: "warning", syslog.LOG_NOTICE: "notice",
          syslog.LOG_INFO: "info", syslog.LOG_DEBUG: "debug"}
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
HELD_MOST = 1000               # lines of a session of which it is not known yet whether it is to be traced
NOTED_MOST = 16384             # octets of debug lines of a stranger that are kept,
NOTED_MORE = 64                # each with so many around it
NAME = "\0"                    # in a line of Notes: the client's name; nothing that is logged has a NUL in it else


def masked(line: bytes) -> bytes:
    """A command line with its password or digest replaced."""
    words = line.split(None, 2)
    shown = SECRET_FROM.get(words[0].lower()) if words else None
    if shown is None or len(words) <= shown:
        return line
    return b" ".join([*words[:shown], HIDDEN])


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


def followed(descriptor: "int | None", path: str) -> "int | None":
    """The descriptor of a trace file that may have been renamed since it was opened: that of the file by its name
    now, or the one at hand when there is none to be opened."""
    try:
        if descriptor is None or os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except OSError:
        pass
    try:
        return open_trace(path)
    except ConfigError:
        return descriptor


def watched(options) -> "frozenset[str]":
    """The names and addresses whose sessions are to be traced: those of `trace_user`, and those that popperctl asked
    for in `trace_dir`, a file each by that name with the time when that ends, in seconds since 1970."""
    names = set(options.trace_user)
    try:
        asked = os.listdir(options.trace_dir)
    except OSError:
        return frozenset(names)
    for name in asked:
        try:
            descriptor = os.open(f"{options.trace_dir}/{name}", READ)
            try:
                until = os.read(descriptor, 32).strip()
            finally:
                os.close(descriptor)
        except OSError:
            continue
        if until.isdigit() and int(until) > time.time():
            names.add(name)
    return frozenset(names)


class Journal:
    """Where log lines go. `debugging`: whether debug lines are wanted at all; ask before building one.

    watched: names and addresses to be traced in `path`, beside what the log gets anyway; `concerns` says who it is.
    """

    def __init__(self, ident: str, options, trace: "int | None" = None,
                 watched: "frozenset[str]" = frozenset(), mark: str = "") -> None:
        self.ident = ident
        self.mark = mark                     # what all lines of a session have in the trace; "": the PID
        self.trace = trace
        self.alone = trace is not None       # nothing goes to syslog
        self.stderr = options.log == "stderr"
        self.debug_wanted = options.debug
        self.bodies_wanted = options.trace_bodies
        self.watched = watched if trace is None else frozenset()
        self.path = options.trace_file
        self.torn = b""
        self.held: "list[bytes]" = []        # for a trace, until it is known whose session this is
        self.debugging = options.debug or trace is not None or bool(self.watched)
        if not self.alone and not self.stderr:
            syslog.openlog(ident, syslog.LOG_PID, getattr(syslog, "LOG_" + options.facility.upper()))

    def concerns(self, who: str) -> None:
        """The session is that of this user, or from this address. Opens the trace if there is to be one: to be asked
        while there is root to open it."""
        if who not in self.watched or self.trace is not None:
            return
        try:
            self.trace = open_trace(self.path)
        except ConfigError as trouble:
            self.unconcerned()
            self.warning(str(trouble))
            return
        held, self.held = self.held, []
        for line in held:
            self._append(line)
        self.notice(f'Tracing session of "{who}" in file "{self.path}"')
        self.warn_of_bodies()

    def warn_of_bodies(self) -> None:
        if self.bodies:
            self.warning("The texts of messages are written to the trace (trace_bodies)")

    @property
    def bodies(self) -> bool:
        """Whether the texts of messages are wanted."""
        return self.bodies_wanted and self.trace is not None

    def unconcerned(self) -> None:
        """Nobody of interest: what was held is forgotten."""
        if self.trace is None:
            self.held, self.watched, self.debugging = [], frozenset(), self.debug_wanted

    def close(self) -> None:
        """Give back a trace that was opened for somebody."""
        if self.trace is not None and not self.alone:
            os.close(self.trace)
            self.trace = None

    def write(self, level: int, text: str, seconds: "float | None" = None) -> None:
        """Log a line. seconds: when that was, since 1970; None: now."""
        if self.trace is not None or self.watched:
            stamp = stamped(time.time() if seconds is None else seconds)
            line = f"{stamp} [{self.mark or os.getpid()}] {text}\n".encode("utf-8", "replace")
            if self.trace is not None:
                self._append(line)
            elif len(self.held) < HELD_MOST:
                self.held.append(line)
        if self.alone or (level == syslog.LOG_DEBUG and not self.debug_wanted):
            return
        try:
            if self.stderr:
                os.write(2, f"{self.ident}[{os.getpid()}]: {LEVELS[level]}: {text}\n".encode("utf-8", "replace"))
            else:
                syslog.syslog(level, text.encode("utf-8", "replace").decode())
        except OSError:
            pass

    def _append(self, line: bytes) -> None:
        line = self.torn + line
        try:
            if os.write(self.trace, line) < len(line):
                self.torn = b"\n"            # the last of the disk took half a line: the next one begins on its own
            else:
                self.torn = b""
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

    def replay(self, lines: "list[tuple[float, int, str]]", name: str) -> None:
        """Log what somebody noted (Notes) who could not log it himself. name: what the client is called."""
        for seconds, level, text in lines:
            if level != syslog.LOG_DEBUG or self.debugging:
                self.write(level, text.replace(NAME, name), seconds)


class Notes:
    """A journal of somebody who can reach no log: lines (seconds since 1970, level, text), kept for one who can.

    He does not know what the client is called, either: NAME stands for it. Of what is only for debugging as much is
    kept as a login needs: thousands may be there at once, and a stranger chooses what it says.
    """

    bodies = False

    def __init__(self, debugging: bool) -> None:
        self.debugging = debugging
        self.lines: "list[tuple[float, int, str]]" = []
        self.room = NOTED_MOST

    def write(self, level: int, text: str) -> None:
        if level == syslog.LOG_DEBUG:
            self.room -= len(text) + NOTED_MORE
        if self.room > 0 or level != syslog.LOG_DEBUG:
            self.lines.append((time.time(), level, text))

    critical, warning, notice, debug = Journal.critical, Journal.warning, Journal.notice, Journal.debug

    def take(self) -> "list[tuple[float, int, str]]":
        """The lines; they are the caller's from now on."""
        lines, self.lines, self.room = self.lines, [], NOTED_MOST
        return lines


def stamped(seconds: float) -> str:
    """`Thu Nov 24 18:22:48.123 1996`: the original's stamp, with Qpopper 4's milliseconds."""
    text = time.asctime(time.localtime(seconds))
    return f"{text[:19]}.{int(seconds * 1000) % 1000:03d}{text[19:]}"
