"""What went wrong in a session of a trace, in sentences, as far as that can be told; nothing is guessed.

    facts(session) -> Facts, what its lines say -> RULES, each of which may find something -> Findings

Some of it takes other sessions of the same user, the one that holds the mailbox, the one before: History has them.
"""

import collections
import re

from popper.admin.facts import Facts, History, facts, key_of
from popper.admin.tracelines import clock, lasting
from popper.admin.traces import CLOSED, ERROR, OPEN, OUTCOMES, QUIT, REFUSED, SIGNAL, TIMEOUT, Session
from popper.login import TOO_MANY_WRONG
from popper.reception import TURNED_AWAY as REFUSALS

SLOW_DNS = SLOW_AUTHENTICATION = SLOW_LOCKS = 2.0        # seconds from which on it is worth a sentence
SLOW_SCAN = SLOW_DISK = SLOW_CLIENT = 10.0
SILENT = 10.0                  # seconds of silence of another session that are worth a word
RFC_TIMEOUT = 600              # seconds, RFC 1939.3
# refusals that are nobody's fault: kind, and what they mean
TURNED_AWAY = {
    TOO_MANY_WRONG: (
        "guessers", "The password was not tried: so many wrong ones had come from this address, or for this name, that "
        "no more logins could wait; `guess_delay_max` in popper.conf."),
    REFUSALS["maxsessions"][1]: (
        "maxsessions", "The password was not tried: as many sessions were under way as there may be at a time, "
        "`maxsessions` in popper.conf."),
}
ANEW = "Clients take such messages for new, and retrieve them again."

_DOTLOCK = re.compile(r'(.+) said "(.*)" and was (-?\d{1,9}) s old$', re.A)
_PROCESS = re.compile(r"\bprocess (\d{1,10})\b", re.A)
_DAMAGED = re.compile(r"(?:(\S+): )?no envelope line at octet (\d{1,18})", re.A)


class Finding:
    """kind: a word for programs; fault: whether somebody should do something; parts: texts and sessions, of which a
    sentence is made when the names of sessions are known; holder: a session of whose end the sentence tells, too.
    usual: it is said of sessions in which nothing went wrong, and only to who asks for one of them, or for a user."""

    usual = False

    def __init__(self, kind: str, fault: bool, *parts, holder: "Session | None" = None) -> None:
        self.kind = kind
        self.fault = fault
        self.parts = parts
        self.holder = holder

    def sentence(self, name) -> str:
        """name(session): what to call it."""
        text = "".join(name(part) if isinstance(part, Session) else part for part in self.parts)
        if self.holder is None:
            return text
        if self.holder.outcome == OPEN:
            unknown = self.holder.is_of_daemon and "(process " not in text
            return text + "; the trace does not have its end" + "; popperctl status has its process" * unknown + "."
        when = clock(self.holder.last, self.holder.begun)
        return text + f"; it ended at {when}, {OUTCOMES[self.holder.outcome]}."

    @property
    def other(self) -> "Session | None":
        """The session that this is about besides."""
        return next((part for part in self.parts if isinstance(part, Session)), None)


def _fault(kind: str, *parts, holder: "Session | None" = None) -> Finding:
    return Finding(kind, True, *parts, holder=holder)


def _note(kind: str, *parts) -> Finding:
    return Finding(kind, False, *parts)


class _Usual(Finding):
    usual = True


def explain(session: Session, history: History) -> "list[Finding]":
    """What there is to say of a session that has ended, or of which no more is known; it is remembered then."""
    found = facts(session)
    told = [finding for rule in RULES for finding in rule(session, found, history)]
    history.add(session, found)
    session.lines = None
    return told


# -- rules: each gets (session, facts, history), and yields findings ---------------------------------------------------

def _dns(session: Session, found: Facts, _):
    if found.dns and found.dns[2] >= SLOW_DNS:
        address, name, seconds = found.dns
        yield _fault("dns", f"DNS took {lasting(seconds)} for {address}, which "
                     + (f"is {name}. " if name else "has no name to go by. ")
                     + "Whoever keeps the reverse zone can mend that; `lookup no` in popper.conf does without.")


