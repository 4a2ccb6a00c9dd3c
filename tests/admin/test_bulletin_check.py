"""popperctl bulletin check: each rule can be broken, is told of with a cure, and the cure works."""

import os
import subprocess

import pytest

from conftest import TREE
from desk import STAFF, UID, desk, popperctl              # noqa: F401, fixtures
from popper.admin.shelf import LAST
from processes import forks

pytestmark = forks
ENVELOPE = b"From a@b.org Mon Jan  1 00:00:00 2024\n"
GOOD = ENVELOPE + b"From: a@b.org\nSubject: a\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\ntext\n"
SAMPLES = TREE / "bulletins"


def told(desk):
    """[(name, what, whether it is a fault)] and the status."""
    done = desk.call("check", "--json")
    return [(row["name"], row["what"], row["fault"]) for row in done.json], done.status


def test_nothing_is_wrong_with_the_samples_and_with_what_add_makes(desk):
    for sample in "7.welcome_to_pophost", "22.pophost_speaks_unicode", "23.pophost_down_sunday":
        desk.put(sample, (SAMPLES / sample).read_bytes())
    desk.add("Grüße\nFrom here\n" + "x" * 2000 + "\n", "Grüße")
    done = desk.call("check")
    assert (done.status, done.out) == (0, f"{desk.directory}: nothing has to be mended\n")
    assert told(desk) == ([], 0)


@pytest.mark.parametrize("name, octets, what, status", [
    ("1.a", b"", "Bulletin 1.a is empty", 65),
    ("1.a", b"text\n", 'Bulletin 1.a does not start with a valid "From " separator', 65),
    ("1.a", ENVELOPE + b"\n", "Bulletin 1.a has nothing but an envelope line", 65),
    ("1.a", GOOD + b"x" * 2000, "Bulletin 1.a has more than 2000 octets", 65),
    ("1.a", GOOD + b"\n" + GOOD, "holds 2 messages, and is sent as one", 65),
    ("1.a", GOOD.replace(b"\n\n", b"\nbroken line\n\n"), "has a line in its header that is none: broken\\x20line", 65),
    ("1.a", GOOD.replace(b"Subject: a", "Subject: ä".encode()), "has characters in its header that are not ASCII", 65),
    ("1.a", GOOD + "ä\n".encode(), "has text that is not ASCII, and does not say what it is", 65),
    ("1.a", GOOD.replace(b"Subject", b"Object").replace(b"Date", b"Data"), "has no Subject, Date", 0),
    ("1.a", GOOD + b"x" * 999 + b"\n", "has lines of more than 998 octets", 0),
    ("1.a~", GOOD, "is no bulletin", 65),
    ("0.a", GOOD, "is no bulletin", 65),
    ("1" * 19, GOOD, "is no bulletin", 65),
    ("README", b"", "is no bulletin: its name does not begin with a number", 0),
])
def test_what_is_wrong_with_a_file(desk, name, octets, what, status):
    desk.configure(bulletin_max=2000)
    desk.put(name, octets)
    assert told(desk) == ([(name, what, status == 65)], status)


def test_what_is_wrong_with_what_is_no_file(desk):
    os.mkfifo(desk.directory / "1.fifo")
    (desk.directory / "2.directory").mkdir()
    (desk.directory / "3.nowhere").symlink_to("nowhere")
    found, status = told(desk)
    assert status == 65
    assert [what.partition(":")[0] for _, what, _ in found if "cannot be read" not in what] == [
        "Bulletin 1.fifo is not a regular file", "Bulletin 2.directory is not a regular file",
        "Unable to open bulletin file 3.nowhere"]


def test_two_with_one_number_of_which_the_second_counts_for_nothing(desk):
    desk.put("5.b", GOOD)
    desk.put("5.a", GOOD)
    assert told(desk) == ([("5.b", "has the number of 5.a, and nobody gets it", True)], 65)


@pytest.mark.root
def test_a_cure_may_be_typed_whatever_the_name(desk):
    desk.put("1.$(touch x); a\n'b", b"")
    (row,) = desk.call("check", "--json").json
    subprocess.run(row["remedy"], shell=True, check=True, cwd=desk.place)
    assert desk.call("check").status == 0 and not (desk.place / "x").exists()
    assert desk.put("1.\x1b[2J\u202e", b"") and "\x1b" not in desk.call("check").out


def test_our_own_files_are_nobodys_fault(desk):
    desk.add()
    desk.call("withdraw", "1")
    assert told(desk) == ([], 0)


@pytest.mark.parametrize("mode, what", [(0o646, "Bulletin 1.a may be written by everybody")])
def test_modes_of_files(desk, mode, what):
    desk.put("1.a", GOOD).chmod(mode)
    assert told(desk) == ([("1.a", what, True)], 65)


@pytest.mark.root
def test_a_cure_is_a_command_that_works(desk):
    path = desk.put("1.a", GOOD)
    for mode in 0o600, 0o640, 0o666:
        path.chmod(mode)
        (row,) = desk.call("check", "--json").json
        subprocess.run(row["remedy"], shell=True, check=True)
        assert desk.call("check").status == 0


@pytest.mark.root
@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o775), lambda path: path.chmod(0o700),
                                   lambda path: path.parent.chmod(0o700), lambda path: os.chown(path, UID, UID)],
                         ids=["group", "others", "above", "owner"])
def test_a_directory_that_users_or_the_server_will_not_take(desk, spoil):
    desk.put("1.a", GOOD)
    spoil(desk.directory)
    done = desk.call("check", "--json")
    assert done.status == 65 and [row["name"] for row in done.json] == ["."]
    subprocess.run(done.json[0]["remedy"], shell=True, check=True)
    assert desk.call("check").status == 0


def test_a_directory_that_is_not_there(desk):
    done = desk.call("check", "-b", "/nonexistent")
    assert (done.status, done.err) == (66, "popperctl: /nonexistent: No such file or directory\n")


def test_groups(desk):
    desk.configure(group_bulletins="yes")
    for name in "1.nosuch.a", "2.ALL.a", f"3.{STAFF}.a", "4":
        desk.put(name, GOOD)
    assert told(desk) == ([
        ("1.nosuch.a", 'is for a group "nosuch" that does not exist, and nobody gets it', True),
        ("4", "has no group in its name, and goes to everybody", False)], 65)
    desk.configure()
    assert told(desk) == ([], 0)


@pytest.mark.root
def test_receipts_above_all_numbers(desk):
    """After a move from another server they are a fault; when numbers were given out since, they are only said."""
    desk.put("7.a", GOOD)
    desk.receipt("ann", 30)
    assert told(desk) == (
        [(".popbull", "ann had bulletins up to 30, and does not get any up to that number", True)], 65)
    desk.add("x\n", "x", "--number", "31")
    assert told(desk) == ([], 0)
    for user in desk.users:
        desk.receipt(user, 99)
    assert told(desk) == ([(".popbull", "ann, bob, cat had bulletins up to 99, and does not get any up to that number",
                            False)], 0)


def test_the_table_names_file_fault_and_cure(desk):
    desk.put("1.a", b"")
    desk.put("README", b"")
    head, *rows = desk.call("check").out.splitlines()
    assert head.split() == ["NAME", "WHAT", "IS", "WRONG", "WHAT", "TO", "DO"]
    assert rows[0].startswith("README") and rows[1].split()[0] == "1.a" and rows[1].endswith(f"rm {desk.directory}/1.a")
    assert LAST not in " ".join(rows)
