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


class Login:
    """Called with Credentials; gives a Maildrop or raises Refused. log: a Journal; peer: a Peer."""

    def __init__(self, options, peer, log) -> None:
        self.options = options
        self.peer = peer
        self.log = log
        self.account: "Account | None" = None

    def __call__(self, credentials: Credentials) -> Maildrop:
        begun = time.monotonic()
        complaint = self.peer.settle()
        if complaint:
            self.log.notice(complaint)
        try:
            account = auth.authenticate(credentials, self.options)
        except Denied as denied:
            self._turn_away(credentials.user, denied, begun)
            raise
        self.account = account
        store = self._open_store(account)
        try:
            drop = Maildrop(account.user, store)
        except BaseException:
            store.close()
            raise
        for note in store.notes:
            self.log.warning(note)
        self.log.notice(f'(v{VERSION}) POP login by user "{account.user}" at ({self.peer.name}) {self.peer.address}')
        return drop

    def _turn_away(self, user: bytes, denied: Denied, begun: float) -> None:
        """Log the attempt and wait until every failure has taken the same time, whatever its cause."""
        name = shown_name(user)
        self.log.warning(f"[AUTH] Failed attempted login to {name} from host ({self.peer.name}) {self.peer.address}")
        self.log.debug(f"Login of {name} failed: {denied.reason}")
        time.sleep(max(0.0, begun + self.options.fail_delay - time.monotonic()))

    def _open_store(self, account: Account):
        """Become the user, take the session lock, and give the store; the mailbox is not opened yet."""
        path = mailbox_of(account, self.options.mailbox)
        group = self._spool_group(account, path)
        if account.uid is not None:
            privilege.become(account.user, account.uid, account.gid, group)
        locks = spool = SpoolLocks(path)
        if group is not None:
            try:
                locks = Keeper(locks, privilege.shed_group)
            except OSError as error:
                raise Refused("System error, can't start the lock keeper.", TEMPORARY, error.strerror) from None
        try:
            left_over = locks.session()
        except BaseException:
            locks.close()
            raise
        if left_over:
            self.log.warning(f"{spool.session_file} holds {left_over} octets of mail that an older popper left there; "
                             "this version does not merge them")
        return Mbox(path, locks, self.options.mailbox_format == "sysv", self.options.lock_timeout, self.options.fsync)

    def _spool_group(self, account: Account, path: str) -> "int | None":
        """The group of a spool in which the user may not make a lock, but that group may: root's own, and not where
        a user could have put it."""
        if account.uid is None or os.geteuid() != 0:
            return None
        directory = os.path.dirname(path)
        try:
            status = os.stat(directory)
            shared = status.st_mode & 0o022 == 0o020 and status.st_gid != account.gid
            return status.st_gid if shared and _is_roots(directory) else None
        except OSError as error:
            raise Refused("System error, can't find your mailbox.", PERMANENT,
                          f"{directory}: {error.strerror}") from None


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

