"""An upgrade in place, as far as it goes without becoming another program: what is told, and what is made of it."""

import json
import os
import signal
import socket
import sys
from types import SimpleNamespace

import pytest

from popper import takeover
from popper.crew import Line
from popper.peer import VERIFIED, Finding
from popper.reception import Connection
from popper.sessions import Child, Sessions
from popper.takeover import VARIABLE


class Stage:
    """A master, as far as it is told of."""

    def __init__(self):
        self.sessions = Sessions(3)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.bound = {("", 110): self.listener}
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.front = Line(ours, 4711)
        looker = Line(socket.socket(socket.AF_UNIX), 4712)
        self.crew = {4711: self.front, 4712: looker}
        self.since, self.notify = 1790000000.0, SimpleNamespace(taken={b"NOTIFY_SOCKET": b"/run/notify"})
        connections = {1: Connection(1, self.front, "192.0.2.1", 40000),
                       2: Connection(2, self.front, "2001:db8::1", 40001, True)}
        connections[1].finding = Finding(VERIFIED, "client.example.org")
        self.reception = SimpleNamespace(looker=looker, connections=connections, last=2, counted=17,
                                         turned_away={"accepts": 3})
        self.logins = SimpleNamespace(counters={"logins": 5})
        child = Child(1, "m\\x28rose", b"m(\xffrose", "192.0.2.1", "client.example.org", 99.5)
        self.sessions.reserve(child)
        self.sessions.add(child, 4713)

    def close(self):
        self.listener.close()
        self.theirs.close()
        for line in self.crew.values():
            line.close()
        os.close(self.sessions.descriptor)


@pytest.fixture
def stage():
    one = Stage()
    yield one
    one.close()


@pytest.fixture
def told(stage, monkeypatch):
    """What the next program is told, and what it has inherited."""
    found = {}

    def execv(path, arguments):
        found["arguments"] = path, arguments
        found["variable"] = os.environ[VARIABLE]
        found["environment"] = os.environb.get(b"NOTIFY_SOCKET")
        note = int(found["variable"].partition(":")[2])
        found["document"] = json.loads(os.pread(note, 100000, 0))
        found["inherited"] = {int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
                              and os.get_inheritable(int(fd))}
        found["note"] = os.dup(note)
        raise FileNotFoundError(2, "No such file or directory")
    monkeypatch.setattr(takeover.os, "execv", execv)
    with pytest.raises(FileNotFoundError):
        takeover.leave_to(["/usr/sbin/popper", "-s"], stage)
    yield found
    os.close(found["note"])


def test_what_the_next_program_is_told(stage, told):
    document = told["document"]
    assert told["arguments"] == ("/usr/sbin/popper", ["/usr/sbin/popper", "-s"])
    assert told["variable"].startswith(f"{os.getpid()}:") and told["environment"] == b"/run/notify"
    assert document["listeners"] == [[["", 110], stage.listener.fileno()]]
    assert document["crew"] == [[4711, stage.front.fileno()]]
    assert document["connections"] == [[1, 4711, "192.0.2.1", 40000, False, [VERIFIED, "client.example.org"]],
                                       [2, 4711, "2001:db8::1", 40001, True, None]]
    assert {stage.listener.fileno(), stage.front.fileno(), stage.sessions.descriptor} <= told["inherited"]
    assert stage.crew[4712].fileno() not in told["inherited"]


def test_when_it_cannot_be_nothing_has_changed(stage, told):
    assert VARIABLE not in os.environ and b"NOTIFY_SOCKET" not in os.environb
    for fd in (stage.listener.fileno(), stage.front.fileno(), stage.sessions.descriptor):
        assert not os.get_inheritable(fd)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def leave(document, monkeypatch, pid=None):
    note = os.memfd_create("note")
    os.write(note, json.dumps(document).encode())
    monkeypatch.setenv(VARIABLE, f"{pid or os.getpid()}:{note}")
    return note


def test_what_was_told_is_read_once(stage, told, monkeypatch):
    note = leave(told["document"], monkeypatch)
    os.set_inheritable(stage.listener.fileno(), True)
    assert takeover.told() == told["document"]
    with pytest.raises(OSError):
        os.fstat(note)
    assert not os.get_inheritable(stage.listener.fileno())
    assert VARIABLE not in os.environ and takeover.told() is None


