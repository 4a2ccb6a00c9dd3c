"""A session of the torture: what its client does, written down in the ledger on the way."""

import contextlib
import time

from ledger import Fault
from ledger_caller import Gone
from ledger_mail import is_whole, name_in
from ledger_place import PASSWORD

RETRIEVED = 1_500_000          # octets fetched in a session, unless it wants all


class Refusal(Exception):
    """PASS was answered -ERR; the text is the reply."""


class Session:
    """One session of a user, its client being ours. names: of the letters that it found, in order; marked: the numbers
    of those that it sent DELE for; deletion: what it asked for with QUIT."""

    def __init__(self, run, user, server):
        self.run = run
        self.user = user
        self.server = server
        self.caller = run.place.call(run.ledger, server)
        self.visit = None
        self.names = []
        self.marked = set()
        self.deletion = None

    def begin(self):
        """All before PASS."""
        self.caller.ok(f"USER {self.user}")

    def ask_for_maildrop(self):
        """Send PASS."""
        self.visit = self.run.ledger.visit(self.user)
        self.note(f"served by {self.server}")
        self.caller.send(f"PASS {PASSWORD}\r\n")

    def log_in(self):
        """USER and PASS; raises Refusal."""
        self.begin()
        begun = time.monotonic()
        self.ask_for_maildrop()
        reply = self.caller.reply()
        if not reply.startswith("+OK"):
            self.note(reply)
            raise Refusal(reply)
        self.visit.empty = " has 0 message(s) " in reply
        self.run.ledger.opened(self.visit)
        self.run.took("login", self.user, time.monotonic() - begun)
        self.run.admitted[self.user] = time.monotonic()
        self.caller.visit = self.visit

    def note(self, text):
        self.run.ledger.note(self.visit, text)

    def look(self):
        """Find out what is there, and hold it against the ledger."""
        ledger, caller = self.run.ledger, self.caller
        sizes = [int(line.split()[1]) for line in caller.lines("LIST")]
        for line in caller.lines("UIDL"):
            number, unique_id = line.split()
            name = ledger.name_of(self.user, unique_id)
            if name is None:
                text = caller.text(f"RETR {number}")
                name = name_in(text)
                ledger.identified(self.visit, unique_id, name)
                ledger.fetched(self.visit, name, self.plain(text))
            self.names.append(name)
        stat = caller.ok("STAT")
        if len(self.names) != len(sizes) or stat != f"{len(sizes)} {sum(sizes)}":
            raise Fault(f"LIST has {len(sizes)} and {sum(sizes)} octets, UIDL {len(self.names)}, STAT {stat}", (),
                        (self.visit,))
        ledger.found(self.visit, list(self.names), None if self.marking else sizes)

    @property
    def marking(self):
        """Whether the server puts marks into letters."""
        return "marking" in self.run.place.servers

    def plain(self, text):
        """A text without the marks of the server."""
        if not self.marking:
            return text
        head, blank, body = text.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        others = [line for line in lines if not line.startswith(b"Status:")]
        if len(lines) > len(others) + 1:
            raise Fault(f"more than one mark: {head!r}", (), (self.visit,))
        return b"\r\n".join(others) + blank + body

    def fetch(self, rng, everything=False):
        """RETR some messages, or all; each must be what was delivered."""
        numbers, octets = self.unmarked(), 0
        rng.shuffle(numbers)
        for number in numbers:
            self.retrieve(number)
            octets += self.run.ledger.books[self.user].letters[self.names[number - 1]].octets
            if octets > RETRIEVED and not everything:
                break

    def retrieve(self, number):
        name, letters = self.names[number - 1], self.run.ledger.books[self.user].letters
        said = self.caller.ok(f"RETR {number}")
        text = self.caller.unstuffed()
        if int(said.split()[0]) != len(text):
            raise Fault(f"RETR announced {said}, and sent {len(text)}", (), (self.visit,))
        if not is_whole(text):
            raise Fault(f"{name} is damaged: {text[:500]!r}", (letters[name],), (self.visit,))
        self.run.ledger.fetched(self.visit, name, self.plain(text))

    def unmarked(self):
        """The numbers of what was not deleted."""
        return [number for number in range(1, len(self.names) + 1) if number not in self.marked]

    def some(self, rng, most=None):
        """Numbers of messages: one, a run, every other one, or any."""
        left = self.unmarked()
        if not left:
            return []
        share = max(1, int(len(left) * (most or rng.choice((0.05, 0.1, 0.3)))))
        begin = rng.randrange(len(left))
        return rng.choice((left[:1], left[-1:], left[begin:begin + 1], left[:share], left[-share:], left[::2],
                           left[begin:begin + share], sorted(rng.sample(left, share)), sorted(rng.sample(left, share))))

    def mark(self, numbers):
        for number in numbers:
            self.caller.ok(f"DELE {number}")
            self.marked.add(number)
        self.note(f"marked {' '.join(map(str, sorted(self.marked)))}")

    def ask_to_quit(self, more=""):
        """Send QUIT, with other commands before it in the same breath."""
        self.intend()
        with contextlib.suppress(Gone):
            self.caller.send(more + "QUIT\r\n")

    def intend(self):
        """Tell the ledger that what is marked may go from now on."""
        self.deletion = self.run.ledger.asked(self.visit, [self.names[number - 1] for number in sorted(self.marked)])

    def quit(self, may_fail=False):
        """QUIT, and its answer: True, False, or None where it says nothing for certain. may_fail: something was done
        to the session, so it may end without an answer, or with any -ERR."""
        begun = time.monotonic()
        self.ask_to_quit()
        answer = self.hear(may_fail)
        if answer:
            self.run.took("quit", self.user, time.monotonic() - begun)
        return answer

    def hear(self, may_fail=False):
        """The answer to a QUIT, as `quit` gives it."""
        try:
            reply = self.caller.reply()
        except Gone:
            if not may_fail:
                raise Fault("QUIT was not answered", (), (self.visit,)) from None
            self.caller.reap()
            return self.settle(None)
        self.note(reply)
        if reply.startswith("+OK"):
            return self.settle(True)
        if "[IN-USE]" in reply:
            return self.settle(False)
        if not may_fail:
            raise Fault(f"QUIT: {reply}", self.deletion.letters, (self.visit,))
        return self.settle(None)

    def settle(self, answer):
        self.run.ledger.answered(self.deletion, answer)
        return answer

    def vanish(self, rng):
        """Go without QUIT, in one of several ways."""
        if self.server == "eager":           # there that is one
            self.intend()
            self.settle(None)
        with contextlib.suppress(Gone):
            self.caller.send(rng.choice(("", "", "QUI", "RETR 1\r\n", "NOOP", "\r\nQUIT x\r\n")))
        self.caller.drop(reset=rng.random() < 0.3)

    def last_words(self):
        """What a session that was struck still says to its QUIT: True, or None."""
        try:
            words = self.caller.rest().split(b"\r\n")[:-1]
        except TimeoutError:
            raise Fault("neither an answer nor an end", self.deletion.letters, (self.visit,)) from None
        for line in words:
            self.note(f"last words: {line[:100].decode('latin-1')}")
        done = bool(words) and words[-1].startswith(b"+OK") and b"signing off" in words[-1]
        return self.settle(done or None)

    def close(self):
        if self.visit is not None:
            self.run.ledger.closed(self.visit)
        self.caller.close()
