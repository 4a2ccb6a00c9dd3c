"""Word to the service manager: exactly what sd_notify(3) says, or nothing."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from conftest import TREE
from popper.notify import Notify, watchdog_interval

PID = 4711


class Manager:
    """A socket that a service manager would read."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)

    def read(self):
        self.socket.settimeout(30)
        return self.socket.recv(65536).decode().split("\n")

    def silent(self):
        self.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.socket.recv(65536)
        return True


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"\0popper-tests-{os.getpid()}"
    one = Manager(name)
    one.stated = name.replace("\0", "@").encode()
    yield one
    one.socket.close()


def test_each_word_is_one_packet(manager):
    notify = Notify({b"NOTIFY_SOCKET": manager.stated}, PID)
    notify.ready("listening on 0.0.0.0:110")
    assert manager.read() == ["READY=1", f"MAINPID={os.getpid()}", "STATUS=listening on 0.0.0.0:110"]
    notify.status("12 sessions")
    assert manager.read() == ["STATUS=12 sessions"]
    notify.watchdog()
    assert manager.read() == ["WATCHDOG=1"]
    notify.stopping()
    assert manager.read() == ["STOPPING=1"]
    assert manager.silent()


def test_a_reload_has_the_time_at_which_it_began(manager):
    notify = Notify({b"NOTIFY_SOCKET": manager.stated}, PID)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = manager.read()
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC" and before <= int(value) <= after


def test_a_status_is_one_line_and_says_nothing_else(manager):
    notify = Notify({b"NOTIFY_SOCKET": manager.stated}, PID)
    notify.status("caf\u00e9\nSTOPPING=1\r\n\udc80" + "x" * 5000)
    (line,) = manager.read()
    assert line.startswith("STATUS=caf\u00e9 STOPPING=1 ?xxx") and len(line) < 1100


def test_no_child_can_speak_for_us(manager):
    said = {b"NOTIFY_SOCKET": manager.stated, b"WATCHDOG_USEC": b"3000000", b"WATCHDOG_PID": b"4711"}
    environ = {**said, b"PATH": b"/bin"}
    notify = Notify(environ, PID)
    assert environ == {b"PATH": b"/bin"}
    assert notify.interval == 1.5
    assert notify.taken == said
    again = Notify(dict(notify.taken), PID)  # a program that takes our place
    again.watchdog()
    assert manager.read() == ["WATCHDOG=1"] and again.interval == 1.5


@pytest.mark.parametrize("which", ["posix.environ", "os.environb"])
def test_the_environment_of_the_process_itself_loses_them(which):
    program = (f"import os, posix, sys; sys.path.insert(0, {str(TREE)!r}); from popper.notify import Notify\n"
               f"Notify({which}, os.getpid())\n"
               "print([n for n in os.environ if n.startswith(('NOTIFY', 'WATCHDOG'))], flush=True)\n"
               "os.execv('/usr/bin/env', ['env'])")
    done = subprocess.run([sys.executable, "-ISc", program], capture_output=True, text=True, env={
        "NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "KEPT": "yes"})
    assert done.stdout.split("\n")[0] == "[]"
    assert "KEPT=yes" in done.stdout and "NOTIFY" not in done.stdout and "WATCHDOG" not in done.stdout


@pytest.mark.parametrize("environ", [
    {}, {b"NOTIFY_SOCKET": b""}, {b"NOTIFY_SOCKET": b"/nowhere/at/all"}, {b"NOTIFY_SOCKET": b"@nobody-is-here"},
    {b"NOTIFY_SOCKET": b"relative"}, {b"NOTIFY_SOCKET": b"vsock:2:1234"}, {b"NOTIFY_SOCKET": b"/" + b"x" * 200}])
def test_where_nobody_listens_nothing_goes_wrong(environ, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manager = Manager("relative")
    notify = Notify(environ, PID)
    notify.ready("up")
    notify.reloading()
    notify.status("fine")
    notify.watchdog()
    notify.stopping()
    assert manager.silent()
    manager.socket.close()


def test_a_manager_that_does_not_read_is_not_waited_for_for_ever(manager):
    notify = Notify({b"NOTIFY_SOCKET": manager.stated}, PID)
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sent = 0
    with filler, pytest.raises(BlockingIOError):
        while True:
            filler.sendto(b"STATUS=full", socket.MSG_DONTWAIT, manager.socket.getsockname())
            sent += 1
    notify.stopping()                        # comes back; a manager that is stuck hears it or not
    for _ in range(sent):
        assert manager.read() == ["STATUS=full"]
    assert manager.silent()


def test_no_descriptor_is_left_open(manager):
    notify = Notify({b"NOTIFY_SOCKET": manager.stated}, PID)
    lost = Notify({b"NOTIFY_SOCKET": b"/nowhere"}, PID)
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        notify.watchdog()
        lost.watchdog()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("usec, whom, seconds", [
    (b"30000000", b"4711", 15.0), (b"30000000", None, 15.0), (b"1", None, 5e-7), (b"30000000", b"4712", None),
    (b"0", None, None), (b"", None, None), (None, b"4711", None), (b"-1", None, None), (b"30s", None, None),
    (b"9" * 5000, None, None), (b"30000000", b"9" * 5000, None), (b"30000000", b"", None), (b"30000000", b"me", None)])
def test_half_of_what_the_watchdog_waits(usec, whom, seconds):
    environ = {b"WATCHDOG_USEC": usec, b"WATCHDOG_PID": whom}
    environ = {name: value for name, value in environ.items() if value is not None}
    assert watchdog_interval(environ, PID) == seconds
    assert Notify(environ, PID).interval == seconds


@pytest.mark.skipif(not shutil.which("systemd-notify"), reason="systemd is not installed")
def test_systemds_own_program_says_the_same(manager):
    subprocess.run(["systemd-notify", "--ready", f"--pid={os.getpid()}", "--status=listening", "--no-block"],
                   check=True, env={**os.environ, "NOTIFY_SOCKET": manager.stated.decode()})
    theirs = manager.read()
    Notify({b"NOTIFY_SOCKET": manager.stated}, PID).ready("listening")
    assert sorted(manager.read()) == sorted(theirs)