@pytest.mark.parametrize("value", ["", "1", ":", "x:y", f"{os.getpid()}:", f"{os.getpid()}:x", f"{os.getppid()}:0"])
def test_what_is_meant_for_another_process_is_not_believed(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    assert takeover.told() is None and VARIABLE not in os.environ


def test_a_program_that_knows_another_form_starts_afresh_and_has_the_ports_to_itself(stage, told, monkeypatch):
    copies = [os.dup(fd) for fd in (stage.sessions.descriptor, stage.front.fileno(), stage.listener.fileno())]
    leave({"form": 99, "sessions": copies[0], "crew": [[1, copies[1]]],
           "listeners": [[["", 110], copies[2]]]}, monkeypatch)
    assert takeover.told() is None
    for fd in copies:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_sessions_and_sockets_go_on(stage, told):
    document = told["document"]
    child = stage.sessions.children[4713]
    stage.sessions.slot(child).write("TRANSACTION", 10, 20)
    document["sessions"], document["listeners"][0][1] = os.dup(document["sessions"]), os.dup(stage.listener.fileno())
    sessions, bound = takeover.sessions_of(document, 2), takeover.bound_of(document)
    same = sessions.children[4713]
    assert all(getattr(same, name) == getattr(child, name) for name in (*takeover.CHILD, "raw_user"))
    assert sessions.slot(same).read()[:3] == ("TRANSACTION", 10, 20)
    assert bound[("", 110)].getsockname() == stage.listener.getsockname()
    bound[("", 110)].close()
    os.close(sessions.descriptor)


def test_old_fronts_go_on_with_their_strangers_and_end_with_them(stage, told):
    document = told["document"]
    document["crew"][0][1] = os.dup(stage.front.fileno())
    crowd = {"come": [], "known": []}
    retired = []
    reception = SimpleNamespace(
        connections={}, turned_away={"accepts": 0, "maxsessions": 1}, hear_front="hear",
        crowd=SimpleNamespace(come=lambda *who: crowd["come"].append(who), known=crowd["known"].append))
    master = SimpleNamespace(reception=reception, logins=SimpleNamespace(counters={"logins": 0, "denied": 2}), crew={},
                             sessions=stage.sessions, retire=retired.append)
    master.join = lambda line, hear: master.crew.update({line.pid: line})
    takeover.restore(document, master)
    assert retired == [master.crew[4711]] and (reception.last, reception.counted, master.since) == (2, 17, 1790000000.0)
    assert reception.turned_away == {"accepts": 3, "maxsessions": 1}
    assert master.logins.counters == {"logins": 5, "denied": 2}
    one, two = reception.connections[1], reception.connections[2]
    assert one.front is master.crew[4711] and one.finding.name == "client.example.org" and not one.proxied
    assert two.proxied and two.finding is None, "DNS is asked again"
    assert crowd == {"come": [(1, "192.0.2.1"), (2, "2001:db8::1")], "known": [1]}
    master.crew[4711].close()


# -- the program -----------------------------------------------------------------------------------------------------

def test_the_program_is_the_one_that_was_started(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/true", "-s"])
    assert takeover.program() == ["/bin/true", "-s"]
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "popper", "-s"])
    for name in ("/no/such/program", "popper", os.devnull):
        monkeypatch.setattr(sys, "argv", [name, "-s"])
        assert takeover.program() == [sys.executable, "-m", "popper", "-s"]


@pytest.mark.parametrize("script, complaint", [
    ("exit 0", ""), ("echo nothing wrong; exit 0", ""),
    ("echo popper: popper.conf:3: wrong >&2; exit 78", "popper.conf:3: wrong"),
    ("exit 1", " --check fails"), ('test "$2 $1" = "--check -s"', ""), ("read line && exit 1; exit 0", ""),
    ("head -c 100000 /dev/zero | tr '\\0' x; exit 1", "x")])
def test_a_program_is_asked_before_it_is_trusted(tmp_path, script, complaint):
    path = tmp_path / "popper"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    before = len(os.listdir("/proc/self/fd"))
    said = takeover.complaint_of([str(path), "-s"])
    assert (complaint in said and len(said) <= 5000) if complaint else said == ""
    assert not said.startswith("popper: ")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_program_that_is_not_there_is_a_complaint(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "popper").write_text("#!/no/such/python\n")
    (tmp_path / "popper").chmod(0o755)
    for path in ("/no/such/program", str(tmp_path / "popper")):
        assert takeover.complaint_of([path]) == f"{path}: No such file or directory"
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("script", ["exec sleep 1000", "trap '' TERM HUP INT; echo $$ >&2; exec sleep 1000",
                                    "exec sleep 1000 >&- 2>&-"])
def test_a_program_that_does_not_come_to_an_end_is_killed_and_a_complaint(tmp_path, monkeypatch, script):
    monkeypatch.setattr(takeover, "PATIENCE", 0.2)
    path = tmp_path / "popper"
    path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n{script}\n")
    path.chmod(0o755)
    before = len(os.listdir("/proc/self/fd"))
    assert takeover.complaint_of([str(path)]) == f"{path} --check says nothing"
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}"), "not even a zombie is left"
    assert len(os.listdir("/proc/self/fd")) == before
