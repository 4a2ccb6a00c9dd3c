"""Usage:
  popperctl config [-C FILE]

Edits the configuration: a copy of it is opened in your editor, $VISUAL or
$EDITOR, and checked when you leave that. Only when it is right does it take the
place of the file, from one moment to the next, and the server that runs reads
it. With a mistake the file stays as it is; you may go on editing, or find your
copy kept.

Options:
  -C FILE  configuration, /etc/popper.conf if not given

Examples:
  popperctl config
  popperctl config -C /etc/popper.test.conf
"""

import os
import shlex
import shutil
import stat
import sys
import tempfile

from popper.admin import editor, exports, server
from popper.admin.console import Failed
from popper.admin.control import Control, NotRunning, control
from popper.errors import ConfigError
from popper.options import CONFIG, LONGEST_CONFIG

SAMPLE = "../share/popper/etc/popper.conf"       # from the directory of the program


def run(arguments: dict, console) -> int:
    path = os.path.abspath(arguments["-C"] or CONFIG)
    exports.check_place(path)
    given = _read(path)
    asked = _asked(arguments)                # before it is edited: the daemon listens where it was told to until now
    server.program()
    kept = editor.Kept(_sample() if given is None else given, "popper.", ".conf")
    try:
        mistake = _edited(kept, path, console)
        if mistake:
            raise Failed(f"{path}: stays as it is, and popperctl config begins with that again; to go on with what you "
                         f"wrote: {_going_on(kept.path, arguments['-C'], path)}", os.EX_CONFIG)
        if not kept.is_changed:
            kept.remove()
            console.say(f"{path}: not changed")
            return os.EX_OK
        if _read(path) != given:
            raise Failed(f"{path}: somebody else has changed it since you began", os.EX_TEMPFAIL)
        _replace(path, kept.read())
    except BaseException:
        if kept.is_changed:
            console.complain(f"what you wrote is kept in {kept.path}")
        else:
            kept.remove()
        raise
    kept.remove()
    said = _reload(path, asked)
    console.say(f"{path}: written")
    console.say(said)
    return os.EX_OK


def _read(path: str) -> "bytes | None":
    """What stands in the file, None where there is none."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Failed(f"{path}: is no plain file", os.EX_NOINPUT)
            octets = file.read(LONGEST_CONFIG + 1)
    except FileNotFoundError:
        return None
    if len(octets) > LONGEST_CONFIG:
        raise Failed(f"{path}: is longer than {LONGEST_CONFIG} octets", os.EX_DATAERR)
    return octets


def _sample() -> bytes:
    """What a new configuration begins with: the one that is installed as a sample, all comments, or nothing."""
    try:
        with open(os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), SAMPLE), "rb") as file:
            return file.read(LONGEST_CONFIG)
    except OSError:
        return b""


def _asked(arguments: dict) -> Control:
    try:
        return control(arguments)
    except ConfigError:                      # there is no such file yet
        return control({})


def _edited(kept: editor.Kept, path: str, console) -> str:
    """Have it edited until it is right or the administrator has enough. -> the mistake that is left in it, or ""."""
    while True:
        kept.edit("")
        mistake = server.complaint(kept.path, path)
        if not mistake:
            return ""
        console.complain("; ".join(filter(None, (mistake, server.hint(mistake)))))
        if editor.asked(console, "Edit it again? [Y/n] ").lower() not in ("", "y", "yes") or not sys.stdin.isatty():
            return mistake


def _going_on(kept: str, named: "str | None", path: str) -> str:
    """The commands that mend what was kept and put it in place."""
    words = f" -C {shlex.quote(path)}" if named else ""
    return (f"{editor.command() or 'edit'} {shlex.quote(kept)}; popperctl test -C {shlex.quote(kept)} && "
            f"cp {shlex.quote(kept)} {shlex.quote(path)} && popperctl reload{words}")


def _replace(path: str, octets: bytes) -> None:
    """Put octets in the place of a file in one step; mode, owner and attributes stay, and so does a symbolic link."""
    real = os.path.realpath(path)
    directory, name = os.path.split(real)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            _take_after(real, temporary)
            os.fsync(descriptor)
        os.rename(temporary, real)
    except BaseException:
        os.unlink(temporary)
        raise
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_after(real: str, temporary: str) -> None:
    """Give the new file what the old one has; a first one may be read by all."""
    try:
        old = os.stat(real)
    except FileNotFoundError:
        os.chmod(temporary, 0o644)
        return
    os.chown(temporary, old.st_uid, old.st_gid)
    shutil.copystat(real, temporary)         # behind chown, which takes bits away; attributes and lists of access too
    os.utime(temporary)


def _reload(path: str, asked: Control) -> str:
    """Have the daemon read it, if one runs that does. -> what came of it; Failed when it goes on with what it had."""
    who = "the server"
    try:
        now = asked.status()
        if now["state"] != "running":
            return "popper is ending, and does not read it"
        if not server.same_file(path, now["configuration"]):
            return f"the server that runs, process {now['pid']}, reads {now['configuration']}, not this"
        who = f"the server that runs, process {now['pid']},"
        asked.ask("reload", os.EX_CONFIG)
        return f"popper, process {now['pid']}, has read it; it is in force"
    except NotRunning:
        return "popper is not running as a daemon; inetd's next connection reads it"
    except Failed as refused:
        raise Failed(f"{path}: written, but {who} goes on as before: {refused.text}", refused.status) from None
