"""System accounts, the real shadow file included, and the chain of modules."""

import contextlib
import importlib
import os
import pwd
import sys

import pytest
from conftest import PASSWORD, RealAccount, change

from popper.account import Account, Credentials
from popper.auth import authenticate, crypt, getpw, modules
from popper.errors import AUTH, PERMANENT, Denied, HungUp, Refused
from popper.options import Options

TODAY = 20_000
RIGHT, WRONG = PASSWORD.encode(), b"wrong"


def known(uid=1000, shell="/bin/sh", name="joe"):
    return pwd.struct_passwd((name, "x", uid, 1000, "Joe", "/home/joe", shell))


def shadow(changed=TODAY - 10, most=99999, expires=-1):
    return getpw.Shadow(name=b"joe", hash=b"x", changed=changed, least=0, most=most, warn=7, inactive=-1,
                        expires=expires)


def complaint(account=None, entry=None, **directives):
    options = Options()
    for name, value in directives.items():
        options.set(name, value)
    return getpw.complaint_about(account or known(), entry or shadow(), options, TODAY)


@pytest.fixture
def shells(monkeypatch, tmp_path):
    """shells(text): what /etc/shells says."""
    path = tmp_path / "shells"
    monkeypatch.setattr(getpw, "SHELLS", str(path))
    path.write_text("# shells\n/bin/sh\n/bin/bash\n")
    return path.write_text


@pytest.fixture
def hashes(monkeypatch):
    """[password, ...]: of every hash that was really made, in order."""
    real, asked = crypt.prepare(), []

    def counted(password, setting):
        computed = real(password, setting)
        if computed and not computed.startswith(b"*"):
            asked.append(password)
        return computed
    monkeypatch.setattr(crypt, "_crypt", counted)
    return asked


# -- who may not come in all the same (ucb-popper.md 4.2) ----------------------------------------------------------

BLOCKED = "Access is blocked for UIDs below {}"
NO_SHELL, NOT_FOUND = "No user shell defined", '"joe": shell not found.'
EXPIRED, AGED = '"joe": account expired.', '"joe": password expired.'


@pytest.mark.parametrize("uid, least, said", [
    (0, "11", BLOCKED.format(11)), (10, "11", BLOCKED.format(11)), (11, "11", ""), (12, "11", ""),
    (999, "1000", BLOCKED.format(1000)), (1000, "1000", ""), (0, "1", BLOCKED.format(1)), (1, "1", "")])
def test_user_numbers(shells, uid, least, said):
    assert complaint(known(uid=uid), min_uid=least) == said


@pytest.mark.parametrize("shell, listed, said", [
    ("/bin/sh", "/bin/sh\n", ""),
    ("/bin/sh", "/bin/bash\n/bin/sh", ""),
    ("/bin/sh", "  /bin/sh \n", ""),
    ("/bin/sh", "", NOT_FOUND),
    ("/bin/sh", "/bin/shh\n/usr/bin/sh\n", NOT_FOUND),
    ("/bin/sh", "#/bin/sh\n", NOT_FOUND),
    ("/bin/s", "/bin/sh\n", NOT_FOUND),
    ("/usr/sbin/nologin", "/bin/sh\n", NOT_FOUND),
    ("/bin/false", "/bin/sh\n", NOT_FOUND),
    ("", "/bin/sh\n", NO_SHELL),
    ("", "/bin/sh\n\n", NO_SHELL),
    ("/bin/false", "/bin/sh\n/POPPER/ANY/SHELL/\n", ""),
    ("/bin/false", "/POPPER/ANY/SHELL/", ""),
    ("/bin/false", "#/POPPER/ANY/SHELL/\n", NOT_FOUND),
    ("/bin/false", "/POPPER/ANY/SHELL\n", NOT_FOUND),
    ("", "/POPPER/ANY/SHELL/\n", NO_SHELL)])
def test_shells(shells, shell, listed, said):
    shells(listed)
    assert complaint(known(shell=shell)) == said
    assert complaint(known(shell=shell), check_shell="no") == ""


@pytest.mark.parametrize("shell, said", [("/bin/sh", ""), ("/bin/csh", ""), ("/bin/bash", NOT_FOUND), ("", NO_SHELL)])
def test_a_missing_shells_file_is_as_getusershell_has_it(monkeypatch, tmp_path, shell, said):
    monkeypatch.setattr(getpw, "SHELLS", str(tmp_path / "none"))
    assert complaint(known(shell=shell)) == said


