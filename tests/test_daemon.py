"""popper on its own: as whoever starts it, on a port of 127.0.0.1 or ::1."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, PASSWORD, PATIENCE, TWO, USER, Dialogue, mbox, site          # noqa: F401
from popper import VERSION

GREETING = f"+OK UCB Pop server (version {VERSION}) at {HOST} starting."


class Daemon:
    """A running `popper -C FILE`; its log is a file."""

    def __init__(self, site, **directives):
        self.conf = site.place / "popper.conf"
        self.log_file = site.place / "daemon.log"
        values = {"bindto": "127.0.0.1:0", "password_file": site.passwords, "mailbox": f"{site.spool}/%u",
                  "auth": "file", "hostname": HOST, "log": "stderr", "lookup": "no", "fail_delay": 0, **directives}
        self.conf.write_text("".join(f"{name} {value}\n" for name, value in values.items()))
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "popper", "-C", self.conf], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)
        self.clients = []

    @property
    def log(self):
        return self.log_file.read_text()

    def listening(self):
        """Wait until it listens; -> its address."""
        found = wait_until(lambda: re.search(r"info: listening on (\S+) port (\d+)", self.log), PATIENCE)
        return found[1], int(found[2])

    def call(self, greeted=True):
        pop = Dialogue(socket.create_connection(self.listening()))
        self.clients.append(pop)
        if greeted:
            assert pop.reply() == GREETING
        return pop

    def children(self):
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self):
        for pop in self.clients:
            pop.socket.close()
        if self.process.poll() is None:
            self.stop()
        assert "Traceback" not in self.log and "internal error" not in self.log, self.log


@pytest.fixture
def start(site):
    """start(**directives) -> Daemon"""
    running = []

    def start(**directives):
        running.append(Daemon(site, **directives))
        return running[-1]
    yield start
    for one in running:
        one.close()


def test_two_clients_at_once(site, start):
    site.add("other", "word")
    site.deliver(mbox(ONE))
    site.deliver(mbox(ONE, TWO), "other")
    daemon = start()
    first, second = daemon.call(), daemon.call()
    second.log_in("other", "word")
    first.log_in(USER, PASSWORD)
    assert first.ok("STAT").startswith("1 ") and second.ok("STAT").startswith("2 ")
    assert len(daemon.children()) == 2
    first.ok("DELE 1")
    assert first.quit() == second.quit() == f"Pop server at {HOST} signing off."
    assert site.mailbox().read_bytes() == b"" and site.mailbox("other").read_bytes() == mbox(ONE, TWO)


def test_no_zombies(start):
    daemon = start()
    for _ in range(5):
        daemon.call().quit()
    daemon.call().socket.close()
    wait_until(lambda: daemon.children() == [])
    daemon.call().quit()


def test_more_sessions_than_wanted_are_refused(start):
    daemon = start(maxsessions=2)
    first, second, third = daemon.call(), daemon.call(), daemon.call(greeted=False)
    assert third.reply() == "-ERR [SYS/TEMP] Too many sessions, try again later."
    assert third.end() == b""
    assert "warning: too many sessions, a connection is refused" in daemon.log
    first.quit()
    wait_until(lambda: len(daemon.children()) == 1)

    def answered():
        """The daemon hears of a session's end by a signal, which may come behind the next connection."""
        pop = daemon.call(greeted=False)
        reply = pop.reply()
        if reply != GREETING:
            pop.end()
            return False
        pop.quit()
        return True
    wait_until(answered)
    second.quit()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_and_a_session_goes_on(site, start, number):
    path = site.deliver(mbox(ONE, TWO))
    daemon = start()
    pop = daemon.call().log_in()
    pop.ok("DELE 1")
    daemon.process.send_signal(number)
    assert daemon.process.wait(PATIENCE) == 0
    assert "info: ending; 1 sessions go on" in daemon.log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(daemon.listening())
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()
    assert path.read_bytes() == mbox(TWO)


def test_a_hangup_of_the_terminal_ends_nothing(start):
    daemon = start()
    daemon.listening()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.call().quit()
    assert daemon.process.poll() is None


def test_a_port_in_use_is_one_clear_line(site, start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = start(bindto=f"127.0.0.1:{port}")
        assert daemon.process.wait(PATIENCE) == 69
    assert daemon.log == f"popper: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_it_starts_again_at_once_on_the_same_port(site, start):
    first = start()
    port = first.listening()[1]
    pop = first.call()
    first.stop()
    pop.quit()
    second = start(bindto=f"127.0.0.1:{port}")
    second.call().quit()


def test_an_address_that_is_not_ours(start):
    daemon = start(bindto="192.0.2.1:0")
    assert daemon.process.wait(PATIENCE) == 69
    assert daemon.log == "popper: cannot listen on 192.0.2.1:0: Cannot assign requested address\n"


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")
def test_ipv6(site, start):
    site.deliver(mbox(ONE))
    daemon = start(bindto="[::1]:0")
    assert daemon.listening()[0] == "::1"
    daemon.call().log_in().quit()
    assert f'POP login by user "{USER}" at (::1) ::1' in daemon.log


def test_a_session_of_the_daemon_has_nothing_of_the_daemons(start):
    """No listening socket and no pipe: a session that outlives it keeps no port."""
    daemon = start()
    pop = daemon.call()
    child, = daemon.children()
    pop.ok("CAPA")                           # by now it has closed what it does not need
    pop.raw_body()
    links = [os.readlink(each) for each in Path(f"/proc/{child}/fd").iterdir()]
    assert len([link for link in links if link.startswith("socket:")]) == 1
    assert not [link for link in links if link.startswith("pipe:")]
    pop.quit()


def test_clients_that_go_before_they_are_greeted(start):
    daemon = start()
    for _ in range(20):
        socket.create_connection(daemon.listening()).close()
    daemon.call().quit()
    wait_until(lambda: daemon.children() == [])
