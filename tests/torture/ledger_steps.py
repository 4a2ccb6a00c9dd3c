"""What can happen to a mailbox: one function for each kind of step, and the table of how often each happens.

A step is made of its number and the seed alone, as far as other steps at the same time let it: `step N` of a run does
what it did in the run before.
"""

import contextlib
import random
import time

import ledger_strikes as strikes
from conftest import wait_until
from ledger import BULLETIN, OLD, Fault
from ledger_caller import Gone
from ledger_mail import ENVELOPED, letter, name_in, piece, quoted, wire
from ledger_run import LOCKED_OUT
from ledger_session import Refusal, Session

# kind: how often, relative to the others. 0: never; then the place is without bulletins, or marks as well.
KINDS = {
    "procmail": 18,
    "fcntl": 11,
    "dotlock": 9,
    "poll": 6,
    "delete some": 14,
    "delete all": 2,
    "abort": 6,
    "kill": 8,
    "strike": 8,
    "fail": 2,
    "stop": 2,
    "orphan": 1,
    "two": 3,
    "rset": 2,
    "xlst": 2,
    "idle": 1,
    "bulletin": 2,
    "status": 4,
    "old mail": 3,
}


# -- delivery ------------------------------------------------------------------------------------------------------

def deliver(run, rng, user, name, how):
    shape = run.place.users[user]
    missing = run.place.inode(user) is None
    if how == "procmail" or missing:
        text = letter(name, shape.size(rng), tame=True)
        entry = run.ledger.begin(name, user, "procmail", wire(quoted(text)))
        # One with rules that makes the mailbox makes no dotlock.
        with run.writing[user] if missing else contextlib.nullcontext():
            run.place.procmail(name, user, text)
        run.ledger.finish(entry)
        return
    there = len(run.ledger.left(user))
    wanted = max(rng.choice((1, 1, 2, 3, 5)), shape.floor - there)
    append(run, rng, user, how, [(f"{name}.{number}", shape.size(rng)) for number in range(wanted)])


def append(run, rng, user, how, wanted, kind="mail"):
    """Have letters (name, octets) delivered in one go."""
    crlf = rng.randrange(10) < run.place.users[user].crlf
    texts = [(name, letter(name, octets, crlf)) for name, octets in wanted]
    entries = [run.ledger.begin(name, user, how, wire(text), kind) for name, text in texts]
    octets = b"".join(piece(name, text) for name, text in texts)
    sizes = []
    while sum(sizes) < len(octets):
        sizes.append(min(rng.choice((1, 20, 1000, 4096, 65536, 1000000)), len(octets) - sum(sizes)))
        if len(sizes) > 12:
            sizes.append(len(octets) - sum(sizes))
    with run.writing[user]:                  # the two kinds of lock do not keep each other out
        run.place.append(how, user, octets, sizes)
    for entry in entries:
        run.ledger.finish(entry)


def by_procmail(run, rng, user, name):
    deliver(run, rng, user, name, "procmail")


def by_fcntl(run, rng, user, name):
    deliver(run, rng, user, name, "fcntl")


def by_dotlock(run, rng, user, name):
    deliver(run, rng, user, name, "dotlock")


def old_mail(run, rng, user, name):
    """An older popper was killed, and left what it had taken out of the mailbox in its session file."""
    shape = run.place.users[user]
    wanted = [(f"{name}.{number}", shape.size(rng)) for number in range(rng.randint(1, 4))]
    with run.turn(user, rng):
        append(run, rng, user, "old mail", wanted, OLD)


def bulletin(run, rng, user, name):
    """A file for everybody."""
    with run.counting:
        run.bulletins += 1
        number = run.bulletins
        name = f"{run.seed}.bulletin.{number}"
        for each in run.place.users:
            run.ledger.begin(name, each, "the bulletin directory", kind=BULLETIN)
        path = run.place.bulletins / f"{number}.of_the_ledger"
        text = letter(name, rng.randrange(2000), tame=True)
        path.with_name("new").write_bytes(piece(name, quoted(text)))
        path.with_name("new").chmod(0o644)
        path.with_name("new").rename(path)


# -- sessions that end well ----------------------------------------------------------------------------------------

def poll(run, rng, user, name, server=None):
    with run.turn(user, rng), run.session(user, rng, server) as session:
        session.look()
        session.fetch(rng, rng.random() < 0.1)
        if len(session.names) > run.place.users[user].ceiling:
            session.mark(session.some(rng, 0.8))
        session.quit()


def delete_some(run, rng, user, name):
    with run.turn(user, rng), run.session(user, rng) as session:
        session.look()
        numbers = session.some(rng)
        for number in numbers[:rng.randrange(5)]:
            session.retrieve(number)
        session.mark(numbers)
        session.quit()


def delete_all(run, rng, user, name):
    with run.turn(user, rng), run.session(user, rng) as session:
        session.look()
        session.fetch(rng)
        session.mark(range(1, len(session.names) + 1))
        session.quit()


def reset(run, rng, user, name):
    """What was marked before RSET stays."""
    with run.turn(user, rng), run.session(user, rng) as session:
        session.look()
        before = session.caller.ok("STAT")
        session.mark(session.some(rng))
        session.caller.ok("RSET")
        session.note("RSET")
        session.marked.clear()
        if session.caller.ok("STAT") != before:
            raise Fault("STAT is not what it was before RSET", (), (session.visit,))
        if rng.random() < 0.5:
            session.mark(session.some(rng))
        session.quit()


