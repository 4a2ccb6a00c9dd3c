"""Daemons for popperctl to speak to: one that is played by a thread of the test, and popper itself. To import.

Both have `conf` and `control`, paths; `status()`, what popperctl is to find out; `running()`; and `close()`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from conftest import free_port, wait_until
from popper import VERSION
from popper.admin.control import Control
from popper.admin.console import Failed
from popper.errors import ConfigError
from popper.options import settle

LIMITS = {"maxsessions": 200, "sameaddrmax": 100, "maxstrangers": 2000, "accepts": 0}
AWAY = ("maxsessions", "sameaddrmax", "maxstrangers", "accepts", "allow_deny", "guess_delay_max")


def session(pid, user, **more):
    return {"pid": pid, "user": user, "address": "192.0.2.7", "name": "client.example.org", "state": "TRANSACTION",
            "since": time.time() - 5, "received": 10, "sent": 20, **more}


class Fake:
    """The protocol of the control socket. state: the answer to `status`, to be changed at will; asked: commands, in
    the order in which they came; raw: octets that are answered in the place of all else, once; refuses: {command: the
    error}. A process of its own stands for the daemon's, and ends with the last session once it was told to stop."""

    real = False

    def __init__(self, place, directives=""):
        self.control = place / "control"
        self.conf = place / "popper.conf"
        self.conf.write_text(f"control {self.control}\nbindto 127.0.0.1:{free_port()}\n{directives}")
        self.process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        self.asked, self.raw, self.refuses = [], None, {}
        self.state = {
            "ok": True, "version": VERSION, "pid": self.process.pid, "since": time.time() - 93784, "state": "running",
            "configuration": str(self.conf), "listening": ["0.0.0.0:110", "[::]:110"], "limits": dict(LIMITS),
            "strangers": 3, "waiting": 0, "sessions": [], "guessers": [],
            "counters": {"connections": 11, "logins": 7, "denied": 2, "received": 512, "sent": 4096,
                         "turned_away": dict.fromkeys(AWAY, 0)}}
        self.listener = self._listener(self.control)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @staticmethod
    def _listener(path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(8)
        return listener

    def status(self):
        return self.state

    def running(self):
        return self.process.poll() is None

    def _serve(self):
        while True:
            listener = self.listener
            try:
                connection, _ = listener.accept()
            except OSError:
                if listener is self.listener:
                    return
                continue                     # another one is in its place
            with connection, connection.makefile("rb") as lines:
                line = lines.readline()
                if line:
                    answer = self._answered(json.loads(line)["command"])
                    connection.sendall(answer)

    def _answered(self, command):
        self.asked.append(command)
        if self.raw is not None:
            answer, self.raw = self.raw, None
            return answer
        if command in self.refuses:
            answer = {"ok": False, "error": self.refuses[command]}
        elif command == "status":
            answer = self.state
        else:
            answer = getattr(self, "_" + command.replace("-", "_"))() or {"ok": True}
        return json.dumps(answer).encode() + b"\n"

    def _reload(self):
        try:
            settle([("config", str(self.conf))])
        except ConfigError as mistake:
            return {"ok": False, "error": str(mistake)}

    def _upgrade(self):
        return self._reload() or self.become()

    def become(self, **changes):
        """Be another one at the same place."""
        old, self.listener = self.listener, self._listener(f"{self.control}.new")
        os.rename(f"{self.control}.new", self.control)
        self.state = {**self.state, **changes}
        old.shutdown(socket.SHUT_RDWR)       # wakes who waits at it
        old.close()

    def _stop(self):
        if self.state["state"] == "ending":
            self._stop_now()
        self.state = {**self.state, "state": "ending", "listening": []}
        if not self.state["sessions"]:
            self.end()

    def _stop_now(self):
        self.state = {**self.state, "sessions": []}
        self.end()

    def end(self):
        """Be gone, as a daemon that ends by itself."""
        self.control.unlink(missing_ok=True)
        self.process.kill()

    def close(self):
        self.end()
        self.process.wait()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


class Real:
    """popper itself, on a port of its own."""

    real = True

    def __init__(self, place, directives="", program="popper"):
        self.control = place / "control"
        self.conf = place / "popper.conf"
        self.port = free_port()
        self.conf.write_text(f"control {self.control}\nbindto 127.0.0.1:{self.port}\nguessers {place}/guessers\n"
                             f"{directives}")
        subprocess.run([program, "--daemon", "-C", self.conf], check=True, stdin=subprocess.DEVNULL)
        self.pid = self.status()["pid"]

    def status(self):
        return Control(str(self.control)).status()

    def running(self):
        try:
            return self.status()["pid"] == self.pid
        except Failed:
            return False

    def close(self):
        if self.running():
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGTERM)
            wait_until(lambda: not self.running())
