"""Bulletins in sessions: what a client finds, what a crash or a full disk leaves, as whom it is done."""

import grp
import os
import pwd
import resource
import signal
from pathlib import Path

import pytest

import test_privilege
import test_start
from dialogue import GID, HOST, ONE, ROOT, TWO, UID, USER, Dialogue, mbox, site, tcp_pair     # noqa: F401
from popper import bulletins
from test_bulletins_board import ENVELOPE, put, text
from test_privilege import conf, notes          # noqa: F401


@pytest.fixture
def bulls(site):
    """The directory of bulletins of a site; its users' home is theirs."""
    site.own(site.place)
    directory = site.place / "bulletins"
    directory.mkdir()
    directory.chmod(0o755)
    site.settings["bulletins"] = str(directory)
    site.popbull = site.place / ".popbull"
    return directory


def received(site, number):
    site.popbull.write_bytes(b"%d\n" % number)
    site.own(site.popbull)


def given_to(site, octets):
    return bulletins.addressed(octets, USER, HOST)


def test_ten_polls_and_nothing_twice(site, bulls):
    """Each of ten sessions finds what is new, once, with the highest numbers; STAT, LIST and RETR agree."""
    site.deliver(mbox(ONE))
    known = [ONE.replace(b"\n", b"\r\n")]
    for number in range(10):
        pop = site.log_in()
        assert pop.ok("STAT").split()[0] == str(len(known))
        assert [pop.text(f"RETR {n}") for n in range(1, len(known) + 1)] == known
        assert [line.split() for line in pop.lines("LIST")] == \
            [[str(n), str(len(octets))] for n, octets in enumerate(known, 1)]
        assert len(set(pop.lines("UIDL"))) == len(known)
        pop.quit()
        if number % 3 != 2:
            put(bulls, f"{number + 1}.news")
            known.append(given_to(site, (bulls / f"{number + 1}.news").read_bytes())[len(ENVELOPE):]
                         .replace(b"\n", b"\r\n"))
    assert site.popbull.read_bytes() == b"8\n"
    assert site.logged("notice: Bulletin") == [] and site.left_over() == []


def test_what_was_deleted_does_not_come_back(site, bulls):
    received(site, 0)
    put(bulls, "1.a", "2.b")
    pop = site.log_in()
    assert pop.ok("STAT").startswith("2 ")
    pop.ok("DELE 1")
    pop.ok("DELE 2")
    pop.quit()
    for _ in range(3):
        pop = site.log_in()
        assert pop.ok("STAT") == "0 0"
        pop.quit()
    assert site.mailbox().read_bytes() == b""


def test_a_session_that_breaks_has_received_all_the_same(site, bulls):
    site.deliver(mbox(ONE))
    received(site, 0)
    put(bulls, "1.a")
    site.log_in().hang_up()
    assert site.popbull.read_bytes() == b"1\n"
    pop = site.log_in()
    assert pop.ok("STAT").startswith("2 ")
    pop.quit()


def test_the_receipt_is_the_users_own(site, bulls):
    """row 8, row 12: made as the user, mode 0600."""
    put(bulls, "1.a")
    site.log_in().quit()
    status = site.popbull.stat()
    assert status.st_mode & 0o7777 == 0o600
    assert (status.st_uid, status.st_gid) == ((UID, GID) if ROOT else (os.geteuid(), os.getegid()))


def test_a_bulletin_that_is_wrong_breaks_no_login_and_sends_no_stray_reply(site, bulls):
    """Some of the original's complaints about bulletins were replies that nobody had asked for."""
    site.deliver(mbox(ONE))
    received(site, 0)
    put(bulls, "1.a", octets=b"no envelope\n")
    os.mkfifo(bulls / "2.fifo")
    (bulls / "3.link").symlink_to("/nonexistent")
    (bulls / "README").write_text("x")
    pop = site.session()
    pop.send(b"USER %s\r\nPASS tanstaaf\r\nSTAT\r\nQUIT\r\n" % USER.encode())
    assert [pop.reply()[:8] for _ in range(4)] == ["+OK Pass", "+OK mros", "+OK 1 88", "+OK Pop "]
    assert pop.end() == b""
    assert site.popbull.read_bytes() == b"0\n"
    assert len(site.logged("notice: ")) == 4             # and the login


