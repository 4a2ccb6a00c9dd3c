"""popper on its own for tests: a running daemon with a site's users, and what it tells of itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TREE, wait_until
from dialogue import HOST, PASSWORD, PATIENCE, USER, Dialogue
from popper import VERSION

GREETING = f"+OK UCB Pop server (version {VERSION}) at {HOST} starting."
REFUSED = "-ERR [SYS/TEMP] Too many connections, try again later."


class Daemon:
    """A running `popper -C FILE`; its log is a file. before: words of a command line that popper's is to follow."""

    def __init__(self, site, *flags, before=(), environ=None, pass_fds=(), stdin=subprocess.DEVNULL, **directives):
        self.place = site.place
        self.conf = site.place / "popper.conf"
        self.log_file = site.place / "daemon.log"
        self.directives = {
            "bindto": "127.0.0.1:0", "password_file": site.passwords, "mailbox": f"{site.spool}/%u", "auth": "file",
            "hostname": HOST, "log": "stderr", "lookup": "no", "fail_delay": 0, "control": site.place / "control",
            "guessers": site.place / "guessers"}
        self.configure(**directives)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "popper", "-C", self.conf, *flags], stdin=stdin, cwd=TREE,
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True, pass_fds=pass_fds,
                env={**os.environ, **(environ or {})})
        self.clients = []

    def configure(self, **directives):
        self.directives.update(directives)
        self.conf.write_text("".join(f"{name} {value}\n" for name, value in self.directives.items()))

    @property
    def log(self):
        return self.log_file.read_text()

    def logged(self, words, times=1):
        """Wait for a line with these words, or for so many; -> their texts, without what stands before them."""
        return wait_until(lambda: self.lines(words)[times - 1:] and self.lines(words), PATIENCE)

    def lines(self, words):
        return [line.partition("]: ")[2] for line in self.log.splitlines() if words in line]

    def places(self, number=1):
        """Wait until it listens at so many places; -> [(address, port)], in the order of the log."""
        lines = self.logged("info: listening on ", number)
        return [(words[3], int(words[5])) for words in map(str.split, lines)]

    def listening(self):
        """Wait until it listens; -> its address, the last one that it told."""
        return self.places()[-1]

    def call(self, address=None, greeted=True, place=None):
        """-> Dialogue, from an address of ours."""
        pop = Dialogue(socket.create_connection(place or self.listening(), PATIENCE, (address, 0) if address else None))
        self.clients.append(pop)
        if greeted:
            assert pop.reply() == GREETING
        return pop

    def log_in(self, user=USER, password=PASSWORD, address=None):
        return self.call(address).log_in(user, password)

    def turned_away(self, words, address=None):
        """A call that is answered with these words, and no more."""
        pop = self.call(address, greeted=False)
        assert pop.reply() == words
        assert pop.end() == b""

    def ask(self, command, name="control"):
        """A command to the control socket; -> what it answers."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            wait_until(lambda: connects(control, self.place / name), PATIENCE)
            control.sendall(json.dumps({"command": command}).encode() + b"\n")
            with control.makefile() as answer:
                return json.loads(answer.read())

    @property
    def status(self):
        return self.ask("status")

    def sessions(self, number):
        """Wait until there are so many sessions; -> them."""
        def found():
            sessions = self.status["sessions"]
            return [sessions] if len(sessions) == number else None
        return wait_until(found, PATIENCE)[0]

    @property
    def pid(self):
        return self.process.pid

    def children(self):
        """Process numbers; for a moment also who answers about the status."""
        return {int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}

    def crew(self):
        """Its children that are no sessions, and stay."""
        looked = []
        for _ in range(3):                   # each time somebody else answers
            sessions = {each["pid"] for each in self.status["sessions"]}
            looked.append(self.children() - sessions)
        return set.intersection(*looked)

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self):
        for pop in self.clients:
            pop.socket.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(0.2)
            except subprocess.TimeoutExpired:            # somebody is left whom it would give a while
                self.stop()
        assert "Traceback" not in self.log and "internal error" not in self.log, self.log


def connects(control, path):
    """Whether a socket gets its connection. At a start, and in an upgrade, nobody is there for a moment."""
    try:
        control.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def descriptors(pid):
    """{number: what it leads to} of a process."""
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(each.name)] = os.readlink(each)
        except FileNotFoundError:
            pass
    return found


@pytest.fixture
def start(site):
    """start(*flags, **directives) -> Daemon"""
    running = []

    def start(*flags, **directives):
        running.append(Daemon(site, *flags, **directives))
        return running[-1]
    yield start
    for one in running:
        one.close()