def list_headers(run, rng, user, name):
    """XTND XLST tells of the same letters as UIDL, and TOP too."""
    with run.turn(user, rng), run.session(user, rng) as session:
        session.look()
        session.mark(session.some(rng)[:3] if rng.random() < 0.3 else [])
        left = [session.names[number - 1] for number in session.unmarked()]
        lines = session.caller.lines("XTND XLST Message-ID")
        told = [name_in(line.encode().partition(b" ")[2] + b"\r\n") for line in lines]
        if told != left:
            raise Fault(f"XTND XLST tells of {told}, UIDL of {left}", (), (session.visit,))
        for number in rng.sample(session.unmarked(), min(3, len(left))):
            head = session.caller.text(f"TOP {number} {rng.choice((0, 0, 3))}")
            if name_in(head) != session.names[number - 1]:
                raise Fault(f"TOP {number} is of another letter", (), (session.visit,))
        session.quit()


def mark_as_read(run, rng, user, name):
    poll(run, rng, user, name, "marking")


# -- sessions that do not --------------------------------------------------------------------------------------------

def abort(run, rng, user, name):
    """Marked, but no QUIT; or QUIT, and nobody waits for the answer."""
    with run.turn(user, rng), run.session(user, rng, rng.choice(run.servers + ["eager"] * 3)) as session:
        session.look()
        session.mark(session.some(rng))
        if rng.random() < 0.3:
            session.ask_to_quit()
            session.caller.drop(rng.random() < 0.5)
            session.settle(None)
        else:
            session.vanish(rng)


def idle(run, rng, user, name):
    """Mail comes meanwhile, and the session does not see it; who is silent for too long is cut off."""
    impatient = rng.random() < 0.5
    with run.turn(user, rng):
        try:
            with run.session(user, rng, "impatient" if impatient else None) as session:
                session.look()
                session.mark(session.some(rng))
                before = session.caller.ok("STAT")
                if impatient:
                    session.note("silent until it is cut off")
                    session.caller.rest()
                    return
                time.sleep(rng.random() * 3)
                if session.caller.ok("STAT") != before:
                    raise Fault("STAT has changed in a session that did nothing", (), (session.visit,))
                session.fetch(rng)
                session.quit()
        except Gone:                         # of the impatient one alone
            run.count("cut off early")


def two(run, rng, user, name):
    """While one has the maildrop nobody else gets it."""
    with run.turn(user, rng), run.session(user, rng) as session:
        session.look()
        session.mark(session.some(rng))
        other = Session(run, user, rng.choice(run.servers))
        with contextlib.closing(other):
            if rng.random() < 0.5:
                with contextlib.suppress(Refusal):
                    other.log_in()
                    other.note(f"while session {session.visit.number} is there")
                session.caller.ok("NOOP")    # and if the other one got in, the ledger objects
                session.fetch(rng)
                session.quit()
                return
            # Both at once: QUIT here, PASS there.
            session.ask_to_quit()
            try:
                other.log_in()
                other.look()
                other.fetch(rng)
                other.mark(other.some(rng))
                other.quit()
            except Refusal as refusal:
                if "[IN-USE]" not in str(refusal):
                    raise Fault(f"login of {user}: {refusal}", (), (other.visit,)) from None
            session.hear()


STEPS = {
    "procmail": by_procmail, "fcntl": by_fcntl, "dotlock": by_dotlock, "poll": poll, "delete some": delete_some,
    "delete all": delete_all, "abort": abort, "kill": strikes.kill, "strike": strikes.strike, "fail": strikes.fail,
    "stop": strikes.stop, "orphan": strikes.orphan, "two": two, "rset": reset, "xlst": list_headers, "idle": idle,
    "bulletin": bulletin, "status": mark_as_read, "old mail": old_mail,
}


def step(run, number):
    """Do one step."""
    rng = random.Random(f"{run.seed} {number}")
    kind = rng.choices(list(run.kinds), list(run.kinds.values()))[0]
    user = rng.choice(list(run.place.users))
    begun = time.monotonic()
    STEPS[kind](run, rng, user, f"{run.seed}.{number}")
    run.count(kind)
    run.spent[kind] = run.spent.get(kind, 0) + time.monotonic() - begun
    run.check_inode(user)


# -- the end -------------------------------------------------------------------------------------------------------

def finish(run, rng):
    """With nobody else there: let everybody in twice, and look at everything."""
    for user in run.place.users:
        with run.session(user, rng, "plain") as session:
            session.quit()
        with run.session(user, rng, "plain") as session:
            session.look()
            session.fetch(rng, everything=True)
            session.quit()
            run.check_inode(user)
            check_file(run, session)
    run.ledger.close()
    left_over = run.place.left_over()
    if left_over:
        raise Fault(f"left in the spool: {left_over}")
    wait_until(lambda: not run.place.stragglers(), LOCKED_OUT)       # else sessions, or keepers, never end


def check_file(run, session):
    """The mailbox, read by somebody else: the envelope lines of what was found, and nothing before the first."""
    octets = run.place.octets(session.user) if run.place.inode(session.user) else b""
    lines = list(ENVELOPED.finditer(octets))
    names = [line[1].decode() for line in lines]
    if names != session.names or octets[:lines[0].start() if lines else None]:
        raise Fault(f"in the file of {session.user} are {names}, in the maildrop {session.names}", (), (session.visit,))
