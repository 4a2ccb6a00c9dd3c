"""A mailbox in a place, sessions over it, and the system calls at which a session can be struck."""

import collections
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

from matrix_calls import BULLETIN, MAILBOX, NEWS
from victim import forked

from popper.auth.crypt import hashed

USER, PASSWORD = "joe", "secret"
LOGIN = f"USER {USER}\r\nPASS {PASSWORD}\r\n".encode()
NOBODY, MAIL = 65534, 8
PR_SET_CHILD_SUBREAPER = 36
LOCK_TIMEOUT = 2               # seconds
PATIENCE = 30                  # seconds after which a session is taken to hang

# System calls that change something on a disk, or in who has it locked, and those that only look.
CHANGING = ("openat", "open", "link", "linkat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir",
            "write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate", "copy_file_range", "fchmod",
            "utimensat", "fsync", "fdatasync", "flock", "fcntl", "close")
LOOKING = ("read", "pread64", "preadv", "preadv2", "newfstatat", "statx", "fstat", "lstat", "stat")

# A line of strace: who, which call, its arguments. In these a path, perhaps one of another name in each session, and the
# length and offset of what is written.
LINE = re.compile(r"^(\d*) *(\w+)\((.*)")
PATH = re.compile(r'"(/[^"]*)"|<(/[^>]*)>(\(deleted\))?')
CHANCE = re.compile(r"/tmp/popper\.|/\.fuse_hidden")
LENGTHS = re.compile(r", (\d+)(?:, (\d+))?(?:\) += | <unfinished)")


class Strike(collections.namedtuple("Strike", "call path when nth opened length offset")):
    """A system call of a session: the `when`-th of its name on this path, or, where the path is None, of all.

    nth: among the calls of this name, by its process, in this place. opened: whether the login had been answered.
    length, offset: of what is written, or None.
    """

    def strace(self, what: str, more: str = "") -> "list[str]":
        """The words that make strace do `what` at this call; more: "+" for from there on."""
        path = ["-P", self.path] if self.path else []
        return [*path, "-e", f"trace={self.call}", "-e", f"inject={self.call}:{what}:when={self.when}{more}"]

    def __str__(self) -> str:
        return f"{self.call} {self.when} of {self.path or 'all'}"


