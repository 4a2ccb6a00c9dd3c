"""Users of a password file: `user:hash[:uid:gid:gecos:home:shell]`."""

import os
import pwd

import pytest

from popper.account import Credentials
from popper.auth import authenticate, crypt, file
from popper.errors import AUTH, PERMANENT, Denied, Refused
from popper.options import Options

HASH = crypt.hashed(b"s3cret", b"$6$rounds=1000$popsalt$").decode()
OTHER = crypt.hashed(b"other", b"$6$rounds=1000$popsalt$").decode()
MISTAKE = "System error, can't verify passwords."


@pytest.fixture
def options(tmp_path):
    options = Options()
    options.password_file = str(tmp_path / "passwords")
    return options


@pytest.fixture
def write(options):
    def write(*lines, end="\n"):
        with open(options.password_file, "wb") as out:
            out.write("".join(line + end for line in lines).encode())
    return write


@pytest.fixture
def ordinary(monkeypatch):
    """popper was started by an ordinary user."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("HOME", "/home/starter")


@pytest.fixture
def as_root(monkeypatch):
    """popper was started by root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def denied(*arguments):
    with pytest.raises(Denied) as caught:
        file.authenticate(*arguments)
    assert caught.value.code == AUTH
    return caught.value


def fields(account):
    return account.user, account.uid, account.gid, account.home


# -- lines -------------------------------------------------------------------------------------------------------

LINES = {
    "name and hash": (f"joe:{HASH}", "/home/starter"),
    "as htpasswd and shadow write it": (f"joe:{HASH}:", "/home/starter"),
    "name, hash, numbers": (f"joe:{HASH}:1234:567", "/home/starter"),
    "all seven fields": (f"joe:{HASH}:1234:567:Joe Doe,,,:/srv/joe:/bin/sh", "/srv/joe"),
    "no shell": (f"joe:{HASH}:1234:567:Joe Doe:/srv/joe", "/srv/joe"),
    "empty fields": (f"joe:{HASH}:::::", "/home/starter"),
    "more fields than any": (f"joe:{HASH}:1234:567::/srv/joe:/bin/sh:a:b:c", "/srv/joe"),
}


@pytest.mark.parametrize("line, home", LINES.values(), ids=LINES)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_every_form_of_a_line_for_an_ordinary_user(ordinary, options, write, line, home, end):
    write("# users", "", line, end=end)
    account = file.authenticate("joe", b"s3cret", options)
    assert fields(account) == ("joe", None, None, home)
    assert denied("joe", b"S3cret", options).text == ""


def test_the_last_line_needs_no_end(ordinary, options, write):
    write(f"ann:{OTHER}", f"joe:{HASH}", end="\n")
    with open(options.password_file, "rb+") as octets:
        octets.truncate(os.path.getsize(options.password_file) - 1)
    assert file.authenticate("joe", b"s3cret", options).user == "joe"


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_root_serves_as_the_line_says(as_root, options, write, end):
    write(f"joe:{HASH}:1234:567:Joe:/srv/joe:/bin/sh", f"ann:{OTHER}:1235:568", end=end)
    assert fields(file.authenticate("joe", b"s3cret", options)) == ("joe", 1234, 567, "/srv/joe")
    assert fields(file.authenticate("ann", b"other", options)) == ("ann", 1235, 568, "")


def test_root_serves_a_line_without_numbers_as_the_account_of_that_name(as_root, options, write):
    options.min_uid = 1
    write(f"daemon:{HASH}", f"bin:{HASH}::::/srv/bin")
    for name, home in (("daemon", pwd.getpwnam("daemon").pw_dir), ("bin", "/srv/bin")):
        known = pwd.getpwnam(name)
        assert fields(file.authenticate(name, b"s3cret", options)) == (name, known.pw_uid, known.pw_gid, home)


@pytest.mark.parametrize("line", [f"pop-nobody:{HASH}", f"pop-nobody:{HASH}:12x4:567", f"pop-nobody:{HASH}:-1:-1",
                                  f"pop-nobody:{HASH}:1234"])
def test_root_serves_nobody_without_numbers_or_account(as_root, options, write, line):
    write(line)
    error = denied("pop-nobody", b"s3cret", options)
    assert error.text == "" and "no such account" in error.reason
    assert denied("pop-nobody", b"other", options).reason == "wrong password"


@pytest.mark.parametrize("uid, least, served", [(0, 11, False), (10, 11, False), (11, 11, True), (999, 1000, False),
                                                (1000, 1000, True), (0, 1, False), (1, 1, True)])
