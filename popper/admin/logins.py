"""What the lines of POP3 servers say of logins: popper's, Qpopper's of every version, Dovecot's.

The shapes are those of ucb-popper.md 8, and of Dovecot's pop3_logout_format. A line counts when the whole of it has one
of them, from a program of a fitting name: a user name that looks like a line, inside a line, is no line.
"""

import re
from typing import NamedTuple

from popper.account import LONGEST_NAME
from popper.admin.table import plain

LOGIN, UPDATE, FAILED, PROBE = "login", "update", "failed", "probe"

# One of these stands in every line that is understood here.
WORDS = (b"Stats: ", b"POP login by user", b"Failed attempted login to", b"Possible probe of account", b"pop3-login: ",
         b"pop3(", b"POP3(")
LONGEST = 256                  # octets of a name or an address that are believed
NOBODY = "(none)"              # shown where Dovecot has no name, or a name that is empty

_NAME, _HOST, _COUNT = rf"\S{{1,{LONGEST}}}", rf"[^\s()]{{1,{LONGEST}}}", r"-?\d{1,15}"
_BESIDE = rf"\((?:{_HOST})?\)"
STATS = re.compile(rf"Stats: ({_NAME}) ({_COUNT}) ({_COUNT}) ({_COUNT}) ({_COUNT})(?: {_HOST})??(?: ({_HOST}))?$", re.A)
IN = re.compile(rf'\(v[^\s()]{{1,64}}\) POP login by user "([^"\s]{{1,{LONGEST}}})" at {_BESIDE} ({_HOST})$', re.A)
OUT = re.compile(rf"(?:\[AUTH\] )?Failed attempted login to ({_NAME}) from host (?:{_BESIDE} )?({_HOST})$", re.A)
PROBED = re.compile(rf"Possible probe of account ({_NAME}) from host ({_HOST})(?: \(({_HOST})\))?$", re.A)
DOVECOT_IN = re.compile(rf"pop3-login: (?:Info: )?(?:Login|Logged in): user=<(.{{1,{LONGEST}}})>, (?:method=[^\s,]*, )?"
                        rf"rip=({_HOST}),(?:.{{0,1000}} session=<([^<>]{{1,64}})>)?", re.A)
# The name stands in front of `rip=`, and may itself contain that word: the last one is the server's. What may be long
# has a bound, so that no line takes long.
DOVECOT_OUT = re.compile(r"pop3-login: (?:Info: )?(?:Disconnected|Aborted login|Login aborted)\b[^<(]{0,200}"
                         r"\(auth failed, (\d{1,4}) attempts?\b[^<]{0,200}?: "
                         rf"(?:user=<(.{{0,{LONGEST}}})>, )?(?:method=[^\s,]*, )?rip=({_HOST})(?:,|$)", re.A)
DOVECOT_END = re.compile(rf"(?:pop3|POP3)\((.{{1,{LONGEST}}}?)\)(?:<\d+><([^<>]{{1,64}})>)?: (?:Info: )?(.{{0,1000}}?)"
                         r" ?top=\d+/\d+, retr=\d+/\d+, del=(\d{1,15})/(\d{1,15}), size=(\d{1,15})\b", re.A)


class Event(NamedTuple):
    """Something that a line says, names printable whatever they were.

    session: what the lines of one session have in common, "" for an UPDATE that cannot be brought together with its
    login; count: failed attempts; the numbers: messages and octets that an UPDATE deleted and left; estimated: whether
    the octets are our estimate.
    """

    kind: str
    user: str
    address: str
    session: str = ""
    count: int = 1
    deleted: int = 0
    deleted_octets: int = 0
    left: int = 0
    left_octets: int = 0
    estimated: bool = False


def _event(kind: str, user: str, address: str, *more) -> Event:
    return Event(kind, _shown(user), _shown(address), *more)


def _shown(name: str) -> str:
    """A name or an address as everybody may see it: printable, and cut where popper cuts it in a log line."""
    name = plain(name)
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..."


def event(line) -> "Event | None":
    """What a line (`logs.Line`) says of a login, or None."""
    ident = line.ident.lower()
    if ident == "dovecot":
        return _of_dovecot(line.text)
    if ident.startswith("pop3"):             # Dovecot's own log file begins where syslog's has `dovecot: `
        return _of_dovecot(f"{line.ident}: {line.text}") or _of_popper(line, line.text)
    return _of_popper(line, line.text) if not ident or "pop" in ident else None


def _of_popper(line, text: str) -> "Event | None":
    session = f"{line.host} {line.pid} "
    if text.startswith("Stats"):
        found = STATS.match(text)
        if found:
            user, *numbers, address = found.groups()
            deleted, deleted_octets, left, left_octets = map(int, numbers)
            return _event(UPDATE, user, address or "", session + user, 1, max(0, deleted), _octets(deleted_octets),
                          max(0, left), _octets(left_octets))
    elif text.startswith("(v"):
        found = IN.match(text)
        if found:
            return _event(LOGIN, found[1], found[2], session + found[1])
    elif text.startswith("Poss"):
        found = PROBED.match(text)
        if found:
            return _event(PROBE, found[1], found[3] or found[2])
    else:
        found = OUT.match(text)
        if found:
            return _event(FAILED, found[1], found[2])
    return None


def _octets(number: int) -> int:
    """A count of octets: Qpopper's has 32 bits and a sign, and is below nothing from 2 GB on."""
    return number if number >= 0 else max(0, number + 2 ** 32)


def _of_dovecot(text: str) -> "Event | None":
    found = DOVECOT_END.match(text)
    if found:
        return _ended(*found.groups())
    found = DOVECOT_IN.match(text)
    if found:
        return _event(LOGIN, found[1], found[2], f"{found[1]} {found[3]}" if found[3] else "")
    found = DOVECOT_OUT.match(text)
    if found:
        return _event(FAILED, found[2] or NOBODY, found[3], "", int(found[1]))
    return None


def _ended(user: str, session: "str | None", how: str, marked: str, messages: str, octets: str) -> Event:
    """The end of a session of Dovecot's. It tells how large the mailbox was, not how large what was deleted: where
    some messages went and some stayed, the octets are shared out by their number. Without QUIT nothing was deleted."""
    total, size = int(messages), int(octets)
    deleted = min(int(marked), total) if "Logged out" in how else 0
    gone = size * deleted // total if total else 0
    session = f"{user} {session}" if session else ""
    return _event(UPDATE, user, "", session, 1, deleted, gone, total - deleted, size - gone, 0 < deleted < total)
