"""Usage:
  popperctl stop [-C FILE] [--now] [--wait SECS]

Stops the server. It listens no longer from then on, and ends when the last
session has; this command waits for that, and says how many sessions go on. The
status is 75 when some still do after SECS: these need no looking after, and the
server can be started again beside them.

Options:
  -C FILE      configuration, /etc/popper.conf if not given
  --now        end the sessions too; their mailboxes stay whole, and what they
               were to delete stays
  --wait SECS  wait so long at most; 10 seconds if not given

Examples:
  popperctl stop
  popperctl stop --now
  popperctl stop --wait 0
"""

import contextlib
import os
import select
import time

from popper.admin import server
from popper.admin.console import Failed
from popper.admin.control import Control, NotRunning, control

WAIT = 10                      # seconds
LONGEST = 86400
LOOK = 1.0                     # seconds between two looks at how many sessions there are
MOMENT = 0.5                   # seconds for a daemon that has nothing to wait for to end


def run(arguments: dict, console) -> int:
    seconds = _seconds(arguments["--wait"])
    asked = control(arguments)
    try:
        now = asked.status()
        server.check_file(arguments["-C"], now)
        with _Process(asked, now["pid"]) as process:
            # A daemon that is ending takes another word for "end the sessions", as it does a second SIGTERM.
            if arguments["--now"] or now["state"] == "running":
                asked.ask("stop-now" if arguments["--now"] else "stop")
            return _wait(process, now, seconds, arguments, console)
    except NotRunning as answer:
        console.say(answer.text)
        return os.EX_OK


def _seconds(text: "str | None") -> int:
    if text is None:
        return WAIT
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= LONGEST):
        raise Failed(f'--wait: "{text}" is not what is expected: seconds, 0 to {LONGEST}', os.EX_USAGE)
    return int(text)


def _wait(process: "_Process", now: dict, seconds: int, arguments: dict, console) -> int:
    """Until it has ended or the time is over; what changes meanwhile is told."""
    deadline, told, said = time.monotonic() + seconds, None, False
    while True:
        left = deadline - time.monotonic()
        if process.ended(max(0.0, min(left, MOMENT if told is None else LOOK))):
            console.say("popper has ended")
            return os.EX_OK
        count = process.sessions(len(now["sessions"]) if told is None else told)
        if left <= 0:
            since = f"after {seconds} s" if said else "popper listens no longer;"
            raise Failed(f"{since} {server.sessions(count)} in process {now['pid']}, which ends with the last one"
                         + _sooner(arguments), os.EX_TEMPFAIL)
        if count and count != told:
            console.say(f"popper listens no longer; {server.sessions(count)}")
            console.flush()
            said = True
        told = count


def _sooner(arguments: dict) -> str:
    """What helps who does not want to wait for sessions."""
    if arguments["--now"]:
        return ""
    return "; popperctl stop --now" + (f" -C {arguments['-C']}" if arguments["-C"] else "") + " ends the sessions"


class _Process:
    """The daemon that is ending: its process, or, where that is not to be seen, its socket."""

    def __init__(self, asked: Control, pid: int) -> None:
        self.asked = asked
        self.pid = pid
        self.descriptor = None
        with contextlib.suppress(OSError, OverflowError):        # another namespace's
            self.descriptor = os.pidfd_open(pid)

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)

    def ended(self, seconds: float) -> bool:
        """Whether it has, waiting so long for it."""
        if self.descriptor is None:
            time.sleep(seconds)
            return self._told() is None
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def sessions(self, last: int) -> int:
        """How many there are, as far as it tells; else how many there were."""
        told = self._told()
        return last if told is None else len(told["sessions"])

    def _told(self) -> "dict | None":
        """What it says of itself; None when it says nothing, or another one does."""
        try:
            now = self.asked.status()
        except Failed:
            return None
        return now if now["pid"] == self.pid else None
