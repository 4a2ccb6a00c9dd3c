"""Usage:
  popperctl mailbox repair [-C FILE] [-n] [--discard] [--json] FILE...
  popperctl mailbox test [-C FILE] [-j WORKERS] [--seconds N | --rounds N]
      [--interval MS] [--directory DIR] [--kill] [--json] [FILE]...
  popperctl mailbox test --in-place [--update] [-C FILE] [-j WORKERS]
      [--seconds N | --rounds N] [--interval MS] [--json] FILE...

`repair` finishes what was interrupted in mailboxes, as the next login would: an
update that a crash stopped, and mail that an older popper left in .NAME.pop.
Says in one line for each mailbox what was found, and what a login finds now.

`test` holds sessions over dummies that it makes in the spool, or over copies of
mailboxes, several at once: opens, locks, parses, deletes, compares every octet,
puts back, releases. Prints rates, times, and any fault found.

Options:
  -C FILE        configuration, /etc/popper.conf if not given
  -n, --dry-run  say what would be done; touch nothing
  --discard      remove a record that does not fit its mailbox, and with it what
                 is in it; without this it stays, and no login is let in
  -j WORKERS     so many processes at once, 4 if not given
  --seconds N    test for so long, 10 seconds if neither this nor --rounds is given
  --rounds N     test for so many sessions
  --interval MS  milliseconds that each worker waits between two sessions
  --directory DIR  where dummies or copies are made; if not given in the spool, or
                 beside their mailboxes
  --kill         kill every fifth session in its update; the next one must recover
  --in-place     the mailboxes themselves: open, lock, parse and release them,
                 change nothing
  --update       add test messages behind the mail, and delete them again
  --json         one JSON document

Examples:
  popperctl mailbox repair -n /var/mail/*
  popperctl mailbox repair --discard /var/mail/joe
  popperctl mailbox test
  popperctl mailbox test -j 8 --seconds 60 --kill --directory /mnt/newspool
"""

import os

from popper import privilege
from popper.account import Account
from popper.admin import trial
from popper.admin.console import settled
from popper.admin.owner import account_of, apart, owner_of
from popper.bulletins import Board
from popper.errors import IN_USE, PERMANENT, Refused
from popper.login import mailbox_of, open_store
from popper.storage.locks import SpoolLocks, complaint_about, holder
from popper.storage.mbox import Mbox
from popper.storage.record import Foreign
from popper.storage.redo import Redo
from popper.storage.scan import NotMailbox, scan

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# state: (exit status, colour); of several mailboxes the state that stands last here decides
STATES = {
    "clean": (os.EX_OK, "green"),
    "root's": (os.EX_OK, ""),                # popper serves no mailbox of root's, so none can need this
    "repaired": (os.EX_OK, "green"),
    "in use": (os.EX_TEMPFAIL, "yellow"),
    "missing": (os.EX_NOINPUT, "red"),
    "forbidden": (os.EX_NOPERM, "red"),
    "failed": (os.EX_IOERR, "red"),
    "needs repair": (os.EX_DATAERR, "yellow"),
    "left": (os.EX_DATAERR, "red"),
}


def run(arguments: dict, console) -> int:
    options = settled(arguments)
    if arguments["test"]:
        return trial.run(arguments, options, console)
    act = look if arguments["--dry-run"] else repair
    found = []
    for file in arguments["FILE"]:
        found.append(_told(_as_owner, os.path.abspath(file), options, act, arguments["--discard"]))
        console.say(_line(found[-1]), STATES[found[-1]["state"]][1])
    console.document(found)
    return STATES[max((each["state"] for each in found), key=list(STATES).index)][0]


def _line(found: dict) -> str:
    count = found.get("messages")
    counted = [] if count is None else [f"{count} message{'s' * (count != 1)}, {found['octets']} octets"]
    return f"{found['file']}: " + "; ".join([*(found["found"] or ["clean"]), *counted])


