"""A mailbox served where it lies: what is opened, what an update leaves, what a session costs
(1939.79, 1939.84, inv.01 to inv.05, security.md row 20)."""

import os
import resource
import signal
import stat
import tracemalloc

import pytest
from mboxes import ENVELOPE, message, numbered
from processes import as_nobody, forks, in_child, is_fcntl_locked, make_old, refusal, sticky_spool

from popper import wire
from popper.errors import IN_USE, PERMANENT, TEMPORARY, DropBroken
from popper.storage import mbox
from popper.storage.locks import SpoolLocks
from popper.storage import redo
from popper.storage.mbox import BLOCK, Mbox
from popper.storage.redo import CHUNK, PIECE

pytestmark = forks


@pytest.fixture
def path(tmp_path):
    return tmp_path / "joe"


@pytest.fixture
def serve(path):
    """serve(octets) -> an Mbox over a mailbox with them; None: over what is there."""
    opened = []

    def open_store(octets=None, locks=None, **how):
        if octets is not None:
            path.write_bytes(octets)
        opened.append(Mbox(str(path), locks or SpoolLocks(str(path)), **{"lock_timeout": 0, "fsync": False, **how}))
        return opened[-1]
    yield open_store
    for store in opened:
        store.close()
    assert not (path.parent / "joe.lock").exists()


def append(path, octets):
    with open(path, "ab") as file:
        file.write(octets)


def text_of(store, entry):
    return b"".join(store.read(entry))


# -- opening ---------------------------------------------------------------------------------------------------------

def test_a_missing_mailbox_is_empty(serve, path):
    """1939.84; and it is not made."""
    store = serve()
    assert store.scan() == [] and store.unique_ids() == []
    store.commit([])
    assert not path.exists()


def test_a_mailbox_that_appears_meanwhile_is_for_the_next_session(serve, path):
    store = serve()
    store.scan()
    path.write_bytes(numbered(1))
    assert store.unique_ids() == []
    store.close()
    assert path.read_bytes() == numbered(1)


def test_an_empty_mailbox(serve):
    assert serve(b"").scan() == []


def test_what_is_no_mailbox_is_refused_in_the_originals_words(serve, path):
    refused = refusal(serve(b"This is a letter.\n").scan)
    assert (refused.code, refused.text) == (
        PERMANENT, "Unable to process From lines (envelopes), change recognition modes.")
    assert refused.reason == f"{path}: no envelope line at octet 0"
    assert path.read_bytes() == b"This is a letter.\n"


def symlink(path, target):
    path.symlink_to(target)


def hard_link(path, target):
    os.link(target, path)


@pytest.mark.parametrize("make, what", [
    (symlink, "is a symbolic link"), (lambda path, target: path.symlink_to("nowhere"), "is a symbolic link"),
    (hard_link, "has more than one link"), (lambda path, target: os.mkfifo(path), "is not a regular file"),
    (lambda path, target: path.mkdir(), "cannot be opened"),
], ids=["symlink", "dangling symlink", "hard link", "FIFO", "directory"])
def test_what_may_not_be_a_mailbox(serve, path, make, what):
    """Security.md row 20, CVE-2008-1199, sec.09: refused for good, and nothing is touched."""
    target = path.parent / "target"
    target.write_bytes(numbered(1))
    make(path, target)
    before = os.listdir("/proc/self/fd")
    refused = refusal(serve().scan)
    assert (refused.code, refused.text) == (PERMANENT, f"{path} {what}.")
    assert os.listdir("/proc/self/fd") == before
    assert target.read_bytes() == numbered(1)
    assert sorted(os.listdir(path.parent)) == ["joe", "target"]


@pytest.mark.root
@pytest.mark.parametrize("mode, what", [(0o644, "cannot be opened"), (0o666, "cannot be opened")])
def test_somebody_elses_mailbox(mode, what):
    """CVE-2010-2023: a spool that all may write in."""
    def attempt():
        locks = SpoolLocks(str(path))
        refused = refusal(Mbox(str(path), locks, lock_timeout=0).scan)
        return f"{refused.code}: {refused.text}"
    with sticky_spool() as spool:
        path = spool / "nobody"
        os.chown(path, 0, 0)
        path.chmod(mode)
        assert as_nobody(attempt) == f"SYS/PERM: {path} {what}."


