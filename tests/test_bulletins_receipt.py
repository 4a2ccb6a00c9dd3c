"""The receipt, `.popbull`: read with suspicion, written whole or not at all (ucb-popper.md 6; security.md)."""

import os
import stat
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper.account import Account
from popper.errors import Refused
from popper.popbull import DIGITS_MOST, Damaged, Popbull, popbull_path


@pytest.fixture
def home(tmp_path):
    """A home directory in which nothing but the receipt is left behind."""
    yield tmp_path
    assert {path.name for path in tmp_path.iterdir()} <= {".popbull", "other", "closed"}


@pytest.fixture
def popbull(home):
    return Popbull(f"{home}/.popbull")


def complaint(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert not isinstance(caught.value, Damaged)
    return caught.value.text


# -- reading ---------------------------------------------------------------------------------------------------------

def test_no_receipt_is_no_number(popbull):
    assert popbull.read() is None


@pytest.mark.parametrize("octets, number", [(b"23\n", 23), (b"0\n", 0), (b"007\n", 7), (b" 23 \n", 23), (b"23\r\n", 23),
                                            (b"23\n\n", 23), (b"9" * DIGITS_MOST + b"\n", 10**DIGITS_MOST - 1)])
def test_a_number_and_a_line_end(popbull, home, octets, number):
    (home / ".popbull").write_bytes(octets)
    assert popbull.read() == number


@pytest.mark.parametrize("octets", [b"23", b"\n", b"x\n", b"-1\n", b"+1\n", b"2 3\n", b"22\n23\n", b"23 x\n", b"0x17\n",
                                    b"1e9\n", b"\0\n", b"23\0\n", b"\xb2\n", "\u0662\n".encode(), b"23\n" + b"x" * 99,
                                    b"1" + b"0" * DIGITS_MOST + b"\n", b" " * 100 + b"23\n", b"x" * 100000])
def test_what_is_no_number_is_damage(popbull, home, octets):
    (home / ".popbull").write_bytes(octets)
    with pytest.raises(Damaged) as damage:
        popbull.read()
    assert damage.value.text == f"{home}/.popbull holds no number"
    assert (home / ".popbull").read_bytes() == octets


def test_an_empty_one_is_damage(popbull, home):
    (home / ".popbull").write_bytes(b"")
    with pytest.raises(Damaged, match="/.popbull is empty$"):
        popbull.read()


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=70), st.from_regex(rb"\A[ \d]{0,40}\n?\Z")))
def test_whatever_is_in_it_it_is_a_number_or_damage(tmp_path_factory, octets):
    """row 28: a receipt is read with the suspicion due to any state kept in a file."""
    place = tmp_path_factory.mktemp("home") / ".popbull"
    place.write_bytes(octets)
    try:
        assert Popbull(str(place)).read() == int(octets)
    except Damaged:
        assert not octets.endswith(b"\n") or not octets.strip().isdigit() or len(octets) > DIGITS_MOST


def test_half_a_line_is_not_half_the_number(popbull, home):
    """23 must not be read as 2, which would bring twenty old bulletins."""
    popbull.write(123456)
    octets = (home / ".popbull").read_bytes()
    for length in range(len(octets)):
        (home / ".popbull").write_bytes(octets[:length])
        with pytest.raises(Damaged):
            popbull.read()


TRAPS = {
    "symlink": lambda place, other: place.symlink_to(other),
    "dangling": lambda place, other: place.symlink_to(other.parent / "none"),
    "hard link": lambda place, other: os.link(other, place),
    "directory": lambda place, other: place.mkdir(),
    "fifo": lambda place, other: os.mkfifo(place),
    "socket": lambda place, other: os.mknod(place, stat.S_IFSOCK | 0o600),
}


@pytest.mark.parametrize("trap, words", [
    ("symlink", "Unable to open .popbull file {}: Too many levels of symbolic links (40); no bulletins"),
    ("dangling", "Unable to open .popbull file {}: Too many levels of symbolic links (40); no bulletins"),
    ("hard link", "{} has more than one link; no bulletins"),
    ("directory", "{} is not a regular file; no bulletins"),
    ("fifo", "{} is not a regular file; no bulletins"),
    ("socket", "Unable to open .popbull file {}: No such device or address (6); no bulletins"),
])
def test_a_trap_is_told_and_not_touched(popbull, home, trap, words):
    """row 11 (CVE-2005-1151): a link, a FIFO or the like in its place is neither followed nor read, nor waited for."""
    other = home / "other"
    other.write_bytes(b"7\n")
    TRAPS[trap](home / ".popbull", other)
    before = os.lstat(home / ".popbull")
    assert complaint(popbull.read) == words.format(home / ".popbull")
    after = os.lstat(home / ".popbull")
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert other.read_bytes() == b"7\n"


@pytest.mark.root
def test_another_users_file_is_not_believed(popbull, home):
    """row 8: only what is the user's own is read."""
    (home / ".popbull").write_bytes(b"7\n")
    os.chown(home / ".popbull", 4321, 4321)
    assert complaint(popbull.read) == f"{home}/.popbull is not owned by this user; no bulletins"


# -- writing ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fsync", [True, False])
def test_what_is_written_is_read(home, fsync):
    popbull = Popbull(f"{home}/.popbull", fsync)
    for number in (0, 7, 23, 22, 10**DIGITS_MOST - 1):
        popbull.write(number)
        assert (home / ".popbull").read_bytes() == b"%d\n" % number
        assert Popbull(f"{home}/.popbull").read() == number


