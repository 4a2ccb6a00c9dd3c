"""Who gets in, and what those learn who do not. Each test names its row of the security checklist."""

import ast
import re
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import popper.auth
from conftest import PASSWORD as SYSTEM_PASSWORD
from dialogue import ONE, PASSWORD, ROOT, TWO, UID, USER, mbox, site, wire          # noqa: F401
from on_its_own import start                                                          # noqa: F401
from popper.account import Account, Credentials
from popper.auth import authenticate, crypt, file, getpw
from popper.errors import Denied
from popper.login import mailbox_of
from popper.options import Options

WRONG = {"wrong password": (b"mrose", b"wrong"), "unknown name": (b"nobody-of-that-name", b"wrong"),
         "locked": (b"locked", b"x"),
         "no hash": (b"nohash", b"x"), "name that cannot be": (b"../mrose", b"x"), "empty password": (b"mrose", b""),
         "NUL": (b"mrose", b"tanstaaf\0"), "overlong": (b"n" * 100, b"x"), "last in the file": (b"zoe", b"wrong")}


@pytest.fixture
def counted(monkeypatch):
    """Whether each hash could be computed, with the real function doing it; to be cleared before it counts."""
    computed = []
    really = crypt.hashed

    def hashed(password, setting):
        result = really(password, setting)
        computed.append(result is not None)
        return result
    monkeypatch.setattr(crypt, "hashed", hashed)
    return computed


@pytest.mark.parametrize("case", WRONG)
def test_every_failure_costs_one_hash(site, counted, case):
    """sec.08, row 14 (enumeration by delay): whatever is wrong, exactly one hash is computed."""
    site.add("zoe", "another")
    with site.passwords.open("a") as lines:
        lines.write("locked:!$5$rounds=1000$x$y\nnohash:\n")
    name, password = WRONG[case]
    counted.clear()
    with pytest.raises(Denied) as denied:
        authenticate(Credentials(name, password), site.options())
    assert denied.value.text == ""                     # the words are the session's, the same for all
    assert counted.count(True) == 1


def test_success_costs_one_hash(site, counted):
    """sec.08: the right password costs what a wrong one does."""
    counted.clear()
    assert authenticate(Credentials(b"mrose", b"tanstaaf"), site.options()).user == USER
    assert counted.count(True) == 1


REACHES_LOGIN = sorted(set(WRONG) - {"overlong", "empty password"})          # those two are only mistakes in a line


@pytest.mark.parametrize("case", REACHES_LOGIN)
def test_every_failure_reads_the_same(site, case):
    """row 14, sec.08: the same words to the client and in the log, but for the name, and the same end."""
    with site.passwords.open("a") as lines:
        lines.write("locked:!\nnohash:\n")
    name, password = WRONG[case]
    pop = site.session()
    pop.ok(b"USER " + name)
    assert pop.err(b"PASS " + password) == f'[AUTH] Password supplied for "{name.decode()}" is incorrect.'
    assert pop.end() == b""
    first, second = site.log()
    assert re.fullmatch(r"warning: \[AUTH\] Failed attempted login to \S+ from host \(local\) local", first)
    assert re.fullmatch(r"notice: \S+ at local \(local\): -ERR \[AUTH\] Password supplied for \S+ is incorrect\.",
                        second)


@pytest.mark.parametrize("name, password", [(USER, "wrong"), ("unknown", "wrong"), ("..", "x"), (USER, "x\0")])
def test_every_failure_waits_for_the_deadline(site, name, password):
    """sec.07, sec.08: the answer comes fail_delay after the password, and not before, whatever was wrong."""
    pop = site.session(fail_delay=0.6)
    pop.ok(f"USER {name}")
    begun = time.monotonic()
    assert pop.err(f"PASS {password}").startswith("[AUTH] ")
    assert time.monotonic() - begun >= 0.6


def test_the_default_delay_is_half_a_second_or_more():
    """sec.07: nobody has to configure it."""
    assert Options().fail_delay >= 0.5


def test_success_does_not_wait(site):
    """sec.07: the delay is for failures: a login with a delay of an hour is answered at once."""
    site.log_in(fail_delay=3600).quit()


def test_one_guess_for_each_connection(site):
    """sec.06: a session ends with its first failed login, so guessing costs a connection and a delay each time."""
    pop = site.session()
    guesses = [f"guess{n}" for n in range(100)] + [PASSWORD]
    pop.send("".join(f"USER {USER}\r\nPASS {guess}\r\n" for guess in guesses))
    replies = pop.end().decode().splitlines()
    assert [reply[:4] for reply in replies] == ["+OK ", "-ERR"]
    assert len(site.logged("Failed attempted login")) == 1


