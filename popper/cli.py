"""Usage:
  popper [-dsR]... [-b DIR]... [-T SECS]... [-t FILE]... [-C FILE]... [--daemon]... [--stdio]... [--check]...
  popper -h
  popper -V

A POP3 server. Started by inetd it serves the connection it was started for;
started any other way it listens by itself.

  -b DIR    directory of bulletins
  -d        debug to syslog
  -s        log a Stats line for each session that entered UPDATE
  -T SECS   idle limit in seconds, 120 if not given, 0 for none
  -t FILE   write all log lines, and debugging, to FILE
  -R        do not look up the name of the client
  -C FILE   configuration, /etc/popper.conf if not given
  --daemon  listen in the background
  --stdio   one session on standard input and output
  --check   read the configuration, say what is wrong with it, and end
  -h        show this
  -V        show the version
"""

import posix
import sys

from popper import VERSION
from popper.errors import ConfigError
from popper.options import plain_flags, settle

EX_OK, EX_USAGE, EX_UNAVAILABLE, EX_CANTCREAT, EX_CONFIG = 0, 64, 69, 73, 78

ANSWERS = frozenset(("-h", "-V", "--check"))             # what is answered on standard output


def main(arguments: "list[str]", connected: bool) -> int:
    """Run popper; the exit status is one of sysexits.h, 0 for a session that ended in whatever way.

    connected: standard input is a socket, as under inetd: then nothing but POP3 may be written anywhere.
    """
    ident = sys.argv[0].rpartition("/")[2].removesuffix("__main__.py") or "popper"
    if connected and not ANSWERS.isdisjoint(arguments):
        return _fail(ident, "-h, -V and --check are for a terminal, not for a super-server", EX_USAGE, connected)
    found = plain_flags(arguments)
    if found is None:
        found = _ask_docopt(arguments)
        if isinstance(found, str):
            return _fail(ident, found, EX_USAGE, connected)
        if found is None:
            return EX_OK
    try:
        options = settle(found)
    except ConfigError as mistake:
        return _fail(ident, str(mistake), EX_CONFIG, connected)
    if options.check:
        complaint = _mistake(options, ident) or _missing(options)
        if complaint:
            return _fail(ident, complaint, EX_CONFIG, connected)
        print(f"{options.config or 'configuration'}: no mistake found")
        return EX_OK
    try:
        trace = _trace(options)
    except ConfigError as mistake:
        return _fail(ident, str(mistake), EX_CANTCREAT, connected)
    from popper import inetd
    given = [0] if connected else []
    if b"LISTEN_FDS" in posix.environ:
        from popper import started
        passed = started.listen_fds(posix.environ, posix.getpid())
        calling = [fd for fd in passed if not started.is_listening(fd)]
        if calling and not connected:        # one connection, not as standard input
            inetd.converse(options, ident, trace, calling[0], calling[0])
            return EX_OK
        given = [fd for fd in passed if fd not in calling] or given
    if (connected or options.stdio) and inetd.converse(options, ident, trace, 0, 0 if connected else 1):
        return EX_OK
    complaint = _mistake(options, ident)
    if complaint:
        return _fail(ident, complaint, EX_CONFIG, connected)
    from popper import daemon, notify
    try:
        if given and options.daemon:
            raise ConfigError("--daemon: a socket was given, and whoever gave it looks after this process")
        daemon.run(options, ident, trace, lambda: settle(found), given, notify.Notify(posix.environ, posix.getpid()))
    except ConfigError as mistake:
        return _fail(ident, str(mistake), EX_UNAVAILABLE, connected)
    return EX_OK


def _mistake(options, ident: str) -> str:
    """What is wrong with what the configuration names: modules, lists of addresses, an account; or ""."""
    from popper import auth, login, privilege
    try:
        auth.modules(options)
        login.rules_of(options, ident)
        login.trusted_of(options)
        privilege.unprivileged(options.unprivileged_user)
    except ImportError as error:
        return f"auth: {error}"
    except ConfigError as mistake:
        return str(mistake)
    return ""


def _missing(options) -> str:
    """What is named and is not there, though a session would need it; or ""."""
    import os
    for name, place in ("bulletins", options.bulletins), ("trace", os.path.dirname(options.trace)):
        if place and not os.path.isdir(place):
            return f"{name}: {place} is not a directory"
    return ""


def _trace(options) -> "int | None":
    """Open the trace file, while there is root to open it."""
    if not options.trace:
        return None
    from popper.journal import open_trace
    return open_trace(options.trace)


def _ask_docopt(arguments: "list[str]") -> "list[tuple[str, str]] | str | None":
    """What docopt makes of a command line: flags, a complaint, or None when it wanted nothing but an answer."""
    from popper.library import library
    try:
        docopt = library("docopt")
    except ImportError:
        if arguments not in (["-h"], ["-V"]):
            return f"{_stumbled(arguments)} is not understood\n" + __doc__.partition("\n\n")[0]
        parsed = {"-h": arguments == ["-h"], "-V": arguments == ["-V"]}
    else:
        try:
            parsed = docopt.docopt(__doc__, arguments, False)
        except docopt.DocoptExit as complaint:
            usage = str(complaint)
            return f"{_stumbled(arguments)} is not understood\n" + usage[max(0, usage.find("Usage:")):]
    if parsed["-h"]:
        print(__doc__.rstrip())
        return None
    if parsed["-V"]:
        print(f"popper {VERSION}")
        return None
    return flags_of(parsed)


def _stumbled(arguments: "list[str]") -> str:
    """The first word that cannot be part of any command line, or lacks a value."""
    read = [plain_flags(arguments[:end]) is not None for end in range(1, len(arguments) + 1)]
    for word, good, next_good in zip(arguments, read, [*read[1:], False]):
        if not good and not next_good:
            return word
    return arguments[-1]


def flags_of(parsed: dict) -> "list[tuple[str, str]]":
    """What `plain_flags` would have made of the same command line."""
    from popper.options import FLAGS, LONG
    found = []
    for letter, (name, takes, value) in FLAGS.items():
        given = parsed["-" + letter]
        if takes:
            found += [(name, each) for each in given]
        elif given:
            found.append((name, value))
    return found + [(name, "yes") for flag, name in LONG.items() if parsed[flag]]


def _fail(ident: str, complaint: str, status: int, connected: bool) -> int:
    """Tell the administrator: on standard error, or, under a super-server, in the log and one word to the client."""
    if not connected:
        sys.stderr.write(f"{ident}: {complaint}\n")
        return status
    import syslog
    syslog.openlog(ident, syslog.LOG_PID, syslog.LOG_LOCAL0)
    syslog.syslog(syslog.LOG_CRIT, " ".join(complaint.split()))
    try:
        posix.write(0, b"-ERR [SYS/PERM] This server is not configured properly.\r\n")
    except OSError:
        pass
    return status
