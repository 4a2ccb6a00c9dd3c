"""Mailboxes to be tested with: dummies and copies, in a spool, and what each of them held when it was made.

They lie in the spool itself and in no directory below it: popper takes a spool's group only where root alone decides
on the whole path, and it is the spool's own rights that are to be tried.
"""

import mmap
import os
import random
import tempfile

from popper.admin.console import Failed
from popper.admin.owner import account_of, apart
from popper.maildrop import HEADER_MOST
from popper.privilege import NOBODY, become
from popper.storage.identity import told_apart, unique_id
from popper.storage.mbox import separator
from popper.storage.scan import first_blank, is_envelope, scan

MARK = ".popperctl-test"       # how the names begin; what is beside a mailbox has one more dot, or an ending
MESSAGES = 50                  # in a dummy
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
ENVELOPE = b"From popperctl@localhost Thu Nov 19 10:00:00 2026\n"


class Pristine:
    """What a mailbox held: its messages, each with the empty line behind it, that they may stand in any order.

    octets: anything that can be sliced; sysv: whether Content-Length is believed. Raises NotMailbox.
    """

    def __init__(self, octets, sysv: bool) -> None:
        def entries():
            return list(scan(lambda count, offset: self.octets[offset:offset + count], len(self.octets), sysv))

        self.octets = octets
        found = entries()
        ends = [entry.offset for entry in found[1:]] + [len(octets)]
        if found and (found[0].offset or separator(octets[-4:])
                      or any(separator(octets[max(end - 4, 0):end]) for end in ends)):
            self.octets = _stored(_piece(octets, entry.offset, end) for entry, end in zip(found, ends))
            found = entries()
            ends = [entry.offset for entry in found[1:]] + [len(self.octets)]
        self.spans = [(entry.offset, end) for entry, end in zip(found, ends)]
        self.sizes = [entry.octets for entry in found]
        self.ids = [unique_id(self._header(entry)) for entry in found]
        # A file may begin with a line that would be no envelope line anywhere else: that message stays the first.
        line = self.octets[:1024].partition(b"\n")[0] if found else b""
        self.movable = range(0 if is_envelope(line) else 1, len(found))

    def piece(self, index: int) -> bytes:
        begin, end = self.spans[index]
        return self.octets[begin:end]

    def length(self, order: "list[int]") -> int:
        return sum(self.spans[index][1] - self.spans[index][0] for index in order)

    def unique_ids(self, order: "list[int]") -> "list[bytes]":
        """What popper would say of these messages, in this order."""
        return told_apart([self.ids[index] for index in order])

    def _header(self, entry) -> bytes:
        octets = self.octets[entry.offset:min(entry.end, entry.offset + HEADER_MOST)]
        blank = first_blank(octets)
        return octets[:blank] if blank >= 0 else octets


def _piece(octets, begin: int, end: int) -> bytes:
    piece = octets[begin:end]
    return piece + separator(piece[-4:])


def _stored(pieces) -> mmap.mmap:
    """Octets in a file without a name, not in memory: mailboxes may be larger than that."""
    with tempfile.TemporaryFile() as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def invented(number: int) -> bytes:
    """The octets of a dummy: messages of 200 to 50000 octets, the same for the same number."""
    chance = random.Random(number)
    pieces = []
    for each in range(1, MESSAGES + 1):
        lines = chance.randbytes(int(200 * 250 ** chance.random()) * 3 // 8).hex(" ", 32).encode().split()
        body = b"\n".join(line if at % 9 else b"." + line for at, line in enumerate(lines))
        pieces.append(ENVELOPE + b"From: popperctl@localhost\nMessage-Id: <%d.%d@popperctl.test>\nSubject: %d\n\n%s\n\n"
                      % (number, each, each, body))
    return b"".join(pieces)


class Dummy:
    """A mailbox in a spool that nobody's mail depends on. path: where; uid: whose; of: whose copy it is, or ""."""

    def __init__(self, directory: str, name: str, uid: int, pristine: Pristine, of: str = "") -> None:
        self.directory = directory
        self.name = name
        self.path = os.path.join(directory, name)
        self.uid = uid
        self.pristine = pristine
        self.of = of

    @property
    def title(self) -> str:
        return f"the copy of {self.of}" if self.of else f"dummy {self.name.rpartition('.')[2]}"

    def make(self) -> None:
        """Put it in place. Raises Failed."""
        refused = self._as_maker(self._make)
        if refused:
            raise Failed(f"no mailbox can be made in {self.directory}: {refused}; choose another place with "
                         "--directory", os.EX_CANTCREAT)

    def remove(self) -> None:
        """Take it away, and all that is beside it."""
        self._as_maker(self._remove)

    def beside(self) -> "list[str]":
        """The files that are there on its account, but for itself."""
        ours = (self.name + ".", self.name[1:] + ".")        # beside .NAME there are .NAME.lock and ..NAME.pop
        return [name for name in os.listdir(self.directory)
                if name != self.name and (name + ".").removeprefix(".").startswith(ours)]

    def _as_maker(self, act):
        """act(), by root in a directory of root's, else as its owner: what is in others' directories may lead
        anywhere."""
        if os.geteuid() != 0 or os.stat(self.directory).st_uid == 0:
            return act()
        return apart(self._as_owner, act)

    def _as_owner(self, act):
        account = account_of(self.uid)
        become(account.user, account.uid, account.gid)
        return act()

    def _make(self) -> str:
        try:
            descriptor = os.open(self.path, CREATE, 0o600)
            with open(descriptor, "wb") as file:
                if os.fstat(descriptor).st_uid != self.uid:
                    os.fchown(descriptor, self.uid, -1)
                file.write(self.pristine.octets)
        except OSError as error:
            return error.strerror
        return ""

    def _remove(self) -> None:
        for name in [self.name, *self.beside()]:
            try:
                os.unlink(os.path.join(self.directory, name))
            except OSError:
                pass                         # a keeper may be quicker


def owner_in(directory: str) -> int:
    """As whom dummies are served in a spool: whoever calls; for root its owner, or nobody when that is root."""
    return os.geteuid() or os.stat(directory).st_uid or NOBODY