def test_uids_below_min_uid_are_blocked(as_root, options, write, uid, least, served):
    """ucb-popper.md 4.2.3: told to who knows the password, and to nobody else."""
    options.min_uid = least
    write(f"joe:{HASH}:{uid}:1000")
    if served:
        assert file.authenticate("joe", b"s3cret", options).uid == uid
    else:
        error = denied("joe", b"s3cret", options)
        assert error.text == f"Access is blocked for UIDs below {least}" and f"uid {uid}" in error.reason
    assert denied("joe", b"wrong", options).text == ""


# -- names -------------------------------------------------------------------------------------------------------

def test_one_name_that_begins_like_another(ordinary, options, write):
    write(f"joey:{OTHER}", f"joe:{HASH}", f"jo:{OTHER}")
    assert file.authenticate("joe", b"s3cret", options).user == "joe"
    assert file.authenticate("joey", b"other", options).user == "joey"
    assert file.authenticate("jo", b"other", options).user == "jo"
    denied("joe", b"other", options)
    denied("joey", b"s3cret", options)
    for unknown in ("j", "joeyy", "oe", "JOE", "Joe"):
        assert file.authenticate(unknown, b"s3cret", options) is None


@pytest.mark.parametrize("name", ["joe:", "joe:x", ":", "", "#joe", " joe", "joe\nann", "no colon here"])
def test_what_stands_in_the_file_but_is_no_name_is_nobody(ordinary, options, write, name):
    """A name cannot reach over its field, nor into another line (security.md row 19)."""
    options.auth = ("file",)
    write(*(f"{name}:{HASH}" for name in ("joe:x", "", "#joe", " joe", "joe:", "no colon here", "ann")))
    with pytest.raises(Denied) as caught:
        authenticate(Credentials(name.encode(), b"s3cret"), options)
    assert (caught.value.text, caught.value.reason) == ("", "not a name and a password")
    assert authenticate(Credentials(b"ann", b"s3cret"), options).user == "ann"


def test_the_first_line_of_a_name_counts(ordinary, options, write):
    write(f"joe:{HASH}", f"joe:{OTHER}")
    assert file.authenticate("joe", b"s3cret", options).user == "joe"
    denied("joe", b"other", options)


def test_comments_are_nobody(ordinary, options, write):
    write(f"#joe:{HASH}", f"# joe:{HASH}", f"  joe:{HASH}", "no colon here", "", f"ann:{HASH}")
    assert file.authenticate("joe", b"s3cret", options) is None
    assert file.authenticate("no", b"s3cret", options) is None
    assert file.authenticate("ann", b"s3cret", options).user == "ann"


# -- hashes ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("field", ["", "*", "!", "!!", f"!{HASH}", f"*{HASH}", "x", "s3cret"])
@pytest.mark.parametrize("rest", ["", ":1234:567::/srv/joe:/bin/sh"])
@pytest.mark.filterwarnings("ignore:'crypt' is deprecated:DeprecationWarning")
def test_a_line_without_a_usable_hash_lets_nobody_in(ordinary, options, write, field, rest):
    """And the name is known for all that: no other module is asked (None would say so)."""
    write(f"joe:{field}{rest}")
    for password in (b"s3cret", b"x", b"*", b"!"):
        assert denied("joe", password, options).text == ""


def test_a_name_without_any_colon_is_no_line(ordinary, options, write):
    write("joe")
    assert file.authenticate("joe", b"s3cret", options) is None


# -- the file ----------------------------------------------------------------------------------------------------

def refused(options):
    with pytest.raises(Refused) as caught:
        file.authenticate("joe", b"s3cret", options)
    assert not isinstance(caught.value, Denied)
    assert (caught.value.text, caught.value.code) == (MISTAKE, PERMANENT)
    assert options.password_file in caught.value.reason
    return caught.value


def test_no_file_asked_for_is_nobody_known(ordinary, options):
    options.password_file = ""
    assert file.authenticate("joe", b"s3cret", options) is None


def test_a_missing_file_is_the_systems_mistake(ordinary, options):
    assert "No such file" in refused(options).reason


def test_a_directory_is_the_systems_mistake(ordinary, options):
    os.mkdir(options.password_file)
    refused(options)


def test_an_empty_file_knows_nobody(ordinary, options, write):
    write()
    assert file.authenticate("joe", b"s3cret", options) is None


@pytest.mark.root
def test_an_unreadable_file_is_the_systems_mistake(options, write):
    write(f"joe:{HASH}")
    os.chmod(options.password_file, 0)
    os.seteuid(65534)
    try:
        error = refused(options)
    finally:
        os.seteuid(0)
    assert "Permission denied" in error.reason


def test_no_descriptor_is_left_open(ordinary, options, write):
    write(f"joe:{HASH}")
    before = os.listdir("/proc/self/fd")
    file.authenticate("joe", b"s3cret", options)
    file.authenticate("ann", b"s3cret", options)
    assert os.listdir("/proc/self/fd") == before