def _login(session: Session, found: Facts, _):
    user, wrong = session.user, found.failures.count("wrong password")
    if wrong:
        times = f", {wrong} times" if wrong > 1 else ""
        yield _fault("password", f"The password given for {user} is wrong{times}.")
    for reason in dict.fromkeys(found.failures):
        if reason == "no such user":
            yield _fault("user", f"There is no user {user}.")
        elif reason != "wrong password":
            yield _fault("user", f"{user} may not log in: {reason}.")
    if not found.failures and any(each.is_denial for each in found.complaints):
        yield _fault("password", f"The password given for {user} is wrong, or there is no such user; the trace does "
                     "not say which.")
    for each in found.complaints:
        if each.text in TURNED_AWAY:
            yield _note(*TURNED_AWAY[each.text])
    if session.outcome in (QUIT, CLOSED) and session.logged_in is None and not found.complaints:
        yield _note("probe", f"The client gave the name {user} and left without a password.") if user else \
            _note("no-login", "The client left without logging in.")


def _in_use(session: Session, found: Facts, history: History):
    for each in found.complaints:
        if not each.is_lock:
            continue
        if found.session_lock:
            waited = lasting(found.locks[-1][0] if found.locks else 0.0)
            yield _fault("locks", f"{'At QUIT the' if each.command.lower() == 'quit' else 'The'} mailbox was locked: "
                         + _obstacle(each.reason) + f" popper waited {waited} for it, `lock_timeout` in popper.conf.")
            continue
        process = _PROCESS.search(each.reason)
        holder = history.holder(session, each.when, int(process[1]) if process else 0)
        if holder is not None:
            silent = each.when - holder.last
            yield _fault("in-use", "Another session holds the mailbox: ", holder,
                         f"{_process(holder, process)} from {holder.address}, "
                         f"since {clock(holder.logged_in, session.begun)}, "
                         f"{lasting(each.when - holder.logged_in)} before this"
                         + (f"; it had been silent for {lasting(silent)}" if silent >= SILENT else ""), holder=holder)
        else:
            yield _fault("in-use", "Another session holds the mailbox"
                         + (f": process {process[1]}, of which nothing is in this trace." if process else
                            "; nothing of it is in this trace."))


def _process(holder: Session, told) -> str:
    """The process of a session, behind a name that does not tell it. told: what who was turned away knew of it, or
    None; second best, as it may be that of the session's keeper."""
    if not holder.is_of_daemon:
        return ""
    number = holder.process or (told and told[1])
    return f" (process {number})" if number else ""


def _obstacle(text: str) -> str:
    """Who was in the way, as a sentence."""
    said = _DOTLOCK.match(text)
    if not said:
        return (text or "by a delivery agent or a mail reader") + "."
    words = said[2].replace(":", " ").replace("@", " ").split()
    by = f" by process {words[0]}" if words and words[0].isdigit() else ""
    on = f" on {words[1]}" if by and words[1:] else ""
    old = lasting(max(0, int(said[3])))
    return f"{said[1]} was there{by}{on}, {old} old, as delivery agents and mail readers make it."


def _waits(session: Session, found: Facts, _):
    for seconds, obstacle in found.locks:
        if seconds >= SLOW_LOCKS and not any(each.is_lock for each in found.complaints):
            yield _fault("locks", f"The locks of {found.mailbox} took {lasting(seconds)}: " + _obstacle(obstacle))
    if found.held:
        yield _note("guessers", f"The login was held back for {lasting(found.held)}, because many wrong passwords had "
                    "come from this address, or for this name; `guess_delay_max` in popper.conf.")
    if found.authentication >= SLOW_AUTHENTICATION:
        yield _fault("authentication", f"Checking the password took {lasting(found.authentication)}.")
    if found.scan >= SLOW_SCAN:
        yield _fault("scan", f"Looking through {found.mailbox} took {lasting(found.scan)}.")
    if found.disk >= SLOW_DISK:
        yield _fault("disk", f"The update of {found.mailbox} took {lasting(found.disk)}.")


