"""One process of a mailbox test: a session that deletes, or a delivery that brings back.

Each gives {"phases": {phase: seconds}, "waits": [[for what, seconds, what was in the way]], "faults": [sentences],
"put_aside": whether this mailbox is not to be tried again, ...}.
"""

import contextlib
import os
import random
import signal
import time

from popper import login
from popper.admin.ledger import AGENT, SESSION
from popper.admin.owner import account_of
from popper.errors import IN_USE, PERMANENT, DropBroken, Refused
from popper.storage.held import Held
from popper.storage.locks import OPEN, SpoolLocks, checked
from popper.storage.mbox import BLOCK


class Agent(SpoolLocks):
    """The locks of a delivery agent, which minds no session and may come when one makes its dotlock."""

    def __init__(self, mailbox: str) -> None:
        super().__init__(mailbox)
        self.private += f".{os.getpid()}"


class Round:
    """What is being found out. put_aside: whether this mailbox is not to be tried again; busy_is_no_fault: whether
    others may have a right to it."""

    busy_is_no_fault = False

    def __init__(self) -> None:
        self.phases: "dict[str, float]" = {}
        self.waits: "list[list]" = []
        self.faults: "list[str]" = []
        self.put_aside = False
        self.rest: dict = {}

    @contextlib.contextmanager
    def phase(self, name: str):
        begun = time.monotonic()
        yield
        self.phases[name] = time.monotonic() - begun

    def waited(self, seconds: float, obstacle: str) -> None:
        if obstacle:
            self.waits.append(["other locks", seconds, obstacle])

    def fault(self, text: str, put_aside: bool = True) -> None:
        self.faults.append(text)
        self.put_aside = self.put_aside or put_aside

    def told(self, act) -> dict:
        """What act() found, in the end."""
        try:
            act()
        except Refused as refused:
            if refused.code == IN_USE and self.busy_is_no_fault:
                self.rest["busy"] = refused.reason or refused.text
                return self._answer()
            why = "; ".join(filter(None, [refused.reason, *(wait[2] for wait in self.waits)]))
            self.fault(refused.text + (f" ({why})" if why else ""), refused.code == PERMANENT)
        except DropBroken as broken:
            self.fault(f"{broken.text} ({broken})")
        except OSError as error:
            self.fault(f"{error.filename or 'the system'}: {error.strerror}")
        return self._answer()

    def _answer(self) -> dict:
        return {"phases": self.phases, "waits": self.waits, "faults": self.faults, "put_aside": self.put_aside,
                **self.rest}


class Visit(Round):
    """A session over a mailbox, as popper holds it."""

    def __init__(self, uid: int, path: str, options) -> None:
        super().__init__()
        self.path = path
        self.options = options
        self.store = login.open_store(account_of(uid), path, options)
        self.store.say = self._said
        self.spent = 0.0                     # on locks, of what has been told of

    def _said(self, text: str) -> None:
        if text.startswith("Locks of "):
            spent = self.store.spent["locks"]
            self.waited(spent - self.spent, text.partition("; ")[2])
            self.spent = spent

    def opened(self) -> bool:
        """Take the session lock and read the mailbox. Whether that could be: False when another has it."""
        with self.phase("session lock"):
            if not self._locked():
                self.rest["busy"] = self.waits[-1][2]
                return False
        return True

    def _locked(self) -> bool:
        begun, obstacle = time.monotonic(), ""
        while True:
            try:
                self.store.locks.session()
                if obstacle:
                    self.waits.append(["session lock", time.monotonic() - begun, obstacle])
                return True
            except Refused as refused:
                if refused.code != IN_USE:
                    raise
                obstacle = obstacle or refused.reason or refused.text
            if time.monotonic() >= begun + self.options.lock_timeout:
                self.waits.append(["session lock", time.monotonic() - begun, obstacle])
                return False
            time.sleep(0.005 + random.random() / 50)

    def scanned(self, notes: bool) -> list:
        """The messages. notes: whether the test itself has left something to be finished here."""
        spent = self.store.spent
        begun = time.monotonic()
        try:
            entries = self.store.scan()
        finally:
            self.faults += [alarm.removeprefix(f"{self.path}: ") for alarm in self.store.alarms]
        self.phases.update({"other locks": spent["locks"], "parse": spent["scan"]})
        self.phases["open"] = time.monotonic() - begun - spent["locks"] - spent["scan"]
        if not notes:
            for note in self.store.notes:
                self.fault(f"something was to be finished where nothing was interrupted: {note}", False)
        self.rest["notes"], self.store.notes[:] = list(self.store.notes), []
        return entries

    def committed(self, entries: list) -> None:
        before = self.store.spent["locks"]
        with self.phase("delete"):
            self.store.commit(entries)
        self.phases["delete"] -= self.store.spent["locks"] - before

    def closed(self) -> None:
        with self.phase("release"):
            self.store.close()


