"""A delivery agent that honours one kind of lock only, for as long as its standard input lasts.

A job is a line of JSON and the octets to be written: {"how": "fcntl" | "dotlock" | "old mail", "path": of the mailbox,
"octets": [so many in each write], "owner": [uid, gid]}. The answer is a line: "done", or what went wrong.

old mail: what an older popper leaves behind when it dies, in `.NAME.pop`, under the lock that all poppers take on it;
not while an update of ours waits to be finished, for that may be about such mail, and is refused when it has changed.
"""

import fcntl
import json
import os
import random
import sys
import time

PATIENCE = 60                  # seconds until a lock is thought to be there for ever


def write(descriptor, octets, sizes):
    """In several writes, that take their time now and then."""
    pause = random.choice((0, 0, 0.0005, 0.02))
    for size in sizes:
        assert os.write(descriptor, octets[:size]) == size
        octets = octets[size:]
        time.sleep(pause * random.random())


def under_fcntl(path, octets, sizes, owner):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    write(descriptor, octets, sizes)
    os.close(descriptor)


def under_dotlock(path, octets, sizes, owner):
    lock, mine = path + ".lock", f"{os.path.dirname(path)}/_agent.{os.getpid()}"
    deadline = time.monotonic() + PATIENCE
    with open(mine, "w") as file:
        # Some say who they are, some do not.
        file.write(random.choice((f"{os.getpid()}\n{os.uname().nodename}\n", "0", "")))
    try:
        while True:
            try:
                os.link(mine, lock)
                break
            except FileExistsError:
                assert time.monotonic() < deadline, f"{lock} is never removed"
                time.sleep(random.random() / 50)
    finally:
        os.unlink(mine)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        write(descriptor, octets, sizes)
        os.close(descriptor)
    finally:
        os.unlink(lock)


def left_behind(path, octets, sizes, owner):
    directory, name = os.path.split(path)
    path, record = f"{directory}/.{name}.pop", f"{directory}/.{name}.redo"
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, f"{path} is never free"
        descriptor = opened_as(owner, path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(descriptor)) and not os.path.exists(record):
                break
        except OSError:
            pass
        os.close(descriptor)
        time.sleep(random.random() / 50)
    write(descriptor, octets, sizes)
    os.close(descriptor)


def opened_as(owner, path):
    """The file opened, or made, by its owner with the group of its directory."""
    if os.geteuid() == 0:
        os.setegid(os.stat(os.path.dirname(path)).st_gid)
        os.seteuid(owner[0])
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
            os.setegid(0)


HOW = {"fcntl": under_fcntl, "dotlock": under_dotlock, "old mail": left_behind}

if __name__ == "__main__":
    while line := sys.stdin.buffer.readline():
        job = json.loads(line)
        sent = sys.stdin.buffer.read(sum(job["octets"]))
        try:
            HOW[job["how"]](job["path"], sent, job["octets"], job["owner"])
            said = "done"
        except Exception as trouble:
            said = f"{type(trouble).__name__}: {trouble}"
        print(said, flush=True)
