"""The looker: asks DNS what clients are called, for a server that cannot wait for it.

A process of nobody's. An address comes in, a finding goes out, in whatever order DNS has it; answers are kept for a
while, for clients come every few minutes.
"""

import _signal
import _thread
import time

from popper.handover import pack, unpack
from popper.peer import LATER, Finding, configure_resolver, verify

KEPT = 300                     # seconds that a finding is believed
KEPT_LATER = 20                # seconds that it is not asked again when DNS did not answer
MOST = 64                      # questions at once; who comes then has no name this time
ANSWERS_MOST = 8192


class Looker:
    """line: a socket to whoever asks: pack("?", address) in, pack("!", address, status, name, complaint) out."""

    def __init__(self, line, seconds: int, ask=verify, clock=time.monotonic) -> None:
        self.line = line
        self.seconds = seconds
        self.ask = ask
        self.clock = clock
        self.answers: "dict[str, tuple[float, Finding]]" = {}      # until when it is believed
        self.asked: "set[str]" = set()

    def run(self) -> None:
        """Until nobody asks any more."""
        for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
            _signal.signal(number, _signal.SIG_IGN)
        configure_resolver(self.seconds)
        while True:
            try:
                octets = self.line.recv(4096)
            except OSError:
                return
            if not octets:
                return
            self.look_up(unpack(octets)[0].decode("ascii", "replace"))

    def look_up(self, address: str) -> None:
        """Answer now, or have a thread answer later."""
        until, finding = self.answers.get(address, (0.0, None))
        if self.clock() < until:
            self._tell(address, finding)
        elif address in self.asked:
            return                           # it will be told once, and that is for all who ask
        elif len(self.asked) >= MOST:
            self._tell(address, Finding(LATER, address, ""))
        else:
            self.asked.add(address)
            try:
                _thread.start_new_thread(self._find, (address,))
            except RuntimeError as trouble:              # no more threads are to be had
                self.asked.discard(address)
                self._tell(address, Finding(LATER, address, str(trouble)))

    def _find(self, address: str) -> None:
        try:
            finding = self.ask(address)
        except Exception as trouble:         # whatever a resolver may do, somebody waits for an answer
            finding = Finding(LATER, address, f"{type(trouble).__name__}: {trouble}")
        if len(self.answers) >= ANSWERS_MOST:
            self.answers.clear()
        self.answers[address] = self.clock() + (KEPT_LATER if finding.status == LATER else KEPT), finding
        self.asked.discard(address)
        self._tell(address, finding)

    def _tell(self, address: str, finding: Finding) -> None:
        try:
            self.line.send(pack(b"!", *(each.encode("ascii", "replace") for each in (
                address, finding.status, finding.name, finding.complaint))))
        except OSError:
            pass                             # nobody is there any more; run() will see
