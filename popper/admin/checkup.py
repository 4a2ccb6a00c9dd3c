"""Usage:
  popperctl test [-C FILE] [--json]

Looks whether the server could work as it is configured: first for mistakes in
the configuration, as `popper --check` does, then for what it names and what is
not there, or not as it should be, on this system, and for addresses that cannot
be listened on. Changes nothing. The status is 78 when something must be mended,
else 0.

Options:
  -C FILE  configuration, /etc/popper.conf if not given
  --json   one JSON document

Examples:
  popperctl test
  popperctl test -C /etc/popper.new.conf
"""

import grp
import os
import stat

from popper import privilege
from popper.admin import ports, server
from popper.admin.console import settled
from popper.admin.control import control
from popper.bulletins import open_directory
from popper.errors import ConfigError, Refused
from popper.options import CONFIG


def run(arguments: dict, console) -> int:
    mistake = server.complaint(arguments["-C"])
    if mistake:
        found = [_row("", mistake, server.hint(mistake))]
    else:
        options = settled(arguments)
        found = [*faults(options), *_addresses(options, control(arguments))]
    for each in found:
        line = ": ".join(filter(None, (each["directive"], each["what"])))
        console.say("; ".join(filter(None, (line, each["remedy"]))), "red" if each["fault"] else "yellow")
    console.document(found)
    if any(each["fault"] for each in found):
        return os.EX_CONFIG
    file = arguments["-C"] or CONFIG
    console.say(f"{file}: no mistake found" if os.path.exists(file) else f"there is no {file}, and no mistake found",
                "green")
    return os.EX_OK


def _row(directive: str, what: str, remedy: str = "", fault: bool = True) -> dict:
    """One finding. fault: whether it must be mended; otherwise it is only said."""
    return {"directive": directive, "what": what, "remedy": remedy, "fault": fault}


def faults(options):
    """What is wrong on this system with a configuration that has no mistake in itself: a row each."""
    yield from _passwords(options)
    yield from _places(options)
    yield from _spool(options.mailbox)
    yield from _accounts(options)


def _addresses(options, asked):
    for what, remedy, fault in ports.found(options, asked):
        yield _row("bindto", what, remedy, fault)


def _passwords(options):
    path = options.password_file
    if "file" not in options.auth or not path:
        return
    unfit = list(_unfit("password_file", path, stat.S_ISREG, "file", os.R_OK, "read"))
    yield from unfit
    if not unfit and os.stat(path).st_mode & 0o004:
        yield _row("password_file", f"{path} may be read by everybody", f"chmod o-r {path}", False)


def _places(options):
    if options.bulletins:
        try:
            os.close(open_directory(options.bulletins, os.geteuid()))
        except Refused as refused:
            yield _row("bulletins", refused.text, "popperctl bulletin check says more")
    if options.popbull_dir:
        yield from _unfit("popbull_dir", options.popbull_dir, stat.S_ISDIR, "directory", os.X_OK, "entered")
    for name in ("trace", "pid_file", *(["trace_file"] if options.trace_user else [])):
        if path := getattr(options, name):
            directory = os.path.dirname(path)
            if name == "pid_file" and not os.path.lexists(directory):
                directory = os.path.dirname(directory)       # popper makes the last one
            yield from _unfit(name, directory, stat.S_ISDIR, "directory", os.W_OK | os.X_OK, "written in")
    if options.xmit_max:                     # no system needs it for POP3, and popper does without
        for row in _unfit("sendmail", options.sendmail, stat.S_ISREG, "file", os.X_OK, "run"):
            yield {**row, "remedy": "XTND XMIT will be refused", "fault": False}


def _unfit(name: str, path: str, kind, what: str, mode: int, done: str):
    """Why a path is not what is wanted there: a row or none. kind: of stat; what: its word; mode: for os.access."""
    try:
        found = os.stat(path)
    except OSError as error:
        yield _row(name, f"{path}: {error.strerror}", "try as root" if isinstance(error, PermissionError) else "")
        return
    if not kind(found.st_mode):
        yield _row(name, f"{path} is no {what}")
    elif not os.access(path, mode):
        yield _row(name, f"{path} cannot be {done}", "" if os.geteuid() == 0 else "try as root")


def _spool(template: str):
    """The directory of all mailboxes, where there is one: in homes everybody has his own."""
    path = os.path.dirname(template.partition("%")[0]) or "/"
    if template.startswith("~"):
        return
    unfit = list(_unfit("mailbox", path, stat.S_ISDIR, "directory", os.X_OK, "entered"))
    yield from unfit
    if unfit or path != os.path.dirname(template):
        return                               # below it directories differ from user to user
    mode = os.stat(path).st_mode
    if os.geteuid() == 0 and not mode & 0o022:
        yield _row("mailbox", f"users can make no locks in {path}", f"chgrp mail {path}; chmod 2775 {path}")
    if mode & 0o1002 == 0o002:
        yield _row("mailbox", f"everybody may remove and replace the mailboxes of others in {path}", f"chmod +t {path}",
                   False)


def _accounts(options):
    try:
        privilege.unprivileged(options.unprivileged_user)
    except ConfigError as mistake:
        yield _row("unprivileged_user", str(mistake).removeprefix("unprivileged_user: "))
    if options.control_group:
        try:
            grp.getgrnam(options.control_group)
        except KeyError:
            yield _row("control_group", f"there is no group {options.control_group}")