def _trouble(session: Session, found: Facts, _):
    if found.bug:
        yield _fault("error", f"popper has a fault, at {found.bug[0]}: {found.bug[1]}. Its makers should know.")
    elif session.outcome == ERROR:
        yield _fault("error", "popper has a fault; its makers should know.")
    for each in found.complaints:
        damaged = _DAMAGED.search(each.reason)
        if damaged:
            path = damaged[1] or found.mailbox
            yield _fault("damaged", f"The mailbox {path} is damaged at octet {damaged[2]}: a message should begin "
                         f"there. popperctl mailbox repair -n {path} says more.")
        elif "changed by another program" in each.text:
            yield _fault("changed", f"During the session {each.reason or 'another program changed the mailbox'}; "
                         "nothing was deleted. Does that program take the same locks, `locks` in popper.conf?")
        elif each.code.startswith("SYS/") and not found.bug and each.text not in TURNED_AWAY:
            yield _fault("trouble", f'"{_shown(each.command)}" was refused: {each.text}'
                         + (f" ({each.reason})" if each.reason else ""))
    if found.failed_update and not found.complaints:
        yield _fault("trouble", f"The update of {found.mailbox} failed; popper's log may say why.")


def _bulletins(session: Session, found: Facts, _):
    for each in found.bulletins[:1]:
        yield _fault("bulletins", f"Bulletins were not given: {each}. popperctl bulletin check says more.")


def _mistakes(session: Session, found: Facts, _):
    made = [each for each in found.complaints if each.is_mistake]
    if session.outcome == REFUSED and not session.code and made:
        yield _fault("refused", f"popper ended the session: {made[-1].text}")
    elif len(made) == 1:
        yield _note("mistakes", f'"{_shown(made[0].command)}" was refused: {made[0].text}')
    elif made:
        yield _note("mistakes", f'{len(made)} commands were refused, "{_shown(made[0].command)}" first: {made[0].text}')


def _transfer(session: Session, found: Facts, _):
    for each in found.retrieved.values():
        known = each.announced is not None and each.sent is not None
        # A line of a dot alone is sent with two, which makes four octets of three.
        if known and not each.announced <= each.sent <= each.announced + each.announced // 3:
            yield _fault("size", f"Message {each.number} was announced with {each.announced} octets, and {each.sent} "
                         "were sent.")
        if each.waiting >= SLOW_CLIENT:
            yield _note("slow-client", f"The client read slowly: of {lasting(each.seconds)} for message {each.number}, "
                        f"{each.sent} octets, {lasting(each.waiting)} were spent waiting for it.")


def _unique_ids(session: Session, found: Facts, history: History):
    past = history.of(session.user)
    old = {unique for unique, _, _ in past.messages.values() if unique}
    new = {unique for unique, _, _ in found.messages.values() if unique}
    if not old or not new:
        return
    places = {(offset, octets): unique for unique, offset, octets in past.messages.values() if unique and offset >= 0}
    # Where mail was deleted others may have moved to its place: neither id may be known from the other session.
    changed = [(number, was, unique) for number, (unique, offset, octets) in found.messages.items()
               if unique and unique not in old and (was := places.get((offset, octets))) and was not in new]
    before = past.lister, f" at {clock(past.lister.begun, session.begun)}"
    if changed:
        number, was, now = changed[0]
        yield _fault("unique-ids", "Unique-ids have changed since session ", *before, f", those of {len(changed)} of "
                     f"{len(found.messages)} messages: number {number} had {was} and has {now}. {ANEW}")
    elif not old & new and _same_sizes(past.messages, found.messages):
        yield _fault("unique-ids", "All unique-ids have changed since session ", *before, f". {ANEW}")


def _same_sizes(before: dict, after: dict) -> bool:
    """Whether most messages of one list may be in the other: half of the sizes, of two messages at least."""
    sizes = collections.Counter(octets for _, _, octets in before.values())
    same = sum((sizes & collections.Counter(octets for _, _, octets in after.values())).values())
    return same >= 2 and same * 2 >= len(before)


