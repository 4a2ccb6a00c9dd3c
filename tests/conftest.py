"""What the tests share: an installed popper, a syslog of their own, real accounts, real super-servers.

Tests marked `root` make accounts and start super-servers; for an ordinary user they are skipped, and counted in one
line at the end.
"""

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import secrecy
from popper.options import Options

# Of this run alone: another one by the same user would close it to the users that sessions are held for.
os.environ["PYTEST_DEBUG_TEMPROOT"] = ROOM = tempfile.mkdtemp(prefix="pt.")
os.chmod(ROOM, 0o755)
TREE = Path(__file__).resolve().parent.parent
PASSWORD = "s3cret pass"

claims = []                    # sockets whose names keep a port for this run: another may share the network with it
alone = []                     # the locked file that says that no other run may use what is the system's


def pytest_configure(config):
    config.pluginmanager.register(secrecy)


def pytest_sessionstart(session):
    """Whoever runs us in the background may have had SIGINT ignored; what the tests start is to hear it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session):
    session.config.keep_room = bool(session.exitstatus)


def pytest_unconfigure(config):
    if not getattr(config, "keep_room", True):
        shutil.rmtree(ROOM, ignore_errors=True)
    for one in (*claims, *alone):
        one.close()


def pytest_collection_modifyitems(config, items):
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_collection_finish(session):
    """One run at a time of those that need root: accounts, spool and log socket are the system's."""
    if os.geteuid() == 0 and any(item.get_closest_marker("root") for item in session.items):
        alone.append(open("/run/popper-tests.lock", "w"))
        fcntl.flock(alone[0], fcntl.LOCK_EX)


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "needs root" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests were skipped: they need root (accounts, servers, spools)")


def wait_until(condition, seconds=10.0):
    """Poll for something another process does; -> its value, or fail."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def signal_mask():
    """An update leaves signals blocked in its process, and super-servers would inherit that."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture(autouse=True)
def guessers(request):
    """The wrong passwords of one test slow down no other: all of them come from here."""
    if alone and request.node.get_closest_marker("root"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(Options().guessers)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The program as `make install` lays it out: a directory with sbin/, lib/ and share/ in it."""
    place = tmp_path_factory.mktemp("installed")
    place.chmod(0o755)
    for parent in place.parents:
        if parent.stat().st_uid == os.geteuid() and str(parent) not in ("/", "/tmp"):
            parent.chmod(0o755)
    subprocess.run(["make", "-s", "install", f"PREFIX={place}", f"PYTHON={sys.executable}"], cwd=TREE, check=True)
    return place


class Syslog:
    """Reads what is sent to a datagram socket, as syslogd would. lines: (priority, text) of every line so far."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o666)
        self.lines = []
        secrecy.collectors.append(self.lines)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                octets = self.socket.recv(65536)
            except OSError:
                return
            priority, _, text = octets.decode("utf-8", "backslashreplace").rstrip("\0\n").partition(">")
            self.lines.append((int(priority[1:]), text))

    @property
    def texts(self):
        return [text for _, text in self.lines]

    def wait_for(self, words, since=0):
        """The first line with these words in it, when it has come."""
        return wait_until(lambda: next((text for text in self.texts[since:] if words in text), None))


@pytest.fixture(scope="session")
def syslog(tmp_path_factory):
    """A collector at /dev/log. Where the system has its own there, ours is mounted over it for our children alone."""
    if os.path.lexists("/dev/log"):
        log = Syslog(tmp_path_factory.mktemp("log") / "log")
        yield log
    else:
        log = Syslog("/dev/log")
        yield log
        os.unlink("/dev/log")
    log.socket.close()


def with_syslog(syslog, command):
    """The command line that runs a command with its log going to the collector."""
    if syslog.path == "/dev/log":
        return command
    return ["unshare", "-m", "sh", "-c", f'mount --bind {syslog.path} /dev/log && exec "$@"', "sh", *command]


class RealAccount:
    """An account of the system with a mailbox in the real spool."""

    def __init__(self, name, shell="/bin/sh", password=PASSWORD):
        self.name = name
        self.password = password
        subprocess.run(["userdel", "-r", name], capture_output=True)
        subprocess.run(["useradd", "-m", "-s", shell, name], check=True, capture_output=True)
        subprocess.run(["chpasswd"], input=f"{name}:{password}\n", text=True, check=True)
        self.entry = pwd.getpwnam(name)
        self.mailbox = Path("/var/mail") / name

    def deliver(self, octets):
        """Put a mailbox in place, as its owner's."""
        self.mailbox.write_bytes(octets)
        shutil.chown(self.mailbox, self.name, "mail")
        self.mailbox.chmod(0o660)
        # An old file, as most are: one changed this very moment is looked at again before each read.
        os.utime(self.mailbox, (time.time() - 3600,) * 2)

    def remove(self):
        subprocess.run(["pkill", "-KILL", "-u", self.name], capture_output=True)
        subprocess.run(["userdel", "-r", self.name], capture_output=True)
        for left in Path("/var/mail").glob(f"*{self.name}*"):
            left.unlink(missing_ok=True)


def change(account, *command, **how):
    """Run a command of the shadow suite, again when another has the password files locked."""
    line = [*command] if how else [*command, account.name]
    wait_until(lambda: subprocess.run(line, capture_output=True, **how).returncode == 0)


@pytest.fixture(scope="session")
def account():
    joe = RealAccount("popjoe")
    yield joe
    joe.remove()


@pytest.fixture
def spool(account):
    """The account with no mailbox and no locks."""
    for left in Path("/var/mail").glob(f"*{account.name}*"):
        left.unlink(missing_ok=True)         # a session that ends just now may be quicker
    return account


def free_port():
    """A port of 127.0.0.1 that nobody has, and that no other run of the tests takes until this one has ended."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0popper-tests-port-{port}")
        except OSError:
            claim.close()
            continue
        claims.append(claim)
        return port


class SuperServer:
    """A running super-server on 127.0.0.1; `port` is where popper answers."""

    def __init__(self, command, port):
        self.port = port
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_until(self._answers)

    def _answers(self):
        assert self.process.poll() is None, "the super-server ended"
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture
def start_inetd(tmp_path, syslog):
    """start_inetd(program, *arguments) -> SuperServer: a real openbsd-inetd with one line."""
    running = []

    def start(program, *arguments):
        port = free_port()
        line = f"127.0.0.1:{port} stream tcp nowait.60000 root {program} {' '.join((str(program), *arguments))}\n"
        conf = tmp_path / f"inetd.{port}.conf"
        conf.write_text(line)
        running.append(SuperServer(with_syslog(syslog, ["/usr/sbin/inetd", "-d", "-i", str(conf)]), port))
        return running[-1]
    yield start
    for server in running:
        server.stop()


@pytest.fixture
def start_tcpserver(syslog):
    """start_tcpserver(program, *arguments) -> SuperServer: a real tcpserver."""
    running = []

    def start(program, *arguments):
        port = free_port()
        running.append(SuperServer(with_syslog(syslog, ["tcpserver", "-HRl0", "127.0.0.1", str(port), str(program),
                                                        *arguments]), port))
        return running[-1]
    yield start
    for server in running:
        server.stop()