@pytest.mark.parametrize("expires, said", [(-1, ""), (TODAY + 1, ""), (TODAY, EXPIRED), (TODAY - 1, EXPIRED),
                                           (1, EXPIRED), (0, EXPIRED)])
def test_expiry_of_the_account(shells, expires, said):
    """`chage -E 0` shuts an account like any other day that has passed."""
    assert complaint(entry=shadow(expires=expires)) == said


@pytest.mark.parametrize("changed, most, said", [
    (TODAY, 90, ""), (TODAY - 90, 90, ""), (TODAY - 91, 90, AGED), (TODAY - 5000, 90, AGED),
    (TODAY - 5000, 99999, ""), (TODAY - 5000, -1, ""), (TODAY, 0, ""), (TODAY - 1, 0, AGED), (TODAY + 3, 90, ""),
    (0, 90, AGED), (0, 99999, AGED), (0, -1, AGED), (-1, 90, ""), (-1, -1, "")])
def test_age_of_the_password(shells, changed, most, said):
    """shadow(5): changed on day 0: a new password is due at the next login; an empty field: no ageing."""
    assert complaint(entry=shadow(changed=changed, most=most)) == said


def test_no_shadow_no_age(shells):
    said = [getpw.complaint_about(account, None, Options(), TODAY)
            for account in (known(), known(uid=3), known(shell="/bin/false"))]
    assert said == ["", BLOCKED.format(11), NOT_FOUND]


def test_of_several_complaints_the_first_is_told(shells):
    """In the original's order: number, shell, age."""
    bad = shadow(changed=0, expires=1)
    assert complaint(known(uid=1, shell="/bin/false"), bad) == BLOCKED.format(11)
    assert complaint(known(shell="/bin/false"), bad) == NOT_FOUND
    assert complaint(entry=bad) == EXPIRED
    assert complaint(entry=shadow(changed=0)) == AGED


# -- accounts of this very system ----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def real():
    made = RealAccount("popshadow")
    yield made
    made.remove()


@pytest.fixture
def joe(real):
    """The account as useradd and chpasswd made it, whatever the test before did."""
    yield real
    change(real, "usermod", "-s", "/bin/sh", "-e", "")
    change(real, "chage", "-M", "99999")
    change(real, "chpasswd", input=f"{real.name}:{PASSWORD}\n".encode())


def told(account, password, options=None):
    """(what the client is told, what the log is told) of a refusal."""
    with pytest.raises(Denied) as caught:
        getpw.authenticate(account.name, password, options or Options())
    assert caught.value.code == AUTH
    return caught.value.text, caught.value.reason


