"""What is added to a mailbox in place: bulletins behind, marks within, an older popper's mail in front."""

import os

import pytest
from mboxes import ENVELOPE, crlf, message, numbered, texts
from processes import forks, refusal

from popper.errors import PERMANENT, TEMPORARY, Refused
from popper.storage import redo
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox, separator

pytestmark = forks

BULLETIN = message(b"From: postmaster\nTo: joe@example.org\nSubject: down on Sunday\n\nFrom noon on.\n")


class Receipts:
    """Where the numbers of bulletins are noted."""

    def __init__(self):
        self.numbers = []
        self.trouble = None

    def __call__(self, number):
        if self.trouble:
            raise self.trouble
        self.numbers.append(number)


@pytest.fixture
def receipts():
    return Receipts()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "joe"


@pytest.fixture
def serve(path, receipts):
    """serve(octets) -> a scanned Mbox over a mailbox with them; None: over what is there."""
    opened = []

    def open_store(octets=None, **how):
        if octets is not None:
            path.write_bytes(octets)
        locks = SpoolLocks(str(path))
        opened.append(Mbox(str(path), locks, **{"lock_timeout": 0, "fsync": False, "noted": receipts, **how}))
        locks.session()
        opened[-1].scan()
        return opened[-1]
    yield open_store
    for store in opened:
        store.close()
    assert {each.name for each in path.parent.iterdir()} <= {"joe", ".joe.pop"}


def left_by_an_older_popper(path, octets):
    left = path.parent / ".joe.pop"
    left.write_bytes(octets)
    left.chmod(0o600)
    return left


# -- bulletins -------------------------------------------------------------------------------------------------------

def test_a_bulletin_is_behind_all_mail_and_noted(serve, path, receipts):
    store = serve(numbered(1, 2))
    store.append([BULLETIN], 23)
    assert path.read_bytes() == numbered(1, 2) + BULLETIN
    assert len(store.entries) == 3 and receipts.numbers == [23]
    assert b"".join(store.read(store.entries[2])) == BULLETIN[len(ENVELOPE):-1]


def test_several_in_one_step(serve, path, receipts):
    store = serve(numbered(1))
    store.append([BULLETIN, numbered(7)], 24)
    assert path.read_bytes() == numbered(1) + BULLETIN + numbered(7)
    assert receipts.numbers == [24]


@pytest.mark.parametrize("tail", (b"", b"\n", b"no line end", b"\n\n"))
def test_one_empty_line_is_between_whatever_the_mailbox_ends_with(serve, path, tail):
    before = ENVELOPE + b"Subject: 1\n\ntext\n" + tail
    store = serve(before)
    store.append([BULLETIN], 23)
    assert path.read_bytes().startswith(before)
    assert len(store.entries) == 2 and texts(path.read_bytes())[1] == BULLETIN[len(ENVELOPE):-1]


@pytest.mark.parametrize("bulletin", (BULLETIN[:-1], BULLETIN[:-2], BULLETIN))
def test_a_bulletin_that_ends_anyhow_ends_with_an_empty_line(serve, path, bulletin):
    store = serve(numbered(1))
    store.append([bulletin, bulletin], 23)
    assert path.read_bytes() == numbered(1) + BULLETIN + BULLETIN


def test_lines_end_as_the_mailbox_has_them(serve, path):
    store = serve(crlf(numbered(1)))
    store.append([BULLETIN], 23)
    assert path.read_bytes() == crlf(numbered(1) + BULLETIN)
    assert len(store.entries) == 2


def test_who_has_no_mailbox_gets_one(serve, path, receipts):
    store = serve()
    assert not path.exists()
    store.append([BULLETIN], 23)
    assert path.read_bytes() == BULLETIN and path.stat().st_mode & 0o777 == 0o600
    assert len(store.entries) == 1 and receipts.numbers == [23]


def test_mail_that_came_meanwhile_is_before_it_and_seen(serve, path):
    store = serve(numbered(1))
    with open(path, "ab") as file:
        file.write(numbered(2))
    store.append([BULLETIN], 23)
    assert path.read_bytes() == numbered(1, 2) + BULLETIN
    assert len(store.entries) == 3


@pytest.mark.parametrize("trouble", (OSError(30, "Read-only file system"), Refused("Not your home.")))
def test_without_receipt_no_bulletin(serve, path, receipts, trouble):
    store = serve(numbered(1))
    receipts.trouble = trouble
    refused = refusal(store.append, [BULLETIN], 23)
    assert refused.code == TEMPORARY and str(trouble) in refused.reason
    assert path.read_bytes() == numbered(1)