def test_endless_bad_commands_end_a_session(site):
    """sec.06: so do twenty commands in a row that are none."""
    pop = site.session()
    pop.send("XYZZY\r\n" * 100)
    replies = pop.end().decode().splitlines()
    assert len(replies) == 20 and replies[-1] == "-ERR Too many bad commands, closing."


INJECTIONS = ("a'b\"c;--*)(", "' OR '1'='1", "mrose'--", "mrose)(|(uid=*))", "*", "mrose:", ":", "#mrose", "mrose\\",
              "mrose%00",
              "mrose,ou=x", "\"mrose\"", "$(id)", "x\tmrose")


@pytest.mark.parametrize("name", INJECTIONS)
def test_names_are_no_queries(site, name):
    """row 15 (CVE-2003-0515, CVE-2008-2380, CVE-2026-24031, CVE-2026-27860): nothing of a name is syntax to what checks
    it."""
    with site.passwords.open("a") as lines:
        lines.write(site.passwords.read_text().replace("mrose:", "#mrose:"))
    pop = site.session()
    pop.send(f"USER {name}\r\n")
    pop.reply()
    assert pop.ask(f"PASS {PASSWORD}").startswith("-ERR ")
    assert not site.logged("POP login by user")


def try_octets(site, call, password):
    """An account that has a password, but for the NULs in it, whose owner logs in at what `call` gives, or may not."""
    site.add("octets", password.replace("\0", ""))
    site.deliver(mbox(ONE), "octets")
    pop = call()
    pop.ok("USER octets")
    if "\0" in password:
        assert pop.err(f"PASS {password}").startswith("[AUTH] ")
        assert pop.end() == b""
    else:
        assert pop.ok(f"PASS {password}").startswith("octets has 1 ")
        pop.quit()


@pytest.mark.parametrize("password", ["pass\tword", "pass\x01word", "a:b", "a\\nb", "\x00admin", "tanstaaf\x00admin",
                                      "x\x00mrose\x00x"])
def test_passwords_hold_no_separators(site, password):
    """row 23 (CVE-2008-1218 TAB, CVE-2019-3814): TAB and controls are octets of a password; with NUL there is none."""
    try_octets(site, site.session, password)
    if "\0" not in password:
        pop = site.session()
        pop.ok("USER octets")
        assert pop.err(f"PASS {re.split('[^a-z]', password)[0]}").startswith("[AUTH] ")


@pytest.mark.parametrize("password", ["pass\tword", "pass\x01word", "\x00admin", "x\x00mrose\x00x"])
def test_passwords_hold_no_separators_between_processes(site, start, password):
    """row 23: what is said between who reads the password and who tries it is led by lengths."""
    try_octets(site, lambda: start().call(), password)


def test_two_users_with_one_password(site):
    """row 24 (CVE-2007-6598, CVE-2025-30189, an auth cache that mixed users up): alternating, each is himself."""
    site.add("other", PASSWORD)
    options = site.options()
    for n in range(500):
        for name in (b"mrose", b"other"):
            assert authenticate(Credentials(name, PASSWORD.encode()), options).user == name.decode()
    site.deliver(mbox(ONE))
    site.deliver(mbox(TWO), "other")
    for _ in range(10):
        for name, text in ((USER, ONE), ("other", TWO)):
            pop = site.log_in(name)
            assert pop.text("RETR 1") == wire(text)
            pop.quit()


@pytest.mark.root
def test_a_name_in_two_places_is_one_identity(site, account):
    """row 34 (CVE-2022-30550, two back ends merged): the first that knows the name decides, and nobody else is
    asked."""
    own = crypt.hashed(b"of the file", b"$5$rounds=1000$saltofpopper$").decode()
    with site.passwords.open("a") as lines:
        lines.write(f"{account.name}:{own}:{UID}:{UID}::/nonexistent:\n")
    both = site.options(auth=("file", "getpw"))
    found = authenticate(Credentials(account.name.encode(), b"of the file"), both)
    assert (found.uid, found.gid, found.home) == (UID, UID, "/nonexistent")
    with pytest.raises(Denied):
        authenticate(Credentials(account.name.encode(), SYSTEM_PASSWORD.encode()), both)
    turned = site.options(auth=("getpw", "file"))
    found = authenticate(Credentials(account.name.encode(), SYSTEM_PASSWORD.encode()), turned)
    assert (found.uid, found.home) == (account.entry.pw_uid, account.entry.pw_dir)
    with pytest.raises(Denied):
        authenticate(Credentials(account.name.encode(), b"of the file"), turned)


def test_hashes_are_compared_in_constant_time(site, monkeypatch):
    """row 44 (CVE-2026-27855, CVE-2026-27856): the comparison of hashes is the library's that takes the same time for
    all."""
    compared = []
    really = crypt._compare_digest

    def compare(one, other):
        compared.append((one, other))
        return really(one, other)
    monkeypatch.setattr(crypt, "_compare_digest", compare)
    for password, right in ((b"tanstaaf", True), (b"tanstaag", False)):
        stored = site.passwords.read_bytes().split(b":")[1]
        assert crypt.verify(password, stored) is right
    assert len(compared) == 2