@pytest.mark.root
def test_what_only_root_may_read_is_left_out(site, bulls):
    """row 11: the files are read as the user."""
    received(site, 0)
    put(bulls, "1.a")
    (bulls / "1.a").chmod(0o600)
    pop = site.log_in()
    assert pop.ok("STAT") == "0 0"
    pop.quit()
    assert site.logged("1.a") == ["notice: Unable to open bulletin file 1.a: Permission denied (13)"]
    (bulls / "1.a").chmod(0o644)
    pop = site.log_in()
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()


@pytest.mark.root
def test_a_directory_of_the_user_who_logs_in_is_not_taken(site, bulls):
    """sec.17: root's, or that of who started popper; what this process became does not count."""
    received(site, 0)
    put(bulls, "1.a")
    site.own(bulls)
    site.log_in().quit()
    assert len(site.logged("is owned neither by root nor by who runs popper")) == 1
    assert site.popbull.read_bytes() == b"0\n"


@pytest.mark.root
def test_groups_are_those_of_the_user_and_not_of_root(site, bulls):
    received(site, 0)
    put(bulls, "1.root.a", "2.nogroup.b", "3.ALL.c")
    pop = site.log_in(group_bulletins=True)
    assert pop.ok("STAT").split()[0] == "1"
    assert b"Subject: 3.ALL.c\r\n" in pop.text("TOP 1 0")
    pop.quit()


def test_a_mailbox_that_cannot_grow_stays_as_it_was_and_is_served(site, bulls):
    """sec.17: a bulletin that does not fit leaves the mailbox as it was, and the login succeeds."""
    site.deliver(mbox(ONE, TWO))
    received(site, 0)
    put(bulls, "1.large", octets=ENVELOPE + text("1.large", 300000))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    pop = site.session(before=limit).log_in()
    assert pop.ok("STAT").startswith("2 ")
    assert pop.text("RETR 2") == TWO.replace(b"\n", b"\r\n")
    pop.quit()
    assert site.mailbox().read_bytes() == mbox(ONE, TWO)
    assert site.popbull.read_bytes() == b"0\n" and site.left_over() == []
    assert len([line for line in site.logged("notice: ") if "cannot be added to" in line]) == 1
    pop = site.log_in()
    assert pop.ok("STAT").startswith("3 ")
    pop.quit()
    assert site.popbull.read_bytes() == b"1\n"


