"""popper on its own as a service: in the background, with a pid file, told of by sd_notify, and spoken to."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest

from conftest import TREE, wait_until
from dialogue import ONE, PATIENCE, USER, mbox, site           # noqa: F401
from on_its_own import Daemon, descriptors, start   # noqa: F401
from popper import VERSION
from processes import has_ended


# -- the control socket ----------------------------------------------------------------------------------------------

def test_status(site, start):
    site.deliver(mbox(ONE))
    daemon = start(maxsessions=7, accepts=99)
    pop, _ = daemon.log_in(), daemon.call()
    pop.text("RETR 1")
    pop.ok("NOOP")
    status = daemon.status
    session, = status.pop("sessions")
    assert (session["user"], session["address"], session["state"]) == (USER, "127.0.0.1", "TRANSACTION")
    assert session["pid"] in daemon.children() and session["sent"] > 100 and session["received"] > 20
    assert 0 < status.pop("since") <= session["since"]
    turned_away = status["counters"].pop("turned_away")
    assert status == {
        "ok": True, "version": VERSION, "pid": daemon.pid, "state": "running", "configuration": str(daemon.conf),
        "listening": ["{}:{}".format(*daemon.listening())],
        "limits": {"maxsessions": 7, "sameaddrmax": 100, "maxstrangers": 2000, "accepts": 99},
        "strangers": 1, "waiting": 0, "guessers": [],
        "counters": {"connections": 2, "logins": 1, "denied": 0, "received": 0, "sent": 0}}
    assert set(turned_away.values()) == {0}
    pop.quit()
    daemon.sessions(0)
    counters = daemon.status["counters"]
    assert counters["received"] >= session["received"] and counters["sent"] > session["sent"]


@pytest.mark.parametrize("command, words", [("stop", "info: ending; 1 sessions go on"),
                                            ("stop-now", "info: ending now, and 1 sessions with it")])
def test_stop(site, start, command, words):
    path = site.deliver(mbox(ONE))
    daemon = start()
    pop = daemon.log_in()
    pop.ok("DELE 1")
    assert daemon.ask(command) == {"ok": True}
    daemon.logged(words)
    if command == "stop":
        assert "ending" in daemon.ask("reload")["error"] and "ending" in daemon.ask("upgrade")["error"]
        pop.quit()
    assert daemon.process.wait(PATIENCE) == 0
    assert path.read_bytes() == (b"" if command == "stop" else mbox(ONE))
    assert not (site.place / "control").exists()


@pytest.mark.parametrize("request_", [b"nonsense\n", b'{"command": "dance"}\n', b"\n", b"x" * 10000 + b"\n"])
def test_what_is_no_command(start, request_):
    daemon = start()
    assert daemon.status["ok"]
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(daemon.place / "control"))
        control.sendall(request_)
        control.settimeout(PATIENCE)
        answer = json.loads(control.recv(4096))
    assert answer["ok"] is False and answer["error"].startswith("expected a command")


def test_who_says_nothing_holds_up_nobody_for_long(start):
    daemon = start()
    assert daemon.status["ok"]
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(daemon.place / "control"))
        daemon.call().quit()
        assert daemon.status["ok"]


@pytest.mark.root
def test_only_root_may_open_the_control_socket(site, start):
    daemon = start()
    assert daemon.status["ok"]
    assert (site.place / "control").stat().st_mode & 0o777 == 0o600
    daemon.configure(control_group="games")
    assert daemon.ask("reload") == {"ok": True}
    status = wait_until(lambda: (site.place / "control").exists() and (site.place / "control").stat())
    assert status.st_mode & 0o777 == 0o660 and status.st_gid == 60


# -- word to the service manager -------------------------------------------------------------------------------------

class Manager:
    """Hears what a service says of itself."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE)
        self.environ = {"NOTIFY_SOCKET": str(path)}

    def next(self):
        """The next message, as a dictionary."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def wait_for(self, name):
        while name not in (message := self.next()):
            pass
        return message


@pytest.fixture
def manager(site):
    one = Manager(site.place / "notify")
    yield one
    one.socket.close()


def test_what_the_manager_hears(start, manager):
    daemon = start(environ=manager.environ)
    message = manager.next()
    assert (message["READY"], message["MAINPID"]) == ("1", str(daemon.pid))
    assert message["STATUS"] == "listening on {}:{}".format(*daemon.listening())
    daemon.hang_up()
    assert int(manager.next()["MONOTONIC_USEC"]) > 0
    assert manager.next()["READY"] == "1"
    daemon.configure(maxsessions="many")
    daemon.hang_up()
    assert manager.next()["RELOADING"] == "1"
    message = manager.next()
    assert message["READY"] == "1" and message["STATUS"].startswith("not reloaded: ")
    daemon.configure(maxsessions=5)
    daemon.process.send_signal(signal.SIGUSR2)
    message = manager.next()
    assert (message["READY"], message["MAINPID"]) == ("1", str(daemon.pid)), "the new program is ready"
    daemon.process.send_signal(signal.SIGTERM)
    assert manager.next() == {"STOPPING": "1"}


def test_a_sign_of_life_in_time(start, manager):
    daemon = start(environ={**manager.environ, "WATCHDOG_USEC": "200000"})
    for _ in range(3):
        assert manager.wait_for("WATCHDOG") == {"WATCHDOG": "1"}
    daemon.process.send_signal(signal.SIGUSR2)
    manager.wait_for("READY")
    for _ in range(3):
        assert manager.wait_for("WATCHDOG") == {"WATCHDOG": "1"}


def test_a_session_does_not_speak_to_the_manager(site, start, manager):
    site.deliver(mbox(ONE))
    daemon = start(environ=manager.environ)
    daemon.log_in()
    child = daemon.sessions(1)[0]["pid"]
    with open(f"/proc/{daemon.pid}/environ", "rb") as environ:
        assert b"NOTIFY_SOCKET" in environ.read(), "what it was started with can be read as long as it lives"
    assert child != daemon.pid and manager.next()["MAINPID"] == str(daemon.pid)


# -- in the background -----------------------------------------------------------------------------------------------

def start_detached(site, *flags, **directives):
    """Run `popper --daemon` to its end; -> (the finished command, a Daemon to ask)."""
    daemon = Daemon(site, "--daemon", *flags, pid_file=site.place / "pid", **directives)
    daemon.process.wait(PATIENCE)
    return daemon


def test_in_the_background(site):
    """The command comes back when it listens, and what it started has left everything."""
    site.deliver(mbox(ONE))
    trace = site.place / "trace"
    daemon = start_detached(site, trace=trace)
    assert (daemon.process.returncode, daemon.log) == (0, "")
    pid = int((site.place / "pid").read_text())
    try:
        place = trace.read_text().partition("listening on ")[2].split()
        daemon.call(place=(place[0], int(place[2]))).log_in().quit()
        assert daemon.ask("status")["pid"] == pid != daemon.process.pid
        assert os.getsid(pid) not in (pid, os.getsid(0)), "it leads no session, and is not in ours"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
        again = subprocess.run([sys.executable, "-m", "popper", "-C", daemon.conf, "--daemon"], cwd=TREE,
                               capture_output=True, text=True, timeout=PATIENCE)
        assert again.returncode == 69
        assert again.stderr == f"popper: {site.place}/pid: already running as process {pid}\n"
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: has_ended(pid))
    assert not (site.place / "pid").exists() and not (site.place / "control").exists()


def test_what_is_wrong_is_said_before_it_goes(site):
    daemon = start_detached(site, bindto="192.0.2.1:0")
    assert daemon.process.returncode == 69
    assert daemon.log == "popper: cannot listen on 192.0.2.1:0: Cannot assign requested address\n"
    assert not (site.place / "pid").exists()


def test_the_pid_file_stays_through_an_upgrade(site, start):
    daemon = start(pid_file=site.place / "pid")
    daemon.listening()
    assert (site.place / "pid").read_text() == f"{daemon.pid}\n"
    daemon.process.send_signal(signal.SIGUSR2)
    daemon.logged("info: listening on ", 2)
    daemon.call().quit()
    assert (site.place / "pid").read_text() == f"{daemon.pid}\n"
    daemon.stop()
    assert not (site.place / "pid").exists()


def test_a_pid_file_that_cannot_be_had_in_an_upgrade(site, start):
    """It serves all the same, and tells."""
    site.deliver(mbox(ONE))
    daemon = start(pid_file=site.place / "pid")
    pop = daemon.log_in()
    daemon.configure(pid_file=site.place)
    assert daemon.ask("upgrade") == {"ok": True}
    assert daemon.logged("critical: ") == [f"critical: {site.place}: cannot be opened: Is a directory"]
    daemon.logged("info: listening on ", 2)
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()
    daemon.log_in().quit()


def test_a_control_socket_when_there_is_no_descriptor_left(start):
    daemon = start()
    assert daemon.status["ok"]
    found = wait_until(lambda: len(daemon.children()) == 2 and descriptors(daemon.pid))
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    lowest = min(set(range(max(found) + 2)) - set(found))
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (lowest, hard))
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(daemon.place / "control"))
        control.sendall(b'{"command": "reload"}\n')
        assert daemon.logged("control: ") == ["warning: control: Too many open files"]
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
        control.settimeout(PATIENCE)
        assert json.loads(control.recv(4096)) == {"ok": True}
    daemon.call().quit()