# -- the owner ---------------------------------------------------------------------------------------------------------

def _as_owner(path: str, options, act, discard: bool) -> dict:
    """What act(path, options, account, discard) finds as the owner of a mailbox: root forks for that, others can only
    be who they are."""
    locks = SpoolLocks(path)
    uid = owner_of((path, locks.session_file, locks.foreign_file, locks.record_file))
    if uid is None:
        return _result(path, "missing", ["no such file"])
    if os.geteuid() != 0:
        if uid != os.geteuid():
            return _result(path, "forbidden", [f"belongs to {account_of(uid).user}; try as root"])
        return act(path, options, account_of(uid), discard)
    if uid == 0:
        return _result(path, "root's", ["not looked at: it is root's, and popper serves no mailbox of root's"])
    return apart(_told, act, path, options, account_of(uid), discard)


def _told(act, path: str, *arguments) -> dict:
    """What act finds; trouble is a finding too."""
    try:
        return act(path, *arguments)
    except Refused as refused:
        said = [refused.text + (f" ({refused.reason})" if refused.reason else "")]
        return _result(path, "left" if refused.code == PERMANENT else "failed", said)
    except NotMailbox as error:
        return _result(path, "left", [f"not a mailbox: {error}"])
    except OSError as error:
        hint, state = ("; try as root", "forbidden") if isinstance(error, PermissionError) else ("", "failed")
        return _result(path, state, [f"{error.filename or path}: {error.strerror}{hint}"])


def _result(path: str, state: str, found: "list[str]", entries=None) -> dict:
    return {"file": path, "state": state, "found": [each.removeprefix(f"{path}: ") for each in found],
            "messages": None if entries is None else len(entries),
            "octets": None if entries is None else sum(entry.octets for entry in entries)}


# -- repair ------------------------------------------------------------------------------------------------------------

def repair(path: str, options, account: Account, discard: bool) -> dict:
    """Become the owner, take the locks, and have the store do what it does at a login."""
    board = Board(options, account, None)    # before `become`: it looks who that was
    store = open_store(account, path, options, _receipts(board, path))
    locks = store.locks
    try:
        holder = _holder(locks.session_file)
        try:
            locks.session()
        except Refused as refused:
            if refused.code == IN_USE:
                return _result(path, "in use", [_locked(holder)])
            return _result(path, "forbidden", [f"{refused.text} ({refused.reason})"])
        found = []
        if _is_ours(locks.foreign_file):
            if not discard:
                return _result(path, "left", [_unfitting(path, locks)])
            locks.discard()
            found.append(f"the record that did not fit is removed, {locks.foreign_file}")
        return _scanned(path, store, found, discard)
    finally:
        store.close()


def _scanned(path: str, store: Mbox, found: "list[str]", discard: bool) -> dict:
    try:
        entries = store.scan()
    except Later as later:
        return _result(path, "left", [*found, str(later)])
    except Refused as refused:
        if isinstance(refused.__context__, NotMailbox):
            raise refused.__context__ from None          # says where
        if refused.code == IN_USE:
            return _result(path, "in use", [*found, "locked by another program; try again"])
        if not store.alarms:
            raise
        if not discard:
            return _result(path, "left", [*found, *store.alarms, _advice(path)])
        found += [*store.alarms, "this is removed now"]
        store.alarms.clear()
        if _is_ours(store.locks.foreign_file):
            store.locks.discard()
        else:                                # it could not be renamed
            store.locks.forget()
        return _scanned(path, store, found, False)
    found += store.notes
    left = os.path.lexists(store.locks.session_file) and os.stat(store.locks.session_file).st_size
    return _result(path, "left" if left else "repaired" if found else "clean", found, entries)


