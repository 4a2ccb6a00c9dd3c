"""The ledger: every letter that was ever delivered, every session that was ever held, and what follows from both.

Clients write down when they asked and when they were answered. What a session found is then held against what it may
have found, whatever else went on at that time:

    delivered before it asked for the maildrop            must be there
    delivered later, but before the maildrop was opened   may be there
    marked by a session before it
        whose QUIT was answered +OK                       must not be there
        which sent no QUIT, or was answered -ERR          must be there
        whose QUIT was not answered                       all that it marked are there, or none; what the first
                                                          session after it finds is how it stays

A letter is never there twice, none is there that nobody delivered, and their order never changes.

Which session was before which: only one at a time has the maildrop, and whoever tells what it found was served after it
was opened; so they were there in the order in which their clients heard that they were opened.

Knows no socket, no file and no process; a lock keeps its callers apart.
"""

import functools
import hashlib
import threading
import time

GONE, KEPT = "gone", "kept"
MAIL, BULLETIN, OLD = "mail", "bulletin", "old mail"
SHOWN = 6                      # letters and sessions whose history a fault tells


class Fault(AssertionError):
    """What is wrong with the server, and the history of the letters and sessions concerned."""

    def __init__(self, complaint, letters=(), visits=()):
        letters = list(letters)[:SHOWN]
        deleters = [deletion.visit for letter in letters for deletion in letter.deletions]
        visits = {visit.number: visit for visit in (*deleters, *visits)}
        lines = [complaint]
        for letter in letters:
            lines += [f"-- letter {letter.name} of {letter.user}, {letter.kind}:", *letter.history]
        for number in sorted(visits)[-SHOWN:]:
            lines += [f"-- session {number} of {visits[number].user}:", *visits[number].history]
        super().__init__("\n".join(lines))


class Letter:
    """One message for one user. begun, finished: when the delivery began and was over; octets, digest: of the text on
    the wire, None until they are known."""

    def __init__(self, name, user, kind, begun):
        self.name = name
        self.user = user
        self.kind = kind
        self.begun = begun
        self.finished = None
        self.octets = self.digest = None
        self.found = None                    # when it was first there
        self.optional = False                # it need never be
        self.deletions = []
        self.history = []

    def expected(self, visit):
        """Whether this session must have it: True, False, or None: it may."""
        must = True if self.finished is not None and self.finished < visit.asked else None
        for deletion in self.deletions:
            before = deletion.was_before(visit)
            if deletion.fate == GONE and before:
                return False
            if deletion.fate != KEPT and before is not False:
                must = None
        return must


class Deletion:
    """What a session that sent QUIT wanted gone. fate: GONE or KEPT, once that is known."""

    def __init__(self, visit, letters, asked):
        self.visit = visit
        self.letters = letters
        self.asked = asked
        self.answer = None
        self.fate = None

    def was_before(self, visit):
        """Whether the session was over before this one began: True, False, or None: that cannot be said."""
        if not self.visit.unlocked:
            return self.visit.opened < visit.opened
        if self.visit.closed is not None and self.visit.closed < visit.asked:
            return True
        return False if self.asked > visit.opened else None


class Visit:
    """A session as its client knows it: when it asked for the maildrop, got it, and knew that it was over."""

    def __init__(self, number, user, asked):
        self.number = number
        self.user = user
        self.asked = asked
        self.opened = self.closed = None
        self.unlocked = False                # its lock keeper was killed: it holds nothing any more
        self.empty = False                   # it found nothing, and so has nothing to lock
        self.rival = None                    # a session that was opened while this one was not known to be over
        self.history = []


class Book:
    """The letters of one user."""

    def __init__(self):
        self.letters = {}                    # name: Letter
        self.gone = set()                    # names of those that are known to be gone
        self.open = []                       # deletions whose fate is not known
        self.visits = []                     # sessions that may be going on
        self.order = []                      # names as they were last found, by the session opened at `ordered`
        self.ordered = 0.0
        self.ids = {}                        # unique-id: name


def locked(method):
    """For methods of the ledger: one caller at a time."""
    @functools.wraps(method)
    def alone(self, *arguments, **more):
        with self.lock:
            return method(self, *arguments, **more)
    return alone


