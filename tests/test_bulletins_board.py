"""Who gets which bulletins, and when, over a store in memory (ucb-popper.md 6)."""

import errno
import grp
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import HOST, ONE, mbox
from popper import bulletins
from popper.account import Account
from popper.bulletins import Board
from popper.errors import TEMPORARY, DropBroken, Refused
from popper.options import Options
from popper.storage.memory import Memory

ENVELOPE = b"From postmaster@example.org Fri Mar  8 17:05:00 2024\n"
MAIL = mbox(ONE)


def text(subject, size=0):
    return b"To: joe@%s\nSubject: %s\n\n%s\n" % (HOST.encode(), subject.encode(), b"x" * size or b"y")


def put(directory, *names, octets=None):
    for name in names:
        (directory / name).write_bytes(ENVELOPE + text(name) if octets is None else octets)
        (directory / name).chmod(0o644)


class Log:
    """Keeps the lines: notices, debugs."""

    def __init__(self):
        self.notices, self.debugs = [], []
        self.notice, self.debug = self.notices.append, self.debugs.append


class Place:
    """A directory of bulletins, a home, and what deliver makes of them for a user and a store in memory."""

    def __init__(self, tmp_path):
        self.directory = tmp_path / "bulletins"
        self.home = tmp_path / "home"
        for each in self.directory, self.home:
            each.mkdir()
            each.chmod(0o755)
        self.popbull = self.home / ".popbull"
        self.options = Options()
        self.options.bulletins = str(self.directory)
        self.options.hostname = HOST
        self.options.fsync = False
        self.account = Account("joe", os.geteuid(), os.getegid(), str(self.home))
        self.log = Log()

    def put(self, *names, **how):
        put(self.directory, *names, **how)

    def received(self, number):
        self.popbull.write_bytes(b"%d\n" % number)

    @property
    def number(self):
        return int(self.popbull.read_bytes())

    def poll(self, store=None, **options):
        """-> the subjects of what was added."""
        for name, value in options.items():
            setattr(self.options, name, value)
        self.log.notices.clear()
        self.log.debugs.clear()
        board = Board(self.options, self.account, self.log)
        store = store if store is not None else Memory(MAIL)
        store.noted = board.noted
        before = len(store.scan())
        count = board.deliver(store)
        added = store.entries[before:]
        assert count == len(added)
        return [subject_of(store, entry) for entry in added]


def subject_of(store, entry):
    header = store.header(entry).decode("latin-1")
    return header.partition("Subject: ")[2].partition("\n")[0]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# -- numbers ---------------------------------------------------------------------------------------------------------

def test_what_is_above_the_number_comes_in_order_behind_the_mail_and_once(place):
    place.put("10.ten", "7.seven", "9.nine", "100.hundred", "22.b", "README", ".30.x", "31.x~", "0.x")
    place.received(7)
    store = Memory(MAIL)
    assert place.poll(store) == ["9.nine", "10.ten", "22.b", "100.hundred"]
    assert store.octets.startswith(MAIL)
    assert place.number == 100
    for _ in range(10):
        assert place.poll(store) == []
    assert place.log.notices == []
    assert sorted(os.listdir(place.home)) == [".popbull"]


@pytest.mark.parametrize("error", (errno.EIO, errno.ESTALE, errno.EMFILE))
def test_trouble_that_may_pass_holds_up_what_comes_behind_and_loses_nothing(place, monkeypatch, error):
    """Otherwise the receipt would go past a bulletin that was never given."""
    place.put("2.two", "3.three", "4.four")
    place.received(1)
    real = os.open

    def refuses(path, *rest, **how):
        if path == "3.three":
            raise OSError(error, os.strerror(error))
        return real(path, *rest, **how)
    monkeypatch.setattr(os, "open", refuses)
    assert place.poll() == ["2.two"] and place.number == 2
    assert len(place.log.notices) == 1 and os.strerror(error) in place.log.notices[0]
    monkeypatch.undo()
    assert place.poll() == ["3.three", "4.four"] and place.number == 4


def test_a_new_user_gets_none_of_old_but_what_comes_later(place):
    place.put("7.seven", "9.nine")
    assert place.poll() == [] and place.number == 9
    place.put("10.ten")
    assert place.poll() == ["10.ten"] and place.number == 10


@pytest.mark.parametrize("newest, wanted", [(1, ["9.b"]), (2, ["8.a", "9.b"]), (3, ["7.a", "8.a", "9.b"]),
                                            (4, ["7.a", "8.a", "9.b"]), (1000, ["7.a", "8.a", "9.b"])])
def test_a_new_user_gets_the_newest_where_that_is_wanted(place, newest, wanted):
    place.put("7.a", "8.a", "9.b")
    assert place.poll(new_user_bulletins=newest) == wanted
    assert place.number == 9
    assert place.poll() == []


