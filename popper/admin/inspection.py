"""What is wrong with a directory of bulletins, and what to do about it: every name, every rule.

What the server itself says of a file comes first, in its own words; the rest it would deliver as it stands.
"""

import email
import email.policy
import grp
import os
from shlex import quote

from popper.account import shown_name
from popper.admin import compose
from popper.bulletins import candidates, group_of, number_of, open_directory, read_bulletin
from popper.errors import Refused


def faults(options) -> "list[dict]":
    """[{name, what, remedy, fault}, ...]. fault: whether it must be mended; otherwise it is only said."""
    directory = options.bulletins
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = [*_of_directory(directory, descriptor), *_of_names(descriptor)]
        for number, name in candidates(descriptor):
            edit = f"popperctl bulletin edit {number}"
            found += [_row(name, *fault) for fault in _of_bulletin(options, descriptor, name, edit)]
        return found
    finally:
        os.close(descriptor)


def _row(name: str, what: str, remedy: str, fault: bool = True) -> dict:
    return {"name": name, "what": what, "remedy": remedy, "fault": fault}


def _of_directory(directory: str, descriptor: int):
    try:
        os.close(open_directory(directory, os.geteuid()))
    except Refused as refused:
        yield _row(".", refused.text, f"chown root {quote(directory)}; chmod 755 {quote(directory)}")
    if os.fstat(descriptor).st_uid != 0:
        return                               # whoever owns it runs popper, and serves all mail as himself
    path = os.path.realpath(directory)
    while True:
        wanted, letters = (0o005, "rx") if path == os.path.realpath(directory) else (0o001, "x")
        if os.stat(path).st_mode & wanted != wanted:
            yield _row(".", f"users cannot enter {path}", f"chmod o+{letters} {quote(path)}")
        if path == "/":
            return
        path = os.path.dirname(path)


def _of_names(descriptor: int):
    first: "dict[int, str]" = {}
    for number, name in candidates(descriptor):
        if number in first:
            yield _row(name, f"has the number of {first[number]}, and nobody gets it",
                       "give it a number of its own: popperctl bulletin add FILE, then remove it")
        first.setdefault(number, name)
    for name in sorted(os.listdir(descriptor)):
        if number_of(name) == 0 and not name.startswith("."):
            begun = name[:1].isdigit()
            yield _row(name, "is no bulletin" + ("" if begun else ": its name does not begin with a number"),
                       "remove it, or rename it" if begun else "nothing, if that is meant", begun)


def _of_bulletin(options, descriptor: int, name: str, edit: str):
    """(what, remedy, and False where it need not be mended) of one file. edit: the command that edits it."""
    path = quote(os.path.join(options.bulletins, name))
    mode = os.stat(name, dir_fd=descriptor).st_mode if _leads_somewhere(name, descriptor) else 0o644
    if os.fstat(descriptor).st_uid == 0 and not mode & 0o004:
        yield "cannot be read by users", f"chmod 644 {path}"
    try:
        octets = read_bulletin(descriptor, name, options.bulletin_max)
    except Refused as refused:
        yield refused.text, _remedy(refused.text, path)
        return
    if options.group_bulletins:
        yield from _of_group(name)
    yield from _of_content(octets, edit)


def _leads_somewhere(name: str, descriptor: int) -> bool:
    try:
        os.stat(name, dir_fd=descriptor)
    except OSError:
        return False
    return True


def _remedy(text: str, path: str) -> str:
    """What to do about a file that the server does not take. path: as a shell wants it."""
    for words, remedy in (("written by everybody", f"chmod 644 {path}"),
                          ("more than", "shorten it, or raise bulletin_max"),
                          ("separator", f"popperctl bulletin add {path} makes a bulletin of it; then remove this one")):
        if words in text:
            return remedy
    return f"rm {path}"


def _of_group(name: str):
    group = group_of(name)
    if group is None:
        yield "has no group in its name, and goes to everybody", f"rename it to {name}.ALL.text", False
    elif group != "ALL":
        try:
            grp.getgrnam(group)
        except KeyError:
            rest = name.partition(".")[2]
            yield (f'is for a group "{group}" that does not exist, and nobody gets it',
                   f"rename it to {number_of(name)}.ALL.{rest}, or to a group that exists")


def _of_content(octets: bytes, edit: str):
    if compose.count(octets) > 1:
        yield f"holds {compose.count(octets)} messages, and is sent as one", "make a bulletin of each"
    header, _, body = octets.replace(b"\r\n", b"\n").partition(b"\n")[2].partition(b"\n\n")
    for line in header.split(b"\n"):
        if not line.startswith((b" ", b"\t")) and not compose.FIELD.match(line):
            yield f"has a line in its header that is none: {shown_name(line)}", edit
            return
    message = email.message_from_bytes(header + b"\n\n", policy=email.policy.compat32)
    lacking = [field for field in ("From", "Subject", "Date") if not message[field]]
    if lacking:
        yield f"has no {', '.join(lacking)}", edit, False
    if not header.isascii():
        yield "has characters in its header that are not ASCII", edit
    if not body.isascii() and not message["Content-Type"]:
        yield "has text that is not ASCII, and does not say what it is", edit
    if max(map(len, body.split(b"\n"))) > compose.LINE_MOST:
        yield f"has lines of more than {compose.LINE_MOST} octets", edit, False
