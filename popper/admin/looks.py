"""One process of a mailbox test: a look at a mailbox where it is, which changes nothing, or adds test mail and deletes
it. What it gives is what a session of the test gives: see rounds.
"""

import hashlib
import os

from popper.admin.rounds import Visit
from popper.storage.mbox import BLOCK

TEST_MAIL = (b"From popperctl@localhost Thu Nov 19 10:00:00 2026\nFrom: popperctl@localhost\nMessage-Id: <%s>\n"
             b"Subject: popperctl mailbox test\n\nThis is left of a test of mailboxes.  It may be deleted.\n\n")


def look(path: str, uid: int, options, known: "list | None", token: str) -> dict:
    """Open, lock, read and release. known: what an earlier look gave as `known`: [the file as the system tells, what
    was read in it]. token: "", or part of the Message-Id of test mail that is to be added and deleted."""
    visit = Visit(uid, path, options)
    visit.busy_is_no_fault = True

    def act():
        if not visit.opened():
            return
        store = visit.store
        entries = visit.scanned(True)
        if store.descriptor is None:
            return
        with visit.phase("unique-ids"):
            ids = store.unique_ids()
        status = os.fstat(store.descriptor)
        stamp = [status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime_ns]
        digest = hashlib.sha256(repr([(entry.offset, entry.octets) for entry in entries] + ids).encode())
        digest.update(_digest(store.descriptor, store.size))
        if store.stamp is not None:          # else it was changed so recently that it may have been changed since
            if known and known[0] == stamp and known[1] != digest.hexdigest():
                visit.fault("other octets were read than last time, though nothing has changed it since")
            visit.rest["known"] = [stamp, digest.hexdigest()]
        if token:
            _add_and_delete(visit, entries, ids, token.encode())
        visit.rest["messages"] = len(entries)

    try:
        return visit.told(act)
    finally:
        visit.closed()


def _digest(descriptor: int, size: int) -> bytes:
    """Of the first `size` octets of a file."""
    digest, at = hashlib.sha256(), 0
    while at < size:
        block = os.pread(descriptor, min(BLOCK, size - at), at)
        if not block:
            return b"short"
        digest.update(block)
        at += len(block)
    return digest.digest()


def _add_and_delete(visit: Visit, entries: list, ids: list, token: bytes) -> None:
    """Delete test mail that an earlier look has left, else add two messages and delete the first, so that the other
    moves; nothing before them does. The answer has `left`: whether test mail is still there."""
    store, before = visit.store, len(entries)
    ours = [entry for entry in entries if token in store.header(entry)]
    added = not ours
    if added:
        digest, size = _digest(store.descriptor, store.size), store.size
        with visit.phase("put back"):
            store.append([TEST_MAIL % (b"%d." % number + token) for number in (1, 2)], 0)
        if store.unique_ids()[:before] != ids or _digest(store.descriptor, size) != digest:
            visit.fault("after mail was added the mail before it is not what it was")
            return
        ours = [entry for entry in store.entries[before:] if token in store.header(entry)][:1]
    size = min(entry.offset for entry in ours)
    digest = _digest(store.descriptor, size)
    visit.committed(ours)
    if _digest(store.descriptor, size) != digest:
        visit.fault("after the update the mail before what was deleted is not what it was")
    visit.rest["deleted"] = len(ours)
    visit.rest["left"] = added