def _is_ours(path: str) -> bool:
    """Whether the file is there, and no stranger's who may make files in this spool."""
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _unfitting(path: str, locks) -> str:
    """Why a record that was set aside does not fit, as far as can be told now."""
    try:
        rehearse(path, locks.foreign_file, locks.session_file)
        why = f"it fits by now: rename it to {locks.record_file}, and repair again"
    except Foreign as foreign:
        why = f"{foreign}; {_advice(path)}"
    except OSError as error:
        why = f"{error.strerror}; {_advice(path)}"
    return f"the record of an interrupted update, {locks.foreign_file}, does not fit: {why}"


def _advice(path: str) -> str:
    return f"look at the mailbox, mend it, then popperctl mailbox repair --discard {path}"


class Later(Exception):
    """Something that only a login can do."""


def _receipts(board: Board, path: str):
    """What takes the receipt of bulletins that an interrupted session added: that of the account whose mailbox this
    is; for any other the session must be waited for, as nobody can tell here where its receipt belongs."""
    account, template = board.account, board.options.mailbox
    theirs = account.user and os.path.realpath(mailbox_of(account, template)) == os.path.realpath(path)

    def noted(number: int) -> None:
        if not theirs:
            raise Later("bulletins were added and their receipt is not written yet; the next login writes it")
        board.noted(number)
    return noted


# -- dry run -----------------------------------------------------------------------------------------------------------

def look(path: str, options, account: Account, _) -> dict:
    """Become the owner, and say what `repair` would do. Takes no lock and changes nothing."""
    if account.uid is not None:
        privilege.become(account.user, account.uid, account.gid)
    locks = SpoolLocks(path)
    holder = _holder(locks.session_file)
    if holder:
        return _result(path, "in use", [_locked(holder)])
    if _is_ours(locks.foreign_file):
        return _result(path, "needs repair", [_unfitting(path, locks)])
    found = []
    if os.path.lexists(locks.session_file) and (older := os.stat(locks.session_file).st_size):
        found.append(f"{older} octets of mail that an older popper left are in {locks.session_file}")
    if os.path.lexists(locks.record_file):
        try:
            found.append("repair would say: " + rehearse(path, locks.record_file, locks.session_file))
        except Foreign as foreign:
            found.append(f"the record of an interrupted update, {locks.record_file}, does not fit: {foreign}")
        return _result(path, "needs repair", found)      # what could be counted now is half moved
    return _result(path, "needs repair" if found else "clean", found, _listed(path, options))


def _listed(path: str, options) -> list:
    """The messages in a mailbox, as they are without its locks."""
    if not os.path.lexists(path):
        return []
    descriptor = _open(path)
    try:
        return list(scan(lambda count, offset: os.pread(descriptor, count, offset), os.fstat(descriptor).st_size,
                         options.mailbox_format == "sysv"))
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    descriptor = os.open(path, READ)
    complaint = complaint_about(os.fstat(descriptor))
    if complaint:
        os.close(descriptor)
        raise Refused(f"{path} {complaint}", PERMANENT)
    return descriptor


class Rehearsal(Redo):
    """A recovery that reads and compares as the real one does, and writes nothing."""

    def _nothing(self, *_):
        pass

    _announce = _copy = _carry = _go_up = _go_down = _settle = _nothing


def rehearse(path: str, record: str, parcel: str) -> str:
    """What recovering a mailbox by a record would say. Raises Foreign, OSError, Refused."""
    opened = []
    try:
        for file in (path, record, parcel):
            if file == parcel and not os.path.lexists(file):
                opened.append(None)
            else:
                opened.append(_open(file))
        return Rehearsal(opened[0], opened[1], False, None, opened[2]).recover()
    finally:
        for descriptor in opened:
            if descriptor is not None:
                os.close(descriptor)


# -- who holds it ------------------------------------------------------------------------------------------------------

def _holder(session_file: str) -> int:
    """The process that holds the session lock, or 0 as far as the system tells, which it does for its own alone."""
    try:
        return holder(os.lstat(session_file))
    except OSError:
        return 0


def _locked(holder: int) -> str:
    return "in use by a session" + (f", process {holder}" if holder > 0 else "") + "; try again when it has ended"
