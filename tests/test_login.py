"""From credentials to a maildrop: names, templates, the order of checks, and who holds the locks."""

import grp
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import wait_until
from dialogue import GID, ONE, PASSWORD, ROOT, TWO, UID, USER, mbox, site          # noqa: F401
from popper import VERSION, access, auth, login
from popper.account import SAFE, Account, Credentials
from popper.errors import AUTH, PERMANENT, TEMPORARY, Denied, Refused
from popper.login import _is_roots, Login, mailbox_of
from popper.peer import LATER, UNKNOWN, VERIFIED, Peer
from processes import has_ended, in_child


class Journal:
    """Keeps (severity, text) of every line."""

    debugging = True

    def __init__(self):
        self.lines = []
        for severity in ("critical", "warning", "notice", "info", "debug"):
            setattr(self, severity, lambda text, severity=severity: self.lines.append((severity, text)))

    def concerns(self, who):
        pass

    def unconcerned(self):
        pass

    def at(self, severity):
        return [text for each, text in self.lines if each == severity]


@pytest.fixture
def naps(monkeypatch):
    """What was slept, without sleeping it."""
    slept = []
    monkeypatch.setattr(login.time, "sleep", slept.append)
    return slept


def refused(one, user, password):
    with pytest.raises(Refused) as caught:
        one(Credentials(user, password))
    return caught.value


# -- templates -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("user, template, path", [
    ("mrose", "/var/mail/%u", "/var/mail/mrose"),
    ("mrose", "/var/mail/%1/%2/%u", "/var/mail/m/r/mrose"),
    ("mrose", "/m/%5%9/%u", "/m/ee/mrose"),
    ("x", "/m/%1/%2/%u", "/m/x/x/x"),
    ("mrose", "/m/%u/%u.mbox", "/m/mrose/mrose.mbox"),
    ("mrose", "~/mbox", "/home/mrose/mbox"),
    ("mrose", "~/%u/~", "/home/mrose/mrose/~"),
    ("mrose", "/m/~/%u", "/m/~/mrose"),
    ("mrose", "/m/100%%/%u", "/m/100%/mrose"),
    ("mrose", "/m/%%u", "/m/%u"),
    ("mrose", "/m/%%%u", "/m/%mrose"),
    ("mrose", "/m/%%%%u%%", "/m/%%u%"),
    ("mrose", "/m/everybody", "/m/everybody"),
    ("a+b@c.org", "/m/%2/%u", "/m/+/a+b@c.org"),
])
def test_mailbox_of(user, template, path):
    assert mailbox_of(Account(user, home="/home/mrose"), template) == path


@settings(deadline=None, max_examples=200, database=None, derandomize=True)
@given(st.text(sorted(SAFE), min_size=1, max_size=64))
def test_a_name_fills_in_itself_and_nothing_else(user):
    assert mailbox_of(Account(user, home="/h"), "~/%%/%u") == f"/h/%/{user}"


def test_a_home_is_taken_as_it_is():
    assert mailbox_of(Account("joe", home="/home/%u~"), "~/%u") == "/home/%u~/joe"


# -- refusals --------------------------------------------------------------------------------------------------------

NAMES_THAT_CANNOT_BE = [b"", b"../mrose", b"/etc/passwd", b".hidden", b"-f", b"a..b", b"mrose.lock", b"mrose.pop",
                        b"m\xf6rose", b"mro\nse", b"mro:se", b"a b", b"a%u", b"x" * 65, b"mrose\0"]