class Spool:
    """Directories in a place, with one user's mailbox, laid out for a call."""

    def __init__(self, place, bench: Path, call) -> None:
        self.place = place
        self.free = call.free                # pages that are left where the disk is nearly full
        self.bench = bench                   # for what is not the mailbox's: configuration, logs, what sendmail got
        self.root = os.geteuid() == 0
        self.kept = call.kept
        adopt_orphans()
        for name in ("spool", "tmp"):
            directory = place.behind / name
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            if self.root:
                os.chown(directory, *((0, MAIL) if call.kept and name == "spool" else (NOBODY, NOBODY)))
            directory.chmod(0o2775 if call.kept and name == "spool" else 0o700)
        self.path = place.behind / MAILBOX
        self.sent = bench / "sent"
        self.sent.mkdir(exist_ok=True)
        self.sent.chmod(0o777)
        (bench / "bulletins").mkdir(exist_ok=True)
        (bench / "bulletins" / BULLETIN).write_bytes(NEWS)
        self.conf = self._configure(call.directives)
        self.log = bench / "strace"

    def _configure(self, directives: "dict[str, str]") -> Path:
        ids = f":{NOBODY}:{NOBODY}::{self.bench}:" if self.root else ""
        (self.bench / "users").write_text(f"{USER}:{hashed(PASSWORD.encode(), b'$1$saltsalt$').decode()}{ids}\n")
        sendmail = self.bench / "sendmail"
        sendmail.write_text(f"#!/bin/sh\ncat >{self.sent}/part.$$ && mv {self.sent}/part.$$ {self.sent}/whole.$$\n")
        sendmail.chmod(0o755)
        directives = {name: value.format(base=self.bench, tmp=self.place.directory / "tmp")
                      for name, value in directives.items()}
        values = {"auth": "file", "password_file": self.bench / "users", "mailbox": self.place.directory / MAILBOX,
                  "fail_delay": 0, "log": "stderr", "lock_timeout": LOCK_TIMEOUT, "sendmail": sendmail} | directives
        conf = self.bench / "popper.conf"
        conf.write_text("".join(f"{name} {value}\n" for name, value in values.items()))
        return conf

    # -- files ---------------------------------------------------------------------------------------------------

    def lay(self, files: "dict[str, bytes]") -> None:
        """Put these files into the place, under their old inodes, and nothing else."""
        self.place.relieve()
        for left in [*self._files(), *self.sent.iterdir()]:
            if self._name(left) not in files:
                left.unlink()
        for name, octets in files.items():
            path = self.place.behind / name
            with open(path, "r+b" if path.exists() else "wb") as file:
                file.truncate(0)
                file.write(octets)
            if self.root:
                os.chown(path, NOBODY, MAIL if self.kept else NOBODY)
            path.chmod(0o600)
        then = time.time() - 3600
        os.utime(self.path, (then, then))
        self.place.fill(self.free)

    def _files(self) -> "list[Path]":
        return [each for where in ("spool", "tmp") for each in (self.place.behind / where).iterdir()]

    def _name(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"

    def mailbox(self) -> bytes:
        return self.path.read_bytes()

    def deliver(self, octets: bytes) -> None:
        """Add mail as an agent of another host does, which minds no lock of this one."""
        with open(self.path, "ab") as file:
            file.write(octets)

    def names(self) -> "list[str]":
        """What lies beside the mailbox and where popper keeps other files. Names under which a file is hidden until it
        is closed are waited for."""
        deadline = time.monotonic() + 5
        while True:
            found = sorted(map(self._name, self._files()))
            if not any("/.fuse_hidden" in name for name in found) or time.monotonic() > deadline:
                return [name for name in found if name != MAILBOX]
            time.sleep(0.002)

    def contents(self, names: "list[str]") -> "dict[str, bytes]":
        return {name: (self.place.behind / name).read_bytes() for name in names}

    def submitted(self) -> "list[bytes]":
        """What sendmail took."""
        return [each.read_bytes() for each in self.sent.glob("whole.*")]

    # -- sessions ------------------------------------------------------------------------------------------------

    def talk(self, lines: bytes, words: "tuple[str, ...]" = (), strace: "tuple[str, ...]" = (), between=None) -> "Talk":
        """Hold a session. words: what is special about its process (`victim`); strace: what strace is to do to it;
        between: called when the login was answered with +OK, before `lines` are sent."""
        (asking, telling), (hearing, saying), (watching, logging), (going, go) = (os.pipe() for _ in range(4))
        child = forked(self.conf, (f"place={self.place.directory / 'tmp'}", *words), (asking, saying, logging), going)
        for descriptor in (asking, saying, logging, going):
            os.close(descriptor)
        # Of its children the keeper alone is ours to strike.
        tracer = _traced(child, self.log, (*["-f"] * self.kept, *strace)) if strace else None
        os.write(go, b"!")
        os.close(go)
        heard = {hearing: b"", watching: b""}
        deadline, opened, hung = time.monotonic() + PATIENCE, False, False
        _send(telling, LOGIN)
        sources = [hearing, watching]
        while sources and not hung:
            ready, _, _ = select.select(sources, (), (), max(0, deadline - time.monotonic()))
            hung = not ready
            for source in ready:
                octets = os.read(source, 65536)
                heard[source] += octets
                if not octets:
                    sources.remove(source)
            if not opened and heard[hearing].count(b"\n") >= 3:
                opened = True
                if heard[hearing].split(b"\r\n")[2].startswith(b"+OK"):
                    if between:
                        between()
                    _send(telling, lines)
        if hung:
            os.kill(child, signal.SIGKILL)
        for descriptor in (telling, hearing, watching):
            os.close(descriptor)
        os.waitpid(child, 0)
        if tracer:
            tracer.wait()
        bury_orphans()
        return Talk(heard[hearing], heard[watching].decode("utf-8", "replace"), hung)

    def login(self) -> "tuple[Talk, float]":
        """An undisturbed session of the next who comes, that deletes nothing. -> (what was said, seconds)"""
        begun = time.monotonic()
        return self.talk(b"QUIT\r\n"), time.monotonic() - begun

    def strikes(self, lines: bytes, words: "tuple[str, ...]", between=None) -> "tuple[list[Strike], Talk]":
        """The system calls of an undisturbed session that concern this place, in order, and what was said."""
        calls = ",".join("?" + name for name in CHANGING + LOOKING)          # "?": if this machine has it
        talk = self.talk(lines, words, ("-y", "-s", "64", "-e", f"trace={calls}"), between)
        count, opened = collections.Counter(), False
        found: "dict[Strike, None]" = {}     # each once, though two processes may come to one
        for line in filter(None, map(LINE.match, self.log.read_text().splitlines())):
            process, call, rest = line.groups()
            opened = opened or f'"+OK {USER} has ' in rest
            path, nameless = self._concerned(rest)
            count.update([(process, call), (process, call, path), (process, call, bool(path))])
            if not path or call == "fcntl" and "F_SETLK" not in rest:
                continue
            written = LENGTHS.search(rest) if "write" in call else None
            length, offset = (int(written[1]), int(written[2] or 0)) if written else (None, None)
            path, when = (None, count[process, call]) if nameless else (path, count[process, call, path])
            found[Strike(call, path, when, count[process, call, True], opened, length, offset)] = None
        return list(found), talk

    def _concerned(self, arguments: str) -> "tuple[str, bool]":
        """The first path in this place that a call is about, and whether the file has no name, or one by chance."""
        for quoted, opened, deleted in PATH.findall(arguments):
            path = quoted or opened
            if path.startswith(f"{self.place.directory}/"):
                return path, bool(deleted) or bool(CHANCE.search(path))
        return "", False


class Talk(collections.namedtuple("Talk", "said log hung")):
    """A session that was held. said: all replies; log: what it logged; hung: whether it had to be killed."""

    @property
    def opened(self) -> bytes:
        """The reply to PASS, or b"" where the session did not get there."""
        return (self.said.split(b"\r\n") + [b""] * 3)[2]

    @property
    def trouble(self) -> str:
        """The end of its log."""
        return " | ".join(self.log.strip().splitlines()[-2:])

    @property
    def signed_off(self) -> bool:
        return self.said.endswith(b" signing off.\r\n")


def adopt_orphans() -> None:
    """Have processes whose parent was killed become children of this one. A process that has ended but is waited for
    by nobody still looks alive, and the first process of some machines takes its time."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_orphans() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _traced(child: int, log: Path, words: "tuple[str, ...]"):
    """A strace of a process that waits for it."""
    tracer = subprocess.Popen(["strace", "-q", "-o", log, *words, "-p", str(child)], stderr=subprocess.DEVNULL)
    while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text():
        assert tracer.poll() is None, "strace may not trace here"
        time.sleep(0.001)
    return tracer


def _send(descriptor: int, octets: bytes) -> None:
    try:
        os.write(descriptor, octets)
    except BrokenPipeError:
        pass
