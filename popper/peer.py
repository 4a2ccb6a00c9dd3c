"""Who is calling: the address, and the name that DNS gives it, believed only when it holds in both directions.

The look-up is made by a forked child without privileges while the client reads the greeting; `settle` waits for it,
for a bounded time, when the name is first needed. A finding is logged in the original's words (ucb-popper.md 3) and
the name is then the address.
"""

import _signal
import _socket
import os
import select
import time

from popper import VERSION

VERIFIED = "verified"          # the address has a name, and the name has the address
UNKNOWN = "unknown"            # it has no name, or nobody asked
LATER = "try later"            # DNS did not answer
FORGED = "forged"              # the name does not have the address: nothing may be decided by it
LONGEST_NAME = 255
UNNAMED = f"(v{VERSION}) Unable to get canonical name of client"


class Finding:
    """status: one of the above; name: what to call the client; complaint: the log line, or ""."""

    __slots__ = ("status", "name", "complaint")

    def __init__(self, status: str, name: str, complaint: str = "") -> None:
        self.status = status
        self.name = name
        self.complaint = complaint


class System:
    """The resolver of the system. `reverse` and `forward` raise _socket.gaierror."""

    @staticmethod
    def reverse(address: str) -> str:
        return _socket.getnameinfo((address, 0), _socket.NI_NAMEREQD | _socket.NI_NUMERICSERV)[0]

    @staticmethod
    def forward(name: str) -> "list[str]":
        return [plain(found[4][0]) for found in _socket.getaddrinfo(name.encode("ascii"), None, 0, _socket.SOCK_STREAM)]


def plain(address: str) -> str:
    """An address in the form that is logged: IPv4 that came over an IPv6 socket is IPv4."""
    address = address.partition("%")[0]
    return address[7:] if address.lower().startswith("::ffff:") and "." in address else address


def is_host_name(name: str) -> bool:
    """Whether a name may be logged and compared: no address in disguise, only letters, digits, -, _, dots."""
    labels = name.rstrip(".").split(".")
    last = labels[-1].lower()
    return (len(name) <= LONGEST_NAME and not last.isdigit() and not last.startswith("0x") and all(labels)
            and all(c.isascii() and (c.isalnum() or c in "-_") for label in labels for c in label))


def verify(address: str, resolver=System) -> Finding:
    """Ask for the name of an address, and for the addresses of that name."""
    try:
        name = resolver.reverse(address)
    except OSError as error:
        number, text = (error.args + ("", ""))[:2]
        status = LATER if number in (_socket.EAI_AGAIN, _socket.EAI_SYSTEM) else UNKNOWN
        return Finding(status, address, f"{UNNAMED} {address}: {text} ({number})")
    if not is_host_name(name):
        return Finding(FORGED, address, f'Client at "{address}" resolves to an unknown host name "(not a name)"')
    try:
        addresses = resolver.forward(name)
    except OSError as error:
        status = LATER if error.args[0] in (_socket.EAI_AGAIN, _socket.EAI_SYSTEM) else FORGED
        return Finding(status, address, f'Client at "{address}" resolves to an unknown host name "{name}"')
    if address not in addresses:
        return Finding(FORGED, address, f'Client address "{address}" not listed for its host name "{name}"')
    return Finding(VERIFIED, name.rstrip("."))


def configure_resolver(seconds: int) -> None:
    """For this process: an answer within so many seconds, and no search list: a client must not become a name in our
    own domain."""
    os.environ.update(LOCALDOMAIN="invalid", RES_OPTIONS=f"timeout:{max(1, seconds // 2)} attempts:2")


class Peer:
    """The other end. address, port: of the connection. name: the verified name, or the address."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.address = plain(address)
        self.port = port
        self.name = self.address
        self.status = UNKNOWN
        self.trusted = False                 # no rule asks for the name
        self._pipe = self._child = self._given = None
        self._deadline = 0.0

    def look_up(self, seconds: int, before=None, resolver=System) -> None:
        """Start the look-up; it may take so many seconds. before: called first in the forked child."""
        self._deadline = time.monotonic() + seconds
        self._pipe, theirs = os.pipe()
        try:
            self._child = os.fork()
        except OSError:                      # no process to be had: then no name
            os.close(theirs)
            return
        if self._child:
            os.close(theirs)
            return
        try:
            _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
            _signal.alarm(seconds + 1)
            os.closerange(0, min(self._pipe, theirs))
            os.closerange(max(self._pipe, theirs) + 1, 256)
            if before:
                before()
            configure_resolver(seconds)
            finding = verify(self.address, resolver)
            os.write(theirs, "\n".join((finding.status, finding.name, finding.complaint)).encode())
        finally:
            os._exit(0)

    def give(self, finding: Finding, seconds: float) -> None:
        """Somebody else has made the look-up; it took so many seconds."""
        self._given = finding
        self.status, self.name = finding.status, finding.name
        self._seconds = seconds

    def settle(self) -> "str | None":
        """Wait for the look-up, if one was started. -> the complaint to log, or None."""
        if self._pipe is None:
            return None
        answer = self._answer()
        os.close(self._pipe)
        if self._child is not None:
            os.kill(self._child, 9)
            os.waitpid(self._child, 0)
        self._pipe = self._child = None
        if answer.count("\n") != 2:
            self.status = LATER
            return f"{UNNAMED} {self.address}: no answer in time"
        self.status, self.name, complaint = answer.split("\n")
        return complaint or None

    def introduce(self, log, spent: "dict[str, float]") -> None:
        """Settle, and tell the log (a Journal) what came of it, the first time that somebody needs to know."""
        if self._given is not None:
            complaint, seconds = self._given.complaint, self._seconds
            self._given = None
        elif self._pipe is not None:
            begun = time.monotonic()
            complaint = self.settle()
            seconds = time.monotonic() - begun
        else:
            return
        spent["DNS"] += seconds
        if complaint:
            log.notice(complaint)
        log.debug(f"Client {self.address} {'is ' + self.name if self.status == VERIFIED else 'has no name to go by'},"
                  f" after {seconds:.3f} s")

    def _answer(self) -> str:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        answer = b""
        while True:
            if not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
                return ""
            piece = os.read(self._pipe, 4096)
            if not piece:
                return answer.decode("ascii", "replace")
            answer += piece
