"""Receipts are asked for as their owner, whatever lies in a home, and however long it takes to answer."""

import os
import pwd

import pytest

from desk import ROOT, STAFF, UID, desk, popperctl                    # noqa: F401, fixtures
from popper.account import Account
from popper.admin import readers
from popper.admin.readers import DUE, HAD, LEFT_OUT, NEW, OUTSIDE, UNKNOWN, Reader
from popper.options import Options
from processes import forks

pytestmark = forks
as_root = pytest.mark.root


class Homes:
    """Users with homes, of which each may have what he likes."""

    def __init__(self, place):
        self.place = place
        self.options = Options()
        self.accounts = []

    def move_in(self, name, uid=UID):
        home = self.place / name
        home.mkdir()
        self.accounts.append(Account(name, uid, uid, str(home)) if ROOT else Account(name, home=str(home)))
        if ROOT:
            os.chown(home, uid, uid)
        return home / ".popbull"

    def own(self, path, uid=UID):
        if ROOT:
            os.chown(path, uid, uid, follow_symlinks=False)

    def survey(self, group=None):
        return {reader.user: reader for reader in readers.survey(self.accounts, self.options, group)}


@pytest.fixture
def homes(desk):
    return Homes(desk.place)


def test_each_receipt_is_read_in_order(homes):
    for number, name in enumerate(("ann", "bob", "cat")):
        path = homes.move_in(name)
        if number:
            path.write_text(f"{number * 10}\n")
            homes.own(path)
    ticks = []
    found = readers.survey(homes.accounts, homes.options, tick=lambda: ticks.append(1))
    assert [(reader.user, reader.receipt, reader.trouble) for reader in found] == [
        ("ann", None, ""), ("bob", 10, ""), ("cat", 20, "")]
    assert len(ticks) == 3
    assert os.getresuid() == (os.geteuid(),) * 3


def test_what_lies_in_a_home_stops_nobody(homes):
    """A link, a FIFO, a directory, a large file, another's file, a hard link: each is told of, and the rest is read."""
    homes.move_in("link").symlink_to("/etc/passwd")
    os.mkfifo(homes.move_in("fifo"))
    homes.move_in("directory").mkdir()
    for name, octets in ("large", b"1" * 10_000_000), ("empty", b""), ("words", b"many\n"), ("half", b"12"):
        path = homes.move_in(name)
        path.write_bytes(octets)
        homes.own(path)
    path = homes.move_in("linked")
    path.write_text("3\n")
    homes.own(path)
    os.link(path, homes.place / "other")
    good = homes.move_in("good")
    good.write_text("7\n")
    homes.own(good)
    found = homes.survey()
    assert {name for name, reader in found.items() if not reader.trouble} == {"good"}
    assert found["good"].receipt == 7
    assert all(reader.receipt is None and reader.outlook(1, {1}) == UNKNOWN
               for name, reader in found.items() if name != "good")


@as_root
def test_root_reads_nothing_that_the_user_could_not(homes, tmp_path):
    """The way to the receipt leads somewhere else: it is the user who goes it."""
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    (secret / ".popbull").write_text("42\n")
    path = homes.move_in("joe")
    path.parent.rmdir()
    path.parent.symlink_to(secret)
    other = homes.move_in("eve")
    other.write_text("42\n")                 # root's own file
    found = homes.survey()
    assert "Permission denied" in found["joe"].trouble
    assert "is not owned by this user" in found["eve"].trouble


@as_root
def test_the_groups_of_a_user_are_his_own(homes):
    homes.move_in("joe")
    homes.accounts.append(Account("games", pwd.getpwnam("games").pw_uid, pwd.getpwnam("games").pw_gid, "/nonexistent"))
    before = os.getgroups(), os.getresuid(), os.getresgid()
    found = homes.survey(STAFF)
    assert (os.getgroups(), os.getresuid(), os.getresgid()) == before
    assert (found["joe"].member, found["games"].member) == (False, True)


def test_who_never_answers_is_given_up_and_the_others_are_asked(homes, monkeypatch):
    for name in "ann", "bob", "cat":
        path = homes.move_in(name)
        path.write_text("5\n")
        homes.own(path)
    asked = readers._ask

    def hang(account, options, group):
        if account.user == "bob":
            os.read(os.pipe()[0], 1)         # as a file system of his own may
        return asked(account, options, group)
    monkeypatch.setattr(readers, "_ask", hang)
    monkeypatch.setattr(readers, "PATIENCE", 0.3)
    found = homes.survey()
    assert [(reader.receipt, reader.trouble) for reader in found.values()] == [(5, ""), (None, "no answer"), (5, "")]