@pytest.mark.root
def test_the_right_password(joe):
    found = getpw.authenticate(joe.name, RIGHT, Options())
    entry = pwd.getpwnam(joe.name)
    assert (found.user, found.uid, found.gid, found.home) == (joe.name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


@pytest.mark.root
@pytest.mark.parametrize("password", [WRONG, RIGHT[:-1], RIGHT + b" ", RIGHT.upper(), RIGHT + b"\0", b""])
def test_a_wrong_password(joe, password):
    assert told(joe, password) == ("", "wrong password")


@pytest.mark.root
@pytest.mark.parametrize("method", ["YESCRYPT", "SHA512", "SHA256", "MD5", "DES"])
def test_every_kind_of_hash_that_chpasswd_makes(joe, method):
    change(joe, "chpasswd", "-c", method, input=f"{joe.name}:{PASSWORD}\n".encode())
    assert getpw.authenticate(joe.name, RIGHT, Options()).user == joe.name
    assert told(joe, WRONG) == ("", "wrong password")


@pytest.mark.root
def test_a_password_of_latin_1(joe):
    change(joe, "chpasswd", input=f"{joe.name}:gr\u00fc\u00df\n".encode("latin-1"))
    assert getpw.authenticate(joe.name, "gr\u00fc\u00df".encode("latin-1"), Options()).user == joe.name
    assert told(joe, "gr\u00fc\u00df".encode()) == ("", "wrong password")


@pytest.mark.root
def test_a_locked_account(joe, hashes):
    """`passwd -l`; and a guess costs what it costs elsewhere."""
    change(joe, "passwd", "-l")
    for password in (RIGHT, WRONG, b"!"):
        text, reason = told(joe, password)
        assert text == "" and "locked" in reason
    assert len(hashes) == 3


@pytest.mark.root
def test_an_account_without_password(joe, hashes):
    change(joe, "passwd", "-d")
    for password in (RIGHT, b"x"):
        text, reason = told(joe, password)
        assert text == "" and "empty password" in reason
    assert told(joe, b"")[0] == ""
    assert len(hashes) == 3


SHUT = {
    "account expired": (("chage", "-E", "0"), '"popshadow": account expired.'),
    "account expired long ago": (("chage", "-E", "1996-11-24"), '"popshadow": account expired.'),
    "password aged": (("chage", "-M", "30", "-d", "2001-01-01"), '"popshadow": password expired.'),
    "password to be changed": (("chage", "-d", "0"), '"popshadow": password expired.'),
    "no shell": (("usermod", "-s", ""), "No user shell defined"),
    "no login shell": (("usermod", "-s", "/usr/sbin/nologin"), '"popshadow": shell not found.'),
}


@pytest.mark.root
@pytest.mark.parametrize("command, said", SHUT.values(), ids=SHUT)
def test_who_knows_the_password_is_told_why_and_nobody_else(joe, command, said):
    change(joe, *command)
    assert told(joe, RIGHT) == (said, said)
    assert told(joe, WRONG) == ("", "wrong password")


@pytest.mark.root
def test_user_numbers_that_are_too_low(joe):
    options = Options()
    options.min_uid = joe.entry.pw_uid + 1
    assert told(joe, RIGHT, options)[0] == BLOCKED.format(options.min_uid)
    assert told(joe, WRONG, options)[0] == ""


@pytest.mark.root
def test_the_shadow_entry_as_the_file_has_it(joe):
    change(joe, "chage", "-E", "2099-01-02", "-M", "77", "-d", "2020-01-01")
    entry = getpw.shadow_of(joe.name)
    with open("/etc/shadow", "rb") as file:
        line = next(line for line in file if line.startswith(joe.name.encode() + b":")).split(b":")
    assert entry.hash == line[1]
    assert (entry.changed, entry.most, entry.expires) == (int(line[2]), 77, int(line[7])) == (18262, 77, 47118)
    assert getpw.shadow_of("pop-nobody") is None


@contextlib.contextmanager
def effective(uid):
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.root
def test_an_ordinary_user_cannot_ask_for_others(joe):
    """popper run by an ordinary user: no account but his own, and the shadow file is closed to him."""
    with effective(65534):
        assert getpw.authenticate(joe.name, RIGHT, Options()) is None
    with effective(joe.entry.pw_uid), pytest.raises(Refused) as caught:
        getpw.authenticate(joe.name, RIGHT, Options())
    assert not isinstance(caught.value, Denied) and caught.value.code == PERMANENT


def test_an_unknown_name_is_nobody_here():
    assert getpw.authenticate("pop-nobody", b"x", Options()) is None


# -- the chain -----------------------------------------------------------------------------------------------------

MODULE = '''
from popper.account import Account
from popper.errors import Denied

asked = []

def authenticate(user, password, options, address):
    asked.append((user, password))
    if user == "own":
        if password != b"s3cret":
            raise Denied("Not today.", "own reason")
        return Account(user, 4711, 4712, "/srv/own")
'''


@pytest.fixture
def own(monkeypatch, tmp_path):
    """A module of an administrator's own, anywhere on the path."""
    package = tmp_path / "popsite"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "door.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("popsite", "popsite.door"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("popsite.door")


def chain(*modules, users=None):
    options = Options()
    options.auth = modules
    if users:
        options.password_file = str(users)
    return options


def shut(user, password, options):
    with pytest.raises(Denied) as caught:
        authenticate(Credentials(user, password), options)
    return caught.value


@pytest.mark.root
def test_the_first_module_that_knows_the_name_decides(joe, tmp_path):
    """One name is never two people: with either password, only the identity of the first."""
    users = tmp_path / "users"
    login, first = joe.name.encode(), chain("file", "getpw", users=users)
    users.write_bytes(login + b":" + crypt.hashed(b"of the file", b"$5$popsalt$") + b":4711:4712::/srv/joe\n")
    assert authenticate(Credentials(login, b"of the file"), first).uid == 4711
    assert shut(login, RIGHT, first).reason == "wrong password"
    second = chain("getpw", "file", users=users)
    assert authenticate(Credentials(login, RIGHT), second).uid == joe.entry.pw_uid
    assert shut(login, b"of the file", second).reason == "wrong password"


@pytest.mark.root
def test_a_name_that_the_first_does_not_know_is_the_seconds(joe, tmp_path):
    users = tmp_path / "users"
    users.write_bytes(b"ann:" + crypt.hashed(b"of the file", b"$5$popsalt$") + b":4711:4712::/srv/ann\n")
    options = chain("file", "getpw", users=users)
    assert authenticate(Credentials(joe.name.encode(), RIGHT), options).uid == joe.entry.pw_uid
    assert authenticate(Credentials(b"ann", b"of the file"), options).uid == 4711


def test_a_module_of_ones_own(own):
    found = authenticate(Credentials(b"own", b"s3cret"), chain("getpw", "popsite.door"))
    assert isinstance(found, Account) and (found.uid, found.gid, found.home) == (4711, 4712, "/srv/own")
    error = shut(b"own", b"other", chain("popsite.door", "getpw"))
    assert (error.text, error.code, error.reason) == ("Not today.", AUTH, "own reason")
    assert own.asked == [("own", b"s3cret"), ("own", b"other")]


def test_a_module_that_is_not_there():
    with pytest.raises(ImportError):
        authenticate(Credentials(b"joe", b"s3cret"), chain("popsite.nowhere"))


@pytest.mark.parametrize("modules", [("getpw",), ("file", "getpw"), ("getpw", "file"), ("popsite.door", "getpw")])
def test_an_unknown_name_costs_exactly_one_verification(own, tmp_path, hashes, modules):
    users = tmp_path / "users"
    users.write_bytes(b"ann:$5$popsalt$x\n")
    error = shut(b"pop-nobody", b"guess", chain(*modules, users=users))
    assert (error.text, error.code, error.reason) == ("", AUTH, "no such user")
    assert hashes == [b"guess"]


def test_a_known_name_costs_exactly_one_verification(tmp_path, hashes):
    users = tmp_path / "users"
    users.write_bytes(b"ann:" + crypt.hashed(b"s3cret", b"$5$popsalt$") + b":4711:4712\n")
    del hashes[:]
    shut(b"ann", b"guess", chain("file", "getpw", users=users))
    assert hashes == [b"guess"]
    authenticate(Credentials(b"ann", b"s3cret"), chain("file", "getpw", users=users))
    assert hashes == [b"guess", b"s3cret"]


HOSTILE = [b"", b".", b"..", b"../own", b"own/../own", b"/etc/passwd", b"a..b", b".own", b"-own", b"own\0", b"own\n",
           b"own\r", b"own:", b"own own", b" own", b"own%s", b"own;id", b"$(id)", b"own.lock", b"own.pop", b"\xff",
           "\u00f6wn".encode(), b"own\x1b[2J", b"n" * 65, b"n" * 100_000, b"own,x", b"own\\", b"*", b"~"]


@pytest.mark.parametrize("user", HOSTILE, ids=lambda user: repr(user[:20]))
def test_hostile_names_never_reach_a_module(own, hashes, user):
    """security.md rows 15, 19, 38; they cost what any other name does."""
    error = shut(user, b"s3cret", chain("popsite.door"))
    assert (error.text, error.code) == ("", AUTH)
    assert own.asked == [] and hashes == [b"s3cret"]


@pytest.mark.parametrize("password", [b"", b"\0", b"s3cret\0", b"s3cret\0s3cret"])
def test_passwords_that_are_none_never_reach_a_module(own, hashes, password):
    assert shut(b"own", password, chain("popsite.door")).text == ""
    assert own.asked == [] and len(hashes) == 1


def test_names_that_look_odd_but_are_names(own):
    for user in (b"Own", b"o.w-n_1", b"own@example.org", b"own+tag", b"n" * 64, b"123"):
        shut(user, b"s3cret", chain("popsite.door"))
    assert [user for user, _ in own.asked] == ["Own", "o.w-n_1", "own@example.org", "own+tag", "n" * 64, "123"]


def test_a_signal_while_a_module_is_imported_is_no_mistake_of_it(tmp_path, monkeypatch):
    (tmp_path / "hung").mkdir()
    (tmp_path / "hung" / "up.py").write_text("from popper.errors import HungUp\nraise HungUp('signal 1')\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = Options()
    options.auth = ("hung.up",)
    with pytest.raises(HungUp):
        modules(options)
