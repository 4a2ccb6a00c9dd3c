"""What the steps of a run share: the place, the ledger, whose turn it is, and what has been counted."""

import contextlib
import threading
import time

from ledger import Fault
from ledger_caller import Gone
from ledger_session import Refusal, Session

LOCKED_OUT = 60                # seconds of refusals until a user is thought never to get in again
SERVERS = ("plain",) * 6 + ("unsynced",) * 2 + ("inetd",) * 2 + ("marking",) * 2   # who serves an ordinary session


class Run:
    """What the steps share. seed: a word; stop: set when nothing more is to begin."""

    def __init__(self, place, ledger, seed, kinds):
        self.place = place
        self.ledger = ledger
        self.seed = seed
        self.kinds = {kind: weight for kind, weight in kinds.items() if weight}
        self.servers = [server for server in SERVERS if server == "inetd" or server in place.servers]
        self.stop = threading.Event()
        self.turns = {user: threading.Lock() for user in place.users}
        self.writing = {user: threading.Lock() for user in place.users}
        self.admitted = dict.fromkeys(place.users, time.monotonic())
        self.inodes = {}
        self.takes = {}                      # (what, user): seconds that it usually takes
        self.counts = {}
        self.spent = {}                      # kind of step: seconds
        self.bulletins = 0
        self.counting = threading.Lock()

    def count(self, what):
        with self.counting:
            self.counts[what] = self.counts.get(what, 0) + 1

    def took(self, what, user, seconds):
        usual = self.takes.get((what, user), seconds)
        self.takes[what, user] = 0.8 * usual + 0.2 * min(seconds, 2 * usual)         # not those who waited for a lock

    def moment(self, rng, what, user):
        """A random time within what something usually takes, or shortly after; rather early than late."""
        return rng.random() ** 2 * 1.2 * self.takes.get((what, user), 0.01)

    def check_inode(self, user):
        """The mailbox is the file that it was when it was first there."""
        inode = self.place.inode(user)
        if self.inodes.setdefault(user, inode) != inode:
            if self.inodes[user] is not None:
                raise Fault(f"the mailbox of {user} is another file: {inode}, was {self.inodes[user]}")
            self.inodes[user] = inode

    @contextlib.contextmanager
    def turn(self, user, rng):
        """Wait, mostly, until another step's session of this user is over: a server that is always in use shows
        little."""
        mine = rng.random() < 0.85 and self.turns[user].acquire(timeout=20)
        try:
            yield
        finally:
            if mine:
                self.turns[user].release()

    @contextlib.contextmanager
    def session(self, user, rng, server=None):
        """A Session, logged in as soon as the maildrop is free. server: else any that serves ordinary sessions."""
        begun = time.monotonic()
        while True:
            session = Session(self, user, server or rng.choice(self.servers))
            try:
                with contextlib.closing(session), self.explained(session):
                    session.log_in()
                    yield session
                    return
            except Refusal as refusal:
                if "[IN-USE]" not in str(refusal):
                    raise Fault(f"login of {user}: {refusal}", (), (session.visit,)) from None
                self.count("refused as in use")
                if time.monotonic() > max(begun, self.admitted[user]) + LOCKED_OUT:
                    raise Fault(f"{user} is locked out: {refusal}", (), (session.visit,)) from None
            time.sleep(rng.random() / 5)

    @contextlib.contextmanager
    def explained(self, session):
        """Add the session's history to whatever goes wrong in it."""
        try:
            yield
        except Fault:
            raise
        except Gone:
            if session.server == "impatient":            # who has to wait for a processor is silent too
                raise
            raise Fault("the server hung up", (), [session.visit] if session.visit else ()) from None
        except (AssertionError, TimeoutError) as wrong:
            raise Fault(f"{type(wrong).__name__}: {wrong}", (), [session.visit] if session.visit else ()) from None
