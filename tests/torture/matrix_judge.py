"""One injection, and what came of it."""

import re

from matrix_calls import MAILBOX, RECEIPT, Call
from matrix_faults import FAULTS, Injection
from matrix_session import CHANGING, Spool

LATE = 2.0                     # seconds in which the next login is to succeed
DELIVERED = b"From late@example.org Sat Nov 21 12:00:00 2026\nSubject: late\n\nDelivered after the fault.\n\n"
DEEP = 3                       # of the kills that leave a mailbox in pieces, the so-manieth is to be repaired
COMPLAINTS = ("damaged", "wrong reply", "late", "left over", "internal error")
ENVELOPE = re.compile(rb"^From ", re.MULTILINE)


class Cell:
    """What came of the injections of one fault into one call. tried: how many struck; missed: how many found no such
    call, as a session is not always the same; pieces: how many left to the next opener a mailbox that is in no state
    one may leave it in; bad: {complaint: [what happened]}; slowest: seconds of a next login."""

    def __init__(self) -> None:
        self.tried = self.missed = self.pieces = 0
        self.slowest = 0.0
        self.bad: "dict[str, list[str]]" = {complaint: [] for complaint in COMPLAINTS}

    def add(self, other: "Cell") -> None:
        self.tried += other.tried
        self.missed += other.missed
        self.pieces += other.pieces
        self.slowest = max(self.slowest, other.slowest)
        for complaint, cases in other.bad.items():
            self.bad[complaint] += cases

    def cases(self) -> "list[str]":
        return [f"{complaint}: {case}" for complaint, found in self.bad.items() for case in found]


class Trial:
    """A call in a spool, to be struck again and again."""

    def __init__(self, spool: Spool, call: Call) -> None:
        self.spool = spool
        self.call = call
        self.files = call.files if call.crashed is None else self._interrupted(call.crashed)
        self.words = (f"chunk={call.chunk}",)
        self.spool.lay(self.files)
        self.arrived = b""
        strikes, talk = spool.strikes(call.commands, self.words, self._arrive)
        self.letters = spool.submitted()
        assert talk.opened.startswith(b"+OK") and talk.signed_off, (talk.said, talk.log)
        assert spool.mailbox() == call.after + self.arrived, "an undisturbed session"
        assert len(self.letters) == bool(call.submits), "an undisturbed session"
        self.strikes = [strike for strike in strikes if call.opening or strike.opened]

    def run(self, fault: str) -> Cell:
        cell = Cell()
        for injection in FAULTS[fault](self.strikes):
            self.strike(injection, cell)
        return cell

    def strike(self, injection: Injection, cell: Cell) -> None:
        spool, call = self.spool, self.call
        spool.lay(self.files)
        inode = spool.path.stat().st_ino
        self.arrived = b""
        talk = spool.talk(call.commands, (*self.words, *injection.words), injection.strace, self._arrive)
        if not injection.struck(spool):
            cell.missed += 1
            return
        cell.tried += 1

        def complain(complaint: str, what: object) -> None:
            cell.bad[complaint].append(f"{injection.label}: {what}")
        self._look(talk, cell, complain)
        self._have_next(cell, complain)
        if spool.path.stat().st_ino != inode:
            complain("damaged", "another inode")
        self._judge_replies(talk, complain)

    def _look(self, talk, cell: Cell, complain) -> None:
        """At what the session left."""
        clean = tuple(octets + self.arrived for octets in self.call.clean)
        cell.pieces += self.spool.mailbox() not in clean
        if talk.hung or "internal error" in talk.log or "Traceback" in talk.log:
            complain("internal error", "hung" if talk.hung else talk.trouble)
        seen = [name for name in self.spool.names()
                if name.startswith("spool/") and not name.startswith("spool/.") and name != f"{MAILBOX}.lock"]
        if seen:
            complain("left over", f"{seen}, which a mail reader takes for mailboxes")
        if self.spool.place.tight:           # the next login may well come before there is room
            self._log_in(clean, cell, complain)
            self.spool.place.relieve()

    def _have_next(self, cell: Cell, complain) -> None:
        """Deliver mail, and have the next session put everything right."""
        spool, call = self.spool, self.call
        spool.deliver(DELIVERED)
        self._log_in(call.finally_(self.arrived + DELIVERED), cell, complain)
        names = spool.names()
        if RECEIPT in self.files:
            if RECEIPT not in names or spool.contents([RECEIPT]) != {RECEIPT: b"7\n"}:
                complain("damaged", "the receipt of the bulletin")
            names = [name for name in names if name != RECEIPT]
        # Where a file cannot be made without a name it has one for a moment: the next day's tidying takes that.
        left = [name for name, octets in spool.contents(names).items() if octets or not name.startswith("tmp/popper.")]
        if left:
            complain("left over", left)

    def _log_in(self, states: "tuple[bytes, ...]", cell: Cell, complain) -> None:
        """Log in, undisturbed, and look."""
        talk, seconds = self.spool.login()
        cell.slowest = max(cell.slowest, seconds)
        left = self.spool.mailbox()
        if seconds > LATE:
            complain("late", f"{seconds:.1f} s")
        if not talk.opened.startswith(b"+OK"):
            complain("late", talk.trouble)
        elif left not in states:
            complain("damaged", f"{len(left)} octets; {talk.opened.decode()}")
        elif _count(talk.opened) != _messages(left):
            complain("wrong reply", talk.opened.decode())

    def _judge_replies(self, talk, complain) -> None:
        call = self.call
        left = self.spool.mailbox().replace(DELIVERED, b"").removesuffix(self.arrived)
        if talk.opened.startswith(b"+OK") and _count(talk.opened) not in [_messages(each) for each in call.opened]:
            complain("wrong reply", talk.opened.decode())
        if talk.signed_off and left not in call.right:
            complain("wrong reply", "signed off, and nothing was deleted")
        if b"nothing was deleted" in talk.said and left != call.before:
            complain("wrong reply", "said that nothing was deleted")
        if call.submits:
            letters = self.spool.submitted()
            if letters and letters != self.letters:
                complain("damaged", "the letter that sendmail took")
            if b"+OK Message sent" in talk.said and not letters:
                complain("wrong reply", "sent, and sendmail took nothing")
            if b"-ERR" in talk.said and letters:
                complain("wrong reply", f"{talk.said.splitlines()[-1].decode()}, and sendmail took the letter")

    def _arrive(self) -> None:
        self.arrived = self.call.arrives
        if self.arrived:
            self.spool.place.relieve()       # an agent that finds no room delivers nothing
            self.spool.deliver(self.arrived)
            self.spool.place.fill(self.spool.free)

    def _interrupted(self, call: Call) -> "dict[str, bytes]":
        """The files that a session leaves which is killed with its mailbox in pieces."""
        trial = Trial(self.spool, call)
        found: "list[dict[str, bytes]]" = []
        for strike in trial.strikes:
            if strike.call not in CHANGING or len(found) == DEEP:
                continue
            self.spool.lay(call.files)
            self.spool.talk(call.commands, trial.words, strike.strace("signal=KILL"))
            if self.spool.mailbox() not in call.clean:
                names = [name for name in self.spool.names() if name.endswith(".redo") or name in call.files]
                found.append(self.spool.contents([MAILBOX, *names]))
            self.spool.login()               # for a client that believes for a while in what it has seen
        assert found, "no kill leaves the mailbox in pieces"
        return found[-1]


def _messages(mailbox: bytes) -> int:
    return len(ENVELOPE.findall(mailbox))


def _count(reply: bytes) -> int:
    """The number of messages that a reply to PASS speaks of."""
    return int(reply.split()[3])