# -- a session over a dummy --------------------------------------------------------------------------------------------

def session(dummy, ledger, options, delete: bool, kill: "float | None") -> dict:
    """Open, check everything, delete some, check what is left, release. delete: or only look; kill: be killed so many
    seconds after the update has begun, unless this session had to settle what a killed one left.

    The answer has `out`: messages that are to be brought back; `settled`: how an interrupted session's update ended.
    """
    visit = Visit(dummy.uid, dummy.path, options)

    def act():
        if not visit.opened():
            return
        if not ledger.alone(SESSION):
            visit.fault("two sessions had the session lock at one time: the locks do not work here")
            return
        before = ledger.read()
        entries = visit.scanned(before["intent"] is not None)
        with visit.phase("unique-ids"):
            ids = visit.store.unique_ids()
        order = _settle(visit, dummy.pristine, ledger, before, entries, ids)
        if order is not None and delete:
            _delete(visit, dummy.pristine, ledger, order, entries, None if "settled" in visit.rest else kill)

    try:
        return visit.told(act)
    finally:
        ledger.no_longer(SESSION)
        visit.closed()


def _settle(visit: Visit, pristine, ledger, before: dict, entries: list, ids: list) -> "list[int] | None":
    """Compare what is there with what is to be there. -> the order of these messages, or None."""
    state = ledger.read()                    # nobody but deliveries changes it as long as we have the session lock
    gone = set(state["intent"] or ())        # whose session was killed: either all of these are there, or none
    complaints = []
    for how, without in (("undone", set()), ("done", gone)) if gone else (("", set()),):
        order, least = ([index for index in each if index not in without] for each in (state["order"], before["order"]))
        complaint = complaint_about(visit, pristine, order, len(least), entries, ids)
        if complaint is None:
            ledger.settle(without)
            if gone:
                visit.rest["settled"], visit.rest["out"] = how, sorted(without)
            return order[:len(entries)]
        complaints.append(complaint)
    visit.fault(complaints[0] if len(complaints) == 1 else
                f"an interrupted update is neither done nor undone: {'; '.join(complaints)}")
    return None


def complaint_about(visit: Visit, pristine, order: "list[int]", least: int, entries: list, ids: list) -> "str | None":
    """What is wrong with a mailbox that is to hold these messages, but perhaps not yet all behind the first `least`."""
    size = visit.store.size
    wrong = difference(visit.store.descriptor, pristine, order, size)
    if wrong:
        return wrong
    count = len(entries)
    whole = pristine.length(order[:count])
    if size < whole:
        return f"it ends at octet {size}, within message {count}"
    if size > whole:
        return f"{count} messages were found in {size} octets, where {whole} octets would hold as many"
    if count < least:
        return f"{least - count} messages are not there that were put there"
    if [entry.octets for entry in entries] != [pristine.sizes[index] for index in order[:count]]:
        return "the octets of messages are not what they were last time"
    if ids != pristine.unique_ids(order[:count]):
        return "the unique-ids are not what they were last time"
    return None


