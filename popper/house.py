"""What is in force in a daemon: the options, and what has been made of them. One at a time; a reload makes another."""

import os
import time

from popper import auth, journal, privilege, stranger
from popper.auth import crypt
from popper.errors import ConfigError
from popper.limits import Seldom
from popper.login import guessers_of, rules_of, trusted_of
from popper.peer import UNKNOWN, Finding

WATCHED_FOR = 1.0              # seconds until it is looked again who is still to be traced


class House:
    """ConfigError when something in the configuration is not to be had."""

    def __init__(self, options, ident: str, trace: "int | None") -> None:
        self.options = options
        self.ident = ident
        self.rules, self.trusted = rules_of(options, ident), trusted_of(options)
        self.ids = privilege.unprivileged(options.unprivileged_user)
        try:
            for module in (*auth.modules(options), crypt):
                getattr(module, "prepare", bool)()
        except Exception as error:
            raise ConfigError(f"auth: {error}", options.config) from None
        privilege.groups_of("root", 0, 0)    # what the C library loads for that, it need not load in each child
        if options.bulletins:
            from popper import bulletins     # noqa: F401  for the children
        stranger.preload(options)
        self.host = options.hostname or os.uname().nodename
        self.guessers = guessers_of(options)
        self.trace = trace
        self.log = self.journal()
        for note in self.rules.notes if self.rules else ():
            self.log.notice(note)
        self.seldom = Seldom()
        self._watched, self._watched_at, self._watched_then = frozenset(), -WATCHED_FOR, 0

    def journal(self, mark: str = "", watched: "frozenset[str]" = frozenset()) -> journal.Journal:
        return journal.Journal(self.ident, self.options, self.trace, watched, mark)

    def watched(self) -> "frozenset[str]":
        """Names and addresses that are to be traced."""
        now = time.monotonic()
        try:
            changed = os.stat(self.options.trace_dir).st_mtime_ns
        except OSError:
            changed = 0
        if changed != self._watched_then or now >= self._watched_at + WATCHED_FOR:
            self._watched, self._watched_at, self._watched_then = journal.watched(self.options), now, changed
        return self._watched

    def tell_seldom(self, what: str, text: str) -> None:
        """Log a warning that may be due a thousand times a second."""
        line = self.seldom.line(what, text, time.monotonic())
        if line:
            self.log.warning(line)

    def trusts(self, address: str) -> bool:
        return self.trusted is not None and self.trusted.has(address)

    def nameless(self, address: str) -> "Finding | None":
        """What is known of an address without asking DNS; None: DNS is to be asked."""
        if not self.options.lookup or address == "local" or self.trusts(address):
            return Finding(UNKNOWN, address)
        return None
