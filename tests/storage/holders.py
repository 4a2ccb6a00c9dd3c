"""Who holds the locks of a mailbox: we, by fixtures to import, and other processes."""

import os
import subprocess
import sys

import pytest

from popper.storage.locks import SpoolLocks


@pytest.fixture
def locks(mailbox):
    locks = SpoolLocks(str(mailbox))
    yield locks
    locks.close()


@pytest.fixture
def descriptor(mailbox):
    descriptor = os.open(mailbox, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


class Holder:
    """Another process that holds a lock of a file, as a delivery agent does. call: "lockf" or "flock"."""

    def __init__(self, path, call="lockf"):
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", f"import fcntl, sys; f = open(sys.argv[1], 'rb+'); fcntl.{call}(f, fcntl.LOCK_EX);"
             "print('held', flush=True); sys.stdin.read()", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"held\n"

    def release(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
