"""Sessions that are killed, stopped or hindered: at a random moment, or at an exact system call."""

import contextlib
import signal
import time

from ledger import Fault
from ledger_caller import Gone, Strike
from ledger_session import Session

# Where a session or its keeper is struck: the system calls of an update and of a login that finishes one, how often
# each is chosen, and how many of its kind there may be.
CALLS = {"pwrite64": (8, 7), "pread64": (3, 8), "fdatasync": (6, 5), "ftruncate": (4, 1), "fsync": (1, 1),
         "fallocate": (1, 1), "fcntl": (2, 2), "openat": (1, 3), "close": (1, 4), "unlink": (3, 3), "link": (1, 1),
         "write": (1, 2), "newfstatat": (1, 8), "sendto": (2, 7), "recvmsg": (2, 6), "rt_sigprocmask": (1, 1)}
KEEPERS_CALLS = {"openat": (1, 4), "link": (1, 1), "unlink": (4, 3), "write": (1, 1), "fchmod": (1, 1),
                 "newfstatat": (1, 5), "fsync": (1, 1), "sendmsg": (2, 6), "recvfrom": (2, 6), "close": (1, 4)}
FAILING = {call: CALLS[call] for call in ("pwrite64", "pread64", "fdatasync", "ftruncate", "fsync", "fallocate",
                                          "openat", "unlink", "link", "write")}
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "ESTALE")
SIGNALS = {signal.SIGKILL: 8, signal.SIGTERM: 1, signal.SIGHUP: 1}


def one_of(rng, calls):
    """A system call out of a table, and its number among those of its kind."""
    call = rng.choices(list(calls), [often for often, _ in calls.values()])[0]
    return call, rng.randint(1, calls[call][1])


def slay(rng, session, *victims):
    """Send one signal to each, in order."""
    number = rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
    for process in victims:
        process.send(number)
    session.note(f"{signal.Signals(number).name} sent to {' '.join(str(process.pid) for process in victims)}")


@contextlib.contextmanager
def marked_session(run, rng, user):
    """A session that has looked and has marked something, its process, and its keeper or None."""
    with run.turn(user, rng), run.session(user, rng) as session:
        session.look()
        session.mark(session.some(rng))
        process, keeper = session.caller.process, session.caller.keeper()
        if process is None:
            raise Fault("there is no process behind the session", (), (session.visit,))
        with contextlib.closing(keeper) if keeper else contextlib.nullcontext():
            yield session, process, keeper


# -- at any moment -------------------------------------------------------------------------------------------------

def kill(run, rng, user, name):
    """In a login, in a RETR, in an update."""
    rng.choices((kill_in_login, login_struck, kill_in_retr, kill_in_update), (2, 2, 1, 6))[0](run, rng, user)


def kill_in_login(run, rng, user):
    with run.turn(user, rng), login_begun(run, rng, user) as session:
        session.ask_for_maildrop()
        time.sleep(run.moment(rng, "login", user))
        slay(rng, session, session.caller.process)
        run.count("killed around a login")


@contextlib.contextmanager
def login_begun(run, rng, user):
    """A session that is about to send PASS, of which nothing is wanted. A daemon has no process for it yet."""
    session = Session(run, user, "inetd")
    with contextlib.closing(session), contextlib.suppress(Gone):
        session.begin()
        if session.caller.process is None:
            raise Fault(f"there is no process behind a connection for {user}")
        yield session
        session.caller.drop()


def kill_in_retr(run, rng, user):
    """The dot is the commit mark: a text that ends with it is whole."""
    with marked_session(run, rng, user) as (session, process, _):
        left = session.unmarked()
        if not left:
            return session.vanish(rng)
        number = rng.choice(left)
        with contextlib.suppress(Gone):
            session.caller.send(f"RETR {number}\r\n")
            time.sleep(rng.random() / 500)
            slay(rng, session, process)
            session.caller.reply()
            run.ledger.fetched(session.visit, session.names[number - 1], session.plain(session.caller.unstuffed()))
        run.count("killed in RETR")


