"""The control socket: who may open it, what is answered to whatever comes, and whose path it is."""

import errno
import grp
import json
import os
import resource
import socket
import stat
import threading
from types import SimpleNamespace

import pytest

from conftest import wait_until
from popper import control as module
from popper.control import COMMANDS, LONGEST, Control
from popper.errors import ConfigError


class Master:
    """Keeps what it was to do. complaint: what it says of it."""

    def __init__(self, complaint=""):
        self.complaint = complaint
        self.done = []

    def do(self, command):
        self.done.append(command)
        return self.complaint

    def status(self):
        return {"pid": os.getppid(), "who": "Gr\u00fc\u00dfe"}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run" / "control")


@pytest.fixture
def control(path):
    one = Control(path, "")
    yield one
    one.close()


def ask(control, octets, master=None, close=False):
    """-> the answer to these octets, as text"""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(30)
        asker.connect(control.path)
        asker.sendall(octets)
        if close:
            asker.shutdown(socket.SHUT_WR)
        control.answer(master or Master())
        answer = b""
        while more := asker.recv(65536):
            answer += more
    return answer.decode()


def request(command, **more):
    return json.dumps({"command": command, **more}).encode() + b"\n"


# -- requests --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "status"])
@pytest.mark.parametrize("complaint", ["", 'popper.conf:3: "x" is no number'])
def test_a_command(control, command, complaint):
    master = Master(complaint)
    answer = ask(control, request(command), master)
    assert json.loads(answer) == ({"ok": False, "error": complaint} if complaint else {"ok": True})
    assert answer.endswith("\n") and answer.count("\n") == 1 and master.done == [command]


def test_status_is_answered_by_a_child(control):
    answer = json.loads(ask(control, request("status")))
    assert answer == {"ok": True, "pid": os.getpid(), "who": "Gr\u00fc\u00dfe"}
    wait_until(lambda: os.waitpid(-1, os.WNOHANG)[0])


@pytest.mark.parametrize("octets", [
    b"\n", b"status\n", b"{}\n", b"[]\n", b'{"command": "STATUS"}\n', b'{"command": "halt"}\n', b'{"command": 1}\n',
    b'{"command": "stop", "command": "stop"}\n', b'{"comand": "stop"}\n', b'{"command": "stop"\n',
    b"\0\xff\n", b"\xff" * 100 + b"\n",
    b"GET / HTTP/1.0\r\n\r\n", b"x" * LONGEST])
def test_garbage(control, octets):
    master = Master()
    answer = json.loads(ask(control, octets, master))
    assert answer == {"ok": False, "error": "expected a command, one of status reload stop stop-now upgrade"}
    assert master.done == []


def test_a_request_that_ends_without_a_line_end(control):
    assert json.loads(ask(control, b"", close=True))["ok"] is False
    assert json.loads(ask(control, request("reload").rstrip(), close=True))["ok"] is True


def test_more_than_a_request_may_have_is_not_read_to_its_end(control):
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(control.path)
        asker.sendall(b"x" * (LONGEST + 2000))
        control.answer(Master())
        assert asker.recv(100).startswith(b'{"ok": false')


@pytest.mark.parametrize("drip", [False, True])
def test_a_slow_asker_holds_nobody_up_for_longer_than_that(control, monkeypatch, drip):
    """Also who sends an octet now and then: it is the whole that must come in time."""
    now = [100.0]
    waits = []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow:
        def settimeout(self, seconds):
            waits.append(seconds)

        def recv(self, most):
            now[0] += min(waits[-1], 0.4) if drip else waits[-1]
            if not drip or waits[-1] < 0.4:
                raise TimeoutError
            return b"x"
    with pytest.raises(TimeoutError):
        module._line(Slow())
    assert now[0] - 100 <= module.PATIENCE + 0.01


