"""Nobody who has root reads from the network, whatever way popper was started: as strace and /proc have it."""

import os
import re
import shlex
import signal
import socket
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, PATIENCE, Dialogue, mbox, site         # noqa: F401
from on_its_own import descriptors, start                              # noqa: F401
from popper.guessers import Guessers
from processes import has_ended

pytestmark = pytest.mark.root
CALLS = "read,readv,pread64,recvfrom,recvmsg,recvmmsg,setuid,setreuid,setresuid,splice,sendfile"
UNPRIVILEGED = 65534


class Traced:
    """What strace wrote of popper's processes, each way. call() -> a connection."""

    def __init__(self, place, call):
        self.place = place
        self.call = call

    def lines(self):
        """(process, line) of each call that came back, in their order; of every session its own."""
        for path in sorted(self.place.glob("strace.*")):
            begun = {}
            for line in path.read_text(errors="replace").splitlines():
                pid, _, words = line.partition(" ")
                words = words.strip()
                if words.endswith("<unfinished ...>"):
                    begun[pid] = words.removesuffix("<unfinished ...>")
                elif resumed := re.match(r"<\.\.\. \w+ resumed>", words):
                    yield int(pid), begun.pop(pid, "") + words[resumed.end():]
                else:
                    yield int(pid), words

    def reads(self):
        """(process, uid, octets) of each read from a connection. Every process is taken for root's until it has given
        that up."""
        uids = {}
        for pid, words in self.lines():
            changed = re.match(r"set(?:re|res)?uid\((?:-1, )?(\d+).*= 0$", words)
            if changed:
                uids[pid] = int(changed[1])
            elif "<TCP" in words.split(",")[0]:
                count = re.search(r"= (-?\d+)", words)
                yield pid, uids.get(pid, 0), int(count[1]) if count else 0


@pytest.fixture
def strace(site):
    """(directory, a program that is popper under strace)"""
    place = site.place / "traced"
    place.mkdir(mode=0o755)
    return place, f"strace -D -f -qq -yy -s 0 -e trace={CALLS} -o {place}/strace.$$"


def wrapper(strace, installed):
    place, words = strace
    program = place / "popper"
    program.write_text(f'#!/bin/sh\nexec {words} {shlex.quote(str(installed / "sbin" / "popper"))} "$@"\n')
    program.chmod(0o755)
    return program


def conf_of(site):
    path = site.place / "inetd.conf"
    path.write_text(f"hostname {HOST}\nauth getpw\nlookup no\nfail_delay 0\nguessers {site.place}/guessers\n")
    return path


@pytest.fixture
def inetd(site, strace, installed, start_inetd):
    server = start_inetd(wrapper(strace, installed), "-C", str(conf_of(site)))
    return Traced(strace[0], lambda: socket.create_connection(("127.0.0.1", server.port)))


@pytest.fixture
def tcpserver(site, strace, installed, start_tcpserver):
    server = start_tcpserver(wrapper(strace, installed), "-C", str(conf_of(site)))
    return Traced(strace[0], lambda: socket.create_connection(("127.0.0.1", server.port)))


@pytest.fixture
def daemon(site, strace, start):
    one = start(before=["sh", "-c", f'exec {strace[1]} "$@"', "sh"], auth="getpw", mailbox="/var/mail/%u")
    return Traced(strace[0], lambda: socket.create_connection(one.listening()))


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def limit_of(pid, name):
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith(name))
    return line[len(name):].split()[:2]


def has_connection(pid, port):
    """Whether a process has a connection open that comes from this port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}")}
    return bool(inodes & set(descriptors(pid).values()))


def processes_with(port):
    """Those of popper that have the connection from a port, not strace, which starts one of them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name not in ("strace", "pytest") and int(pid) != os.getpid() and has_connection(int(pid), port):
                found.append(int(pid))
        except OSError:
            pass                             # it has ended
    return found


@pytest.mark.parametrize("way", ["inetd", "tcpserver"])
def test_root_does_not_read_when_a_login_is_broken_off(way, request, site, spool):
    """What has come meanwhile is not read away before the connection is closed, as that of a user is."""
    memory = Guessers(str(site.place / "guessers"), 30)
    for _ in range(20):
        memory.failed("127.0.0.1", b"somebody")
    traced = request.getfixturevalue(way)
    with traced.call() as connection:
        pop = Dialogue(connection)
        pop.reply()
        pop.send(f"USER {spool.name}\r\nPASS {spool.password}\r\n")
        pop.reply()
        wait_until(lambda: any("/guessers>" in words for _, words in traced.lines()))        # now it has to wait
        pop.send("NOOP\r\n" * 1000)
        root, = wait_until(lambda: [pid for pid in processes_with(connection.getsockname()[1])
                                    if status_of(pid)["Uid"][0] == "0"])
        os.kill(root, signal.SIGTERM)
        wait_until(lambda: has_ended(root))
    assert {who for _, who, _ in traced.reads()} == {UNPRIVILEGED}