@pytest.mark.parametrize("umask", [0, 0o077])
def test_it_is_nobody_elses_to_read(popbull, home, umask):
    """row 12 (CVE-2005-1152): mode 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        popbull.write(7)
    finally:
        os.umask(before)
    assert (home / ".popbull").stat().st_mode & 0o7777 == 0o600


def test_whoever_looks_sees_the_old_number_or_the_new_one(popbull, home):
    """The file is never open for writing under its name: it is replaced."""
    popbull.write(7)
    with open(home / ".popbull", "rb") as old:
        popbull.prepare(8)
        assert (home / ".popbull").read_bytes() == b"7\n"
        popbull.write(8)
        assert old.read() == b"7\n"
    assert popbull.read() == 8


def test_what_was_prepared_can_be_forgotten(popbull, home):
    popbull.write(7)
    popbull.prepare(8)
    popbull.prepare(9)
    popbull.discard()
    popbull.discard()
    assert os.listdir(home) == [".popbull"] and popbull.read() == 7


def test_another_number_than_was_prepared_is_written_all_the_same(popbull):
    popbull.prepare(8)
    popbull.write(9)
    assert popbull.read() == 9


def test_what_one_that_was_killed_left_is_no_hindrance(popbull, home):
    (home / ".popbull.new").write_bytes(b"half")
    (home / ".popbull.new").chmod(0)
    popbull.write(8)
    assert popbull.read() == 8
    (home / ".popbull.new").symlink_to(home / "other")
    popbull.write(9)
    assert popbull.read() == 9 and not (home / "other").exists()


def test_a_file_of_somebody_else_in_the_private_place_is_no_hindrance(popbull, home):
    """In a directory like /tmp anybody can make a file of that name, and nobody else remove it; a directory is like
    that here."""
    (home / ".popbull.new").mkdir()
    popbull.write(8)
    assert popbull.read() == 8
    assert (home / ".popbull.new").is_dir()
    (home / ".popbull.new").rmdir()


def test_steps_that_make_it_durable(popbull, home, monkeypatch):
    """The line, then the name; neither without `fsync`."""
    steps = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor):
        steps.append(stat.S_IFMT(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    def renamed(old, new):
        steps.append((os.path.basename(old), os.path.basename(new)))
        rename(old, new)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    popbull.write(7)
    assert steps == [stat.S_IFREG, (".popbull.new", ".popbull"), stat.S_IFDIR]
    steps.clear()
    Popbull(f"{home}/.popbull", fsync=False).write(8)
    assert steps == [(".popbull.new", ".popbull")]


def test_a_place_that_is_not_there_is_told(home):
    popbull = Popbull(f"{home}/none/.popbull")
    assert popbull.read() is None
    assert complaint(popbull.prepare, 8) == complaint(popbull.write, 8) == \
        f"Unable to open {home}/none/.popbull for writing: No such file or directory (2); no bulletins"


def failing(monkeypatch, name, error):
    def fail(*arguments):
        raise OSError(error, os.strerror(error))
    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
def test_a_failure_leaves_the_old_number_and_no_litter(popbull, home, monkeypatch, name):
    popbull.write(7)
    with monkeypatch.context() as patch:
        failing(patch, name, 28)
        assert complaint(popbull.write, 8) == \
            f"Unable to write to {home}/.popbull: No space left on device (28); no bulletins"
    assert os.listdir(home) == [".popbull"] and popbull.read() == 7


def test_half_a_line_is_not_put_in_place(popbull, home, monkeypatch):
    popbull.write(7)
    monkeypatch.setattr(os, "write", lambda descriptor, octets: 1)
    assert "No space left on device (28)" in complaint(popbull.write, 10)
    assert os.listdir(home) == [".popbull"] and popbull.read() == 7


def test_a_name_that_cannot_be_made_durable_is_written_all_the_same(home, popbull, monkeypatch):
    """A directory one may write in but not read: the number is there, and the bulletins are not taken out again."""
    opened = os.open

    def unreadable(path, flags, *mode):
        if flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode)
    monkeypatch.setattr(os, "open", unreadable)
    popbull.write(8)
    assert popbull.read() == 8


def test_nothing_stays_open(popbull, home):
    before = os.listdir("/proc/self/fd")
    popbull.write(7)
    popbull.prepare(8)
    popbull.discard()
    popbull.read()
    (home / ".popbull").write_bytes(b"x")
    with pytest.raises(Damaged):
        popbull.read()
    os.link(home / ".popbull", home / "other")
    with pytest.raises(Refused):
        popbull.read()
    assert os.listdir("/proc/self/fd") == before


# -- where it is -----------------------------------------------------------------------------------------------------

def path(account, popbull_dir=""):
    return popbull_path(account, SimpleNamespace(popbull_dir=popbull_dir))


def test_it_is_in_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/runner")
    assert path(Account("joe", 1000, 1000, "/home/joe")) == "/home/joe/.popbull"
    assert path(Account("joe", 1000, 1000, "/")) == "/.popbull"
    assert path(Account("joe", home="/home/virtual/joe")) == "/home/virtual/joe/.popbull"


def test_popbull_dir_wins_and_keeps_users_apart():
    for account in Account("joe", 1000, 1000, "/home/joe"), Account("joe", home="/h"), Account("joe"):
        assert path(account, "/var/lib/popper") == "/var/lib/popper/joe.popbull"
    assert path(Account("joe@example.org"), "/r") == "/r/joe@example.org.popbull"


def test_the_home_of_whoever_runs_popper_is_no_users_home(monkeypatch):
    """The password file gives it to all who have none there; one receipt for all would be nobody's."""
    monkeypatch.setenv("HOME", "/home/runner")
    assert path(Account("joe", home="/home/runner")) == ""
    assert path(Account("joe", 1000, 1000, "/home/runner")) == "/home/runner/.popbull"


@pytest.mark.parametrize("home", ["", "mail", "~"])
def test_who_has_no_home_has_no_receipt(home):
    assert path(Account("joe", 1000, 1000, home)) == ""
