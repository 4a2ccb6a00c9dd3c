"""Word to the service manager (systemd, or whoever else keeps a NOTIFY_SOCKET): ready, reloading, stopping, alive.

Where nobody listens, nothing is said and nothing goes wrong. Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import posix
import _socket
import struct
import time

VARIABLES = (b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID")
PATIENCE = 1                   # seconds that a manager with a full queue is waited for
LONGEST_STATUS = 1000          # characters


def watchdog_interval(environ: "dict[bytes, bytes]", pid: int) -> "float | None":
    """Seconds between two signs of life: half of what the manager waits for one; None when it waits for none."""
    most, whom = environ.get(b"WATCHDOG_USEC", b""), environ.get(b"WATCHDOG_PID", b"%d" % pid)
    if not most.isdigit() or len(most) > 20 or whom != b"%d" % pid:
        return None
    return int(most) / 2e6 or None


class Notify:
    """The manager of this process. interval: see `watchdog_interval`.

    What is said of it in `environ` is taken out, so that no child speaks for us. taken: that, for a program that takes
    the place of this process.
    """

    def __init__(self, environ: "dict[bytes, bytes]", pid: int) -> None:
        self.interval = watchdog_interval(environ, pid)
        self.taken = {name: environ.pop(name) for name in VARIABLES if name in environ}
        if environ is posix.environ:         # Python's copy; children get the other
            for name in self.taken:
                posix.unsetenv(name)
        place = self.taken.get(b"NOTIFY_SOCKET", b"")
        self._place = b"\0" + place[1:] if place.startswith(b"@") else place if place.startswith(b"/") else b""

    def ready(self, status: str) -> None:
        """Started, or reloaded: it serves."""
        self._say("READY=1", f"MAINPID={posix.getpid()}", _status(status))

    def reloading(self) -> None:
        """The configuration is being read anew; `ready` ends that. The time is what Type=notify-reload looks for."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """A line for who asks how the service is."""
        self._say(_status(text))

    def watchdog(self) -> None:
        """A sign of life."""
        self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if not self._place:
            return
        try:
            one = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            try:
                one.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
                one.sendto("\n".join(lines).encode("utf-8", "replace"), self._place)
            finally:
                one.close()
        except OSError:
            pass                             # the manager is gone, or its queue is full: mail is served all the same


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())[:LONGEST_STATUS]