def test_where_there_are_no_bulletins_yet_everybody_gets_the_first(place):
    assert place.poll() == [] and place.number == 0
    place.put("1.first")
    assert place.poll() == ["1.first"]


def test_two_names_with_one_number_are_one_of_the_newest(place):
    place.put("7.a", "8.a", "8.b")
    assert place.poll(new_user_bulletins=2) == ["7.a", "8.a"]


def test_a_receipt_that_is_ahead_stays(place):
    """The bulletin with the highest number was deleted."""
    place.put("7.seven")
    place.received(9)
    assert place.poll() == [] and place.number == 9


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["publish", "delete", "poll", "poll"]), st.integers(1, 30)), max_size=30),
       st.integers(0, 3))
def test_whatever_happens_nobody_gets_anything_twice_or_out_of_order(tmp_path_factory, steps, newest):
    place = Place(tmp_path_factory.mktemp("place"))
    got, there, published = [], set(), 0
    for step, number in steps:
        if step == "publish":
            published += number
            place.put(f"{published}.x")
            there.add(published)
        elif step == "delete" and there:
            gone = sorted(there)[number % len(there)]
            (place.directory / f"{gone}.x").unlink()
            there.remove(gone)
        else:
            seen = place.number if place.popbull.exists() else None
            found = [int(subject.partition(".")[0]) for subject in place.poll(new_user_bulletins=newest)]
            due = sorted(there)[-newest or len(there):] if seen is None else [n for n in sorted(there) if n > seen]
            assert found == due
            got += found
    assert got == sorted(set(got))


# -- what is wrong ---------------------------------------------------------------------------------------------------

def test_what_is_wrong_is_left_out_and_told_and_the_others_come(place):
    place.put("1.good", "3.good", "6.good", "7.good")
    place.put("2.no_envelope", octets=b"Subject: x\n\ny\n")
    place.put("4.empty", octets=b"")
    place.put("5.large", octets=ENVELOPE + b"x" * 2000)
    place.put("6.second")
    os.mkfifo(place.directory / "8.fifo")
    (place.directory / "9.dangling").symlink_to("none")
    (place.directory / "10.directory").mkdir()
    place.received(0)
    assert place.poll(bulletin_max=1000) == ["1.good", "3.good", "6.good", "7.good"]
    assert place.number == 7
    late = ["Bulletin 8.fifo is not a regular file",
            "Unable to open bulletin file 9.dangling: No such file or directory (2)",
            "Bulletin 10.directory is not a regular file"]
    assert place.log.notices == [
        'Bulletin 2.no_envelope does not start with a valid "From " separator', "Bulletin 4.empty is empty",
        "Bulletin 5.large has more than 1000 octets",
        "Bulletin 6.second has the number of 6.good; bulletin omitted", *late]
    # Only what is still due is told again.
    assert place.poll() == [] and place.number == 7
    assert place.log.notices == late


def test_what_is_wrong_with_an_old_bulletin_is_no_news(place):
    place.put("4.empty", octets=b"")
    os.mkfifo(place.directory / "5.fifo")
    place.put("6.good")
    place.received(5)
    assert place.poll() == ["6.good"]
    assert place.log.notices == []


def test_the_newest_is_delivered_when_it_has_been_mended(place):
    place.put("1.x", octets=b"")
    place.received(0)
    assert place.poll() == [] and place.number == 0
    place.put("1.x")
    assert place.poll() == ["1.x"] and place.number == 1


def test_of_one_number_the_first_name_counts_even_when_that_is_no_bulletin(place):
    place.put("1.a", octets=b"")
    place.put("1.b")
    place.received(0)
    assert place.poll() == []
    assert place.log.notices == ["Bulletin 1.a is empty", "Bulletin 1.b has the number of 1.a; bulletin omitted"]


def test_a_new_user_for_whom_the_newest_is_broken_is_new_no_more(place):
    place.put("1.a", "2.b")
    place.put("3.c", octets=b"")
    assert place.poll(new_user_bulletins=1) == [] and place.number == 2
    place.put("3.c")
    assert place.poll() == ["3.c"]


def test_a_directory_that_fails_is_one_line(place):
    place.put("1.a")
    place.received(0)
    place.directory.chmod(0o777)
    assert place.poll() == []
    assert place.log.notices == [
        f"Bulletin directory '{place.directory}' may be written in by others than its owner; no bulletins"]
    assert place.poll(bulletins="/nonexistent") == []
    assert place.log.notices == ["Unable to open bulletin directory '/nonexistent': No such file or directory (2)"]
    assert place.number == 0


