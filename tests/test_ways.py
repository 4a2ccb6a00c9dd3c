"""The golden sessions through every way of starting the installed popper, with a real account in the real spool.

`test_golden` has --stdio and inetd's nowait. Here each way has one server for all sessions, which reads its
configuration anew for each of them, and each session is fed in another way.
"""

import json
import os
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

import transcript
from conftest import SuperServer, free_port, wait_until, with_syslog
from test_golden import HOST, Served, identity, pinned_up, put_receipt, write_conf
from transcript import Descriptors, Transcript, conduct

pytestmark = pytest.mark.root
FEEDS = tuple(transcript.FEEDS)


def inetd_wait(place, port, command):
    line = f"127.0.0.1:{port} stream tcp wait.60000 root {command[0]} {' '.join(command)}\n"
    (place / "inetd.conf").write_text(line)
    return ["/usr/sbin/inetd", "-d", "-i", str(place / "inetd.conf")]


def tcpserver(place, port, command):
    return ["tcpserver", "-HRl0", "127.0.0.1", str(port), *command]


def systemd_each(place, port, command):
    return ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--inetd", "-a", *command]


def systemd_once(place, port, command):
    return ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", *command]


def on_its_own(place, port, command):
    return command


WAYS = {"inetd-wait": inetd_wait, "tcpserver": tcpserver, "systemd-each": systemd_each, "systemd-once": systemd_once,
        "on-its-own": on_its_own}
ONE_FOR_EACH = {"tcpserver", "systemd-each"}             # sessions have a process that reads the configuration
CASES = [(name, FEEDS[(at + number) % len(FEEDS)], way) for number, way in enumerate(WAYS)
         for at, name in enumerate(transcript.names()) if "inetd" not in Transcript(name).not_through]


class Server:
    """A way of starting popper. obey(lines): have them, and them alone, for the configuration."""

    def __init__(self, way, place, syslog, installed):
        self.place = place
        self.way = way
        self.port = free_port()
        own = "127.0.0.1" if way == "on-its-own" else "127.0.0.9"          # where it is given a socket that is nothing
        self.base = [f"bindto {own}:{self.port}", f"control {place}/control", f"guessers {place}/guessers"]
        conf = self.write(())
        command = WAYS[way](place, self.port, [str(installed / "sbin" / "popper"), "-C", str(conf)])
        if command[0] == "systemd-socket-activate" and not shutil.which(command[0]):
            pytest.skip("no systemd-socket-activate here")
        self.server = SuperServer(with_syslog(syslog, command), self.port)

    def write(self, lines):
        return write_conf(self.place, SimpleNamespace(options=lines), *self.base)

    def obey(self, lines):
        self.write(lines)
        if self.way not in ONE_FOR_EACH:
            assert self.ask("reload") == {"ok": True}

    def ask(self, command):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(20)
            wait_until(lambda: control.connect_ex(str(self.place / "control")) == 0)
            control.sendall(json.dumps({"command": command}).encode() + b"\n")
            with control.makefile() as answer:
                return json.loads(answer.read())

    def stop(self):
        if self.way not in ONE_FOR_EACH:
            self.ask("stop-now")
        if self.server.process.poll() is None and self.way not in ("systemd-once", "on-its-own"):
            self.server.stop()
        self.server.process.wait(20)


@pytest.fixture(scope="module")
def servers(tmp_path_factory, syslog, installed):
    """servers(way) -> its Server, the same for all tests."""
    running = {}

    def get(way):
        if way not in running:
            running[way] = Server(way, tmp_path_factory.mktemp(way), syslog, installed)
        return running[way]
    yield get
    for server in running.values():
        server.stop()


@contextmanager
def serve(script, server, spool, place):
    """A session of the account; -> Served"""
    if script.before is not None:
        spool.deliver(script.before)
    host = HOST
    receipt = put_receipt(Path(spool.entry.pw_dir, ".popbull"), script)
    if script.receipt is not None:
        os.chown(receipt, spool.entry.pw_uid, spool.entry.pw_gid)
    server.obey([f"hostname {host}", *pinned_up(place, script), *script.options])
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Served(Descriptors(client.fileno(), client.fileno(), lambda: client.shutdown(socket.SHUT_WR)),
                     host, spool.mailbox, receipt)
    receipt.unlink(missing_ok=True)


@pytest.fixture
def place():
    """A directory that everybody can see."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("name, feed, way", CASES, ids=["-".join(case) for case in CASES])
def test_session(name, feed, way, servers, spool, place):
    script = Transcript(name)
    with serve(script, servers(way), spool, place) as served:
        mailbox = served.mailbox
        kept = identity(mailbox) if mailbox.exists() else None
        conduct(script, served.host, served.connection, feed)
        left = [path for path in mailbox.parent.iterdir() if mailbox.name in path.name]
        assert left == ([] if script.after is None else [mailbox])
        if script.after is not None:
            assert mailbox.read_bytes() == script.after
        if kept is not None:
            assert identity(mailbox) == kept
        assert (served.receipt.read_bytes() if served.receipt.exists() else None) == script.left_receipt


@pytest.mark.parametrize("way", sorted(set(WAYS) - ONE_FOR_EACH))
def test_how_it_was_started(way, servers):
    """Sockets that were given are listened on, whatever `bindto` says. Of sessions and reloads nothing is left."""
    server = servers(way)
    server.obey(())
    status = server.ask("status")
    assert status["listening"] == [f"127.0.0.1:{server.port}"]
    children = Path(f"/proc/{status['pid']}/task/{status['pid']}/children")
    wait_until(lambda: len(children.read_text().split()) == 2)


def test_under_inetd_it_ends_when_nobody_comes_and_comes_back(servers):
    """`autoclose` gives inetd its socket back, which starts popper again for the next client."""
    server = servers("inetd-wait")
    first = server.ask("status")["pid"]
    server.obey(["autoclose 1"])
    wait_until(lambda: not Path(f"/proc/{first}").exists())
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(20)
        assert client.recv(100).startswith(b"+OK ")
        assert server.ask("status")["pid"] != first
        server.obey(())