def test_an_added_bulletin_can_be_deleted(serve, path):
    store = serve(numbered(1, 2))
    store.append([BULLETIN], 23)
    store.commit([store.entries[0], store.entries[2]])
    assert path.read_bytes() == numbered(2)


def test_inode_mode_and_access_time_stay(serve, path):
    path.write_bytes(numbered(1))
    path.chmod(0o640)
    os.utime(path, (1000, 2000))
    before = path.stat()
    store = serve()
    store.append([BULLETIN], 23)
    store.commit([store.entries[0]])
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_atime, after.st_uid) == \
        (before.st_ino, before.st_mode, 1000, before.st_uid)


# -- marks -----------------------------------------------------------------------------------------------------------

def test_without_being_asked_nothing_is_marked(serve, path):
    store = serve(numbered(1, 2))
    before = path.stat()
    store.commit([], store.entries)
    assert path.read_bytes() == numbered(1, 2)
    assert path.stat().st_ctime_ns == before.st_ctime_ns


def test_what_was_read_is_marked_before_the_empty_line(serve, path):
    store = serve(numbered(1, 2, 3), status=True)
    store.commit([], [store.entries[1]])
    assert path.read_bytes() == numbered(1) \
        + numbered(2).replace(b"\n\nline of 2", b"\nStatus: RO\n\nline of 2", 1) + numbered(3)


def test_deleting_and_marking_at_once(serve, path):
    store = serve(numbered(1, 2, 3, 4, 5), status=True)
    store.commit([store.entries[0], store.entries[3]], [store.entries[1], store.entries[4]])

    def marked(number):
        return numbered(number).replace(b"\n\nline", b"\nStatus: RO\n\nline", 1)
    assert path.read_bytes() == marked(2) + numbered(3) + marked(5)


@pytest.mark.parametrize("before, after", [
    (b"Status: O", b"Status: RO"), (b"Status: U", b"Status: RO"), (b"status:", b"status: RO"),
    (b"Status: OD", b"Status: ROD"), (b"Status: RO", b"Status: RO"), (b"Status: R", b"Status: R"),
    (b"Status:          O", b"Status: RO        "), (b"X-Status: A", b"X-Status: A\nStatus: RO"),
])
def test_a_line_that_is_there_keeps_its_other_letters(serve, path, before, after):
    store = serve(message(b"Subject: 1\n" + before + b"\n\ntext\n") + numbered(2), status=True)
    store.commit([], store.entries[:1])
    assert path.read_bytes() == message(b"Subject: 1\n" + after + b"\n\ntext\n") + numbered(2)


def test_marks_end_their_line_as_the_header_does(serve, path):
    store = serve(crlf(numbered(1)), status=True)
    store.commit([], store.entries)
    assert path.read_bytes() == crlf(numbered(1).replace(b"\n\n", b"\nStatus: RO\n\n", 1))


def test_a_message_without_header_or_without_end_of_header(serve, path):
    bare = ENVELOPE + b"\ntext\n\n" + ENVELOPE + b"Subject: no body"
    store = serve(bare, status=True)
    store.commit([], store.entries)
    assert path.read_bytes() == bare.replace(b"\n\ntext", b"\nStatus: RO\n\ntext")


def test_unique_ids_do_not_change_with_marks(serve):
    store = serve(numbered(1, 2, 3), status=True)
    ids = store.unique_ids()
    store.commit([], store.entries)
    store.close()
    again = serve()
    assert again.unique_ids() == ids and all(map(again.seen, again.entries))


