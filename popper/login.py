"""From credentials to a maildrop: who is it, may he come in, become him, open his mailbox.

Everything up to `become` runs as root when popper does, everything behind it as the user.
"""

import os
import time

from popper import VERSION, auth, privilege
from popper.account import Account, Credentials, shown_name
from popper.errors import PERMANENT, TEMPORARY, Denied, Refused
from popper.maildrop import Maildrop
from popper.storage.keeper import Keeper
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox
from popper.tally import Tally


class Login:
    """Called with Credentials; gives a Maildrop or raises Refused. log: a Journal; peer: a Peer; spent: gets seconds
    added, by what for."""

    def __init__(self, options, peer, log, spent: "dict[str, float] | None" = None) -> None:
        self.options = options
        self.peer = peer
        self.log = log
        self.spent = Tally().spent if spent is None else spent
        self.account: "Account | None" = None

    def __call__(self, credentials: Credentials) -> Maildrop:
        begun = time.monotonic()
        self.log.concerns(shown_name(credentials.user))
        self.log.unconcerned()
        self.peer.introduce(self.log, self.spent)
        account = self._authenticated(credentials, begun)
        path = mailbox_of(account, self.options.mailbox)
        make_board, starter = self._board(), os.geteuid()
        store = open_store(account, path, self.options)
        store.spent = self.spent
        try:
            if self.log.debugging:
                store.say = self.log.debug
            board = make_board and make_board(self.options, account, self.log, starter)
            store.noted = board.noted if board else self._noted_late(account)
            store.locks.session()
            self.log.debug(f"Session lock of {path} is taken")
            drop = Maildrop(account.user, store)
            if board and board.deliver(store):
                drop.number(store.entries)
            if self.log.debugging:
                self._list(drop)
        except BaseException:
            store.close()
            raise
        finally:
            for alarm in store.alarms:
                self.log.critical(alarm)
            for note in store.notes:
                self.log.warning(note)
            store.notes.clear()
        self.log.notice(f'(v{VERSION}) POP login by user "{account.user}" at ({self.peer.name}) {self.peer.address}')
        return drop

    def _authenticated(self, credentials: Credentials, begun: float) -> Account:
        asked = time.monotonic()
        try:
            self.account = account = auth.authenticate(credentials, self.options)
        except Denied as denied:
            self._turn_away(credentials.user, denied, begun)
            raise
        finally:
            self.spent["authentication"] += time.monotonic() - asked
        self.log.debug(f"Authentication took {self.spent['authentication']:.3f} s;"
                       f" uid = {account.uid}, gid = {account.gid}")
        return account

    def _turn_away(self, user: bytes, denied: Denied, begun: float) -> None:
        """Log the attempt and wait until every failure has taken the same time, whatever its cause."""
        name = shown_name(user)
        self.log.warning(f"[AUTH] Failed attempted login to {name} from host ({self.peer.name}) {self.peer.address}")
        self.log.debug(f"Login of {name} failed: {denied.reason}")
        time.sleep(max(0.0, begun + self.options.fail_delay - time.monotonic()))

    def _board(self):
        """What makes the bulletins of an account, where there are any. Imported as long as this is root: the user may
        not be able to read it."""
        if not self.options.bulletins:
            return None
        from popper.bulletins import Board
        return Board

    def _noted_late(self, account: Account):
        """What writes a receipt that a crash left to be written, where there are no bulletins any more: too rare for
        an import at each login, or for root to look whether there is one."""
        def noted(number: int) -> None:
            try:
                from popper.bulletins import Board
            except ImportError as error:
                raise Refused(str(error)) from None
            Board(self.options, account, self.log).noted(number)
        return noted

    def _list(self, drop: Maildrop) -> None:
        """The messages, for a trace."""
        for number, (entry, unique) in enumerate(zip(drop.entries, drop.unique_ids()), 1):
            self.log.debug(f"Msg {number} [uidl {unique.decode()}] at offset {entry.offset}"
                           f" is {entry.octets} octets long.")


def open_store(account: Account, path: str, options, noted=None) -> Mbox:
    """Become the user for good. -> the store over his mailbox, neither locked nor opened yet."""
    return Mbox(path, enter_spool(account, path), options.mailbox_format == "sysv", options.lock_timeout, options.fsync,
                options.locks, options.update_status, noted)


def enter_spool(account: Account, path: str):
    """Become the user for good. -> the locks of his mailbox, held by a keeper where that takes the spool's group."""
    group = _spool_group(account, path)
    if account.uid is not None:
        privilege.become(account.user, account.uid, account.gid, group)
    locks = SpoolLocks(path)
    if group is None:
        return locks
    try:
        return Keeper(locks, privilege.shed_group)
    except OSError as error:
        raise Refused("System error, can't start the lock keeper.", TEMPORARY, error.strerror) from None


def _spool_group(account: Account, path: str) -> "int | None":
    """The group of a spool in which the user may not make a lock, but that group may: root's own, and not where a
    user could have put it."""
    if account.uid is None or os.geteuid() != 0:
        return None
    directory = os.path.dirname(path)
    try:
        status = os.stat(directory)
        shared = status.st_mode & 0o022 == 0o020 and status.st_gid != account.gid
        return status.st_gid if shared and _is_roots(directory) else None
    except PermissionError:                  # a home that root may not enter, over NFS say
        return None
    except OSError as error:
        raise Refused("System error, can't find your mailbox.", PERMANENT, f"{directory}: {error.strerror}") from None


def _is_roots(directory: str) -> bool:
    """Whether root alone decides where this path leads: every name on it is root's, in a place where nobody else may
    put another in its stead."""
    for path in (directory, os.path.realpath(directory)):
        while path != "/":
            around = os.stat(os.path.dirname(path)).st_mode
            if os.lstat(path).st_uid != 0 or (around & 0o022 and not around & 0o1000):
                return False
            path = os.path.dirname(path)
    return True


def mailbox_of(account: Account, template: str) -> str:
    """A mailbox template with %u (user), %1 to %9 (that letter of the name, or its last), %% and ~ filled in, once."""
    pieces = template.split("%")
    path = [account.home + pieces[0][1:] if template.startswith("~") else pieces[0]]
    literal = False
    for piece in pieces[1:]:
        if literal:
            path.append(piece)
            literal = False
        elif not piece:
            path.append("%")
            literal = True
        elif piece[0] == "u":
            path.append(account.user + piece[1:])
        else:
            letter = min(int(piece[0]), len(account.user)) - 1
            path.append(account.user[letter] + piece[1:])
    return "".join(path)