@pytest.mark.root
def test_a_users_mailbox_is_not_roots(serve, path):
    path.write_bytes(numbered(1))
    os.chown(path, 65534, 65534)
    refused = refusal(serve().scan)
    assert (refused.code, refused.text) == (PERMANENT, f"{path} is not owned by this user.")


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o644])
def test_the_mode_is_the_sites_affair(serve, path, mode):
    path.write_bytes(numbered(1))
    path.chmod(mode)
    assert len(serve().scan()) == 1


# -- locks -----------------------------------------------------------------------------------------------------------

class Watching(SpoolLocks):
    """Locks that call back when the dotlock has been made, and that remember."""

    def __init__(self, path, then=lambda: None):
        super().__init__(str(path))
        self.then = then
        self.times = 0

    def dot(self):
        made = super().dot()
        if made:
            self.times += 1
            self.then()
        return made


def test_locks_are_held_while_scanning_and_updating_only(serve, path):
    locks = Watching(path)
    store = serve(numbered(1, 2), locks)
    entries = store.scan()
    assert locks.times == 1
    assert not (path.parent / "joe.lock").exists() and not is_fcntl_locked(path)
    text_of(store, entries[0])
    store.unique_ids()
    assert locks.times == 1
    store.commit(entries[:1])
    assert locks.times == 2
    assert not (path.parent / "joe.lock").exists() and not is_fcntl_locked(path)


def test_a_locked_mailbox_is_busy(serve, path):
    lock = path.parent / "joe.lock"
    lock.write_text("0")
    assert refusal(serve(numbered(1)).scan).code == IN_USE
    lock.unlink()
    store = serve()
    entries = store.scan()
    lock.write_text("0")
    assert refusal(store.commit, entries).code == IN_USE
    assert path.read_bytes() == numbered(1)
    lock.unlink()


def test_a_mailbox_that_is_replaced_while_the_locks_are_waited_for(serve, path):
    """Postfix looks again too: the name, not the file that was opened, is the mailbox."""
    def replace():
        if locks.times == 1:
            path.rename(path.parent / "old")
            path.write_bytes(numbered(7, 8, 9))
    locks = Watching(path, replace)
    store = serve(numbered(1), locks)
    assert [text_of(store, entry).split(b"\n")[0] for entry in store.scan()] == [
        b"Subject: 7", b"Subject: 8", b"Subject: 9"]


def test_a_mailbox_that_is_removed_while_the_locks_are_waited_for(serve, path):
    assert serve(numbered(1), Watching(path, path.unlink)).scan() == []


def test_a_mailbox_that_is_replaced_again_and_again(serve, path):
    def replace():
        path.rename(path.parent / "old")
        path.write_bytes(numbered(1))
    refused = refusal(serve(numbered(1), Watching(path, replace)).scan)
    assert (refused.code, refused.text) == (TEMPORARY, f"{path} keeps being replaced.")


# -- reading ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7])
def test_a_text_comes_in_blocks(serve, size):
    text = b"A: b\n\n" + b"x" * (size - 7) + b"\n" if size > 7 else b"x" * size
    store = serve(numbered(1) + ENVELOPE + text)
    blocks = list(store.read(store.scan()[1]))
    assert b"".join(blocks) == text
    assert all(0 < len(block) <= BLOCK for block in blocks) and len(blocks) <= size // BLOCK + 1


@pytest.mark.parametrize("trap", [b"\n.\n", b"\r\n.\r\n", b"\n..\n", b"\r\r\n", b"\n\n\n"])
def test_dot_lines_on_the_edge_of_a_block(serve, trap):
    """Security.md row 5: announced and sent agree, and no line of the text looks like the terminator."""
    for shift in range(-len(trap) - 1, 2):
        begin = b"A: b\n\n"
        text = begin + b"x" * (BLOCK + shift - len(begin)) + trap + b"end\n"
        store = serve(ENVELOPE + text)
        (entry,) = store.scan()
        sent = b"".join(wire.outgoing(store.read(entry)))
        assert sent == b"".join(wire.outgoing([text]))
        assert len(sent) - trap.count(b"\n.") == entry.octets
        assert b"\r\n.\r\n" not in sent
        store.close()


def test_reading_does_not_move_the_access_time(serve, path):
    """Shells and biff tell new mail by it."""
    path.write_bytes(numbered(*range(100)))
    make_old(path, 1000)
    os.utime(path, (1, path.stat().st_mtime))
    store = serve()
    for entry in store.scan():
        text_of(store, entry), store.header(entry)
    store.unique_ids()
    assert path.stat().st_atime == 1
    path.read_bytes()
    if path.stat().st_atime == 1:
        pytest.skip("this file system keeps no access times")