@pytest.fixture(params=["inetd", "tcpserver", "daemon"])
def traced(request, spool):
    spool.deliver(mbox(ONE, ONE))
    return request.getfixturevalue(request.param)


def test_who_reads_what_a_stranger_sends(traced):
    """No uid, no group, no file, no process, no privilege to be had by running a program, and no descriptor but the
    connection, the line to root, and the standard ones."""
    with traced.call() as connection:
        pop = Dialogue(connection)
        pop.reply()
        pop.ok("USER somebody")
        pop.lines("CAPA")
        reader, = wait_until(lambda: {pid for pid, _, octets in traced.reads() if octets > 0}, PATIENCE)
        status = status_of(reader)
        assert status["Uid"] == [str(UNPRIVILEGED)] * 4 and status["Gid"] == [str(UNPRIVILEGED)] * 4
        assert status["Groups"] == [] and status["NoNewPrivs"] == ["1"]
        assert {int(status[each][0], 16) for each in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        root = Path(f"/proc/{reader}/root")
        assert os.readlink(root).endswith(" (deleted)") and os.listdir(root) == [] and root.stat().st_mode & 0o777 == 0
        assert os.readlink(f"/proc/{reader}/cwd") == os.readlink(root)
        assert limit_of(reader, "Max processes") == limit_of(reader, "Max core file size") == ["0", "0"]
        found = descriptors(reader)
        ours = [fd for fd, link in found.items() if fd > 2 and link.startswith("socket:")]
        rest = [link for fd, link in found.items() if fd > 2 and fd not in ours]
        is_front = rest == ["anon_inode:[eventpoll]"]
        assert rest == [] or is_front, "what it waits with, where there may be thousands of connections"
        assert len(ours) == (2 if is_front else 1), "its line, and the connection where that is not a standard one"
        pop.quit()


def test_root_never_reads_from_a_connection(traced, spool):
    """In sessions that end in whatever way; and who has logged in is himself, with all his processes, for good."""
    def call():
        pop = Dialogue(traced.call())
        assert pop.reply().startswith("+OK ")
        return pop

    def wrong_password(pop):
        pop.send(f"USER {spool.name}\r\nPASS not the one\r\nSTAT\r\n" + "NOOP\r\n" * 2000)
        assert pop.reply().startswith("+OK ") and pop.reply().startswith("-ERR ")

    def flood(pop):
        pop.pour(b"x" * 300000)

    def abandoned(pop):
        pop.ok(f"USER {spool.name}")

    for way in (wrong_password, flood, abandoned):
        pop = call()
        way(pop)
        pop.socket.close()
    pop = call()
    port = pop.socket.getsockname()[1]
    pop.send(f"USER {spool.name}\r\nPASS {spool.password}\r\nSTAT\r\n")
    assert [pop.reply()[:3] for _ in range(3)] == ["+OK"] * 3
    pop.ok("DELE 1")
    uid = str(spool.entry.pw_uid)

    def those_of_the_session():
        """Processes that serve it, when who spoke to the stranger has let go of it, or stays without root."""
        found = {pid: status_of(pid) for pid in processes_with(port)}
        return found if any(status["Uid"] == [uid] * 4 for status in found.values()) else None

    for status in wait_until(those_of_the_session).values():
        assert status["Uid"] in ([uid] * 4, [str(UNPRIVILEGED)] * 4)
        assert {int(status[each][0], 16) for each in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    pop.send("QUIT\r\nNOOP\r\nNOOP\r\n")
    assert pop.reply().startswith("+OK ")
    pop.socket.close()
    wait_until(lambda: spool.mailbox.read_bytes() == mbox(ONE) and not processes_with(port))
    reads = list(traced.reads())
    assert {who for _, who, _ in reads} == {UNPRIVILEGED, spool.entry.pw_uid}
    assert sum(octets for _, who, octets in reads if who == UNPRIVILEGED and octets > 0) > 30000
