"""Bulletins: messages that every user gets once, from the numbered files of one directory (ucb-popper.md 6).

All of this runs as the user. Due is what has a higher number than the user's receipt (`popbull`). It goes into the
store together with the new receipt, as one step that no crash splits. What is wrong with a bulletin, the directory or
a receipt makes a line in the log, and never stops a login.
"""

import errno
import grp
import os

from popper.account import Account, shown_name
from popper.errors import PERMANENT, TEMPORARY, Refused
from popper.popbull import DIGITS_MOST, READ, Damaged, Popbull, popbull_path, told
from popper.storage.scan import ENVELOPE_MOST, is_envelope

BATCH = 8388608                # octets of bulletins that are added in one step; memory needs room for them

# what keeps a file from being opened until somebody does something about it
LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EISDIR)


class Board:
    """The bulletins for one account. log: a Journal. starter: whose uid this process had before it became the account,
    if it has done so already."""

    def __init__(self, options, account: Account, log, starter: "int | None" = None) -> None:
        self.options = options
        self.account = account
        self.starter = os.geteuid() if starter is None else starter
        self.log = log
        path = popbull_path(account, options)
        self.popbull = Popbull(path, options.fsync) if path else None

    def noted(self, number: int) -> None:
        """Take the receipt of what the store has added, or Refused."""
        if self.popbull is None:
            raise Refused(f"No place for the receipt of bulletins for {self.account.user}", PERMANENT)
        self.popbull.write(number)

    def has_any(self) -> bool:
        """Whether `deliver` would do anything, or say anything: false only when all is well and nothing is due."""
        if self.popbull is None:
            return True
        try:
            directory = open_directory(self.options.bulletins, self.starter)
            try:
                last = self.popbull.read()
                return last is None or bool(candidates(directory, last))
            finally:
                os.close(directory)
        except (Refused, Damaged, OSError):
            return True

    def deliver(self, store) -> int:
        """Add to the store what is due. -> how many bulletins that were."""
        if self.popbull is None:
            self.log.debug(f"No bulletins for {self.account.user}: neither a home directory nor popbull_dir")
            return 0
        added = 0
        try:
            directory = open_directory(self.options.bulletins, self.starter)
            try:
                for messages, number in self._batches(directory, self._last(directory)):
                    self.popbull.prepare(number)
                    try:
                        store.append(messages, number)
                    finally:
                        self.popbull.discard()
                    added += len(messages)
            finally:
                os.close(directory)
        except Refused as trouble:
            self.log.notice(trouble.text + (f" ({trouble.reason})" if trouble.reason else ""))
        return added

    def _last(self, directory: int) -> int:
        """The number above which bulletins are due; who has no receipt gets one first. Raises Refused."""
        try:
            last = self.popbull.read()
            newest = self.options.new_user_bulletins
        except Damaged as damage:
            self.log.notice(f"{damage.text}; {self.account.user} is taken to have all bulletins")
            last, newest = None, 0           # rather none than all of them again
        if last is None:
            numbers = sorted({number for number, _ in candidates(directory)}, reverse=True) + [0]
            last = numbers[min(newest, len(numbers) - 1)]
            self.popbull.write(last)
        return last

    def _batches(self, directory: int, last: int):
        """Yield (messages, number of the last of them) for all that is due, as the user is to get it, in order."""
        messages, size, highest = [], 0, 0
        for number, name in self._due(directory, last):
            try:
                octets = self._wanted(directory, name)
            except Refused:                  # it may pass: nothing behind this one before it, or it would never come
                break
            if octets is None:
                continue
            if messages and size + len(octets) > BATCH:
                yield messages, highest
                messages, size = [], 0
            self.log.debug(f"Bulletin {_shown(name)} is given to {self.account.user}")
            messages.append(octets)
            size += len(octets)
            highest = number
        if messages:
            yield messages, highest

    def _due(self, directory: int, last: int):
        """Yield (number, name) for what is above a number, in order; of names with one number the first."""
        due, before = candidates(directory, last), (0, "")
        self.log.debug(f"Bulletins above {last} are due to {self.account.user}: {len(due)}")
        for number, name in due:
            if number == before[0]:
                self.log.notice(f"Bulletin {_shown(name)} has the number of {_shown(before[1])}; bulletin omitted")
            else:
                before = number, name
                yield before

    def _wanted(self, directory: int, name: str) -> "bytes | None":
        """A bulletin that is due, ready for the store; None: it is not for this user, or there is something wrong.
        Raises Refused for trouble that may pass."""
        try:
            if self.options.group_bulletins and not self._is_meant(name):
                self.log.debug(f"Bulletin {_shown(name)} is not for {self.account.user}: not of its group")
                return None
            octets = read_bulletin(directory, name, self.options.bulletin_max)
        except Refused as bad:
            self.log.notice(bad.text)
            if bad.code == TEMPORARY:
                raise
            return None
        return addressed(octets, self.account.user, self.options.hostname or os.uname().nodename)

    def _is_meant(self, name: str) -> bool:
        group = group_of(name)
        if group is None:
            self.log.notice(f"Can't find '.' in bulletin name; delivering to all users: {_shown(name)}")
            return True
        member = is_member(self.account, group)
        if member is None:
            raise Refused(f'Non-existent group "{_shown(group)}" in bulletin; bulletin omitted: {_shown(name)}')
        return member


# -- the directory ---------------------------------------------------------------------------------------------------