def test_an_asker_who_says_nothing_gets_nothing(control, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    assert ask(control, b"") == ""
    assert json.loads(ask(control, request("stop")))["ok"] is True


def test_an_asker_who_has_gone(control):
    for octets in (b"", request("stop")):
        with socket.socket(socket.AF_UNIX) as asker:
            asker.connect(control.path)
            asker.sendall(octets)
        control.answer(Master())
    control.answer(Master())                 # nobody is there
    assert json.loads(ask(control, request("stop")))["ok"] is True


def test_no_descriptor_is_left(control):
    before = len(os.listdir("/proc/self/fd"))
    for octets in (b"x\n", request("stop"), request("status")):
        ask(control, octets)
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_can_be_let_in(control):
    """Who waits is answered when there is a descriptor again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(30)
        asker.connect(control.path)
        asker.sendall(request("stop"))
        with open(os.devnull) as lowest:
            free = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(OSError) as caught:
                control.answer(Master())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE
        control.answer(Master())
        assert json.loads(asker.recv(100)) == {"ok": True}


# -- the path --------------------------------------------------------------------------------------------------------

def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_it_is_its_owners_alone_whatever_the_mask(path):
    mask = os.umask(0)
    try:
        one = Control(path, "")
        assert os.umask(0) == 0              # put back as it was
        assert mode(path) == 0o600 and stat.S_ISSOCK(os.lstat(path).st_mode)
        assert mode(os.path.dirname(path)) == 0o755
        one.close()
    finally:
        os.umask(mask)


def test_a_group_may_ask(path):
    gid = os.getgid() if os.geteuid() else grp.getgrnam("mail").gr_gid
    one = Control(path, grp.getgrgid(gid).gr_name)
    assert mode(path) == 0o660 and os.lstat(path).st_gid == gid
    one.close()


@pytest.mark.root
def test_others_may_not_ask(path, tmp_path):
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    one = Control(path, "mail")
    forked = os.fork()
    if not forked:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            socket.socket(socket.AF_UNIX).connect(path)
        except PermissionError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 7
    one.close()


def test_a_group_that_is_none(path):
    with pytest.raises(ConfigError, match="control_group: there is no group no-such-group"):
        Control(path, "no-such-group")
    assert not os.path.lexists(path)


def test_a_socket_of_a_daemon_that_was_killed_is_taken_over(path):
    one = Control(path, "")
    one.socket.close()                       # the path stays
    other = Control(path, "")
    assert json.loads(ask(other, request("stop")))["ok"] is True
    other.close()
    assert not os.path.lexists(path)


def test_a_path_that_is_anothers_by_now_stays(path):
    one = Control(path, "")
    other = Control(path, "", one)
    one.close()
    assert json.loads(ask(other, request("stop")))["ok"] is True
    other.close()
    assert not os.path.lexists(path)
    one.close()                              # and once more does nothing


def test_the_socket_of_another_server_stays_as_long_as_it_lives(path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    one = Control(path, "")
    with pytest.raises(ConfigError, match="another server listens there"):
        Control(path, "")
    one.socket.close()                       # as if it had been killed
    other = Control(path, "")
    assert json.loads(ask(other, request("stop")))["ok"] is True
    other.close()


def test_the_socket_of_a_server_that_many_wait_for_stays(path):
    """It is there, though no more may wait."""
    one, waiting = Control(path, ""), []
    try:
        with pytest.raises(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        with pytest.raises(ConfigError, match="another server listens there"):
            Control(path, "")
    finally:
        for each in waiting:
            each.close()
        one.close()


@pytest.mark.parametrize("state, gives_way", [("running", False), ("ending", True)])
def test_a_server_that_only_waits_for_its_last_sessions_gives_way(path, state, gives_way):
    one = Control(path, "")
    one.socket.setblocking(True)

    def serve():
        one.answer(SimpleNamespace(status=lambda: {"state": state}))
    server = threading.Thread(target=serve)
    server.start()
    try:
        if gives_way:
            Control(path, "").close()
        else:
            with pytest.raises(ConfigError, match="another server listens there"):
                Control(path, "")
    finally:
        server.join()
    one.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_not_touched(path, tmp_path, kind):
    os.mkdir(os.path.dirname(path))
    target = tmp_path / "target"
    target.write_text("precious")
    {"file": lambda: open(path, "w").close(), "directory": lambda: os.mkdir(path),
     "link": lambda: os.symlink(target, path)}[kind]()
    with pytest.raises(ConfigError, match="no socket can be made at .*: Address already in use"):
        Control(path, "")
    assert os.path.lexists(path) and target.read_text() == "precious"


@pytest.mark.root
def test_a_socket_of_somebody_elses_is_not_touched(path):
    os.mkdir(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(path)
        os.chown(path, 65534, 65534)
        with pytest.raises(ConfigError, match="Address already in use"):
            Control(path, "")
    assert os.path.lexists(path)


@pytest.mark.parametrize("path, why", [("/proc/nowhere/control", "No such file"), ("/" + "x" * 200, "too long"),
                                       ("/no/such/directory/at/all", "No such file")])
def test_a_path_that_cannot_be(path, why):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=f"^control: no socket can be made at {path}: .*{why}"):
        Control(path, "")
    assert len(os.listdir("/proc/self/fd")) == before


def test_popperctl_is_understood(control):
    """What the client sends in whatever way it writes JSON."""
    from popper.admin import control as client
    master, answers = Master(), []
    asking = threading.Thread(target=lambda: answers.append(client.Control(control.path).ask("reload")))
    asking.start()
    while asking.is_alive() and not master.done:
        control.answer(master)
    asking.join(30)
    assert master.done == ["reload"]