class Ledger:
    """See above. Every method may raise Fault."""

    def __init__(self, users, clock=time.monotonic):
        self.books = {user: Book() for user in users}
        self.clock = clock
        self.epoch = clock()
        self.lock = threading.RLock()
        self.visits = []
        self.silent = []                     # deletions that were never answered
        self.sizes = []                      # how many letters were found, each time

    def note(self, whose, text, now=None):
        """Add a line to the history of a letter or a session."""
        whose.history.append(f"{(self.clock() if now is None else now) - self.epoch:10.4f}  {text}")

    # -- delivery ------------------------------------------------------------------------------------------------

    @locked
    def begin(self, name, user, how, text=None, kind=MAIL):
        """A letter is about to be delivered. text: as it will cross the wire, if that is known."""
        letter = Letter(name, user, kind, self.clock())
        assert name not in self.books[user].letters, f"a second {name}"
        if text is not None:
            letter.octets, letter.digest = len(text), hashlib.sha1(text).digest()
        self.books[user].letters[name] = letter
        self.note(letter, f"delivery by {how} begins", letter.begun)
        return letter

    @locked
    def finish(self, letter):
        """The delivery is over."""
        letter.finished = self.clock()
        self.note(letter, "delivered", letter.finished)

    # -- sessions ------------------------------------------------------------------------------------------------

    @locked
    def visit(self, user):
        """A client is about to send PASS; -> Visit."""
        visit = Visit(len(self.visits) + 1, user, self.clock())
        self.visits.append(visit)
        self.note(visit, "asks for the maildrop", visit.asked)
        return visit

    @locked
    def opened(self, visit):
        """The client has been told that the maildrop is its."""
        book = self.books[visit.user]
        visit.opened = self.clock()
        self.note(visit, "opened", visit.opened)
        book.visits = [other for other in book.visits if other.closed is None]
        for other in book.visits:
            if other.opened < visit.asked:
                other.rival = other.rival or visit
        book.visits.append(visit)

    @locked
    def served(self, visit, rival):
        """A command was answered +OK which the client sent when `rival` was visit.rival: had that been there
        already, two would have the maildrop."""
        if rival is not None and not visit.unlocked and not visit.empty:
            raise Fault(f"sessions {visit.number} and {rival.number} have the maildrop of {visit.user} at once",
                        (), (visit, rival))

    @locked
    def closed(self, visit):
        """The session is over, as far as the client can see."""
        if visit.closed is None:
            visit.closed = self.clock()
            self.note(visit, "over", visit.closed)

    # -- what a session finds ------------------------------------------------------------------------------------

    @locked
    def identified(self, visit, unique_id, name):
        """A message with this unique-id was fetched, and says that it is `name`."""
        book = self.books[visit.user]
        if name not in book.letters:
            raise Fault(f"there is a message that nobody delivered: {name!r}", (), (visit,))
        if book.ids.setdefault(unique_id, name) != name:
            raise Fault(f"the unique-id of {book.ids[unique_id]} is now that of {name}",
                        (book.letters[name], book.letters[book.ids[unique_id]]), (visit,))

    @locked
    def name_of(self, user, unique_id):
        return self.books[user].ids.get(unique_id)

    @locked
    def fetched(self, visit, name, text):
        """The text of a letter came over the wire."""
        letter = self.books[visit.user].letters[name]
        digest = hashlib.sha1(text).digest()
        if letter.digest is None:            # somebody rewrote it on its way, as a bulletin is; from now on it stays
            letter.octets, letter.digest = len(text), digest
        if (letter.octets, letter.digest) != (len(text), digest):
            raise Fault(f"{name} is not what was delivered: {len(text)} octets, expected {letter.octets}; "
                        f"{text[:300]!r} ... {text[-100:]!r}", (letter,), (visit,))

    @locked
    def found(self, visit, names, sizes=None):
        """These letters, in this order, are all that the session has."""
        book = self.books[visit.user]
        self.note(visit, f"finds {len(names)}: {' '.join(names)}")
        there = set(names)
        self.sizes.append(len(names))
        if len(there) < len(names):
            twice = {name for name in names if names.count(name) > 1}
            raise Fault(f"twice in the maildrop: {twice}", [book.letters[name] for name in twice], (visit,))
        for name, size in zip(names, sizes or ()):
            if book.letters[name].octets not in (None, size):
                raise Fault(f"{name} is said to have {size} octets", (book.letters[name],), (visit,))
        for name in sorted(there & book.gone):
            if book.letters[name].expected(visit) is False:
                raise Fault(f"{name} is back: it was deleted", (book.letters[name],), (visit,))
        for name, letter in book.letters.items():
            if name not in book.gone:
                self._look_for(visit, letter, name in there)
        self._settle(visit, book, there)
        self._check_order(visit, book, names)

    def _look_for(self, visit, letter, there):
        expected = letter.expected(visit)
        if expected is True and not there:
            raise Fault(f"{letter.name} is lost", (letter,), (visit,))
        if there and (expected is False or letter.begun > visit.opened):
            raise Fault(f"{letter.name} should not be there", (letter,), (visit,))
        if there and letter.found is None:
            letter.found = visit.opened
            self.note(letter, f"first found by session {visit.number}", visit.opened)
            if letter.finished is None and letter.kind == BULLETIN:
                letter.finished = visit.opened

    def _settle(self, visit, book, there):
        """Tell from what is there what has become of those whose deletion was never answered."""
        for deletion in list(book.open):
            other = deletion.visit
            if not deletion.was_before(visit):
                continue
            kept = [letter for letter in deletion.letters if letter.name in there]
            if kept and len(kept) < len(deletion.letters):
                raise Fault(f"the QUIT of session {other.number} was done by half: {len(kept)} of "
                            f"{len(deletion.letters)} are there", deletion.letters, (other, visit))
            self._fate(deletion, KEPT if kept else GONE)
            self.note(visit, f"what session {other.number} wanted deleted is {deletion.fate}")

    def _check_order(self, visit, book, names):
        position = {name: place for place, name in enumerate(names)}
        known = [position[name] for name in book.order if name in position]
        if known != sorted(known):
            raise Fault("the order has changed", (), (visit,))
        if visit.opened < book.ordered:
            return                           # a later session was heard before
        if known:
            for name in set(names).difference(book.order):
                letter = book.letters[name]
                old = letter.kind == OLD     # that comes in front, all else behind
                if position[name] > known[0] if old else position[name] < known[-1]:
                    raise Fault(f"{name} is new, and in the wrong place", (letter,), (visit,))
        book.order, book.ordered = names, visit.opened

    # -- deletion ------------------------------------------------------------------------------------------------

    @locked
    def asked(self, visit, names):
        """The client is about to send QUIT, with these marked; -> Deletion."""
        book = self.books[visit.user]
        deletion = Deletion(visit, [book.letters[name] for name in names], self.clock())
        self.note(visit, f"QUIT, {len(names)} marked: {' '.join(names)}", deletion.asked)
        for letter in deletion.letters:
            letter.deletions.append(deletion)
            self.note(letter, f"session {visit.number} sends QUIT and has it marked", deletion.asked)
        self._overtake(book, set(names))
        if names:
            book.open.append(deletion)
        else:
            deletion.fate = KEPT
        return deletion

    def _overtake(self, book, names):
        """What a session without locks wanted may still be open when the next one deletes: of these letters the one
        no longer says anything."""
        for deletion in list(book.open):
            if deletion.visit.unlocked:
                deletion.letters = [letter for letter in deletion.letters if letter.name not in names]
                if not deletion.letters:
                    self._fate(deletion, KEPT)

    @locked
    def answered(self, deletion, reply):
        """QUIT was answered: True for +OK, False for an -ERR that says nothing was deleted, None for nothing."""
        visit = deletion.visit
        deletion.answer = reply
        said = {True: "+OK", False: "-ERR", None: "not answered"}[reply]
        for whose in (visit, *deletion.letters):
            self.note(whose, f"QUIT of session {visit.number}: {said}")
        if reply is not None and deletion.letters:
            fate = GONE if reply else KEPT
            if deletion.fate not in (None, fate):
                raise Fault(f"QUIT of session {visit.number} was answered {said}, but its letters are {deletion.fate}",
                            deletion.letters, (visit,))
            if deletion.fate is None:
                self._fate(deletion, fate)
        elif deletion.letters:
            self.silent.append(deletion)
        self.closed(visit)

    def _fate(self, deletion, fate):
        book = self.books[deletion.visit.user]
        deletion.fate = fate
        book.open.remove(deletion)
        for letter in deletion.letters:
            self.note(letter, f"{fate}, as asked for by session {deletion.visit.number}")
        if fate == GONE:
            book.gone.update(letter.name for letter in deletion.letters)

    # -- the end -------------------------------------------------------------------------------------------------

    @locked
    def close(self):
        """When the last session has looked everywhere: nothing may be in doubt."""
        for user, book in self.books.items():
            if book.open:
                raise Fault(f"deletions of {user} have no known end", book.open[0].letters)
            for letter in book.letters.values():
                if letter.found is None and not letter.optional:
                    raise Fault(f"{letter.name} was never found", (letter,))

    @locked
    def history(self):
        """All that was ever noted of anybody, in the order of time."""
        letters = [letter for book in self.books.values() for letter in book.letters.values()]
        lines = [(line, whose.user, getattr(whose, "name", "") or f"session {whose.number}")
                 for whose in (*letters, *self.visits) for line in whose.history]
        return [f"{line[:12]}{user} {name}: {line[12:]}" for line, user, name in sorted(lines)]

    @locked
    def left(self, user):
        """The names of letters that are there for good, in no order."""
        book = self.books[user]
        return set(book.letters) - book.gone
