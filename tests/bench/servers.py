"""What is measured: popper as `make install` makes it, the least Python beside it, other servers by their own scripts.

Each runs under a super-server on a port of 127.0.0.1, all at the same time, and, for root, in a cgroup of its own.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from client import Usage
from mailboxes import write_replies

TREE = Path(__file__).resolve().parent.parent.parent
NOBODY = 65534
USER, PASSWORD = "bench", "secret"
HASH = "$1$popbench$POXtoj/eEDWOXxoV9ZloU."
GREETING = 'print("+OK ready", flush=True)'
CONFIGURATION = """\
auth file
password_file {place}/users
mailbox {place}/mail/%u
lookup no
"""
OTHERS = Path("/tmp/peers")                  # where the scripts of other servers put everything


class Python:
    """An interpreter to run popper with."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.version = _output(path, "-IS", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])")

    @staticmethod
    def all() -> "list[Python]":
        """The system's and this one, where they are two and good enough."""
        ours = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        system = os.path.realpath("/usr/bin/python3")
        found = [Python(path) for path in dict.fromkeys((system, ours)) if os.access(path, os.X_OK)]
        return [each for each in found if tuple(map(int, each.version.split("."))) >= (3, 11)]

    def install(self, place: Path) -> Path:
        """popper, installed for this interpreter; -> its launcher."""
        prefix = place / f"popper-{self.version}"
        subprocess.run(["make", "-s", "install", f"PREFIX={prefix}", f"PYTHON={self.path}"], cwd=TREE, check=True)
        return prefix / "sbin" / "popper"