def test_one_over_whom_the_child_dies_is_given_up(homes, monkeypatch):
    for name in "ann", "bob", "cat":
        homes.move_in(name)
    asked = readers._ask
    monkeypatch.setattr(readers, "_ask", lambda account, *rest: os._exit(1) if account.user == "bob"
                        else asked(account, *rest))
    assert [reader.trouble for reader in homes.survey().values()] == ["", "no answer", ""]


def test_nobody_to_ask_is_no_child(homes, monkeypatch):
    monkeypatch.setattr(readers.os, "fork", None)
    assert readers.survey([], homes.options) == []


@pytest.mark.parametrize("receipt, member, trouble, states", [
    (None, True, "", [LEFT_OUT, NEW]), (1, True, "", [DUE, DUE]), (2, True, "", [HAD, DUE]), (3, True, "", [HAD, HAD]),
    (9, True, "", [HAD, HAD]), (3, False, "", [OUTSIDE, OUTSIDE]), (None, True, "odd", [UNKNOWN, UNKNOWN]),
])
def test_how_a_reader_stands_to_two_bulletins_of_which_new_ones_get_the_last(receipt, member, trouble, states):
    reader = Reader("joe", receipt, member, trouble)
    assert [reader.outlook(number, {3}) for number in (2, 3)] == states


# -- who may log in --------------------------------------------------------------------------------------------------

def test_the_users_of_the_password_file_come_first_and_once(desk, monkeypatch):
    options = Options()
    options.auth = ("file", "getpw")
    options.password_file = str(desk.place / "file")
    (desk.place / "file").write_text(f"# comment: x\njoe:x:{UID}:{UID}::/j:\njoe:x:1:1::/second:\nlow:x:1:1::/l:\n"
                                     f"../x:y:{UID}:{UID}::/x:\nshort\nnobody-knows:x\n")
    monkeypatch.setattr(readers.pwd, "getpwall", lambda: [
        pwd.struct_passwd((name, "x", uid, 5, "", f"/home/{name}", shell)) for name, uid, shell in (
            ("joe", 2000, "/bin/sh"), ("ann", 2001, "/bin/sh"), ("cat", 2002, "/usr/sbin/nologin"),
            ("root", 0, "/bin/sh"), ("low", 2003, "/bin/sh"))])
    found = {account.user: (account.uid, account.home) for account in readers.accounts(options)}
    if ROOT:
        # low stands in the file first, with a number that may not come in; nobody-knows is no account.
        assert found == {"joe": (UID, "/j"), "ann": (2001, "/home/ann")}
    else:
        assert found["joe"] == (None, "/j") and "cat" not in found and "../x" not in found
    options.check_shell = False
    assert "cat" in {account.user for account in readers.accounts(options)}
    options.auth = ("getpw",)
    assert {account.user for account in readers.accounts(options)} == {"joe", "ann", "cat", "low"}


# -- writing ---------------------------------------------------------------------------------------------------------

def test_a_receipt_is_turned_back_by_its_owner(homes):
    path = homes.move_in("joe")
    path.write_text("9\n")
    homes.own(path)
    assert readers.turn_back(homes.accounts[0], homes.options, 4) == ""
    assert path.read_text() == "4\n" and path.stat().st_uid == (UID if ROOT else os.geteuid())


@as_root
def test_root_writes_nothing_that_the_user_could_not(homes, tmp_path):
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    path = homes.move_in("joe")
    path.parent.rmdir()
    path.parent.symlink_to(target)
    assert "Permission denied" in readers.turn_back(homes.accounts[0], homes.options, 4)
    assert list(target.iterdir()) == []


def test_a_link_in_the_place_of_a_receipt_is_replaced_and_not_followed(homes):
    mine = homes.place / "mine"
    mine.write_text("mine\n")
    path = homes.move_in("joe")
    path.symlink_to(mine)
    assert readers.turn_back(homes.accounts[0], homes.options, 4) == ""
    assert mine.read_text() == "mine\n" and path.read_text() == "4\n"


def test_who_has_no_place_for_a_receipt_is_told_of(homes):
    homes.accounts.append(Account("joe", UID if ROOT else None, UID if ROOT else None, ""))
    assert readers.turn_back(homes.accounts[0], homes.options, 4) == "neither a home directory nor popbull_dir"
    assert homes.survey()["joe"].trouble == "neither a home directory nor popbull_dir"