@pytest.mark.parametrize("octets, what", [(b"", "is empty"), (b"x\n", "holds no number"), (b"2", "holds no number")])
def test_a_receipt_that_says_nothing_brings_no_flood(place, octets, what):
    place.put("1.a", "2.b", "3.c")
    place.popbull.write_bytes(octets)
    assert place.poll(new_user_bulletins=2) == [] and place.number == 3
    assert place.log.notices == [f"{place.popbull} {what}; joe is taken to have all bulletins"]
    place.put("4.d")
    assert place.poll() == ["4.d"]
    assert place.log.notices == []


def test_a_receipt_that_is_a_trap_is_one_line_and_no_bulletins(place):
    place.put("1.a")
    place.popbull.symlink_to(place.home / "other")
    assert place.poll(new_user_bulletins=1) == []
    assert place.log.notices == [
        f"Unable to open .popbull file {place.popbull}: Too many levels of symbolic links (40); no bulletins"]
    assert os.listdir(place.home) == [".popbull"]


def test_a_receipt_that_cannot_be_written_is_one_line_and_no_bulletins(place, monkeypatch):
    """Whether a file can be made there is tried before anything is added."""
    place.put("1.a")
    place.received(0)
    opened, store = os.open, Memory(MAIL)

    def full(path, flags, *mode, **how):
        if flags & os.O_CREAT:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return opened(path, flags, *mode, **how)
    monkeypatch.setattr(os, "open", full)
    monkeypatch.setattr(store, "append", lambda *_: pytest.fail("something was added"))
    assert place.poll(store) == []
    assert place.log.notices == [
        f"Unable to open {place.popbull} for writing: Disk quota exceeded (122); no bulletins"]
    assert place.number == 0 and store.octets == MAIL


def test_a_new_user_without_a_place_for_the_receipt_gets_none(place):
    place.put("1.a")
    shutil.rmtree(place.home)
    assert place.poll(new_user_bulletins=1) == []
    assert place.log.notices == [
        f"Unable to open {place.popbull} for writing: No such file or directory (2); no bulletins"]


