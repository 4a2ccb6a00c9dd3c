"""The sessions of a daemon: a child each, and what is known of it: who, since when, in which state, how many octets.

A child tells in a slot of memory that is shared with it, without a system call. When it ends, its slot says what came
of the login. Each slot is a page, and nobody but the daemon has more than his own: a user, or who speaks to strangers,
could else say what came of the logins of others.
"""

import mmap
import os
import struct
import time

FORM = struct.Struct("=16sQQ16s256s")        # state, octets received, sent; code and text of a refusal
REFUSED = 10                   # exit status of a child whose user was not let in, and is to be told so elsewhere
PAGE = mmap.PAGESIZE
# states: the password is being tried; it was right, and the maildrop is being opened; that is done
LOGIN, OPENING, TRANSACTION = "LOGIN", "OPENING", "TRANSACTION"


class Child:
    """A session. number: of its connection; pid: of its process; user, address, name: as they are logged; seat: whose
    seat it takes while its password is tried, b"" for nobody's."""

    __slots__ = ("number", "pid", "slot", "user", "raw_user", "address", "name", "since", "asked", "seat")

    def __init__(self, number: int, user: str, raw_user: bytes, address: str, name: str, asked: float) -> None:
        self.number = number
        self.pid = self.slot = 0
        self.user = user
        self.raw_user = raw_user
        self.address = address
        self.name = name
        self.since = time.time()
        self.asked = asked                   # when its password came, by the monotonic clock
        self.seat = b""


class Slot:
    """What a child tells: at a place in shared memory."""

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self.memory = memory
        self.at = at

    def write(self, state: str, received: int, sent: int, code: str = "", text: str = "") -> None:
        FORM.pack_into(self.memory, self.at, state.encode(), received, sent, code.encode(),
                       text.encode("ascii", "replace"))

    def read(self) -> "tuple[str, int, int, str, str]":
        """-> (state, octets received, sent, code and text of a refusal)"""
        state, received, sent, code, text = FORM.unpack_from(self.memory, self.at)
        state, code, text = (each.rstrip(b"\0").decode("ascii", "replace") for each in (state, code, text))
        return state, received, sent, code, text


class Sessions:
    """The table. most: how many there may be."""

    def __init__(self, most: int, descriptor: int = -1) -> None:
        self.descriptor = descriptor if descriptor >= 0 else os.memfd_create("popper-sessions")
        self.children: "dict[int, Child]" = {}           # by pid
        self.free: "list[int]" = []
        self.slots = 0
        self.allow(most)

    def allow(self, most: int) -> None:
        """From now on there may be so many. Slots stay: those that share them have a view of their own."""
        self.most = most
        size = max(PAGE * most, os.fstat(self.descriptor).st_size)
        os.ftruncate(self.descriptor, size)
        self._map()
        self.free += range(self.slots, size // PAGE)
        self.slots = size // PAGE

    def map_again(self) -> None:
        """In a child that may read it all: it has nothing of its parent's memory."""
        self.before = self.memory            # to let go of it could unmap what is at its place by now
        self._map()

    def _map(self) -> None:
        self.memory = mmap.mmap(self.descriptor, 0)
        if hasattr(mmap, "MADV_DONTFORK"):
            self.memory.madvise(mmap.MADV_DONTFORK)

    def __len__(self) -> int:
        return len(self.children)

    def is_full(self) -> bool:
        return len(self.children) >= self.most or not self.free

    def reserve(self, child: Child) -> None:
        """A slot for a child that is about to be forked."""
        child.slot = self.free.pop()
        self.slot(child).write(LOGIN, 0, 0)

    def add(self, child: Child, pid: int) -> None:
        child.pid = pid
        self.children[pid] = child

    def drop(self, child: Child) -> None:
        """It has ended, or could not be forked."""
        self.children.pop(child.pid, None)
        self.free.append(child.slot)

    def slot(self, child: Child) -> "Slot":
        return Slot(self.memory, child.slot * PAGE)

    def own(self, child: Child) -> "Slot":
        """In a child, before it closes what it has of its parent: its slot."""
        return Slot(mmap.mmap(self.descriptor, PAGE, offset=child.slot * PAGE), 0)

    def take_over(self, child: Child) -> None:
        """A child of before an upgrade."""
        self.free.remove(child.slot)
        self.children[child.pid] = child