def open_directory(path: str, owner: int = 0) -> int:
    """The descriptor of a directory of bulletins, or Refused. owner: the uid that may own it besides root, that of
    whoever started popper (security.md, sec.17)."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"Unable to open bulletin directory '{path}': {told(error)}", PERMANENT) from None
    status = os.fstat(directory)
    complaint = "is owned neither by root nor by who runs popper" if status.st_uid not in (0, owner) \
        else "may be written in by others than its owner" if status.st_mode & 0o022 else ""
    if complaint:
        os.close(directory)
        raise Refused(f"Bulletin directory '{path}' {complaint}; no bulletins", PERMANENT)
    return directory


def candidates(directory: int, above: int = 0) -> "list[tuple[int, str]]":
    """(number, name) for every name with a number above this one, in order; one listing and nothing else."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise Refused(f"Unable to read bulletin directory: {told(error)}", TEMPORARY) from None
    found = []
    for name in names:
        digits = name.partition(".")[0]
        if not digits.isdecimal() or int(digits) > above:        # nearly all were received long ago
            number = number_of(name)
            if number > above:
                found.append((number, name))
    return sorted(found)


def number_of(name: str) -> int:
    """The number that the name of a bulletin begins with; 0: it is none (README, .23.swp, 23.text~, 0.text)."""
    digits = name[:len(name) - len(name.lstrip("0123456789"))]
    return int(digits) if 0 < len(digits) <= DIGITS_MOST and not name.endswith("~") else 0


def group_of(name: str) -> "str | None":
    """The GROUP of a name `NUMBER.GROUP.REST`; None: there is no dot."""
    _, dot, rest = name.partition(".")
    return rest.partition(".")[0] if dot else None


def is_member(account: Account, group: str) -> "bool | None":
    """Whether this process, having become the account, is in the group; None: no such group. ALL has everybody.

    An account without numbers is in no group, whoever of the system bears its name.
    """
    if group == "ALL":
        return True
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return None
    return account.uid is not None and gid in (account.gid, *os.getgroups())


# -- a bulletin ------------------------------------------------------------------------------------------------------

def read_bulletin(directory: int, name: str, most: int) -> bytes:
    """What stands in the file of a bulletin, or Refused with the sentence that says what is wrong with it.

    most: octets.
    """
    try:
        descriptor = _open_file(directory, name)
        try:
            status = os.fstat(descriptor)
            if status.st_mode & 0o170000 != 0o100000:
                raise _bad(name, "is not a regular file")
            if status.st_mode & 0o002:
                raise _bad(name, "may be written by everybody")
            octets = b""
            while more := os.read(descriptor, most + 1 - len(octets)):
                octets += more
        finally:
            os.close(descriptor)
    except OSError as error:
        code = "" if error.errno in LASTING else TEMPORARY
        raise Refused(f"Unable to open bulletin file {_shown(name)}: {told(error)}", code) from None
    if len(octets) > most:
        raise _bad(name, f"has more than {most} octets")
    if not octets:
        raise _bad(name, "is empty")
    envelope, _, text = octets.partition(b"\n")
    if len(envelope) >= ENVELOPE_MOST or not is_envelope(envelope):
        raise _bad(name, 'does not start with a valid "From " separator')
    if not text.strip():
        raise _bad(name, "has nothing but an envelope line")
    return octets


def _open_file(directory: int, name: str) -> int:
    """The descriptor of a file in the directory. A symbolic link there is followed, one step, if it belongs to root or
    to whom the directory belongs."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if status.st_mode & 0o170000 != 0o120000:
        return os.open(name, READ, dir_fd=directory)
    if status.st_uid not in (0, os.fstat(directory).st_uid):
        raise _bad(name, "is a symbolic link that is not its directory's owner's")
    descriptor = os.open(os.readlink(name, dir_fd=directory), READ, dir_fd=directory)
    now = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not os.path.samestat(now, status) or now.st_ctime_ns != status.st_ctime_ns:
        os.close(descriptor)
        raise _bad(name, "was replaced while it was opened")
    return descriptor


def addressed(octets: bytes, user: str, host: str) -> bytes:
    """A bulletin as this user gets it: in mbox form, lines ended by LF, no empty lines at its end.

    Each To: becomes `To: USER@HOST`; what continued it goes with it, where the original left that to be read as the
    rest of an address. Status: and X-UIDL: go. A line that would begin another message gets `>` in front, as delivery
    agents do it. Nothing else changes.
    """
    head, _, body = b"\n".join(line.rstrip(b"\r") for line in octets.split(b"\n")).partition(b"\n\n")
    kept, goes = [], False
    for line in head.removesuffix(b"\n").split(b"\n"):
        if not line.startswith((b" ", b"\t")):
            goes = line[:7].lower().startswith((b"to:", b"status:", b"x-uidl:"))
            if line[:3].lower() == b"to:":
                kept.append(b"To: " + os.fsencode(user if "@" in user else f"{user}@{host}"))
        if not goes:
            kept.append(line)
    body = body.rstrip(b"\n")
    return b"\n".join(kept) + b"\n\n" + (_one_message(body) + b"\n" if body else b"")


def _one_message(body: bytes) -> bytes:
    """A body, with envelope lines behind an empty line quoted."""
    lines = body.split(b"\n")
    for at, line in enumerate(lines):
        if line.startswith(b"From ") and not (at and lines[at - 1]) and is_envelope(line):
            lines[at] = b">" + line
    return b"\n".join(lines)


# -- words for the log -----------------------------------------------------------------------------------------------

def _bad(name: str, what: str) -> Refused:
    return Refused(f"Bulletin {_shown(name)} {what}")


def _shown(name: str) -> str:
    """A name of a file in a log line, with nothing in it that could end the line."""
    return shown_name(os.fsencode(name))