def test_marks_that_find_no_room_cost_no_deletion(serve, path, monkeypatch):
    store = serve(numbered(1, 2), status=True)

    def no_room(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(redo.os, "posix_fallocate", no_room)
    store.commit([store.entries[0]], [store.entries[1]])
    assert path.read_bytes() == numbered(2)
    assert store.notes == [f"{path}: messages could not be marked as read: No space left on device"]


# -- mail that an older popper left ----------------------------------------------------------------------------------

def test_it_is_put_in_front_once(serve, path):
    left = left_by_an_older_popper(path, numbered(1, 2))
    store = serve(numbered(3))
    assert path.read_bytes() == numbered(1, 2, 3) and len(store.entries) == 3
    assert left.read_bytes() == b""
    assert store.notes == [f"{path}: {len(numbered(1, 2))} octets of mail that an older popper left in {left} "
                           "were put in front"]
    store.close()
    assert not left.exists()
    assert len(serve().entries) == 3


@pytest.mark.parametrize("cut", (1, 2))
def test_it_stays_apart_from_what_follows(serve, path, cut):
    left_by_an_older_popper(path, numbered(1)[:-cut])
    assert len(serve(numbered(2)).entries) == 2
    assert path.read_bytes() == numbered(1, 2)


def test_it_makes_a_mailbox_where_there_is_none(serve, path):
    left_by_an_older_popper(path, numbered(1))
    assert len(serve().entries) == 1
    assert path.read_bytes() == numbered(1)


def test_what_is_no_mailbox_is_left_alone_and_told_of(serve, path):
    left = left_by_an_older_popper(path, b"notes of mine\n")
    store = serve(numbered(1))
    assert path.read_bytes() == numbered(1) and left.read_bytes() == b"notes of mine\n"
    assert store.notes == [f"{left} is left alone, it is no mailbox: no envelope line at octet 0"]


def test_without_room_both_stay_as_they_were_and_who_makes_room_has_it_merged_next_time(serve, path, monkeypatch):
    left = left_by_an_older_popper(path, numbered(1))

    def no_room(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(redo.os, "posix_fallocate", no_room)
    store = serve(numbered(2, 3))
    assert store.notes == [f"{left} cannot be merged now: No space left on device"]
    assert (path.read_bytes(), left.read_bytes()) == (numbered(2, 3), numbered(1))
    store.commit([store.entries[0]])
    store.close()
    monkeypatch.undo()
    assert len(serve().entries) == 2 and path.read_bytes() == numbered(1, 3)


def test_a_mailbox_that_is_none_is_refused_and_not_mended_with_it(serve, path):
    left = left_by_an_older_popper(path, numbered(1))
    assert refusal(serve, b"no envelope\n").code == PERMANENT
    assert (path.read_bytes(), left.read_bytes()) == (b"no envelope\n", numbered(1))


def test_what_was_merged_before_a_crash_is_not_merged_again(serve, path, monkeypatch):
    """The crash comes when all is in place, before the record is gone."""
    left_by_an_older_popper(path, numbered(1))
    monkeypatch.setattr(SpoolLocks, "forget", lambda locks: None)
    serve(numbered(2)).close()
    monkeypatch.undo()
    store = serve()
    assert path.read_bytes() == numbered(1, 2) and len(store.entries) == 2
    assert store.notes == [f"{path}: an update that was finished was found"]


def test_deleting_after_a_bulletin_that_failed_half_way(serve, path, receipts, monkeypatch):
    store = serve(numbered(1, 2))
    real = redo.Redo._copied

    def fails(*_):
        monkeypatch.setattr(redo.Redo, "_copied", real)
        raise OSError(5, "Input/output error")
    monkeypatch.setattr(redo.Redo, "_copied", fails)
    monkeypatch.setattr(redo.Redo, "_take_out", lambda _: fails())
    assert refusal(store.append, [BULLETIN], 23).code == TEMPORARY
    monkeypatch.undo()
    assert path.read_bytes() != numbered(1, 2) and (path.parent / ".joe.redo").exists()
    store.commit([store.entries[0]])
    assert path.read_bytes() == numbered(2) and receipts.numbers == []


# -- records that do not fit -----------------------------------------------------------------------------------------

def test_a_record_that_does_not_fit_is_set_aside_and_the_mailbox_refused_until_somebody_looked(serve, path):
    path.write_bytes(numbered(1))
    record = path.parent / ".joe.redo"
    record.write_bytes(b"popredo1" + bytes(1000))
    record.chmod(0o600)
    foreign = path.parent / ".joe.redo.foreign"
    store = Mbox(str(path), SpoolLocks(str(path)))
    refused = refusal(store.scan)
    assert refused.code == PERMANENT and "popperctl mailbox repair" in refused.reason
    assert len(store.alarms) == 1 and "another version" in store.alarms[0] and str(foreign) in store.alarms[0]
    assert foreign.exists() and not record.exists()
    store.close()
    again = Mbox(str(path), SpoolLocks(str(path)))
    assert refusal(again.scan).code == PERMANENT and again.alarms == []
    again.close()
    foreign.unlink()
    assert len(serve().entries) == 1
    assert path.read_bytes() == numbered(1)


@pytest.mark.parametrize("tail, between", [
    (b"", b""), (b"x\n\n", b""), (b"x\r\n\r\n", b""), (b"x\n", b"\n"), (b"x\r\n", b"\r\n"), (b"x", b"\n\n")])
def test_separator(tail, between):
    assert separator(tail) == between


@pytest.mark.root
def test_a_file_of_that_name_that_somebody_else_made_locks_nobody_out(serve, path):
    foreign = path.parent / ".joe.redo.foreign"
    foreign.write_bytes(b"")
    os.chown(foreign, 65534, 65534)
    assert len(serve(numbered(1)).entries) == 1
    foreign.unlink()