def _again(session: Session, found: Facts, history: History):
    past, retrieved = history.of(session.user), found.finished(session)
    again = [each for each in retrieved if key_of(found, each) in past.retrieved]
    if not again or len(again) * 2 < len(retrieved):
        return
    what = f"{len(again)} of {len(retrieved)} messages, {sum(each.announced or 0 for each in again)} octets,"
    before = past.retriever, f" at {clock(past.retriever.begun, session.begun)} had retrieved and left on the server"
    how = "" if found.uidl else " It did not ask for unique-ids, by which it could know them."
    if past.retriever.address == session.address:
        yield _fault("again", f"The client retrieved {what} again, which session ", *before, "." + how)
    else:
        yield _note("again", f"Of what was retrieved, {what} are those that session ", *before,
                    f" for {past.retriever.address}: two clients read this mailbox.")


def _end(session: Session, found: Facts, _):
    if session.outcome == OPEN:
        yield _note("open", "The trace does not have its end: it is under way yet, or its process was killed.")
    elif session.outcome == TIMEOUT:
        yield _timed_out(session, found)
    elif session.outcome == CLOSED and session.logged_in is not None and session.word == "quit":
        yield _unheard(session, found)
    elif session.outcome == CLOSED and session.logged_in is not None:
        amid = f" while message {found.sending.number} was sent" if found.sending and session.ours else ""
        yield Finding("no-quit", bool(found.marked or amid), f"The client closed the connection without QUIT{amid}"
                      + _left(session, found, ", so") + ".")
    elif session.outcome == SIGNAL:
        yield _fault("signal", "popper was told to end by a signal" + _left(session, found, ", and") + ".")


def _unheard(session: Session, found: Facts) -> Finding:
    """Of a client that did not stay for the answer to QUIT."""
    count = found.deleted or found.deleting
    done = f"; {_messages(count)} {'were' if count > 1 else 'was'} deleted" if count else _left(session, found, ", and")
    return Finding("no-answer", bool(found.marked) and not count,
                   f"The client sent QUIT and closed the connection without waiting for the answer{done}.")


def _timed_out(session: Session, found: Facts) -> Finding:
    seconds, what = found.timeout or (0, "read")
    long = f"{seconds} s" if seconds else "the timeout"
    if what == "write":
        amid = found.sending
        of = f" of message {amid.number}" + (f", {amid.announced} octets," if amid.announced else "") if amid else ""
        return _fault("stopped-reading", f"The client stopped reading: it took nothing{of} for {long}"
                      + _left(session, found, ", and") + ".")
    if session.logged_in is None:
        return _fault("timeout", f"The client had not logged in after {long}, `login_timeout` in popper.conf.")
    behind = f' after "{_shown(found.command)}"' if found.command else ""
    short = f" RFC 1939 wants {RFC_TIMEOUT} s at least, `timeout` in popper.conf." if 0 < seconds < RFC_TIMEOUT else ""
    return _fault("timeout", f"The client paused for longer than {long}{behind}" + _left(session, found, ", so") + "."
                  + short)


def _left(session: Session, found: Facts, joined: str) -> str:
    """What became of the messages that were marked as deleted, as the end of a sentence."""
    count, deleted = len(found.marked), found.deleted or found.deleting
    if deleted:
        return f"; what was marked was deleted all the same, {_messages(deleted)} (`update_on_abort`)"
    if not count:
        return "; nothing was marked as deleted"
    marked = f"the {count} messages that were marked" if count > 1 else "the message that was marked"
    if not session.ours:                     # Qpopper deletes them, or not, as it was built
        return f"; {marked} as deleted may be gone or not"
    return f"{joined} {marked} as deleted {'stay' if count > 1 else 'stays'}"


def _deleted(session: Session, found: Facts, _):
    """For who asks where mail has gone."""
    count = found.deleted or found.deleting
    if not count:
        return
    missed = len(found.marked.difference(each.number for each in found.finished(session)))
    rest = ""
    if missed and count == len(found.marked):            # else the trace does not have all of it
        rest = ", which it had not retrieved" if count == 1 else f", {missed} of which it had not retrieved" \
            if missed < count else ", none of which it had retrieved"
    yield _Usual("deleted", False, f"The session deleted {_messages(count)}{rest}.")


def _messages(count: int) -> str:
    return f"{count} message{'s' * (count != 1)}"


def _shown(command: str) -> str:
    return command[:60] + ("..." if len(command) > 60 else "")


RULES = (_dns, _login, _in_use, _waits, _trouble, _bulletins, _mistakes, _transfer, _unique_ids, _again, _end,
         _deleted)
