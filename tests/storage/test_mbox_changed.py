"""What other programs do to a mailbox during a session: appending is harmless, all else ends it, nothing deleted."""

import os
import time

import pytest
from mboxes import ENVELOPE, message, numbered
from processes import make_old

from popper.errors import TEMPORARY, DropBroken
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import BLOCK, Mbox

OLD = numbered(1, 2, 3)
LARGE = numbered(1) + message(b"Subject: large\n\n" + b"x" * (3 * BLOCK) + b"\n") + numbered(3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "joe"


@pytest.fixture(params=["young", "settled"])
def store(path, request):
    """A store that has scanned OLD: this very moment, or long enough ago for times to tell every change."""
    path.write_bytes(OLD)
    store = Mbox(str(path), SpoolLocks(str(path)), lock_timeout=0, fsync=False)
    store.scan()
    if request.param == "settled":
        while store.stamp is None:
            store.unique_ids()
    yield store
    store.close()
    assert os.listdir(path.parent) in (["joe"], [], ["joe", "old"], ["old", "joe"])


def text_of(store, entry):
    return b"".join(store.read(entry))


def broken(call, *arguments):
    with pytest.raises(DropBroken) as caught:
        call(*arguments)
    assert caught.value.code == TEMPORARY
    assert caught.value.text == "Mailbox changed by another program; nothing was deleted."
    return str(caught.value)


def in_place(octets):
    """Write something else over the mailbox, as mail readers do."""
    def change(path):
        with open(path, "rb+") as file:
            file.write(octets)
            file.truncate()
    return change


def replace(path):
    """Rename another file over it, as GNU mailutils does."""
    other = path.parent / "other"
    other.write_bytes(numbered(4, 5, 6))
    other.rename(path)


def move_away(path):
    path.rename(path.parent / "old")
    path.write_bytes(numbered(4, 5, 6))


def restore_time(change):
    """The same, and set the time back, as NeoMutt does."""
    def changed(path):
        before = path.stat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return changed


SAME_SHAPE = OLD.replace(b"18:22:48", b"18:22:49").replace(b"Subject: ", b"Subject; ")
CHANGES = {
    "truncated": lambda path: os.truncate(path, 0),
    "truncated by one": lambda path: os.truncate(path, len(OLD) - 1),
    "truncated in the first": lambda path: os.truncate(path, 60),
    "one gone": in_place(numbered(1, 3)),
    "one gone, and new mail": in_place(numbered(2, 3, 4)),
    "one gone, and much new mail": in_place(numbered(2, 3, 4, 5, 6)),
    "another order of other sizes": in_place(numbered(1) + numbered(2, lines=2) + numbered(3, lines=4)),
    "marked as read": in_place(OLD.replace(b"\nMessage-Id", b"\nStatus: RO\nMessage-Id")),
    "no mailbox": in_place(b"x" * len(OLD)),
    "all of one": in_place(numbered(1, lines=100)[:len(OLD)]),
    "empty lines": in_place(b"\n" * len(OLD)),
    "same shape": in_place(SAME_SHAPE),
    "same shape and more": in_place(SAME_SHAPE + numbered(4)),
    "replaced": replace,
    "removed": os.unlink,
    "the same again with the time set back": restore_time(in_place(SAME_SHAPE)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_after_a_change_nothing_is_read_and_nothing_deleted(store, path, change):
    """1939.47: a number must not come to mean another message."""
    entries = store.entries
    change(path)
    after = path.read_bytes() if path.exists() else None
    broken(text_of, store, entries[0])
    broken(store.unique_ids)
    broken(store.commit, entries[1:2])
    assert (path.read_bytes() if path.exists() else None) == after


@pytest.mark.parametrize("change, how", [
    (os.unlink, "replaced"), (replace, "replaced"), (move_away, "replaced"),
    (lambda path: os.truncate(path, 0), "cut short"), (in_place(numbered(1, 3) + b"x" * 500), "changed"),
    (in_place(b"x" * len(OLD)), "changed")])
def test_the_log_learns_what_happened(store, path, change, how):
    change(path)
    assert broken(store.commit, store.entries[:1]) == f"{path} was {how} by another program"


def test_a_mailbox_that_was_moved_away_is_still_read_but_not_updated(store, path):
    """What was scanned is there, under another name; deletions belong to what has the name."""
    move_away(path)
    assert text_of(store, store.entries[0]).startswith(b"Subject: 1\n")
    broken(store.commit, store.entries[:1])
    assert path.read_bytes() == numbered(4, 5, 6) and (path.parent / "old").read_bytes() == OLD


def test_empty_lines_that_become_mail(path):
    path.write_bytes(b"\n" * len(OLD))
    store = Mbox(str(path), SpoolLocks(str(path)), lock_timeout=0)
    assert store.scan() == []
    in_place(OLD)(path)
    broken(store.unique_ids)
    store.close()


def test_new_mail_does_no_harm(store, path):
    """1939.79: not in this session, not lost."""
    ids = store.unique_ids()
    for number in (4, 5):
        with open(path, "ab") as file:
            file.write(numbered(number))
        assert text_of(store, store.entries[2]).startswith(b"Subject: 3\n")
        assert store.unique_ids() == ids and len(store.entries) == 3
    store.commit(store.entries)
    assert path.read_bytes() == numbered(4, 5)


def test_new_mail_of_no_envelope_is_no_affair_of_ours(store, path):
    with open(path, "ab") as file:
        file.write(b"half a deliv")
    assert text_of(store, store.entries[0]).startswith(b"Subject: 1\n")
    store.commit(store.entries[:1])
    assert path.read_bytes() == numbered(2, 3) + b"half a deliv"


def test_a_change_that_is_none(store, path):
    """Touched, chmodded, written over with the same."""
    make_old(path, 5000)
    text_of(store, store.entries[0])
    path.chmod(0o640)
    in_place(OLD)(path)
    assert text_of(store, store.entries[1]).startswith(b"Subject: 2\n")
    store.commit(store.entries[:1])
    assert path.read_bytes() == numbered(2, 3)


# -- while a message is being read -----------------------------------------------------------------------------------

@pytest.fixture
def large(path):
    path.write_bytes(LARGE)
    store = Mbox(str(path), SpoolLocks(str(path)), lock_timeout=0, fsync=False)
    store.scan()
    yield store
    store.close()


@pytest.mark.parametrize("change", [
    in_place(LARGE.replace(b"Subject: large", b"Subject: larger")), in_place(LARGE.replace(b"large", b"lower")),
    lambda path: os.truncate(path, len(LARGE) - len(numbered(3))), lambda path: os.truncate(path, 2 * BLOCK), os.unlink,
    replace])
def test_a_change_while_a_text_is_sent_is_seen_before_its_end(large, path, change):
    """The dot is the commit mark: DropBroken comes before it could be sent."""
    blocks = large.read(large.entries[1])
    sent = [next(blocks)]
    change(path)
    with pytest.raises(DropBroken):
        for block in blocks:
            sent.append(block)
    assert len(b"".join(sent)) <= large.entries[1].end - large.entries[1].start


def test_new_mail_while_a_text_is_sent_does_no_harm(large, path):
    blocks = large.read(large.entries[1])
    sent = [next(blocks)]
    with open(path, "ab") as file:
        file.write(numbered(4))
    assert b"".join([*sent, *blocks]) == LARGE[large.entries[1].start:large.entries[1].end]


# -- what looking again costs ----------------------------------------------------------------------------------------

def test_a_mailbox_that_rests_is_not_looked_at_again(path, monkeypatch):
    """Its size and time are enough; a RETR of a small message in a large mailbox is one read."""
    path.write_bytes(OLD)
    store = Mbox(str(path), SpoolLocks(str(path)), lock_timeout=0)
    store.scan()
    while store.stamp is None:
        store.unique_ids()
    reads = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: (reads.append(at), real(fd, count, at))[1])
    text_of(store, store.entries[2])
    assert reads == [store.entries[2].start]
    store.close()


def test_a_mailbox_that_changed_this_very_moment_is_looked_at_until_it_rests(path):
    """Two changes within one tick of the clock have one time."""
    path.write_bytes(OLD)
    store = Mbox(str(path), SpoolLocks(str(path)), lock_timeout=0)
    store.scan()
    begun = time.monotonic()
    while store.stamp is None:
        assert time.monotonic() < begun + 30
        store.unique_ids()
    status = path.stat()
    assert store.stamp[0] == len(OLD) and time.time_ns() - status.st_ctime_ns >= 20_000_000
    store.close()


def test_a_header_of_a_message_that_is_gone(store, path):
    os.truncate(path, 0)
    broken(store.header, store.entries[0])
    broken(store.seen, store.entries[1])


def test_texts_that_only_an_envelope_line_ends(path):
    """The last message is an envelope line alone: there is nothing to read, and nothing to fail."""
    path.write_bytes(OLD + ENVELOPE)
    store = Mbox(str(path), SpoolLocks(str(path)), lock_timeout=0, fsync=False)
    entries = store.scan()
    assert text_of(store, entries[3]) == b"" and store.header(entries[3]) == b""
    store.commit(entries[3:])
    assert path.read_bytes() == OLD
    store.close()
