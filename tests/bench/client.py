"""A client with a stopwatch, and what a server spent meanwhile."""

import hashlib
import socket
import time
from pathlib import Path
from statistics import median

clock = time.perf_counter


class Refused(Exception):
    """The server said something else than +OK."""


class Client:
    """One connection. quick: acknowledge at once, so that a server's small writes do not show."""

    def __init__(self, port: int, quick: bool = True) -> None:
        self.quick = quick
        self.octets = bytearray(1 << 18)
        self.digest = None                   # of what RETR brought, when somebody wants to compare it
        self.begun = clock()
        self.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reply()
        self.greeted = clock() - self.begun

    def reply(self) -> bytes:
        """A reply of one line."""
        line = b""
        while not line.endswith(b"\r\n") and not line.endswith(b"\n"):
            piece = self.socket.recv(4096)
            if not piece:
                raise Refused(f"connection closed after {line!r}")
            line += piece
        if not line.startswith(b"+OK"):
            raise Refused(repr(line))
        return line

    def command(self, line: str) -> bytes:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def retrieve(self, number: int) -> int:
        """RETR; -> octets of the whole reply. Its end is the one place where CRLF, dot, CRLF can stand."""
        self.socket.sendall(b"RETR %d\r\n" % number)
        count, tail, body = 0, b"", bytearray()
        while tail != b"\r\n.\r\n":
            if self.quick:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            got = self.socket.recv_into(self.octets)
            if not got or not count and self.octets[:3] != b"+OK":
                raise Refused(f"RETR {number}: {bytes(self.octets[:min(got, 80)])!r}")
            count += got
            tail = (tail + self.octets[max(0, got - 5):got])[-5:]
            if self.digest is not None:
                body += self.octets[:got]
        if self.digest is not None:
            self.digest.update(body.partition(b"\r\n")[2])
        return count

    def close(self) -> None:
        """Say that there will be no more, and wait until the server has gone too."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(4096):
                pass
        except OSError:
            pass
        self.socket.close()


class Usage:
    """Processor seconds of a server: of its cgroup, or, for an ordinary user, of its processes that live."""

    def __init__(self, pid: int, cgroup: "Path | None") -> None:
        self.pid = pid
        self.cgroup = cgroup

    def pids(self) -> "list[int]":
        """Its processes; those of our own cgroup, or the one that was started and its descendants."""
        if self.cgroup:
            return [int(pid) for pid in (self.cgroup / "cgroup.procs").read_text().split()]
        found = [self.pid]
        for pid in found:
            try:
                found += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            except OSError:
                pass
        return found

    def now(self) -> float:
        if self.cgroup:
            return int((self.cgroup / "cpu.stat").read_text().split()[1]) / 1e6
        return sum(int((_read(f"/proc/{pid}/schedstat") or "0").split()[0]) for pid in self.pids()) / 1e9

    def settled(self) -> float:
        """The same, when the server has gone quiet."""
        before, now = -1.0, self.now()
        while now - before > 0.0001:
            time.sleep(0.004)
            before, now = now, self.now()
        return now

    def peak(self) -> int:
        """The most memory that any one of its processes has had, in octets."""
        peaks = [line.split()[1] for pid in self.pids() for line in _read(f"/proc/{pid}/status").split("\n")
                 if line.startswith("VmHWM:")]
        return max(map(int, peaks)) * 1024


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def greeting(server) -> float:
    """Seconds from connect to greeting."""
    client = Client(server.port)
    client.close()
    return client.greeted


def log_in(server, quick: bool = True) -> Client:
    client = Client(server.port, quick)
    client.command(f"USER {server.user}")
    client.command(f"PASS {server.password}")
    return client


def poll(server) -> float:
    """Seconds of a whole session that finds nothing, from connect to close."""
    client = Client(server.port)
    for line in (f"USER {server.user}", f"PASS {server.password}", "STAT", "QUIT"):
        client.command(line)
    client.close()
    return clock() - client.begun


class Fetch:
    """A session that gets every message: octets of the RETR replies; seconds of all RETRs (retr) and of the session
    (whole), and the server's processor seconds meanwhile (cpu, whole_cpu)."""

    def __init__(self, server, quick: bool = True, compare: bool = False) -> None:
        before = server.usage.settled()
        client = log_in(server, quick)
        client.digest = hashlib.sha256() if compare else None
        count = int(client.command("STAT").split()[1])
        opened, begun = server.usage.settled(), clock()
        self.octets = sum(client.retrieve(number) for number in range(1, count + 1))
        self.retr = clock() - begun
        fetched = server.usage.settled()
        client.command("QUIT")
        self.whole = clock() - client.begun
        client.close()
        self.cpu = fetched - opened
        self.whole_cpu = max(fetched, server.usage.settled()) - before       # an ordinary user cannot see the dead
        self.digest = client.digest and client.digest.hexdigest()
        megabytes = self.octets / 1e6
        self.rate = megabytes / self.retr
        self.cpu_per_mb = self.cpu * 1e3 / megabytes
        self.whole_cpu_per_mb = self.whole_cpu * 1e3 / megabytes


class Login:
    """A login on a large mailbox: seconds of PASS by the clock and of the server's processors, and its peak memory."""

    def __init__(self, server) -> None:
        client = Client(server.port)
        client.command(f"USER {server.user}")
        opened, begun = server.usage.settled(), clock()
        client.command(f"PASS {server.password}")
        self.seconds = clock() - begun
        self.cpu = server.usage.settled() - opened
        self.peak = server.usage.peak()
        client.command("QUIT")
        client.close()


class Samples:
    """What the rounds brought: for each contender its samples, in the order of the rounds."""

    def __init__(self, count: int, contenders, measure) -> None:
        """One sample of each in turn, `count` times, after one of each that does not count."""
        for contender in contenders:
            measure(contender)
        self.of = {contender.name: [] for contender in contenders}
        for _ in range(count):
            for contender in contenders:
                self.of[contender.name].append(measure(contender))

    def median(self, name: str, figure=float) -> float:
        return median(map(figure, self.of[name]))

    def ratio(self, name: str, other: str, figure=float) -> float:
        """The median of the ratios within each round: what slows the machine down slows both."""
        return median(figure(a) / figure(b) for a, b in zip(self.of[name], self.of[other]))
