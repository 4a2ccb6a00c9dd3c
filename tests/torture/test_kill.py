"""Kill an update at every system call it makes, or let every one fail; then see what the next opener makes of it.

Slow, therefore not part of `make check`: `make torture`. Needs strace.
"""

import collections
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from popper.errors import Refused
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox

VICTIM = Path(__file__).with_name("victim.py")
MARKER = "getpriority"
CALL = re.compile(r"^\d+ +(\w+)\(")
DELIVERED = b"From late@example.org Sat Nov 21 12:00:00 2026\nSubject: late\n\nDelivered after the crash.\n\n"

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


def mailbox_of(sizes, end=b"\n"):
    """A mailbox of messages with bodies of so many octets."""
    messages = []
    for number, size in enumerate(sizes, 1):
        line = b"Line of message %d, and some more of it." % number
        body = end.join([line] * (size // len(line) + 1))
        messages.append(end.join([b"From joe@example.org Thu Nov 19 10:%02d:00 2026" % number,
                                  b"Message-ID: <%d@example.org>" % number, b"Content-Length: %d" % (len(body) + len(end)),
                                  b"", body, b"", b""]))
    return b"".join(messages)


SHAPES = {
    "first": (mailbox_of([900] * 8), [1], 700),
    "last": (mailbox_of([900] * 8), [8], 700),
    "middle": (mailbox_of([900] * 8), [4], 700),
    "alternate": (mailbox_of([300] * 9), [1, 3, 5, 7], 5000),
    "all": (mailbox_of([300] * 4), [1, 2, 3, 4], 700),
    "tiny gap before a large tail": (mailbox_of([10, 9000, 9000]), [1], 5000),
    "wide gap before a small tail": (mailbox_of([9000, 100, 100]), [1], 5000),
    "CRLF": (mailbox_of([500] * 5, b"\r\n"), [2, 4], 700),
    "no final newline": (mailbox_of([500] * 5).rstrip(b"\n"), [2, 4], 700),
}


def without(octets, numbers, path):
    """The mailbox with these messages cut out, by offsets of a scan that has nothing to do with the update."""
    path.write_bytes(octets)
    store = Mbox(str(path), SpoolLocks(str(path)))
    bounds = [entry.offset for entry in store.scan()] + [len(octets)]
    store.close()
    return b"".join(octets[begin:end] for number, (begin, end) in enumerate(zip(bounds, bounds[1:]), 1)
                    if number not in numbers)


def run(path, chunk, numbers, *strace):
    """Run the victim under strace. -> (exit status, what it said)"""
    done = subprocess.run(["strace", "-f", "-qq", *strace, sys.executable, VICTIM, path, str(chunk),
                           *map(str, numbers)], capture_output=True, text=True)
    return done.returncode, done.stdout


def calls_of_update(tmp_path, octets, chunk, numbers):
    """[(system call, how many of its kind come before and in the update)]: where to strike, in order."""
    path = tmp_path / "counted"
    path.write_bytes(octets)
    log = tmp_path / "strace"
    status, said = run(path, chunk, numbers, "-o", log)
    assert (status, said) == (0, "done\n")
    count, strikes, begun = collections.Counter(), [], False
    for line in log.read_text().splitlines():
        call = CALL.match(line)
        if call:
            count[call[1]] += 1
            begun = begun or call[1] == MARKER
            if begun and call[1] not in (MARKER, "exit_group", "write"):
                strikes.append((call[1], count[call[1]]))
    return strikes


def laid(spool, octets):
    """The mailbox in a spool with nothing else in it."""
    for each in spool.iterdir():
        each.unlink()
    path = spool / "joe"
    path.write_bytes(octets)
    return path


def reopened(path):
    """The mailbox as the next opener leaves it, and what lies beside it then."""
    store = Mbox(str(path), SpoolLocks(str(path)))
    store.locks.session()
    store.scan()
    store.close()
    return path.read_bytes(), sorted(each.name for each in path.parent.iterdir())


@pytest.mark.parametrize("name", SHAPES)
def test_killed_at_every_system_call(tmp_path, name):
    octets, numbers, chunk = SHAPES[name]
    after = without(octets, numbers, tmp_path / "after")
    strikes = calls_of_update(tmp_path, octets, chunk, numbers)
    assert len(strikes) > 20
    spool = tmp_path / "spool"
    spool.mkdir()
    for call, when in strikes:
        path = laid(spool, octets)
        inode = path.stat().st_ino
        status, _ = run(path, chunk, numbers, "-o", "/dev/null", "-e", f"trace={call}",
                        "-e", f"inject={call}:signal=KILL:when={when}")
        assert status == -9, (call, when)
        with open(path, "ab") as file:
            file.write(DELIVERED)
        left, beside = reopened(path)
        assert left in (octets + DELIVERED, after + DELIVERED), f"killed at {call} number {when}"
        assert beside == ["joe"], (call, when)
        assert path.stat().st_ino == inode
    print(f"{name}: {len(strikes)} kill points")


@pytest.mark.parametrize("error", ("EIO", "ENOSPC", "EDQUOT", "ESTALE"))
@pytest.mark.parametrize("name", ("first", "alternate", "tiny gap before a large tail"))
def test_failing_at_every_write(tmp_path, name, error):
    octets, numbers, chunk = SHAPES[name]
    after = without(octets, numbers, tmp_path / "after")
    strikes = [(call, when) for call, when in calls_of_update(tmp_path, octets, chunk, numbers)
               if call in ("pwrite64", "ftruncate", "fsync", "fdatasync", "unlink", "openat", "link", "pread64")]
    spool = tmp_path / "spool"
    spool.mkdir()
    for call, when in strikes:
        path = laid(spool, octets)
        status, said = run(path, chunk, numbers, "-o", "/dev/null", "-e", f"trace={call}",
                           "-e", f"inject={call}:error={error}:when={when}")
        assert status == 0 or call == "unlink", (call, when, said)
        left, _ = reopened(path)
        assert left in (octets, after), f"{error} at {call} number {when}: {said}"
        assert not said.startswith("done") or left == after, f"{error} at {call} number {when}"
    print(f"{name}: {len(strikes)} times {error}")
