"""What a mailbox under test is to hold at this moment: kept where processes share it, whatever the spool is worth."""

import contextlib
import fcntl
import json
import os
import tempfile

STATE, SESSION, AGENT = 1 << 40, (1 << 40) + 1, (1 << 40) + 2      # octets that are locked, far behind what is written


class Ledger:
    """The order of messages, by number, and an intent: those that a session is about to delete.

    A file of this machine without a name, which processes inherit; its locks are the system's own, and end with their
    process.
    """

    def __init__(self, order: "list[int]") -> None:
        self.file = tempfile.TemporaryFile(buffering=0)
        self._write({"order": order, "intent": None})

    def read(self) -> dict:
        with self.changed() as state:
            return dict(state)

    @contextlib.contextmanager
    def changed(self):
        """A context with the state, written back at its end."""
        fcntl.lockf(self.file, fcntl.LOCK_EX, 1, STATE)
        try:
            state = json.loads(os.pread(self.file.fileno(), os.fstat(self.file.fileno()).st_size, 0))
            before = json.dumps(state)
            yield state
            if json.dumps(state) != before:
                self._write(state)
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, STATE)

    def settle(self, gone: "set[int]") -> "list[int]":
        """These messages are deleted, and no more is intended. -> the order of what is left"""
        with self.changed() as state:
            state["order"] = [index for index in state["order"] if index not in gone]
            state["intent"] = None
            return state["order"]

    def alone(self, what: int) -> bool:
        """Whether this is the only process that now believes to have a lock of the spool: SESSION or AGENT."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, what)
        except OSError:
            return False
        return True

    def no_longer(self, what: int) -> None:
        """To be said before the lock of the spool is given back."""
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, what)

    def close(self) -> None:
        self.file.close()

    def _write(self, state: dict) -> None:
        octets = json.dumps(state).encode()
        os.pwrite(self.file.fileno(), octets, 0)
        os.ftruncate(self.file.fileno(), len(octets))