@pytest.mark.parametrize("module", [popper.auth, crypt, file, getpw])
def test_no_secret_is_compared_with_equals(module):
    """row 44: nowhere in the modules that verify is a secret compared by == or != with anything but a constant."""
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
            sides = [node.left, *node.comparators]
            names = {getattr(side, "id", getattr(side, "attr", "")) for side in sides}
            constant = any(isinstance(side, ast.Constant) for side in sides)
            assert constant or not names & {"password", "stored", "computed", "hash"}


@pytest.mark.root
@pytest.mark.parametrize("uid, refused", [(0, True), (1, True), (10, True), (11, False), (UID, False)])
def test_root_and_system_users_are_refused(site, uid, refused):
    """sec.20: root and the system's own users are not served, whatever the password file says; who guesses is told
    nothing."""
    hashed = site.passwords.read_text().split(":")[1]
    site.passwords.write_text(f"{USER}:{hashed}:{uid}:{uid}:::\n")
    assert "[AUTH] Password supplied" in _answer(site, "wrong")
    answer = _answer(site, PASSWORD)
    assert (answer == "-ERR [AUTH] Access is blocked for UIDs below 11") is refused
    assert not refused or not site.logged("POP login by user")


def _answer(site, password):
    pop = site.session()
    pop.ok(f"USER {USER}")
    answer = pop.ask(f"PASS {password}")
    pop.hang_up()
    return answer


@pytest.mark.root
def test_the_systems_root_is_refused(site):
    """sec.20: nor does root come in by the system's own files."""
    for name in ("root", "daemon"):
        pop = site.session(auth=("getpw",))
        pop.ok(f"USER {name}")
        assert pop.err("PASS x").startswith("[AUTH] ")
        assert pop.end() == b""


BLOCKED = "Access is blocked for UIDs below 11"


@pytest.mark.parametrize("uid, complaint", [(0, BLOCKED), (1, BLOCKED), (10, BLOCKED), (11, "")])
def test_low_uids_of_the_system(uid, complaint):
    """sec.20: the limit is the original's, and counts for accounts of the system too."""
    known = SimpleNamespace(pw_name="x", pw_uid=uid, pw_shell="/bin/sh")
    assert getpw.complaint_about(known, None, Options(), 20000) == complaint


def test_no_core_and_no_password_in_sight(site):
    """sec.15: core dumps are off, and neither command line nor environment of the process has the password in it."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    most = 2**20 if ROOT else most
    pop = site.log_in(before=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)))
    limit = re.search(r"Max core file size +(\S+)", Path(f"/proc/{pop.child}/limits").read_text())
    assert limit[1] == "0"
    for place in ("cmdline", "environ"):
        try:
            assert PASSWORD.encode() not in Path(f"/proc/{pop.child}/{place}").read_bytes()
        except PermissionError:
            assert not ROOT
    pop.quit()


BROKEN = """
def authenticate(user, password, options, address):
    secret = password.decode()
    raise ZeroDivisionError("the module is broken")
"""


def test_an_internal_error_shows_no_secret(site):
    """sec.15: an error nobody thought of becomes one line that names file and line, without the values that were
    there."""
    package = site.place / "broken_auth"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(BROKEN)
    site.may_fail = True

    def findable():
        import sys
        sys.path.insert(0, str(site.place))
    pop = site.session(before=findable, auth=("broken_auth.module",), debug=True)
    pop.ok(f"USER {USER}")
    assert pop.err(f"PASS {PASSWORD}") == "[SYS/TEMP] Internal error, closing."
    assert pop.end() == b"" and pop.status == 0
    assert site.logged("internal error at module.py:4: ZeroDivisionError: the module is broken")
    assert PASSWORD not in site.log_file.read_text()


def test_credentials_print_as_stars():
    """sec.15: in whatever list or message they end up."""
    shown = f"{Credentials(b'mrose', b'tanstaaf')} {[Credentials(b'mrose', b'tanstaaf')]!r}"
    assert "tanstaaf" not in shown and "mrose" not in shown


@pytest.mark.parametrize("user", ["%u", "%1", "a%ub", "%%"])
def test_a_template_expands_once(user):
    """row 19 (CVE-2017-2669): a name that looks like a template, should one ever get so far, is not expanded again."""
    assert mailbox_of(Account(user), "/var/mail/%u") == f"/var/mail/{user}"
    assert mailbox_of(Account(user, home="/home/%u"), "~/%u/mbox") == f"/home/%u/{user}/mbox"