def kill_in_update(run, rng, user):
    """The session, its keeper, or both, in either order. Now and then DELE and QUIT come in one piece."""
    with marked_session(run, rng, user) as (session, process, keeper):
        victims = [process] if keeper is None else \
            rng.choices(([process], [keeper], [process, keeper], [keeper, process]), (5, 2, 2, 1))[0]
        session.visit.unlocked = keeper is not None and keeper in victims
        more = session.some(rng) if rng.random() < 0.3 else []
        session.marked.update(more)
        session.ask_to_quit("".join(f"DELE {number}\r\n" for number in more))
        time.sleep(run.moment(rng, "quit", user))
        slay(rng, session, *victims)
        answer = session.last_words()
        run.count("killed around an update" if answer is None else "killed after an update")
        if answer is None and rng.random() < 0.4:
            login_struck(run, rng, user)


def orphan(run, rng, user, name):
    """Its keeper killed, a session has no locks, and somebody else may come in and delete: its QUIT is refused."""
    with marked_session(run, rng, user) as (session, _, keeper):
        if keeper is None:
            return session.vanish(rng)
        session.visit.unlocked = True
        keeper.send(signal.SIGKILL)
        session.note("its keeper is killed")
        if rng.random() < 0.5:
            with run.session(user, rng) as other:
                other.look()
                other.mark(other.some(rng))
                other.quit()
        with contextlib.suppress(Gone):      # who finds that the mailbox has changed may end
            if session.marked and rng.random() < 0.5:
                session.caller.ask("RSET")
            elif session.caller.ask("QUIT").startswith("+OK") and session.marked:
                raise Fault("QUIT was answered +OK to a session without locks", (), (session.visit,))


# -- at a system call ----------------------------------------------------------------------------------------------

def strike(run, rng, user, name):
    """SIGKILL at one exact system call of an update, or of the keeper's part in it."""
    with marked_session(run, rng, user) as (session, process, keeper):
        session.visit.unlocked = keeper is not None and rng.random() < 0.3
        if session.visit.unlocked:
            answer = update_struck(run, session, keeper, *one_of(rng, KEEPERS_CALLS), "signal=KILL")
        else:
            answer = update_struck(run, session, process, *one_of(rng, CALLS), "signal=KILL")
        if answer is None and rng.random() < 0.5:
            login_struck(run, rng, user)


def fail(run, rng, user, name):
    """An error at one exact system call of an update."""
    with marked_session(run, rng, user) as (session, process, keeper):
        victim = keeper if keeper and rng.random() < 0.3 else process
        update_struck(run, session, victim, *one_of(rng, FAILING), f"error={rng.choice(ERRORS)}")


def update_struck(run, session, process, call, when, what):
    """QUIT, with one system call of a process going wrong. -> what QUIT was answered."""
    session.note(f"{what} at {call} number {when} of {process.pid}")
    blow = Strike(process, call, what, when, run.place.trace_file())
    try:
        return session.quit(may_fail=True)
    finally:
        if blow.finish():
            run.count(f"{what.partition('=')[0]} in an update, at {call}")


def login_struck(run, rng, user):
    """A login that has an update to finish perhaps, or mail to add, is killed at one exact system call, or gets an
    error there."""
    with login_begun(run, rng, user) as session:
        # One that imports what it needs may fail anywhere; the daemon has done that.
        whats = ["signal=KILL"] * 3 + [f"error={rng.choice(ERRORS)}"] * (session.server != "inetd")
        what = rng.choice(whats)
        call, when = one_of(rng, CALLS if what == "signal=KILL" else FAILING)
        blow = Strike(session.caller.process, call, what, when, run.place.trace_file())
        try:
            session.ask_for_maildrop()
            session.note(f"{what} at {call} number {when}")
            session.caller.reply()
        finally:
            if blow.finish():
                run.count(f"{what.partition('=')[0]} in a login, at {call}")


def stop(run, rng, user, name):
    """An update takes its time; who wants in meanwhile waits or is refused, and so do delivery agents."""
    with marked_session(run, rng, user) as (session, process, _):
        call = rng.choice(("pwrite64", "ftruncate", "fdatasync"))
        blow = Strike(process, call, "signal=STOP", rng.randint(1, CALLS[call][1]), run.place.trace_file())
        try:
            session.ask_to_quit()
            time.sleep(rng.random() * 0.7)
            if rng.random() < 0.3:
                slay(rng, session, process)
        finally:
            if blow.finish():
                run.count(f"stopped in an update, at {call}")
            process.send(signal.SIGCONT)     # now that it will not be stopped again
        session.last_words()
