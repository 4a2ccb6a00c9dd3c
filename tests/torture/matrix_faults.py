"""How a session is struck: the rows of the matrix. FAULTS = {name: the injections it makes of a session's calls}."""

import collections
import re

from matrix_session import CHANGING, LOOKING, Strike

CALLED = re.compile(r"^(\d*) *\w+\(", re.MULTILINE)        # whose process wrote the line, when there are several
WRITES = {"write": "write", "pwrite64": "pwrite"}
SEEN = ("ESTALE",)                           # what a call that only looks may meet as well
LASTING = ("ENOSPC", "ESTALE")               # what stays: every later call of the name on this path meets it too


class Injection(collections.namedtuple("Injection", "label words strike strace", defaults=(None, ()))):
    """One fault. words: what the victim is told; strike, strace: the call that strace strikes, and how it is told."""

    def struck(self, spool) -> bool:
        """Whether the session came to that call. A blocked signal leaves no other trace."""
        if self.strike is None:
            return True
        calls = collections.Counter(CALLED.findall(spool.log.read_text()))
        return max(calls.values(), default=0) >= self.strike.when


def _signal(name: str):
    def injections(strikes: "list[Strike]"):
        """At the call; KILL comes before it is done, the others when it is done."""
        for strike in strikes:
            if strike.call in CHANGING:
                yield Injection(f"{name} at {strike}", (), strike, strike.strace(f"signal={name}"))
    return injections


def _error(name: str):
    def injections(strikes: "list[Strike]"):
        lasting = "+" if name in LASTING else ""
        for strike in strikes:
            if strike.call in CHANGING or name in SEEN and strike.call in LOOKING:
                yield Injection(f"{name} at {strike}", (), strike, strike.strace(f"error={name}", lasting))
    return injections


def _short(strikes: "list[Strike]"):
    """Every write that a call does only one octet of. (strace can say so, but the octet would not be written either,
    and no disk does that.)"""
    for strike in strikes:
        if strike.call in WRITES and (strike.length or 0) > 1:
            yield Injection(f"SHORT at {strike}", (f"short={WRITES[strike.call]}:{strike.nth}",))


def _too_large(strikes: "list[Strike]"):
    """A limit on the size of files at the begin of every write, before the end of the eight octets that say what a file
    is, in the middle and before the end."""
    limits = {strike.offset + octets for strike in strikes if strike.length is not None
              for octets in (0, 7, strike.length // 2, strike.length - 1) if octets < strike.length}
    for limit in sorted(limits):
        yield Injection(f"XFSZ at {limit}", (f"fsize={limit}",))


ERRORS = ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "EINTR")
FAULTS = ({"KILL": _signal("KILL")} | {name: _error(name) for name in ERRORS} | {"SHORT": _short}
          | {name: _signal(name) for name in ("TERM", "HUP")} | {"XFSZ": _too_large})