def test_memory_does_not_grow_with_a_message(serve, path):
    """sec.05, sec.19: 50 MB are scanned, identified, read and moved in less than 2 MB."""
    line = b"x" * 75 + b"\n"
    with open(path, "wb") as file:
        for number in (1, 2):
            file.write(numbered(number))
        file.write(ENVELOPE + b"Subject: large\n\n")
        for _ in range(50):
            file.write(line * 13_800)
        file.write(b"\n")
    assert path.stat().st_size > 50_000_000
    tracemalloc.start()
    try:
        store = serve()
        entries = store.scan()
        octets = sum(len(block) for block in wire.outgoing(store.read(entries[2])))
        store.unique_ids()
        reading = tracemalloc.get_traced_memory()[1]
        store.commit(entries[:1])
        updating = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert octets == entries[2].octets > 50_000_000
    assert reading < 2_000_000
    assert updating < 2_000_000 + 2 * PIECE


# -- updating --------------------------------------------------------------------------------------------------------

COUNT = 8
CHOICES = {"first": [0], "last": [7], "middle": [3, 4], "all": range(8), "alternate": [0, 2, 4, 6],
           "others": [1, 3, 5, 7], "all but the first": range(1, 8), "all but the last": range(7)}


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("tail", [b"", numbered(100), numbered(100, 101, lines=2000), b"From joe and no envelope\n"],
                         ids=["no new mail", "new mail", "much new mail", "something"])
@pytest.mark.parametrize("chunk", [CHUNK, 100], ids=["", "small chunks"])
def test_an_update_keeps_all_else(serve, path, chosen, tail, chunk, monkeypatch):
    """1939.47, 1939.79, inv.01, inv.03, inv.04: the rest and the new mail, octet for octet, in the same file."""
    monkeypatch.setattr(redo, "CHUNK", chunk)
    path.write_bytes(numbered(*range(COUNT)))
    path.chmod(0o640)
    before = path.stat()
    store = serve()
    entries = store.scan()
    append(path, tail)
    store.commit([entries[number] for number in chosen])
    store.close()
    assert path.read_bytes() == numbered(*(n for n in range(COUNT) if n not in chosen)) + tail
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid, after.st_nlink) == \
        (before.st_ino, before.st_mode, before.st_uid, before.st_gid, before.st_nlink)
    assert os.listdir(path.parent) == ["joe"]


@pytest.mark.root
def test_an_update_keeps_the_group(serve, path):
    path.write_bytes(numbered(1, 2))
    os.chown(path, 0, 65534)
    path.chmod(0o660)
    store = serve()
    store.commit(store.scan()[:1])
    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (0, 65534, 0o660)


def test_large_messages_move_in_chunks(serve, path):
    sizes = [10, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77, 3]
    messages = [message(b"Subject: %d\n\n" % number + bytes([97 + number]) * size + b"\n")
                for number, size in enumerate(sizes)]
    for gone in (0, 2, 4):
        store = serve(b"".join(messages))
        entries = store.scan()
        store.commit([entries[gone]])
        assert path.read_bytes() == b"".join(each for number, each in enumerate(messages) if number != gone)
        store.close()


@pytest.mark.parametrize("fsync", [True, False])
def test_an_update_is_on_disk_when_it_is_done(serve, monkeypatch, fsync):
    synced = []
    store = serve(numbered(1, 2), fsync=fsync)
    entries = store.scan()
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor)))
    store.commit(entries[:1])
    mailbox = [status.st_size for status in synced if status.st_ino == os.stat(store.path).st_ino]
    assert mailbox[-1:] == ([len(numbered(2))] if fsync else [])


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_update_waits(serve, path, number):
    """sec.18: finish, never half."""
    def update():                            # in a process of one thread, as popper is
        arrived = []
        signal.signal(number, lambda *_: arrived.append(path.read_bytes()))
        locks.then = lambda: os.kill(os.getpid(), number)
        store.commit(entries[1:2])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
        return arrived
    locks = Watching(path)
    store = serve(numbered(1, 2, 3), locks)
    entries = store.scan()
    assert in_child(update) == str([numbered(1, 3)])
    assert path.read_bytes() == numbered(1, 3)


def test_an_update_that_may_not_write_moves_nothing(serve, path):
    """1939.46: trouble is told, and the mailbox is whole."""
    store = serve(numbered(1, 2, 3))
    entries = store.scan()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(DropBroken) as caught:
            store.commit(entries[:1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.code, caught.value.text) == (TEMPORARY, "Error updating mailbox.")
    assert "File too large" in str(caught.value)
    assert path.read_bytes() == numbered(1, 2, 3)
