"""A maildrop in memory: the store of session tests, and a measure for the contract."""

from popper.maildrop import HEADER_MOST
from popper.storage.identity import seen, told_apart, unique_id
from popper.storage.scan import Entry, first_blank, scan


class Memory:
    """The Store over the octets of an mbox."""

    def __init__(self, octets: bytes = b"", noted=lambda number: None) -> None:
        self.octets = octets
        self.noted = noted
        self.notes: "list[str]" = []
        self.alarms: "list[str]" = []
        self.entries: "list[Entry]" = []

    def scan(self) -> "list[Entry]":
        self.entries = list(scan(lambda count, offset: self.octets[offset:offset + count], len(self.octets)))
        return self.entries

    def read(self, entry: Entry):
        yield self.octets[entry.start:entry.end]

    def header(self, entry: Entry) -> bytes:
        text = self.octets[entry.start:min(entry.end, entry.start + HEADER_MOST)]
        blank = first_blank(b"\n" + text) - 1
        return text[:blank] if blank >= 0 else text

    def unique_ids(self) -> "list[bytes]":
        return told_apart(unique_id(self.octets[entry.offset:entry.start] + self.header(entry))
                          for entry in self.entries)

    def seen(self, entry: Entry) -> bool:
        return seen(self.header(entry))

    def commit(self, entries: "list[Entry]", read: "list[Entry]" = ()) -> None:
        bounds = {e.offset: end for e, end in
                  zip(self.entries, [later.offset for later in self.entries[1:]] + [len(self.octets)])}
        for entry in sorted(entries, key=lambda entry: -entry.offset):
            self.octets = self.octets[:entry.offset] + self.octets[bounds[entry.offset]:]

    def append(self, messages: "list[bytes]", number: int) -> None:
        self.noted(number)
        for message in messages:
            self.octets += (b"\n" if self.octets else b"") + message
        self.scan()

    def close(self) -> None:
        pass
