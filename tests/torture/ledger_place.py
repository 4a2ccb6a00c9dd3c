"""Where the torture takes place: a spool with users, servers for it, and delivery agents.

Debian: system accounts and /var/mail, which belongs to root and to the group mail, so that the server needs its lock
keeper. Ordinary: a directory of one user, who runs everything himself.
"""

import contextlib
import itertools
import json
import os
import pwd
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from conftest import TREE
from ledger_caller import Caller, Process, is_readable, serving, wait_for_port
from ledger_mail import DOMAIN, Shape
from popper.auth import crypt

PASSWORD = "tanstaaf"
UID = GID = 54321              # of the ordinary user, when root runs the tests; nobody else's
FIRST_UID = 61840              # of Debian's users, likewise
PATIENCE = 120                 # seconds until a delivery is thought never to end

SHAPES = {
    "tiny": Shape((1, 100)),
    "small": Shape((40, 3000)),
    "medium": Shape((1000, 30_000), floor=5),
    "mixed": Shape((40, 100_000), ceiling=20),
    "crlf": Shape((40, 20_000), crlf=10),
    "both": Shape((40, 4000), crlf=5, floor=3),
    "new": Shape((200, 8000), missing=True),
    "many": Shape((40, 900), floor=150, ceiling=500),
    "big": Shape((10_000, 700_000), floor=25, ceiling=60),
}

# server: what its configuration says besides. All serve the same spool.
SERVERS = {
    "plain": {},
    "unsynced": {"fsync": "no"},
    "impatient": {"timeout": 2},
    "eager": {"update_on_abort": "yes"},
    "marking": {"update_status": "yes"},
}


class Server:
    """A running daemon."""

    def __init__(self, program, conf, log, identity):
        self.log = log
        with open(log, "ab") as file:
            self.popen = subprocess.Popen([program, "-C", conf], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                          stderr=file, start_new_session=True, **identity)
        self.process = Process(self.popen.pid)
        self.port = wait_for_port(log)
        self.crew = {child.pid for child in self.children()}

    def call(self, ledger):
        connected = socket.create_connection(("127.0.0.1", self.port))
        return Caller(connected, ledger, lambda: serving(self.process, connected, self.crew))

    def children(self):
        """Its children; whoever asks is to close them."""
        children = self.process.children()
        for child in children:
            child.close()
        return children

    def stop(self):
        """-> whether it had been running all the time. Sessions that are there end with it."""
        running = self.popen.poll() is None
        with contextlib.suppress(ProcessLookupError):
            self.popen.terminate()           # from now on nobody is missed that ends
        for session in self.process.children():
            for process in (*session.children(), session):
                process.send(signal.SIGKILL)
                process.wait()
                process.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGTERM)
        self.popen.wait()
        self.process.close()
        return running


