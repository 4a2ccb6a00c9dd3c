"""The Store contract of popper.maildrop, the same for every store."""

import os
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mboxes import EMPTY_LINES, ENVELOPE, crlf, lines_of, message, numbered

from popper.maildrop import HEADER_MOST, Maildrop
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox
from popper.storage.memory import Memory

many = settings(deadline=None, max_examples=60, database=None, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])


class InMemory:
    """How the contract looks at Memory."""

    def __init__(self, place):
        self.octets = b""

    def store(self, octets):
        self.made = Memory(octets)
        return self.made

    def kept(self):
        return self.made.octets


class InFile:
    """How the contract looks at Mbox."""

    def __init__(self, place):
        self.path = place / "joe"

    def store(self, octets):
        self.path.write_bytes(octets)
        self.made = Mbox(str(self.path), SpoolLocks(str(self.path)), fsync=False)
        return self.made

    def kept(self):
        return self.path.read_bytes()


@pytest.fixture(params=[InMemory, InFile], ids=["Memory", "Mbox"])
def place(request, tmp_path):
    place = request.param(tmp_path)
    yield place
    place.made.close()
    place.made.close()                       # twice does no harm


@pytest.fixture(autouse=True)
def signals():
    """An update blocks them, and a session ends with it; the test suite goes on."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


MAILBOXES = {
    "empty": b"",
    "one": numbered(1),
    "several": numbered(1, 2, 3, 4, 5),
    "CRLF": crlf(numbered(1, 2, 3)),
    "leading empty lines": b"\n\n" + numbered(1, 2, 3),
    "no final line end": numbered(1, 2) + ENVELOPE + b"A: b\n\nno end",
    "no empty line at the end": numbered(1, 2)[:-1],
    "empty messages": message(b"") + message(b"\n") + message(b"A: b\n") + message(b"A: b\n\n"),
    "any octets": message(b"A: \xff\0\r\n\n" + bytes(range(256)) + b"\n") + numbered(2),
    "copies": numbered(1) * 4,
    "X-UIDL": message(b"X-UIDL: abc\nStatus: RO\n\nbody\n") + message(b"Status: O\nX-UIDL: abc\n\nbody\n"),
    "Status in a body": message(b"A: b\n\nStatus: RO\nX-UIDL: body\n"),
}


@pytest.fixture(params=MAILBOXES.values(), ids=MAILBOXES)
def octets(request):
    return request.param


def text_of(store, entry):
    return b"".join(store.read(entry))


def test_entries_and_their_octets(place, octets):
    """RFC 1939.11: the size on the wire, lines ended by CRLF, dot-stuffing apart."""
    store = place.store(octets)
    for entry in store.scan():
        text = text_of(store, entry)
        lines = text.replace(b"\r\n", b"\n")
        unended = bool(text) and not text.endswith(b"\n")
        assert entry.octets == len(lines) + lines.count(b"\n") + 2 * unended


def test_texts_are_those_of_the_mailbox_in_order(place, octets):
    store = place.store(octets)
    at = 0
    for entry in store.scan():
        at = octets.index(text_of(store, entry), at)
    assert place.kept() == octets


def test_a_text_can_be_read_again_and_in_any_order(place):
    store = place.store(numbered(1, 2, 3))
    first, second, third = store.scan()
    once = [text_of(store, entry) for entry in (first, second, third)]
    assert [text_of(store, entry) for entry in (third, first, second)] == [once[2], once[0], once[1]]


def test_the_header_is_the_beginning_of_the_text_up_to_the_empty_line(place, octets):
    store = place.store(octets)
    for entry in store.scan():
        expected = b""
        for line in lines_of(text_of(store, entry)):
            expected += line
            if line in EMPTY_LINES:
                break
        assert store.header(entry) == expected


def test_a_header_without_end_is_cut(place):
    octets = message(b"X: y\n" * 100_000 + b"\nbody\n") + numbered(2)
    store = place.store(octets)
    entry = store.scan()[0]
    header = store.header(entry)
    assert HEADER_MOST - len(ENVELOPE) <= len(header) <= HEADER_MOST
    assert text_of(store, entry).startswith(header)


def test_unique_ids_are_one_for_each_entry_and_all_different(place, octets):
    """1939.57."""
    store = place.store(octets)
    ids = store.unique_ids() if store.scan() else []
    assert len(ids) == len(set(ids)) == len(store.entries)
    assert store.unique_ids() == ids


def test_unique_ids_are_the_same_in_every_store_and_session(place, tmp_path, octets):
    store = place.store(octets)
    store.scan()
    other = Memory(octets)
    other.scan()
    assert store.unique_ids() == other.unique_ids()


def test_a_stored_id_of_the_header_counts_and_one_of_a_body_does_not(place):
    store = place.store(MAILBOXES["X-UIDL"] + MAILBOXES["Status in a body"])
    store.scan()
    ids = store.unique_ids()
    assert ids[0] == b"abc" and ids[1] != b"abc" and ids[2] != b"body"


def test_seen(place):
    store = place.store(MAILBOXES["X-UIDL"] + MAILBOXES["Status in a body"] + message(b""))
    assert [store.seen(entry) for entry in store.scan()] == [True, False, False, False]


def test_nothing_changes_before_a_commit(place, octets):
    store = place.store(octets)
    for entry in store.scan():
        text_of(store, entry), store.header(entry), store.seen(entry)
    store.unique_ids()
    store.close()
    assert place.kept() == octets


@pytest.mark.parametrize("chosen", [
    [], [0], [4], [2], [0, 1], [3, 4], [1, 3], [0, 2, 4], [4, 0], [3, 2, 1], [0, 1, 2, 3, 4]])
def test_a_commit_deletes_those_and_nothing_else(place, chosen):
    """1939.44, 1939.47, in whatever order they are given."""
    store = place.store(numbered(1, 2, 3, 4, 5))
    entries = store.scan()
    store.commit([entries[number] for number in chosen])
    assert place.kept() == numbered(*(number + 1 for number in range(5) if number not in chosen))


def test_a_commit_of_every_single_one(place, octets):
    store = place.store(octets)
    count = len(store.scan())
    for number in range(count):
        store = place.store(octets)
        entries = store.scan()
        ends = [entry.offset for entry in entries[1:]] + [len(octets)]
        store.commit([entries[number]])
        assert place.kept() == octets[:entries[number].offset] + octets[ends[number]:]
        store.close()


@many
@given(data=st.data())
def test_any_subset_of_any_mailbox(place, data):
    """Delete any subset: the same octets removed and nothing else, and what is left is the mailbox it was."""
    sizes = data.draw(st.lists(st.integers(0, 3), max_size=8))
    octets = b"".join(numbered(number, lines=size * 40) for number, size in enumerate(sizes))
    chosen = data.draw(st.sets(st.integers(0, max(0, len(sizes) - 1)), max_size=len(sizes)))
    store = place.store(octets)
    drop = Maildrop("joe", store)
    ids = drop.unique_ids()
    for number in chosen:
        drop.delete(number + 1)
    drop.update()
    drop.close()
    left = [number for number in range(len(sizes)) if number not in chosen]
    assert place.kept() == b"".join(numbered(number, lines=sizes[number] * 40) for number in left)
    after = Maildrop("joe", place.store(place.kept()))
    assert after.unique_ids() == [ids[number] for number in left]
    after.close()


def test_no_descriptor_is_left_open(place, octets):
    before = os.listdir("/proc/self/fd")
    store = place.store(octets)
    for entry in store.scan():
        text_of(store, entry)
    store.close()
    assert os.listdir("/proc/self/fd") == before
