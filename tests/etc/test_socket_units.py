"""The two ways of the socket units, done by systemd's own program for trying that."""

import socket

import pytest

from conftest import SuperServer, free_port, wait_until, with_syslog
from test_inetd_wait import children, greeting
from test_units import SHIPPED, directives, program

pytestmark = pytest.mark.root


@pytest.fixture
def activate(installed, syslog, tmp_path):
    """activate(unit, *flags) -> SuperServer that starts what the unit starts."""
    running = []

    def start(unit, *flags):
        conf = tmp_path / "popper.conf"
        conf.write_text(f"autoclose 1\nlookup no\ncontrol {tmp_path}/control\nguessers {tmp_path}/guessers\n")
        port = free_port()
        command = dict(directives((SHIPPED / unit).read_text()))["ExecStart"].removeprefix("-").split()
        path = command[0].replace("/usr/local", str(installed))
        starter = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", *flags]
        running.append(SuperServer(with_syslog(syslog, [*starter, path, *command[1:], "-C", str(conf)]), port))
        return running[-1]
    yield start
    for server in running:
        if server.process.poll() is None:
            server.stop()


def test_a_popper_for_each_connection(activate):
    server = activate("popper@.service", "--accept", "--inetd")
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        assert one.recv(100).startswith(b"+OK UCB Pop server")
        assert greeting(server.port).startswith(b"+OK UCB Pop server")
        assert children(server.process.pid) != []
    assert greeting(server.port).startswith(b"+OK UCB Pop server")


def test_a_daemon_on_the_socket_of_systemd(activate, syslog):
    server = activate("popper-listen.service")               # the program takes systemd-socket-activate's place
    since = len(syslog.lines)
    assert greeting(server.port).startswith(b"+OK UCB Pop server")
    assert greeting(server.port).startswith(b"+OK UCB Pop server")
    syslog.wait_for("nobody came for 1 seconds", since)
    wait_until(lambda: server.process.poll() is not None)
    assert server.process.returncode == 0
