"""What a mailbox test works on: dummies and copies with a ledger of what is to be in them, and mailboxes in place."""

import os
import tempfile

from popper import login
from popper.admin import looks, rounds
from popper.admin.console import Failed
from popper.admin.dummies import MARK, Dummy, Pristine, invented, owner_in
from popper.admin.ledger import Ledger
from popper.admin.owner import account_of, apart, owner_of
from popper.errors import PERMANENT, Refused
from popper.storage.held import Held
from popper.storage.locks import OPEN, checked
from popper.storage.mbox import BLOCK
from popper.storage.scan import NotMailbox


class Place:
    """A mailbox that is tested where it is. token: "", or what is in the Message-Id of test mail."""

    def __init__(self, path: str, uid: int, token: str) -> None:
        self.path = self.title = path
        self.uid = uid
        self.token = token
        self.known = None
        self.left = False                    # test mail of ours
        self.busy = False                    # one look at a time, or they would only wait for each other

    def task(self, trial, _):
        return lambda: looks.look(self.path, self.uid, trial.options, self.known, self.token)

    def took(self, answer: dict, trial) -> None:
        self.known = answer.get("known", self.known)
        self.left = answer.get("left", self.left)

    def last(self, trial) -> None:
        for _ in range(10):
            if not self.left:
                return
            trial.alone(self)
        trial.fault(f"{self.title}: a message of this test is still in it, its Message-Id has {self.token}")

    def remove(self) -> None:
        pass


class Bench:
    """A dummy or a copy, and what is to be in it."""

    def __init__(self, dummy: Dummy) -> None:
        self.dummy = dummy
        self.title = dummy.title
        self.ledger = Ledger(list(range(len(dummy.pristine.spans))))
        self.busy = False

    def task(self, trial, kill: "float | None", delete: bool = True):
        return lambda: rounds.session(self.dummy, self.ledger, trial.options, delete, kill)

    def took(self, answer: dict, trial) -> None:
        if answer.get("out"):
            out = answer["out"]
            trial.pending.append((self, lambda: rounds.delivery(self.dummy, self.ledger, trial.options, out)))

    def last(self, trial) -> None:
        """The end: all is to be there, and nothing beside it."""
        for _ in range(10):
            answer = trial.alone(self, delete=False)
            while trial.pending:
                trial.start(*trial.pending.popleft())
                trial.finish()
            if not answer or answer["faults"]:
                return
            if "busy" not in answer and not answer.get("out"):
                break
        for name in self.dummy.beside():
            trial.fault(f"{self.title}: {name} was left beside it")

    def remove(self) -> None:
        self.dummy.remove()
        self.ledger.close()


def prepare(trial, files: "list[str]", directory: "str | None", options) -> None:
    """Make dummies, or copies of these files, and give them to the trial. Raises Failed."""
    sysv = options.mailbox_format == "sysv"
    sources = [(directory or os.path.dirname(file), served(file), file) for file in files]
    if not files:
        directory = directory or _spool(options)
        sources = [(directory, owner_in(directory), "")] * max(1, trial.jobs // 2)
    for number, (place, uid, file) in enumerate(sources, 1):
        try:
            pristine = Pristine(_copied(file, uid, options) if file else invented(number), sysv)
        except NotMailbox as error:
            raise Failed(f"{file}: not a mailbox: {error}", os.EX_DATAERR) from None
        if not pristine.spans:
            raise Failed(f"{file}: there is no mail in it to test with", os.EX_DATAERR)
        dummy = Dummy(os.path.abspath(place), f"{MARK}.{os.getpid()}.{number}", uid, pristine, file)
        trial.places.append(Bench(dummy))
        dummy.make()


def _spool(options) -> str:
    """The directory of the template's mailboxes, as far as it is the same for all users."""
    template = options.mailbox
    if template.startswith("~"):
        return os.path.expanduser("~")
    return os.path.dirname(template.partition("%")[0])


def served(path: str) -> int:
    """Whose a mailbox is; Failed where it cannot be served."""
    uid = owner_of([path])
    if uid is None:
        raise Failed(f"{path}: no such file", os.EX_NOINPUT)
    if os.geteuid() not in (0, uid):
        raise Failed(f"{path}: belongs to {account_of(uid).user}; try as root", os.EX_NOPERM)
    if uid == 0:
        raise Failed(f"{path}: is root's, and popper serves no mailbox of root's", os.EX_NOPERM)
    return uid


def _copied(path: str, uid: int, options):
    """The octets of a mailbox, read as its owner and under its locks."""
    with tempfile.TemporaryFile() as file:
        complaint, status = apart(_copy, path, uid, options, file)
        if complaint:
            raise Failed(f"{path}: {complaint}", status)
        file.seek(0)
        return file.read()


def _copy(path: str, uid: int, options, file) -> "tuple[str, int]":
    """-> (what is wrong, or "", exit status)"""
    try:
        locks = login.enter_spool(account_of(uid), path, rounds.Agent)
        try:
            descriptor = os.open(path, OPEN)
            checked(descriptor, path)
            with Held(locks, descriptor, path, options.lock_timeout, options.locks):
                at = 0
                while block := os.pread(descriptor, BLOCK, at):
                    file.write(block)
                    at += len(block)
            file.flush()
        finally:
            locks.close()
    except Refused as refused:
        said = refused.text + (f" ({refused.reason})" if refused.reason else "")
        if refused.code == PERMANENT and refused.text.startswith(f"{path}.lock "):
            directory, owner = os.path.dirname(path), account_of(uid).user
            said += f" In {directory} {owner}, whose mailbox it is, must be able to make locks, as in the spool"
        return said, os.EX_NOPERM if refused.code == PERMANENT else os.EX_TEMPFAIL
    except OSError as error:
        return error.strerror, os.EX_NOPERM if isinstance(error, PermissionError) else os.EX_TEMPFAIL
    return "", os.EX_OK