class Place:
    """A spool, its users, and what goes on there, between `begin` and `leave`.

    python: runs the servers and the agents; servers: names out of SERVERS; bulletins: whether there is a directory of
    them.
    """

    def __init__(self, python, servers=("plain",), bulletins=False):
        # Not one of pytest's directories: these are shut to others whenever some pytest starts.
        self.place = Path(tempfile.mkdtemp(prefix="popper-ledger-"))
        self.place.chmod(0o755)
        self.python = python
        self.program = f"{self.place}/installed/sbin/popper"
        self.bulletins = self.place / "bulletins" if bulletins else None
        self.agents = queue.SimpleQueue()
        self.users = {self.prefix + name: shape for name, shape in SHAPES.items()}
        self.servers = dict.fromkeys(servers)
        self.traces = itertools.count()

    def begin(self):
        """Install the program, make the users and their mailboxes, start the servers."""
        subprocess.run(["make", "-s", "install", f"PREFIX={self.place}/installed", f"PYTHON={self.python}"], cwd=TREE,
                       check=True, stdout=subprocess.DEVNULL)
        self._prepare()
        if self.bulletins:
            self.bulletins.mkdir()
            self.bulletins.chmod(0o755)
        passwords = self.place / "passwords"
        hashed = crypt.hashed(PASSWORD.encode(), b"$5$rounds=1000$saltofpopper$").decode()
        passwords.write_text("".join(f"{user}:{hashed}::::{self.home(user)}:/bin/sh\n" for user in self.users))
        for user, shape in self.users.items():
            if not shape.missing:
                self._make(self.mailbox(user))
        for name in self.servers:
            self._serve(name, passwords)

    # -- the servers ---------------------------------------------------------------------------------------------

    def _serve(self, name, passwords):
        said = {"bindto": "127.0.0.1:0", "password_file": passwords, "mailbox": f"{self.spool}/%u",
                "auth": "file", "hostname": "pop.example.org", "log": "stderr", "lookup": "no", "fail_delay": 0,
                "guess_delay_max": 0,
                "sameaddrmax": 0, "control": self.place / f"{name}.control",
                **({"bulletins": self.bulletins} if self.bulletins else {}), **SERVERS[name]}
        conf = self.place / f"{name}.conf"
        conf.write_text("".join(f"{directive} {value}\n" for directive, value in said.items()))
        log = self.place / f"{name}.log"
        log.touch()
        log.chmod(0o666)
        self.servers[name] = Server(self.program, conf, log, self.identity)

    def call(self, ledger, server):
        """A connection to a server, greeted. "inetd": a process of its own, with the configuration of "plain"."""
        if server != "inetd":
            caller = self.servers[server].call(ledger)
        else:
            ours, theirs = socket.socketpair()
            with theirs, open(self.servers["plain"].log, "ab") as log:
                popen = subprocess.Popen([self.program, "-C", self.place / "plain.conf"], stdin=theirs, stdout=theirs,
                                         stderr=log, start_new_session=True, **self.identity)
            caller = Caller(ours, ledger, lambda: Process(popen.pid) if popen.poll() is None else None)
            caller.popen = popen
        try:
            caller.reply()
        except BaseException:
            caller.close()
            raise
        return caller

    def log(self):
        """What the servers logged, one server after the other."""
        return "".join(log.read_text(errors="replace") for log in sorted(self.place.glob("*.log")))

    def trace_file(self):
        """A name that was not given before."""
        return f"{self.place}/strace.{next(self.traces)}"

    # -- the spool -----------------------------------------------------------------------------------------------

    def mailbox(self, user):
        return f"{self.spool}/{user}"

    def inode(self, user):
        """Of the mailbox, or None where there is none."""
        try:
            return os.stat(self.mailbox(user)).st_ino
        except FileNotFoundError:
            return None

    def octets(self, user):
        """Of the mailbox, read without a trace: procmail waits a second when somebody read it a moment ago."""
        with open(os.open(self.mailbox(user), os.O_RDONLY | os.O_NOATIME), "rb") as file:
            return file.read()

    def left_over(self):
        """Names in the spool that are of our making, and are no mailbox."""
        return sorted(name for name in os.listdir(self.spool) if name not in self.users and self._is_ours(name))

    def stragglers(self):
        """The numbers of processes that run our program, its servers apart."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if self.program.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(int(pid))
        return set(found) - {pid for server in self.servers.values() for pid in (server.popen.pid, *server.crew)}

    # -- the agents ----------------------------------------------------------------------------------------------

    def append(self, how, user, octets, sizes):
        """Have an agent deliver this."""
        try:
            agent = self.agents.get_nowait()
        except queue.Empty:
            agent = subprocess.Popen([self.python, "-S", Path(__file__).with_name("ledger_agent.py")],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, **self.identity)
        job = {"how": how, "path": self.mailbox(user), "octets": sizes, "owner": self.owner(user)}
        try:
            agent.stdin.write(json.dumps(job).encode() + b"\n" + octets)
            agent.stdin.flush()
            answered = is_readable(agent.stdout.fileno(), PATIENCE)
            said = agent.stdout.readline().decode().strip() if answered else f"no answer in {PATIENCE} s"
            assert said == "done", f"{how} agent, for {user}: {said}"
        except BaseException:
            agent.kill()
            raise
        finally:
            self.agents.put(agent)

    def procmail(self, name, user, text):
        """Have procmail deliver this."""
        done = subprocess.run(["procmail", "-f", f"{name}@{DOMAIN.decode()}", *self._procmail(user)], input=text,
                              cwd="/", capture_output=True, timeout=PATIENCE, **self.identity)
        assert done.returncode == 0, f"procmail, for {user}: {done.stderr.decode(errors='replace')}"

    def leave(self, destroy):
        """Stop the servers; -> those that had stopped before. destroy: and keep nothing."""
        stopped = [name for name, server in self.servers.items() if server and not server.stop()]
        while not self.agents.empty():
            self.agents.get().communicate()
        if not destroy:                      # the mailboxes as they are, for whoever looks into it
            for name in os.listdir(self.spool):
                if any(user in name for user in self.users):
                    shutil.copy2(f"{self.spool}/{name}", self.place, follow_symlinks=False)
        self._dismantle()
        if destroy:
            shutil.rmtree(self.place)
        return stopped


class Debian(Place):
    """Accounts of the system, and its spool."""

    spool = "/var/mail"
    identity = {}
    prefix = "ledger-"

    @classmethod
    def pythons(cls):
        yield sys.executable

    @staticmethod
    def is_here():
        """Whether the spool is as Debian has it."""
        status = os.stat("/var/mail")
        return (status.st_mode & 0o7777, status.st_uid) == (0o2775, 0) and status.st_gid not in (0, 100)

    def _prepare(self):
        self._dismantle()                    # of a run that could not do so itself
        for number, user in enumerate(self.users):
            subprocess.run(["useradd", "-m", "-U", "-K", "UID_MAX=65000", "-u", str(FIRST_UID + number),
                            "-s", "/bin/sh", user], check=True, capture_output=True)
            rules = Path(self.home(user)) / ".procmailrc"
            rules.write_text("LOCKSLEEP=1\n")            # it waits eight seconds for a lock else
            os.chown(rules, *self.owner(user))

    def home(self, user):
        return pwd.getpwnam(user).pw_dir

    def owner(self, user):
        entry = pwd.getpwnam(user)
        return entry.pw_uid, entry.pw_gid

    def _make(self, mailbox):
        Path(mailbox).touch(0o660)
        shutil.chown(mailbox, Path(mailbox).name, "mail")
        os.chmod(mailbox, 0o660)

    def _is_ours(self, name):
        return any(user in name for user in self.users)

    def _procmail(self, user):
        return ["-d", user]

    def _dismantle(self):
        for user in self.users:
            subprocess.run(["userdel", "-r", user], capture_output=True)
            for left in Path(self.spool).glob(f"*{user}*"):
                left.unlink()


class Ordinary(Place):
    """A directory of one user, who is not root."""

    prefix = ""
    identity = {"user": UID, "group": GID, "extra_groups": []} if os.geteuid() == 0 else {}

    @property
    def spool(self):
        return self.place / "mail"

    @classmethod
    def pythons(cls):
        """The interpreters that this user can run: one under root's home he cannot."""
        new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
        for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
            with contextlib.suppress(OSError):
                if subprocess.run([python, "-c", new_enough], cwd="/", **cls.identity).returncode == 0:
                    yield python

    def _prepare(self):
        self.spool.mkdir()
        for directory in (self.spool, *map(Path, map(self.home, self.users))):
            directory.mkdir(exist_ok=True)
            os.chown(directory, *self.owner(None))

    def home(self, user):
        return f"{self.place}/home-{user}"

    def owner(self, user):
        return (UID, GID) if os.geteuid() == 0 else (os.geteuid(), os.getegid())

    def _make(self, mailbox):
        Path(mailbox).touch(0o600)
        os.chown(mailbox, *self.owner(None))

    def _is_ours(self, name):
        return True

    def _procmail(self, user):
        return ["-m", "LOCKSLEEP=1", f"DEFAULT={self.mailbox(user)}", "/dev/null"]

    def _dismantle(self):
        pass