def difference(descriptor: "int | None", pristine, order: "list[int]", size: int) -> "str | None":
    """How the first `size` octets of a mailbox differ from these messages, one behind the other, or None."""
    at = 0
    for number, index in enumerate(order, 1):
        begin, end = pristine.spans[index]
        while begin < end and at < size:
            want = pristine.octets[begin:min(begin + BLOCK, end, begin + size - at)]
            got = os.pread(descriptor, len(want), at)
            if got != want:
                return _told(number, at, want, got)
            at, begin = at + len(want), begin + len(want)
        if at >= size:
            return None
    return f"{size - at} octets stand behind all mail that anybody put there, from octet {at} on" if at < size else None


def _told(number: int, at: int, want: bytes, got: bytes) -> str:
    if len(got) < len(want) and want.startswith(got):
        return f"it ends at octet {at + len(got)}, within message {number}"
    same = next(place for place, (one, other) in enumerate(zip(want, got)) if one != other)
    where = f"at octet {at + same}, in message {number}"
    rest = got[same:]
    nuls = len(rest) - len(rest.lstrip(b"\0"))
    if nuls:
        return f"there are {nuls} NULs {where}, where mail was"
    return f"{where} there is {_shown(rest)} and not {_shown(want[same:])}"


def _shown(octets: bytes) -> str:
    return f'"{repr(octets[:24])[2:-1]}"'      # the user may not be able to import a codec


def _delete(visit: Visit, pristine, ledger, order: "list[int]", entries: list, kill: "float | None") -> None:
    places = [place for place, index in enumerate(order) if index in pristine.movable]
    if not places:
        return
    most = len(places) if random.random() < 0.1 else (len(places) + 1) // 2
    chosen = sorted(random.sample(places, random.randint(1, most)))
    out = [order[place] for place in chosen]
    with ledger.changed() as state:
        state["intent"] = out
    killer = _killer(kill) if kill is not None else 0
    try:
        visit.committed([entries[place] for place in chosen])
    finally:
        if killer:
            os.kill(killer, signal.SIGKILL)
            os.waitpid(killer, 0)
    left = ledger.settle(set(out))
    visit.rest["out"] = visit.rest.get("out", []) + out
    visit.rest["deleted"] = len(out)
    stayed = [index for index in order if index not in set(out)]
    size, least = os.fstat(visit.store.descriptor).st_size, pristine.length(stayed)
    wrong = difference(visit.store.descriptor, pristine, left, min(size, least))
    if wrong or size < least:
        visit.fault("after the update " + (wrong or f"{least - size} octets of what was to stay are gone"))


def _killer(seconds: float) -> int:
    """A process that kills this one, with no chance to do anything about it."""
    victim, killer = os.getpid(), os.fork()
    if not killer:
        try:
            time.sleep(seconds)
            os.kill(victim, signal.SIGKILL)
        finally:
            os._exit(0)
    return killer


# -- a delivery --------------------------------------------------------------------------------------------------------

def delivery(dummy, ledger, options, out: "list[int]") -> dict:
    """Bring messages back, behind all others, as a delivery agent does. The answer has `delivered`."""
    this = Round()
    locks = login.enter_spool(account_of(dummy.uid), dummy.path, Agent)

    def act():
        descriptor = os.open(dummy.path, OPEN)
        try:
            checked(descriptor, dummy.path)
            begun = time.monotonic()
            with Held(locks, descriptor, dummy.path, options.lock_timeout, options.locks, this.waited):
                if not ledger.alone(AGENT):
                    this.fault("two programs had the locks of the mailbox at one time: they do not work here")
                    return
                this.phases["other locks"] = time.monotonic() - begun
                with this.phase("put back"):
                    _add(descriptor, dummy.pristine, out, options.fsync)
                with ledger.changed() as state:
                    state["order"] += out
                this.rest["delivered"] = len(out)
                ledger.no_longer(AGENT)
        finally:
            os.close(descriptor)

    try:
        return this.told(act)
    finally:
        ledger.no_longer(AGENT)
        locks.close()


def _add(descriptor: int, pristine, out: "list[int]", fsync: bool) -> None:
    at = os.fstat(descriptor).st_size
    for index in out:
        octets = pristine.piece(index)
        while octets:
            done = os.pwrite(descriptor, octets, at)
            at, octets = at + done, octets[done:]
    if fsync:
        os.fsync(descriptor)