@pytest.mark.parametrize("user", NAMES_THAT_CANNOT_BE)
def test_names_that_no_module_sees(site, naps, monkeypatch, user):
    asked = []
    module = SimpleNamespace(authenticate=lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(auth, "modules", lambda options: [module])
    log = Journal()
    refusal = refused(Login(site.options(), Peer("local"), log), user, b"x")
    assert asked == []
    assert (refusal.code, refusal.text) == (AUTH, "") and len(log.at("warning")) == 1
    assert log.at("debug")[-1].endswith("failed: not a name and a password")


@pytest.mark.parametrize("password", [b"", b"tanstaaf\0", b"\0"])
def test_passwords_that_no_module_sees(site, naps, monkeypatch, password):
    asked = []
    module = SimpleNamespace(authenticate=lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(auth, "modules", lambda options: [module])
    assert refused(Login(site.options(), Peer("local"), Journal()), b"mrose", password).code == AUTH
    assert asked == []


@pytest.mark.parametrize("user, password", [(b"mrose", b"wrong"), (b"nobody-here", b"x"), (b"../x", b"x"),
                                            (b"mrose", b""), (b"locked", b"x")])
def test_every_failure_is_the_same_to_who_answers_it(site, naps, user, password):
    """And is answered `fail_delay` after the password came: by serve, inetd or a front."""
    with site.passwords.open("a") as lines:
        lines.write("locked:!:1:1::/:/bin/sh\n")
    refusal = refused(Login(site.options(fail_delay=40), Peer("local"), Journal()), user, password)
    assert isinstance(refusal, Denied) and naps == []
    assert refusal.code == AUTH and refusal.text == ""


# -- who has to wait, who may come -----------------------------------------------------------------------------------

class Guessers:
    """Keeps what it is asked and told. seats: how many times there is none."""

    most = 30

    def __init__(self, seconds=0.0, late=False, trouble="", seats=0):
        self.seconds, self.late, self.trouble, self.seats = seconds, late, trouble, seats
        self.told, self.sits = [], False

    def begin(self, address, name):
        self.seats -= 1
        self.sits = self.seats < 0
        return self.sits

    def end(self):
        self.sits = False

    def wait(self, address, name):
        self.told.append(("wait", address, name))
        return self.seconds

    def failed(self, address, name):
        self.told.append(("failed", address, name))

    def succeeded(self, address, name):
        self.told.append(("succeeded", address, name))

    def close(self):
        self.told.append(("close",))


CALLER = ("192.0.2.1", b"mrose")


def test_who_guesses_waits_before_it_is_tried_and_is_counted(site, naps, monkeypatch):
    guessers = Guessers(7.5)
    monkeypatch.setattr(auth, "authenticate", lambda *asked: guessers.told.append("tried") or deny())

    def deny():
        raise Denied("")
    one = Login(site.options(), Peer("192.0.2.1"), Journal(), guessers=guessers)
    assert refused(one, b"mrose", b"wrong").code == AUTH
    assert naps == [7.5] and guessers.told == [("wait", *CALLER), "tried", ("failed", *CALLER)] and not guessers.sits


def test_while_others_of_the_address_are_tried_it_waits_and_takes_its_turn_after_them(site, naps, monkeypatch):
    guessers = Guessers(7.5, seats=2)
    monkeypatch.setattr(auth, "authenticate", lambda *asked: guessers.told.append(guessers.sits) or deny())

    def deny():
        raise Denied("")
    refused(Login(site.options(), Peer("192.0.2.1"), Journal(), guessers=guessers), b"mrose", b"x")
    assert naps == [login.LOOK_AGAIN, login.LOOK_AGAIN, 7.5]
    assert guessers.told == [("wait", *CALLER), True, ("failed", *CALLER)] and not guessers.sits


def test_nobody_sits_while_he_waits_for_his_turn(site, monkeypatch):
    guessers, slept = Guessers(7.5), []
    monkeypatch.setattr(login.time, "sleep", lambda seconds: slept.append((seconds, guessers.sits)))
    Login(site.options(), Peer("192.0.2.1"), Journal(), guessers=guessers)._let_wait(b"mrose")
    assert slept == [(7.5, False)] and guessers.sits


def test_who_never_finds_a_seat_is_sent_away_after_a_while(site, monkeypatch):
    guessers, now = Guessers(seats=1_000_000), [1000.0]
    monkeypatch.setattr(login.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(login.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    one = Login(site.options(), Peer("192.0.2.1"), Journal(), guessers=guessers)
    refusal = refused(one, b"mrose", PASSWORD.encode())
    assert (refusal.code, refusal.text) == (TEMPORARY, login.TOO_MANY_WRONG)
    assert 1060.0 <= now[0] < 1061.0 and guessers.told == []


def test_a_password_that_was_right_is_told_of_before_the_maildrop_is_opened(site):
    def tried(password):
        told = []
        one = Login(site.options(), Peer("192.0.2.1"), Journal())
        one.verified = lambda: told.append(one.account.user)
        return refused(one, USER.encode(), password).code, told
    site.mailbox().mkdir()
    assert in_child(lambda: tried(b"wrong")) == str((AUTH, []))
    assert in_child(lambda: tried(PASSWORD.encode())) == str((PERMANENT, [USER]))


def test_who_is_too_late_is_not_tried_and_not_counted(site, naps, monkeypatch):
    guessers = Guessers(30.0, late=True)
    monkeypatch.setattr(auth, "authenticate", None)
    one = Login(site.options(), Peer("192.0.2.1"), Journal(), guessers=guessers)
    refusal = refused(one, b"mrose", PASSWORD.encode())
    assert (refusal.code, refusal.text, naps) == (TEMPORARY, login.TOO_MANY_WRONG, [30.0])
    assert guessers.told == [("wait", *CALLER)]


def test_a_wrong_password_that_the_client_is_told_more_of_is_no_guess(site, naps, monkeypatch):
    def authenticate(credentials, options, address):
        raise Denied("Your account has expired.")
    guessers = Guessers()
    monkeypatch.setattr(auth, "authenticate", authenticate)
    refused(Login(site.options(), Peer("192.0.2.1"), Journal(), guessers=guessers), b"mrose", b"x")
    assert guessers.told == [("wait", *CALLER)]


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_trouble_with_the_memory_of_guessers_is_told_and_lets_in(site, naps, monkeypatch):
    log, guessers = Journal(), Guessers(trouble="/run/popper/guessers cannot be used.")
    account = Account("mrose")
    monkeypatch.setattr(auth, "authenticate", lambda credentials, options, address: account)
    one = Login(site.options(), Peer("192.0.2.1"), log, guessers=guessers)
    assert one._authenticated(Credentials(b"mrose", b"x")) is account
    assert log.at("warning") == ["/run/popper/guessers cannot be used."]
    assert guessers.told == [("wait", *CALLER), ("succeeded", *CALLER), ("close",)]


class Rules:
    """Answers what it is made with, and keeps what it was asked."""

    def __init__(self, *answer):
        self.answer = answer
        self.asked = []

    def decide(self, *question):
        self.asked.append(question)
        return self.answer


@pytest.mark.parametrize("trusted, asked", [(False, ("192.0.2.1", LATER, "192.0.2.1", "mrose")),
                                            (True, ("192.0.2.1", VERIFIED, "", "mrose"))])
@pytest.mark.parametrize("verdict, code, text", [
    (access.DENY, PERMANENT, login.NO_ACCESS),
    (access.LATER_ON, PERMANENT, login.NO_ACCESS),
    (access.TRY_AGAIN, TEMPORARY, "Your host name cannot be verified now, try again later.")])
def test_who_may_not_come_in_is_not_tried(site, monkeypatch, trusted, asked, verdict, code, text):
    monkeypatch.setattr(auth, "authenticate", None)
    peer, rules = Peer("192.0.2.1"), Rules(verdict, "popper.allow:3")
    peer.status, peer.trusted = LATER, trusted
    refusal = refused(Login(site.options(), peer, Journal(), rules=rules), b"mrose", b"x")
    assert (refusal.code, refusal.text, refusal.reason) == (code, text, "popper.allow:3")
    assert rules.asked == [asked]


def test_a_place_without_network_has_no_address(site, monkeypatch):
    rules = Rules(access.DENY, "popper.allow:3")
    refused(Login(site.options(), Peer("local"), Journal(), rules=rules), b"no/name", b"x")
    assert rules.asked == [("", UNKNOWN, "local", "")]


def test_who_may_come_in_is_tried(site):
    rules = Rules(access.ALLOW, "")
    assert refused(Login(site.options(), Peer("192.0.2.1"), Journal(), rules=rules), b"mrose", b"x").code == AUTH


def test_a_failure_is_logged_with_name_and_host_and_without_password(site, naps):
    log = Journal()
    refused(Login(site.options(), Peer("192.0.2.1"), log), b"m(r)ose", b"sesame")
    assert log.at("warning") == \
        [r"[AUTH] Failed attempted login to m\x28r\x29ose from host (192.0.2.1) 192.0.2.1"]
    assert "sesame" not in repr(log.lines)


def test_the_peer_is_settled_before_anybody_is_asked(site, naps, monkeypatch):
    told = []
    peer = SimpleNamespace(name="pc", address="192.0.2.1",
                           introduce=lambda log, spent: told.append("peer") or log.notice("a false name"))

    def authenticate(credentials, options, address):
        told.append("auth")
        raise Denied("")
    monkeypatch.setattr(auth, "authenticate", authenticate)
    log = Journal()
    refused(Login(site.options(), peer, log), b"mrose", b"x")
    assert told == ["peer", "auth"]
    assert [severity for severity, _ in log.lines] == ["notice", "warning", "debug"]
    assert log.lines[0] == ("notice", "a false name")


def test_trouble_of_ours_is_no_failed_login(site, naps, monkeypatch):
    def authenticate(credentials, options, address):
        raise Refused("System error, can't verify passwords.", PERMANENT)
    monkeypatch.setattr(auth, "authenticate", authenticate)
    log = Journal()
    assert refused(Login(site.options(), Peer("local"), log), b"mrose", b"x").code == PERMANENT
    assert log.lines == [] and naps == []


# -- whole sessions --------------------------------------------------------------------------------------------------

def test_the_password_is_tried_before_the_locks(site):
    site.deliver(mbox(ONE))
    first = site.log_in()
    second = site.session()
    second.ok(f"USER {USER}")
    assert second.err("PASS wrong").startswith("[AUTH] ")
    third = site.session()
    third.ok(f"USER {USER}")
    path = site.mailbox()
    assert third.err(f"PASS {PASSWORD}") == f"[IN-USE] {path} lock busy!  Is another session active?"
    assert second.end() == third.end() == b""
    assert first.ok("STAT").startswith("1 ")
    first.quit()


def test_a_failed_login_leaves_nothing_in_the_spool(site):
    site.deliver(mbox(ONE))
    pop = site.session()
    pop.ok(f"USER {USER}")
    pop.err("PASS wrong")
    pop.end()
    assert [path.name for path in site.spool.iterdir()] == [USER]


def test_a_login_that_fails_behind_the_session_lock_gives_it_back(site):
    site.mailbox().mkdir()
    pop = site.session()
    pop.ok(f"USER {USER}")
    assert pop.err(f"PASS {PASSWORD}").startswith("[SYS/")
    assert pop.end() == b""
    assert site.left_over() == [] and site.logged("POP login by user") == []


def test_mail_left_by_an_older_popper_is_put_in_front_and_told_of(site):
    site.deliver(mbox(ONE))
    left = site.spool / f".{USER}.pop"
    left.write_bytes(mbox(TWO))
    left.chmod(0o600)
    site.own(left)
    site.log_in().quit()
    assert site.logged(f"{len(mbox(TWO))} octets of mail that an older popper left in {left} were put in front")
    assert site.mailbox().read_bytes() == mbox(TWO, ONE)
    assert not left.exists()


def test_a_hashed_spool(site):
    place = site.spool / "m" / "r"
    place.mkdir(parents=True)
    site.own(place)
    (place / USER).write_bytes(mbox(ONE, TWO))
    site.own(place / USER)
    pop = site.log_in(mailbox=f"{site.spool}/%1/%2/%u")
    assert pop.ok("STAT").startswith("2 ")
    pop.quit()
    assert site.logged("POP login") == [f'notice: (v{VERSION}) POP login by user "{USER}" at (local) local']


def children_of(pid, count):
    """The children of a session, when there are so many that live: who spoke to the stranger ends soon."""
    def there():
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        living = [int(child) for child in children if not has_ended(child)]
        return [living] if len(living) == count else None
    return wait_until(there)[0]


def numbers(pid, field):
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field + ":"))
    return [int(word) for word in line.split()[1:]]


@pytest.mark.root
def test_in_a_spool_of_the_group_mail_a_keeper_holds_the_locks(site):
    mail = grp.getgrnam("mail").gr_gid
    os.chown(site.spool, 0, mail)
    site.spool.chmod(0o2775)
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    keeper, = children_of(pop.child, 1)
    assert numbers(keeper, "Uid") == [UID] * 4 and numbers(keeper, "Gid") == [GID, mail, GID, mail]
    assert numbers(pop.child, "Uid") == [UID] * 4 and numbers(pop.child, "Gid") == [GID] * 4
    assert mail not in numbers(pop.child, "Groups")
    assert site.left_over() == [f".{USER}.pop"]
    pop.ok("DELE 1")
    pop.quit()
    assert site.mailbox().read_bytes() == mbox(TWO) and site.left_over() == []
    wait_until(lambda: has_ended(keeper))


@pytest.mark.root
@pytest.mark.parametrize("mode, owner", [(0o1777, 0), (0o755, UID)], ids=["sticky", "own"])
def test_in_other_spools_there_is_no_keeper_and_no_other_group(site, mode, owner):
    os.chown(site.spool, owner, grp.getgrnam("mail").gr_gid)
    site.spool.chmod(mode)
    site.deliver(mbox(ONE))
    pop = site.log_in()
    assert children_of(pop.child, 0) == []
    assert numbers(pop.child, "Uid") == [UID] * 4 and numbers(pop.child, "Gid") == [GID] * 4
    pop.quit()


@pytest.mark.skipif(ROOT, reason="for an ordinary user")
def test_an_ordinary_user_stays_who_he_is(site):
    site.deliver(mbox(ONE))
    pop = site.log_in()
    assert children_of(pop.child, 0) == [] and numbers(pop.child, "Uid") == [os.getuid()] * 4
    pop.quit()


@pytest.mark.root
def test_a_spool_is_roots_only_where_root_alone_says_what_it_is(tmp_path):
    """The group of a spool is lent to nobody who could have put the spool there."""
    assert _is_roots("/var/mail") and _is_roots("/usr/share")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "mail").mkdir()
    assert _is_roots(str(tmp_path / "open" / "mail"))
    (tmp_path / "open").chmod(0o777)
    assert not _is_roots(str(tmp_path / "open" / "mail"))
    (tmp_path / "link").symlink_to("/var/mail")
    assert _is_roots(str(tmp_path / "link"))
    os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)
    assert not _is_roots(str(tmp_path / "link"))
