"""The line for inetd that starts one popper for all connections, under a real inetd."""

import os
import re
import socket

import pytest

from conftest import TREE, SuperServer, free_port, wait_until, with_syslog


def children(pid):
    """The processes that a process has started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def greeting(port):
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as replies:
        line = replies.readline()
        connection.sendall(b"QUIT\r\n")
        replies.read()
        return line


@pytest.mark.root
def test_one_popper_serves_all_and_ends_when_nobody_comes(installed, syslog, tmp_path):
    text = (TREE / "etc/inetd.conf.popper").read_text()
    line = re.search(r"^#(pop3\tstream\ttcp\twait\t.*)$", text, re.M)[1]
    popper = tmp_path / "popper.conf"
    popper.write_text(f"autoclose 1\nlookup no\ncontrol {tmp_path}/control\nguessers {tmp_path}/guessers\n")
    port, conf = free_port(), tmp_path / "inetd.conf"
    line = line.replace("/usr/local", str(installed)).replace("pop3", f"127.0.0.1:{port}", 1)
    conf.write_text(f"{line} -C {popper}\n")
    server = SuperServer(with_syslog(syslog, ["/usr/sbin/inetd", "-d", "-i", str(conf)]), port)
    inetd = server.process.pid
    try:
        assert greeting(port).startswith(b"+OK UCB Pop server")
        first = children(inetd)
        assert greeting(port).startswith(b"+OK UCB Pop server") and children(inetd) == first and len(first) == 1
        wait_until(lambda: children(inetd) == [])
        syslog.wait_for("nobody came for 1 seconds")
        assert greeting(port).startswith(b"+OK UCB Pop server")
        assert children(inetd) != first and os.path.exists(f"/proc/{children(inetd)[0]}")
    finally:
        for child in children(inetd):
            os.kill(int(child), 15)
        server.stop()
