"""Other processes, for locks are between processes."""

import encodings.ascii                       # noqa: F401, who becomes nobody may not be let into the library
import encodings.idna                        # noqa: F401, nor into this
import fcntl
import os
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest

from popper.errors import Refused

# What runs in a child of ours is forked by the test, whatever threads there are.
forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def refusal(call, *arguments):
    """The Refused that a call raises."""
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value


@contextmanager
def sticky_spool():
    """A directory like a world-writable spool, in which nobody has a mailbox and root was there first."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o1777)
        (Path(name) / "nobody").write_bytes(b"mail\n")
        os.chown(Path(name) / "nobody", 65534, 65534)
        yield Path(name)


def dead_process():
    """The number of a process that is no more."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def state_of(pid):
    """(letter by which the system calls the state of a process, its parent's number); "" for one that is no more."""
    try:
        letter, parent = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return letter, int(parent)


def has_ended(pid):
    """Whether a process has ended, reaped or not."""
    return state_of(pid)[0] in ("", "Z", "X")


def is_zombie(pid):
    """Whether a process has ended, and its parent has yet to ask how."""
    return state_of(pid)[0] == "Z"


def in_child(call, before=None):
    """What `call` gives, in words, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            if before:
                before()
            answer = str(call())
        except BaseException:
            answer = traceback.format_exc()
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    answer = b""
    while piece := os.read(reading, 65536):
        answer += piece
    os.close(reading)
    os.waitpid(child, 0)
    return answer.decode()


def as_nobody(call):
    """The same, for a process that was root."""
    def give_up_root():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    return in_child(call, give_up_root)


def as_ordinary_user(call):
    """What `call` gives, in words, for whoever is not root."""
    return as_nobody(call) if os.geteuid() == 0 else in_child(call)


def is_fcntl_locked(path):
    """Whether another process could not take the lock that delivery agents take."""
    def attempt():
        with open(path, "rb+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return "locked"
            return "free"
    return {"locked": True, "free": False}[in_child(attempt)]


class Program:
    """A Python program in a process of its own that says a line when it is ready."""

    def __init__(self, text, *arguments):
        self.process = subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.said = self.process.stdout.readline().strip()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        self.process.wait()


def make_old(path, seconds):
    """Set a file's time back, or forward where seconds are negative."""
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)