def test_a_store_that_cannot_take_them_is_one_line(place, monkeypatch):
    place.put("1.a")
    place.received(0)
    store = Memory(MAIL)

    def refuse(messages, number):
        raise Refused("/var/mail/joe cannot be added to.", TEMPORARY, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(store, "append", refuse)
        assert place.poll(store) == []
    assert place.log.notices == ["/var/mail/joe cannot be added to. (No space left on device)"]
    assert place.number == 0 and os.listdir(place.home) == [".popbull"]
    assert place.poll(store) == ["1.a"]


def test_a_store_that_breaks_leaves_no_litter(place, monkeypatch):
    place.put("1.a")
    place.received(0)
    store = Memory(MAIL)

    def crash(messages, number):
        raise DropBroken("gone")
    monkeypatch.setattr(store, "append", crash)
    with pytest.raises(DropBroken):
        place.poll(store)
    assert os.listdir(place.home) == [".popbull"]


# -- users without a home --------------------------------------------------------------------------------------------

def test_who_has_no_place_for_a_receipt_gets_none_and_only_debugging_says_so(place):
    place.put("1.a")
    place.account.home = ""
    assert place.poll(new_user_bulletins=1) == []
    assert place.log.notices == []
    assert place.log.debugs == ["No bulletins for joe: neither a home directory nor popbull_dir"]
    board = Board(place.options, place.account, place.log)
    with pytest.raises(Refused):
        board.noted(1)


def test_two_users_of_popbull_dir_are_two(place):
    place.put("1.a")
    for user in "joe", "ann":
        place.account = Account(user)
        assert place.poll(new_user_bulletins=1, popbull_dir=str(place.home)) == ["1.a"]
        assert place.poll() == []
    assert sorted(os.listdir(place.home)) == ["ann.popbull", "joe.popbull"]


# -- batches ---------------------------------------------------------------------------------------------------------

class Counting(Memory):
    """Keeps what it was given in one step: (how many messages, octets, number)."""

    def __init__(self, octets=b""):
        super().__init__(octets)
        self.steps = []

    def append(self, messages, number):
        self.steps.append((len(messages), sum(map(len, messages)), number))
        super().append(messages, number)


def test_many_octets_come_in_steps_each_with_its_number(place, monkeypatch):
    monkeypatch.setattr(bulletins, "BATCH", 1000)
    for number in range(1, 8):
        place.put(f"{number}.x", octets=ENVELOPE + text(f"{number}.x", 400))
    place.put("8.x", octets=ENVELOPE + text("8.x", 5000))
    place.put("9.x")
    place.received(0)
    store = Counting()
    assert place.poll(store) == [f"{number}.x" for number in range(1, 10)]
    assert [(count, number) for count, _, number in store.steps] == [(2, 2), (2, 4), (2, 6), (1, 7), (1, 8), (1, 9)]
    assert all(size <= 1000 or number == 8 for _, size, number in store.steps)
    assert place.number == 9


def test_a_step_that_fails_leaves_those_before_it(place, monkeypatch):
    monkeypatch.setattr(bulletins, "BATCH", 1)
    place.put("1.a", "2.b", "3.c")
    place.received(0)

    class Small(Memory):
        def append(self, messages, number):
            if number == 2 and not room:
                raise Refused("no room", TEMPORARY)
            super().append(messages, number)
    store, room = Small(MAIL), False
    assert place.poll(store) == ["1.a"] and place.number == 1
    assert place.log.notices == ["no room"]
    room = True
    assert place.poll(store) == ["2.b", "3.c"] and place.number == 3


# -- groups ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def groups(monkeypatch):
    """staff with gid 700001, students with 700002; this process is in what `groups` holds."""
    mine, known = [], {"staff": 700001, "students": 700002, "joes": 700003}
    monkeypatch.setattr(os, "getgroups", lambda: mine)
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", known[name], [])))
    return mine


def test_a_bulletin_of_a_group_is_for_its_members(place, groups):
    place.put("1.staff.a", "2.students.b", "3.ALL.c", "4.joes.d")
    place.account.gid = 700003
    groups.append(700002)
    place.received(0)
    assert place.poll(group_bulletins=True) == ["2.students.b", "3.ALL.c", "4.joes.d"]
    assert place.log.notices == []
    assert "Bulletin 1.staff.a is not for joe: not of its group" in place.log.debugs
    place.received(0)
    assert place.poll(group_bulletins=False) == ["1.staff.a", "2.students.b", "3.ALL.c", "4.joes.d"]


def test_a_group_that_is_not_there_and_a_name_without_one(place, groups):
    place.put("1.nosuch.a", "2", "3-more", "4..x")
    place.received(0)
    assert place.poll(group_bulletins=True) == ["2", "3-more"]
    assert place.log.notices == [
        'Non-existent group "nosuch" in bulletin; bulletin omitted: 1.nosuch.a',
        "Can't find '.' in bulletin name; delivering to all users: 2",
        "Can't find '.' in bulletin name; delivering to all users: 3-more",
        'Non-existent group "" in bulletin; bulletin omitted: 4..x']


def test_a_file_for_others_is_not_even_opened(place, groups):
    place.put("1.staff.a", octets=b"")
    place.received(0)
    assert place.poll(group_bulletins=True) == []
    assert place.log.notices == []


def test_what_is_for_others_is_not_received(place, groups):
    """Whoever joins the group later gets what is the newest then."""
    place.put("1.staff.a")
    place.received(0)
    assert place.poll(group_bulletins=True) == [] and place.number == 0
    groups.append(700001)
    assert place.poll(group_bulletins=True) == ["1.staff.a"] and place.number == 1


def test_a_user_without_numbers_is_in_no_group(place, groups):
    """His name may be that of somebody of the system, and popper's groups are not his."""
    groups.append(700001)
    place.account = Account("joe", home=str(place.home))
    place.put("1.staff.a", "2.ALL.b")
    place.received(0)
    assert place.poll(group_bulletins=True) == ["2.ALL.b"]


def test_a_group_is_looked_up_as_it_is_written():
    me = Account("me", os.geteuid(), os.getegid())
    own = grp.getgrgid(os.getegid()).gr_name
    assert bulletins.is_member(me, own) is True
    assert bulletins.is_member(me, "") is bulletins.is_member(me, "no\udcffsuch") is None
    assert bulletins.is_member(me, "all") is None


# -- what debugging says ---------------------------------------------------------------------------------------------

def test_debugging_tells_what_was_considered_and_given(place):
    place.put("1.a", "2.b")
    place.received(1)
    place.poll()
    assert place.log.debugs == ["Bulletins above 1 are due to joe: 1", "Bulletin 2.b is given to joe"]
    place.poll()
    assert place.log.debugs == ["Bulletins above 2 are due to joe: 0"]


# -- what a poll costs -----------------------------------------------------------------------------------------------

def test_a_poll_that_finds_nothing_looks_at_no_file(place, monkeypatch):
    """One listing and one small read, however many bulletins there are."""
    place.put(*(f"{number}.x" for number in range(1, 50)))
    os.mkfifo(place.directory / "5.fifo")
    place.received(49)
    opened, listed = [], []
    open_, listdir = os.open, os.listdir
    monkeypatch.setattr(os, "open", lambda path, *rest, **how: (opened.append(path), open_(path, *rest, **how))[1])
    monkeypatch.setattr(os, "listdir", lambda path: (listed.append(path), listdir(path))[1])
    for name in "stat", "lstat", "readlink", "scandir", "rename", "unlink":
        monkeypatch.setattr(os, name, lambda *_, **__: pytest.fail("a file was looked at"))
    assert place.poll() == []
    assert opened == [str(place.directory), str(place.popbull)] and len(listed) == 1
