"""The maildrop as one session sees it: numbers, marks, totals. Nothing on disk changes before `update`.

Two kinds of number: a *number*, 1..n, is what the client says; an *entry* is what the store holds. Nobody but
`Maildrop.entry` turns one into the other.

The Store contract (mbox, memory; later Maildir):

    scan() -> list of entries        each has `octets`: its size on the wire, dot-stuffing apart (RFC 1939.11)
    read(entry) -> blocks            the stored text without envelope line or separator; raises DropBroken, at the
                                     latest after the last block, when it is not what scan() saw
    header(entry) -> bytes           the same text up to the blank line, at most HEADER_MOST octets
    unique_ids() -> list of bytes    one for each entry, in order, all different
    seen(entry) -> bool              whether a stored Status: says it was read
    commit(entries, read)            delete `entries`, and nothing else, or raise Refused or DropBroken; mark `read` as
                                     read where the store was told to keep such marks
    append(messages, number)         add these bulletins behind all mail: octets in mbox form, each with its envelope
                                     line, lines ended by LF. They and the receipt, noted(number), are one step that
                                     no crash splits. `entries` then has them, and mail that came meanwhile. Refused:
                                     nothing was added
    notes, alarms                    what the log should know, what the administrator must know: sentences
    close()                          let go of locks and descriptors; twice does no harm
"""

from popper.errors import Refused

HEADER_MOST = 262144           # octets of a header that are looked at; longer ones are served whole but not searched


class Maildrop:
    """The messages of a store, numbered, with deletion marks and the LAST mark."""

    def __init__(self, user: str, store) -> None:
        self.user = user
        self.store = store
        self.deleted: "set[int]" = set()
        self.read: "set[int]" = set()        # retrieved in this session
        self.accessed = 0
        self.seen: "int | None" = None       # the highest that a Status: says was read, once somebody asked
        self.ids = None
        self.number(store.scan())

    def number(self, entries: list) -> None:
        """Number these messages; anew after an append, as long as the client has heard of no number."""
        self.entries = entries
        self.count = len(entries)
        self.octets = self.total = sum(entry.octets for entry in entries)

    def entry(self, number: int, gone: str = "Message {} has been deleted."):
        """The entry behind a client's number, or Refused: there is none such, or it is marked deleted."""
        if not 0 < number <= len(self.entries):
            raise Refused(f"Message {number} does not exist.")
        if number in self.deleted:
            raise Refused(gone.format(number))
        return self.entries[number - 1]

    def listed(self):
        """(number, entry) for each message not marked deleted."""
        deleted = self.deleted
        return ((n, entry) for n, entry in enumerate(self.entries, 1) if n not in deleted)

    def delete(self, number: int) -> None:
        entry = self.entry(number, "Message {} has already been deleted.")
        self.deleted.add(number)
        self.count -= 1
        self.octets -= entry.octets
        self.access(number)

    def access(self, number: int) -> None:
        """A message is taken note of: LAST."""
        self.accessed = max(self.accessed, number)

    def retrieve(self, number: int):
        """The entry of a message that is sent in full: from now on it has been read."""
        entry = self.entry(number)
        self.access(number)
        self.read.add(number)
        return entry

    def reset(self) -> None:
        """RSET: no deletion marks, and LAST as the session found it (RFC 1081)."""
        self.deleted.clear()
        self.read.clear()
        self.count, self.octets = len(self.entries), self.total
        self.accessed = 0

    @property
    def last(self) -> int:
        """LAST: the highest message that was marked read when the session began or asked for since (RFC 1081)."""
        if self.seen is None:
            numbers = range(len(self.entries), 0, -1)
            self.seen = next((n for n in numbers if self.store.seen(self.entries[n - 1])), 0)
        return max(self.seen, self.accessed)

    def unique_id(self, number: int) -> bytes:
        self.entry(number, "Message {} has been marked for deletion.")
        return self.unique_ids()[number - 1]

    def unique_ids(self) -> "list[bytes]":
        if self.ids is None:
            self.ids = self.store.unique_ids()
        return self.ids

    def update(self) -> None:
        """UPDATE: the marked messages go, in one step, or Refused and none did (RFC 1939.6)."""
        if self.deleted or self.read:
            self.store.commit(self._entries(self.deleted), self._entries(self.read - self.deleted))

    def _entries(self, numbers: "set[int]") -> list:
        return [self.entries[number - 1] for number in sorted(numbers)]

    def close(self) -> None:
        self.store.close()
