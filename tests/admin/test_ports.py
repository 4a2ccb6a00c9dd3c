"""popperctl test: addresses that the server could not listen on."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from conftest import free_port
from popper.admin import ports
from popper.admin.console import Failed
from popper.admin.control import NotRunning
from popper.options import Options
from processes import in_child

ROOT = os.geteuid() == 0


def look(bindto, **answer):
    """What is found of these addresses. answer: of the server's status, none: it does not run; or `trouble`."""
    options = Options()
    options.set("bindto", bindto)

    def status():
        if "trouble" in answer:
            raise Failed(answer["trouble"], 77)
        if not answer:
            raise NotRunning("/nonexistent")
        return {"pid": 17, **answer}
    return list(ports.found(options, SimpleNamespace(status=status)))


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def taken(port):
    """A port at which somebody listens."""
    with socket.create_server(("127.0.0.1", port)):
        yield port


@pytest.fixture
def other(tmp_path, port):
    """other(name) -> number of a process of that name that listens at the port."""
    running = []

    def start(name):
        program = tmp_path / name
        program.symlink_to(sys.executable)
        code = (f"import socket, sys; s = socket.create_server(('127.0.0.1', {port})); print('ready', flush=True); "
                "sys.stdin.read()")
        running.append(subprocess.Popen([str(program), "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert running[0].stdout.readline() == b"ready\n"
        return running[0].pid
    yield start
    for each in running:
        each.communicate()


def test_what_is_free_is_no_finding_and_is_free_afterwards(port):
    assert look(f"127.0.0.1:{port} :{free_port()}") == []
    socket.create_server(("127.0.0.1", port)).close()


def test_an_address_that_is_not_of_this_host(port):
    for answer in ({}, {"listening": [f"127.0.0.1:{port}"]}):
        assert look(f"192.0.2.77:{port} 127.0.0.1:{free_port()}", **answer) == [
            (f"cannot listen on 192.0.2.77:{port}: Cannot assign requested address", "", True)]


@pytest.mark.parametrize("bindto, held", [
    ("127.0.0.1:{}", "127.0.0.1:{}"), ("localhost:{}", "127.0.0.1:{}"), (":{}", "0.0.0.0:{}"), (":{}", "[::]:{}")])
def test_what_the_server_holds_is_not_tried(taken, bindto, held):
    if bindto.startswith("localhost"):
        held = ports._names("localhost", taken)[0]
    assert look(bindto.format(taken), listening=[held.format(taken)]) == []
    assert look(bindto.format(taken))[0][2] or bindto.startswith("localhost")


def test_the_server_holds_another_address_of_this_port(taken):
    ((what, remedy, fault),) = look(f":{taken}", listening=[f"127.0.0.1:{taken}"])
    assert what == (f"cannot listen on *:{taken}: Address already in use: the server that runs, process 17, has "
                    f"127.0.0.1:{taken}, which it gives up only when it ends")
    assert (remedy, fault) == ("popperctl stop, then popperctl start", True)


@pytest.mark.parametrize("name", ["dovecot", "inetd"])
def test_who_listens_there_is_named(other, port, name):
    """To a super-server the port may belong; nobody else is to have it."""
    pid = other(name)
    ((what, remedy, fault),) = look(f"127.0.0.1:{port}")
    assert (what, remedy, fault) == {
        "dovecot": (f"cannot listen on 127.0.0.1:{port}: Address already in use: dovecot, process {pid}, listens there",
                    "", True),
        "inetd": (f"inetd, process {pid}, listens there; that is right where it starts popper", "", False)}[name]


def test_who_listens_there_is_not_always_to_be_seen(taken, monkeypatch):
    monkeypatch.setattr(ports, "TABLES", ("/nonexistent",))
    assert look(f"127.0.0.1:{taken}") == [
        (f"cannot listen on 127.0.0.1:{taken}: Address already in use: something else listens there", "", True)]
    ((what, _, fault),) = look(f"127.0.0.1:{taken}", trouble="/run/x: only root may ask")
    assert what.endswith("; whether that is popper itself cannot be told (/run/x: only root may ask)") and not fault


def test_an_address_that_is_named_twice(port):
    ((what, _, fault),) = look(f":{port} 127.0.0.1:{port}")
    assert what == (f"cannot listen on 127.0.0.1:{port}: Address already in use: an address before it in bindto has "
                    "that port already") and fault


@pytest.mark.parametrize("bindto, held, twice", [
    (":{0} 127.0.0.1:{0}", "[::]:{0}", True), ("127.0.0.1:{0} :{0}", "127.0.0.1:{0}", True),
    ("127.0.0.2:{0} 127.0.0.1:{0}", "127.0.0.2:{0}", False), (":1 127.0.0.1:{0}", "[::]:1", False)])
def test_what_the_server_holds_is_in_the_way_of_what_comes_behind_it(taken, bindto, held, twice):
    """To stop and start it would end in an outage: it cannot have both."""
    ((what, remedy, fault),) = look(bindto.format(taken), listening=[held.format(taken)])
    assert fault and ("an address before it in bindto has that port already" in what) == twice
    assert not remedy


@pytest.mark.root
def test_who_is_not_root_cannot_try_low_ports(monkeypatch):
    def found():
        os.setuid(4321)
        return repr(look("127.0.0.1:1"))
    assert in_child(found) == repr([
        ("cannot listen on 127.0.0.1:1: Permission denied; whether the server can, only root may try", "", False)])