@pytest.mark.parametrize("wanted", [True, False], ids=["", "and no bulletins wanted then"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_session_that_is_killed_at_the_receipt_has_delivered_once(site, bulls, moment, wanted):
    """The receipt is the last step of an append: a crash on either side of it loses nothing and repeats nothing, even
    when -b is gone from inetd's line before the next session has found out."""
    site.deliver(mbox(ONE))
    received(site, 0)
    put(bulls, "1.a")

    def kill_at_receipt():
        rename = os.rename

        def killed(old, new):
            if moment == "after":
                rename(old, new)
            os.kill(os.getpid(), signal.SIGKILL)
        os.rename = killed
    pop = site.session(before=kill_at_receipt)
    pop.ok(f"USER {USER}")
    pop.send(b"PASS tanstaaf\r\n")
    assert pop.end() == b"" and pop.status == -signal.SIGKILL
    assert site.popbull.read_bytes() == (b"0\n" if moment == "before" else b"1\n")
    for number in range(3):
        pop = site.log_in(**({} if wanted or number else {"bulletins": ""}))
        assert pop.ok("STAT").split()[0] == "2"
        assert b"Subject: 1.a\r\n" in pop.text("TOP 2 0")
        pop.quit()
    assert site.popbull.read_bytes() == b"1\n"
    assert [path.name for path in site.place.iterdir() if "popbull" in path.name] == [".popbull"]


def test_without_the_option_there_are_none(site, bulls):
    received(site, 0)
    put(bulls, "1.a")
    pop = site.log_in(bulletins="")
    assert pop.ok("STAT") == "0 0"
    pop.quit()
    assert site.popbull.read_bytes() == b"0\n"


def test_ten_thousand_old_bulletins_are_no_matter(site, bulls):
    for number in range(1, 10001):
        (bulls / f"{number}.x").touch()
    received(site, 10000)
    put(bulls, "10001.new")
    pop = site.log_in()
    assert pop.ok("STAT").split()[0] == "1"
    pop.quit()
    assert site.popbull.read_bytes() == b"10001\n"


@pytest.mark.root
def test_an_account_of_the_system_gets_them_in_its_home(site, bulls, account):
    """As `become` leaves it: the groups of the account, its own home."""
    put(bulls, "1.ALL.a", f"2.{grp.getgrgid(account.entry.pw_gid).gr_name}.b", "3.root.c")
    home = Path(account.entry.pw_dir)
    (home / ".popbull").write_bytes(b"0\n")
    os.chown(home / ".popbull", account.entry.pw_uid, account.entry.pw_gid)
    mailbox = site.spool / account.name
    mailbox.touch()
    for path in site.spool, mailbox:
        os.chown(path, account.entry.pw_uid, account.entry.pw_gid)
    try:
        pop = site.session(auth=("getpw",), group_bulletins=True)
        pop.log_in(account.name, account.password)
        assert pop.ok("STAT").split()[0] == "2"
        assert f"To: {account.name}@{HOST}\r\n".encode() in pop.text("TOP 2 0")
        pop.quit()
        assert (home / ".popbull").read_bytes() == b"2\n"
        assert (home / ".popbull").stat().st_uid == pwd.getpwnam(account.name).pw_uid
    finally:
        (home / ".popbull").unlink()


# -- what a session imports, and as whom ------------------------------------------------------------------------------

def test_a_session_imports_what_bulletins_need_only_where_there_are_any(installed):
    place = installed / "start-bulletins"
    directory = place / "bulletins"
    mail = place / "mail"
    for each in place, directory, mail:
        each.mkdir()
        each.chmod(0o755)
    put(directory, "1.a")
    (mail / test_start.USER).write_bytes(test_start.MAILBOX)
    (mail / f"{test_start.USER}.popbull").write_bytes(b"0\n")
    if ROOT:
        for path in (mail, *mail.iterdir()):
            os.chown(path, test_start.NOBODY, test_start.NOBODY)
    numbers = f"{test_start.NOBODY}:{test_start.NOBODY}"
    (place / "users").write_text(f"{test_start.USER}:{test_start.HASH}:{numbers}::/:\n")
    conf = f"password_file {place}/users\nmailbox {mail}/%u\npopbull_dir {mail}\nguessers {place}/guessers\n"
    ended = []
    for number, more in enumerate(("", f"bulletins {directory}\n")):
        (place / "popper.conf").write_text(conf + more)
        ended.append(set(test_start.told(installed / "sbin" / "popper", test_start.USER, "-s", "-C",
                                         str(place / "popper.conf"))[1]))
        assert (mail / f"{test_start.USER}.popbull").read_bytes() == b"%d\n" % number
    assert ended[1] - ended[0] == {"popper.bulletins", "popper.popbull", "grp"}
    assert "popper.bulletins" not in ended[0]


@pytest.mark.root
def test_bulletins_are_the_users_work_and_imported_before(spool, conf, notes):
    """row 11 (CVE-2005-1151): nothing of them runs as root, and nothing is imported once root is given up."""
    spool.deliver(mbox(ONE, ONE))
    receipt = Path(spool.entry.pw_dir, ".popbull")
    receipt.unlink(missing_ok=True)
    ours, theirs = tcp_pair()
    pop = Dialogue(ours)
    with theirs, test_privilege.start(["-C", conf, "-s"], theirs, notes) as process:
        theirs.close()
        try:
            test_privilege.converse(pop, spool.name, spool.password)
        finally:
            ours.close()
            _, complaints = process.communicate(timeout=20)
    assert process.returncode == 0, complaints
    assert receipt.read_bytes() == b"1\n" and receipt.stat().st_uid == spool.entry.pw_uid
    receipt.unlink()
    observed = test_privilege.Observed(notes.end(), spool.entry.pw_uid)
    runs = {who for who, modules in observed.who.items() if {"bulletins", "popbull"} & modules}
    assert runs == {"user"} and {"bulletins", "popbull"} <= observed.who["user"]
    assert observed.late == set()
