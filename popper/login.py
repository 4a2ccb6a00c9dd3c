"""From credentials to a maildrop: who is it, may he come in, become him, open his mailbox.

Everything up to `become` runs as root when popper does, everything behind it as the user.
"""

import os
import time

from popper import VERSION, auth, privilege
from popper.account import Account, Credentials, plain_name, shown_name
from popper.errors import PERMANENT, TEMPORARY, ConfigError, Denied, Refused
from popper.maildrop import Maildrop
from popper.storage.keeper import Keeper
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox
from popper.storage.vacant import Vacant, is_vacant
from popper.tally import Tally

TOO_MANY_WRONG = "Too many wrong passwords, try again later."
LOOK_AGAIN = 0.05              # seconds until it is looked again whether an attempt may be verified
NO_ACCESS = "You may not come in from your address."


class Login:
    """Called with Credentials; gives a Maildrop or raises Refused. log: a Journal; peer: a Peer; spent: gets seconds
    added, by what for. guessers: a Guessers, which are to be slowed down here; rules: who may come in (access), or
    None."""

    def __init__(self, options, peer, log, spent: "dict[str, float] | None" = None, guessers=None, rules=None) -> None:
        self.options = options
        self.peer = peer
        self.log = log
        self.guessers = guessers
        self.rules = rules
        self.spent = Tally().spent if spent is None else spent
        self.account: "Account | None" = None
        self.verified = lambda: None         # called when the password was right

    def __call__(self, credentials: Credentials) -> Maildrop:
        self.log.concerns(shown_name(credentials.user))
        self.log.unconcerned()
        self.peer.introduce(self.log, self.spent)
        self._check_access(credentials.user)
        account = self._authenticated(credentials)
        path = mailbox_of(account, self.options.mailbox)
        make_board, starter = self._board(), os.geteuid()
        board = None

        def is_over() -> bool:
            nonlocal board
            board = make_board and make_board(self.options, account, self.log, starter)
            return board is None or not board.has_any()

        store = open_store(account, path, self.options, is_over=is_over)
        store.spent = self.spent
        try:
            if self.log.debugging:
                store.say = self.log.debug
            board = board or make_board and make_board(self.options, account, self.log, starter)
            store.noted = board.noted if board else self._noted_late(account)
            store.locks.session()
            vacant = isinstance(store, Vacant)
            if not vacant:
                self.log.debug(f"Session lock of {path} is taken")
            drop = Maildrop(account.user, store)
            if board and not vacant and board.deliver(store):
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

    def _check_access(self, user: bytes) -> None:
        if self.rules is None:
            return
        from popper.access import ALLOW, TRY_AGAIN, VERIFIED
        peer = self.peer
        status, name = (VERIFIED, "") if peer.trusted else (peer.status, peer.name)
        verdict, rule = self.rules.decide(place_of(peer), status, name, plain_name(user) or "")
        if verdict == TRY_AGAIN:
            raise Refused("Your host name cannot be verified now, try again later.", TEMPORARY, rule)
        if verdict != ALLOW:
            raise Refused(NO_ACCESS, PERMANENT, rule)

    def _authenticated(self, credentials: Credentials) -> Account:
        asked = time.monotonic()
        self._let_wait(credentials.user)
        try:
            self.account = account = auth.authenticate(credentials, self.options, place_of(self.peer))
        except Denied as denied:
            self._turn_away(credentials.user, denied)
            raise
        finally:
            self.spent["authentication"] += time.monotonic() - asked
            if self.guessers:
                self.guessers.end()
        if self.guessers:
            self.guessers.succeeded(self.peer.address, credentials.user)
            self.guessers.close()            # root's file, and the user comes next
        self.verified()
        self.log.debug(f"Authentication took {self.spent['authentication']:.3f} s;"
                       f" uid = {account.uid}, gid = {account.gid}")
        return account

    def _let_wait(self, user: bytes) -> None:
        """After many that were wrong an attempt is held back; when too many wait already it is not made at all."""
        guessers, address = self.guessers, self.peer.address
        if guessers is None:
            return
        deadline = time.monotonic() + 2 * guessers.most
        while time.monotonic() < deadline:
            if not guessers.begin(address, user):
                time.sleep(LOOK_AGAIN)
                continue
            seconds = guessers.wait(address, user)
            if guessers.trouble and os.geteuid() == 0:
                self.log.warning(guessers.trouble)
            if not seconds:
                return
            guessers.end()
            self.log.debug(f"Too many logins failed: this one waits for {seconds:.1f} s")
            time.sleep(seconds)
            if guessers.late:
                break
            if guessers.begin(address, user):
                return
        raise Refused(TOO_MANY_WRONG, TEMPORARY)

    def _turn_away(self, user: bytes, denied: Denied) -> None:
        """Log the attempt."""
        if self.guessers and not denied.text:
            self.guessers.failed(self.peer.address, user)
        name = shown_name(user)
        self.log.warning(f"[AUTH] Failed attempted login to {name} from host ({self.peer.name}) {self.peer.address}")
        self.log.debug(f"Login of {name} failed: {denied.reason}")

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


def open_store(account: Account, path: str, options, noted=None, is_over=lambda: False):
    """Become the user for good. -> the store over his mailbox, neither locked nor opened yet. is_over(): whether there
    is nothing to be added to it; asked as the user."""
    locks = enter_spool(account, path, vacant=lambda: is_vacant(path, options.locks) and is_over())
    if locks is None:
        return Vacant(path)
    return Mbox(path, locks, options.mailbox_format == "sysv", options.lock_timeout, options.fsync, options.locks,
                options.update_status, noted)


def enter_spool(account: Account, path: str, make=SpoolLocks, vacant=lambda: False):
    """Become the user for good. -> the locks of his mailbox, make(path), held by a keeper where that takes the spool's
    group; None: vacant() says that none are needed."""
    group = _spool_group(account, path)
    if account.uid is not None:
        privilege.become(account.user, account.uid, account.gid, group)
    if group is None:
        return None if vacant() else make(path)
    if privilege.plainly(vacant):
        privilege.shed_group()
        return None
    try:
        return Keeper(make(path), privilege.shed_group)
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


def place_of(peer) -> str:
    """The address of a peer as `access` has it: "" where there is no network."""
    return "" if peer.address == "local" else peer.address


def rules_of(options, ident: str):
    """Who may come in, as `allow_deny` and `hosts_access` have it: something to be asked like access.Rules, or None
    where all may. ConfigError when it cannot be read."""
    if not options.allow_deny and not options.hosts_access:
        return None
    from popper import access
    found = []
    if options.allow_deny:
        found.append(access.read_rules(options.allow_deny, access.contents(options.allow_deny)))
    if options.hosts_access:
        from popper import wrappers
        found.append(wrappers.hosts_access(("popper", ident)))
    if not options.lookup and options.allow_deny and found[0].needs_name:
        rule = next(rule for rule in found[0].rules if rule.who.by_name)
        raise ConfigError(f"{rule.place}: DNS is not asked; expected `lookup yes` in the configuration")
    return found[0] if len(found) == 1 else access.Both(*found)


def trusted_of(options):
    """Whose names need not be asked for: access.Networks, or None for nobody. ConfigError when it cannot be read."""
    if not options.trusted:
        return None
    from popper import access
    return access.read_networks(options.trusted, access.contents(options.trusted))


def guessers_of(options):
    """The memory of wrong passwords, or None where nobody is to be slowed down by it."""
    if not options.guess_delay_max:
        return None
    from popper.guessers import Guessers
    return Guessers(options.guessers, options.guess_delay_max, prefix=options.ipv6_prefix)