class Server:
    """Something that listens. usage: what it spends. user, password: of the mailbox that `fill` fills."""

    def __init__(self, name: str, user: str = USER, password: str = PASSWORD) -> None:
        self.name = name
        self.user = user
        self.password = password
        self.port = _free_port()
        self.cgroup = _make_cgroup(name)
        self.usage = Usage(0, self.cgroup)
        self.process = None

    def start(self, *command: str) -> None:
        """Start a super-server, and wait until something listens."""
        self.process = subprocess.Popen(self._inside(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.usage.pid = self.process.pid
        _await_port(self.port)

    def start_tcpserver(self, *command: str) -> None:
        self.start("tcpserver", "-HRl0", "-c", "500", "-b", "256", "127.0.0.1", str(self.port), *command)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
        if self.cgroup:
            _remove_cgroup(self.cgroup)

    def _inside(self, command) -> "list[str]":
        enter = 'echo $$ >"$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.cgroup / "cgroup.procs"), *command] if self.cgroup else list(command)


class Popper(Server):
    """popper under tcpserver, with a password file and a mailbox of its own: as nobody for root, else as oneself.
    directive: one more line of its configuration."""

    def __init__(self, python: Python, launcher: Path, place: Path, directive: str = "") -> None:
        super().__init__(_popper_name(python, directive))
        place = place / self.name.replace(" ", "-")
        mail = place / "mail"
        mail.mkdir(parents=True)
        os.chmod(place, 0o755)
        self.path = mail / USER
        (place / "popper.conf").write_text(CONFIGURATION.format(place=place) + directive + "\n")
        (place / "users").write_text(f"{USER}:{HASH}:{NOBODY}:{NOBODY}::/:\n")
        if os.geteuid() == 0:
            os.chown(mail, NOBODY, NOBODY)
        self.start_tcpserver(str(launcher), "-C", str(place / "popper.conf"))

    def fill(self, mailbox: Path) -> None:
        self.path.unlink(missing_ok=True)
        shutil.copyfile(mailbox, self.path)
        if os.geteuid() == 0:
            os.chown(self.path, NOBODY, NOBODY)
        _make_old(self.path)


class Bare(Server):
    """The least Python, under tcpserver."""

    def __init__(self, python: Python, place: Path) -> None:
        super().__init__(f"bare Python {python.version}")
        self.replies = place
        self.start_tcpserver(python.path, "-IS", str(Path(__file__).parent / "bare.py"), str(place))

    def fill(self, mailbox: Path) -> None:
        write_replies(mailbox.read_bytes(), self.replies)


class OfTheSystem(Server):
    """A server of system accounts with mailboxes in /var/mail, made by the scripts in `scripts`."""

    def __init__(self, name: str, scripts: Path, number: int) -> None:
        user = f"pop{number:04}"
        super().__init__(name, user, f"pw-{user}")
        self.path = Path("/var/mail") / user
        self.scripts = scripts

    def fill(self, mailbox: Path) -> None:
        template = "empty" if mailbox.name == "empty.mbox" else str(mailbox)
        subprocess.run([self.scripts / "reset_mailbox.sh", "mbox", template, self.user], check=True)

    def stop(self) -> None:
        super().stop()
        for left in self.path.parent.glob(f"*{self.user}*"):
            left.unlink()


class SystemPopper(OfTheSystem):
    """popper under tcpserver, as an administrator has it; only that it looks up no names, as the others do not.
    directive: a line of configuration, for which a file is made in `place`."""

    def __init__(self, python: Python, launcher: Path, scripts: Path, number: int, place: Path, directive: str) -> None:
        super().__init__(_popper_name(python, directive), scripts, number)
        flags = ["-R"]
        if directive:
            configuration = place / f"{self.user}.conf"
            configuration.write_text(directive + "\n")
            flags += ["-C", str(configuration)]
        self.start_tcpserver(str(launcher), *flags)


class DaemonPopper(OfTheSystem):
    """popper on its own, as an administrator has it, with limits that let one address come as often as it likes."""

    def __init__(self, python: Python, launcher: Path, scripts: Path, number: int, place: Path) -> None:
        super().__init__(f"popper daemon {python.version}", scripts, number)
        configuration = place / f"daemon-{self.user}.conf"
        configuration.write_text(f"bindto 127.0.0.1:{self.port}\nlookup no\nsameaddrmax 0\nmaxsessions 400\n"
                                 f"control {place}/control-{self.user}\nguessers {place}/guessers-{self.user}\n")
        self.start(str(launcher), "-C", str(configuration))


class Other(OfTheSystem):
    """One of the servers that `scripts`/peers/NAME.sh starts and stops."""

    def __init__(self, name: str, scripts: Path, number: int) -> None:
        super().__init__(name, scripts, number)
        self.script = str(scripts / "peers" / f"{name}.sh")
        if not self.cgroup:
            raise SystemExit("what other servers spend is seen in cgroups, version 2, only")
        command = self._inside([self.script, "start", str(self.port)])
        for _ in range(5):                   # a script may look for a PID file that its server has yet to write
            if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                return
            self._end_all()
        self.stop()
        raise SystemExit(f"{name} does not start")

    def stop(self) -> None:
        subprocess.run([self.script, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._end_all()
        super().stop()

    def _end_all(self) -> None:
        """End what is left in the cgroup, which is all ours."""
        deadline = time.monotonic() + 10
        while self.usage.pids() and time.monotonic() < deadline:
            for pid in self.usage.pids():
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)


class Inetd:
    """One inetd with a line for each program: (name, program, arguments). -> `services`, in the same order."""

    class Service:
        def __init__(self, name: str) -> None:
            self.name = name
            self.port = _free_port()

    def __init__(self, place: Path, programs) -> None:
        user = pwd.getpwuid(os.geteuid()).pw_name
        self.services, lines = [], []
        for name, program, *arguments in programs:
            service = self.Service(name)
            self.services.append(service)
            words = " ".join([str(program), str(program), *arguments])
            lines.append(f"127.0.0.1:{service.port} stream tcp nowait.60000 {user} {words}\n")
        (place / "inetd.conf").write_text("".join(lines))
        self.process = subprocess.Popen(["inetd", "-i", str(place / "inetd.conf")], stdin=subprocess.DEVNULL,
                                        env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
        for service in self.services:
            _await_port(service.port)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def one_line(place: Path, name: str, python: Python, flags: str) -> Path:
    """A Python program of one line that only greets."""
    path = place / name
    path.write_text(f"#!{python.path} {flags}\n{GREETING}\n")
    path.chmod(0o755)
    return path


def set_up_others(scripts: Path) -> None:
    """Fetch and prepare the other servers, unless that is done."""
    wanted = (OTHERS / "popa3d" / "usr", OTHERS / "tpl" / "big.mbox.json", Path("/usr/sbin/dovecot"))
    if not all(path.exists() for path in wanted):
        print("fetching the other servers ...", file=sys.stderr)
        subprocess.run([scripts / "run_peers.sh", "setup"], check=True, stdout=subprocess.DEVNULL)


def _popper_name(python: Python, directive: str) -> str:
    return f"popper {python.version}{directive and ', ' + directive}"


def _make_cgroup(name: str) -> "Path | None":
    """A new cgroup (version 2), or None where there can be none."""
    if os.geteuid() != 0:
        return None
    mounts = [line.split() for line in Path("/proc/mounts").read_text().split("\n")]
    mount = next((words[1] for words in mounts if words[2:3] == ["cgroup2"]), None)
    if mount is None:
        return None
    cgroup = Path(mount) / f"popper-bench.{os.getpid()}.{name.replace(' ', '-')}"
    try:
        cgroup.mkdir()
    except OSError:
        return None
    return cgroup


def _remove_cgroup(cgroup: Path) -> None:
    """Wait for the last session to end, and remove it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            cgroup.rmdir()
            return
        except OSError:
            time.sleep(0.05)
    print(f"{cgroup} still has processes: {(cgroup / 'cgroup.procs').read_text().split()}", file=sys.stderr)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.02)


def _make_old(path: Path) -> None:
    """A mailbox that has just been changed may be looked at more than once; most were changed before."""
    then = time.time() - 3600
    os.utime(path, (then, then))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
