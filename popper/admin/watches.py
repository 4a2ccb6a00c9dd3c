"""Whose sessions are traced for a while: a file in `trace_dir` by the name of the user or the address, which holds the
end as seconds since 1970. Every session looks there when it begins."""

import contextlib
import datetime
import os
import pwd
import re
import socket
import stat
import time

from popper.account import plain_name
from popper.admin.console import Failed
from popper.admin.times import UNITS
from popper.admin.tracelines import lasting
from popper.auth.file import line_of
from popper.errors import Refused
from popper.options import MODULES
from popper.peer import plain

FOR = "10m"                    # how long, when nobody says
LONGEST = 7 * 86400            # seconds: a trace that is forgotten does not go on for ever
COLUMNS = {"who": "WHO", "until": "UNTIL", "left": "LEFT"}
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def name_of(who: str) -> str:
    """A user name or an address as the server will compare it. Raises Failed."""
    address = _address(plain(who))
    if address is not None:
        return address
    name = plain_name(os.fsencode(who))
    if name is None:
        raise Failed(f'"{who}" is neither a user name nor an address', os.EX_USAGE)
    return name


def _address(text: str) -> "str | None":
    """An address in the form that is compared, None for what is none: a name may be all digits."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            return plain(socket.inet_ntop(family, socket.inet_pton(family, text)))
    return None


def _is_address(name: str) -> bool:
    return _address(name) is not None


def switch_on(directory: str, who: str, seconds: int) -> int:
    """Have sessions of a user or from an address traced for so long. -> the end, in seconds since 1970."""
    until = int(time.time()) + seconds
    with _opened(directory, who, make=True) as place:
        _sweep(place)
        private = f".{who}.{os.getpid()}"
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                             dir_fd=place)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o644)
                file.write(b"%d\n" % until)
            os.rename(private, who, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            os.unlink(private, dir_fd=place)
            raise
    return until


def switch_off(directory: str, who: str) -> bool:
    """End that; -> whether it was on."""
    if not os.path.isdir(directory):
        return False
    with _opened(directory, who) as place:
        on = who in _sweep(place)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(who, dir_fd=place)
    return on


def listed(directory: str) -> "dict[str, int]":
    """{user or address: end in seconds since 1970}, what is over removed."""
    if not os.path.isdir(directory):
        return {}
    with _opened(directory) as place:
        return _sweep(place)


@contextlib.contextmanager
def _opened(directory: str, who: str = "", make: bool = False):
    """The descriptor of the directory, in which nobody else may write; made when it is missing. who: whose file is
    meant, for an error."""
    if make:
        _make(directory)
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(place)
        if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o022:
            raise Failed(f"others than root may write in {directory}: chown root {directory}; chmod 755 {directory}",
                         os.EX_NOPERM)
        yield place
    except OSError as error:
        if error.filename and who:           # its name in there, or a private one
            error.filename = os.path.join(directory, who)
        raise
    finally:
        os.close(place)


def _make(directory: str) -> None:
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    if parent != directory:
        _make(parent)
    os.mkdir(directory)
    os.chmod(directory, 0o755)


def _sweep(place: int) -> "dict[str, int]":
    """What is on; the files of what is over, and what was half written, are removed where that is allowed."""
    now, found = time.time(), {}
    for name in sorted(os.listdir(place)):
        until = _end(place, name)
        if until is None:
            continue
        if until > now and not name.startswith("."):
            found[name] = until
        elif until <= now:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=place)
    return found


def _end(place: int, name: str) -> "int | None":
    """What stands in a file, None where that is no time."""
    try:
        descriptor = os.open(name, READ, dir_fd=place)
        try:
            words = os.read(descriptor, 32).strip()
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return int(words) if words.isdigit() and len(words) < 12 else None


# -- commands ----------------------------------------------------------------------------------------------------------

def on(arguments: dict, options, console) -> int:
    """popperctl trace on USER..."""
    seconds = _seconds(FOR if arguments["--for"] is None else arguments["--for"])
    file = options.trace or options.trace_file
    again = f" -C {arguments['-C']}" if arguments["-C"] else ""
    rows = []
    for who in [name_of(each) for each in arguments["USER"]]:
        until = _dated(switch_on(options.trace_dir, who, seconds))
        rows.append({"who": who, "until": until, "file": file})
        day = f" on {until:%Y-%m-%d}" if until.date() != datetime.date.today() else ""
        option = "--address" if _is_address(who) else "--user"
        console.say(f"{who} is traced from the next connection on, until {until:%H:%M:%S}{day}, into {file}")
        console.say(f"    popperctl trace follow{again} {option} {who}")
        if not _is_address(who) and not _is_known(who, options):
            console.complain(f"there is no user {who}, in the system or in password_file; who says that name is traced")
    console.document(rows)
    return os.EX_OK


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text, re.A)
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST:
        raise Failed(f'"{text}" is no time to trace for; write 30s, 10m, 2h, up to {LONGEST // 86400}d', os.EX_USAGE)
    return seconds


def off(arguments: dict, options, console) -> int:
    """popperctl trace off USER..."""
    rows = []
    for who in [name_of(each) for each in arguments["USER"]]:
        rows.append({"who": who, "was_on": switch_off(options.trace_dir, who)})
        if who in options.trace_user:
            console.complain(f"{who} is in trace_user of the configuration, and is traced until it is taken out there")
        elif rows[-1]["was_on"]:
            console.say(f"{who} is traced no longer; sessions under way are, to their end")
        else:
            console.complain(f"{who} is not being traced")
    console.document(rows)
    return os.EX_OK if all(row["was_on"] for row in rows) else os.EX_DATAERR


def list_(arguments: dict, options, console) -> int:
    """popperctl trace list"""
    now = time.time()
    rows = [{"who": who, "until": None, "left": None} for who in options.trace_user]
    for who, until in listed(options.trace_dir).items():
        rows.append({"who": who, "until": _dated(until), "left": round(max(0.0, until - now), 3)})
    if console.json:
        console.document(rows)
    else:
        console.table(COLUMNS, [_spoken(row) for row in rows])
    return os.EX_OK


def _spoken(row: dict) -> dict:
    """A row of the list for a person."""
    if row["until"] is None:
        return {**row, "left": "always: trace_user"}
    return {**row, "until": row["until"].replace(tzinfo=None), "left": lasting(row["left"])}


def _dated(seconds: float) -> datetime.datetime:
    """A time since 1970 in the zone here."""
    return datetime.datetime.fromtimestamp(seconds).astimezone()


def _is_known(user: str, options) -> bool:
    """Whether somebody could log in by that name, as far as that can be told here."""
    if set(options.auth).difference(MODULES):
        return True                          # what other modules know is known to them alone
    try:
        pwd.getpwnam(user)
        return True
    except KeyError:
        pass
    try:
        return bool(options.password_file) and line_of(user, options.password_file) is not None
    except Refused:                          # it cannot be read here
        return True
