"""What a local user may do to bulletins and their receipts. Each test names its row of the security checklist."""

import os
import resource
import stat

import pytest

from dialogue import GID, HOST, ONE, ROOT, UID, USER, mbox, site          # noqa: F401
from popper.bulletins import number_of

ENVELOPE = b"From postmaster@example.org Fri Mar  8 17:05:00 2024\n"
SECRET = b"root's own file\n"
MANY = 4322                    # another user's uid


@pytest.fixture
def bulls(site):
    """The bulletins 1 and 2 of a site whose users' receipts are in a directory like /tmp."""
    directory, receipts = site.place / "bulletins", site.place / "receipts"
    for each, mode in ((directory, 0o755), (receipts, 0o1777)):
        each.mkdir()
        each.chmod(mode)
    put(directory / "1.a")
    put(directory / "2.b")
    site.settings.update(bulletins=str(directory), popbull_dir=str(receipts))
    site.deliver(mbox(ONE))
    return directory


@pytest.fixture
def receipt(site, bulls):
    return site.place / "receipts" / f"{USER}.popbull"


@pytest.fixture
def victim(site):
    """A file that nobody should touch."""
    file = site.place / "victim"
    file.write_bytes(SECRET)
    site.own(file)
    yield file
    assert file.read_bytes() == SECRET


def put(path, octets=ENVELOPE + b"Subject: x\n\ny\n"):
    path.write_bytes(octets)
    path.chmod(0o644)


def count(site, **settings):
    """How many messages a session finds; the session is a whole one and says nothing else."""
    pop = site.log_in(**settings)
    found = int(pop.ok("STAT").split()[0])
    pop.quit()
    return found


def notices(site):
    return [line.removeprefix("notice: ") for line in site.logged("notice: ") if "POP login" not in line]


TRAPS = {
    "symlink": lambda place, victim: place.symlink_to(victim),
    "dangling": lambda place, victim: place.symlink_to(victim.parent / "not there"),
    "hard link": lambda place, victim: os.link(victim, place),
    "directory": lambda place, victim: place.mkdir(),
    "fifo": lambda place, victim: os.mkfifo(place),
    "socket": lambda place, victim: os.mknod(place, stat.S_IFSOCK | 0o600),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_receipt_that_is_a_trap(site, bulls, receipt, victim, trap):
    """row 11 (CVE-2005-1151), row 8 (CVE-2002-0889): `.popbull` laid as a trap is neither followed nor waited for;
    the login goes on, without bulletins, and with one line in the log."""
    TRAPS[trap](receipt, victim)
    site.own(receipt, follow=False)
    before = os.lstat(receipt)
    assert count(site) == 1
    after = os.lstat(receipt)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert len(notices(site)) == 1 and notices(site)[0].endswith("; no bulletins")
    assert not (site.place / "not there").exists()
    assert os.listdir(receipt.parent) == [receipt.name]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_where_a_receipt_is_written(site, bulls, receipt, victim, trap):
    """row 11: so with the name under which a new receipt is made, which anybody can know; bulletins come all the
    same."""
    receipt.write_bytes(b"1\n")
    site.own(receipt)
    private = receipt.with_name(receipt.name + ".new")
    TRAPS[trap](private, victim)
    assert count(site) == 2
    assert receipt.read_bytes() == b"2\n" and not receipt.is_symlink()
    assert notices(site) == []
    assert not (site.place / "not there").exists()


@pytest.mark.root
def test_a_receipt_that_somebody_else_made(site, bulls, receipt):
    """row 8: in a directory like /tmp anybody can make a file of that name: a number that is another's is not
    believed, and not replaced."""
    receipt.write_bytes(b"0\n")
    os.chown(receipt, MANY, MANY)
    assert count(site) == 1
    assert notices(site) == [f"{receipt} is not owned by this user; no bulletins"]
    assert receipt.read_bytes() == b"0\n" and receipt.stat().st_uid == MANY


@pytest.mark.parametrize("octets", [b"", b"\0" * 64, b"9" * 100000, b"-1\n", b"1", b"\xff\xfe\n", b"1\n" * 40000])
def test_a_receipt_with_anything_in_it(site, bulls, receipt, octets):
    """row 28 (CVE-2019-7524): random, cut short or huge, a receipt is made anew and never brings a flood."""
    receipt.write_bytes(octets)
    site.own(receipt)
    assert count(site) == 1
    assert receipt.read_bytes() == b"2\n"
    assert len(notices(site)) == 1 and notices(site)[0].endswith(f"; {USER} is taken to have all bulletins")
    put(bulls / "3.c")
    assert count(site) == 2


def test_a_receipt_is_nobody_elses_to_read(site, bulls, receipt):
    """row 12 (CVE-2005-1152): 0600, and the user's own, in whatever directory."""
    assert count(site) == 1
    status = receipt.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_uid, status.st_gid) == ((UID, GID) if ROOT else (os.geteuid(), os.getegid()))


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o2775])
def test_a_directory_that_others_may_write_in(site, bulls, receipt, mode):
    """sec.17: who could put a bulletin there could write to all users, so there are none."""
    receipt.write_bytes(b"0\n")
    site.own(receipt)
    bulls.chmod(mode)
    assert count(site) == 1
    assert notices(site) == [f"Bulletin directory '{bulls}' may be written in by others than its owner; no bulletins"]
    assert receipt.read_bytes() == b"0\n"


@pytest.mark.root
@pytest.mark.parametrize("owner", [UID, MANY])
def test_a_directory_of_somebody_else(site, bulls, receipt, owner):
    """sec.17: nor may it be a user's, not even of the one who logs in."""
    receipt.write_bytes(b"0\n")
    site.own(receipt)
    os.chown(bulls, owner, 0)
    assert count(site) == 1
    assert notices(site) == \
        [f"Bulletin directory '{bulls}' is owned neither by root nor by who runs popper; no bulletins"]


@pytest.mark.root
def test_what_a_link_leads_to_is_read_as_the_user(site, bulls, receipt):
    """sec.17, row 11: a symbolic link of root is followed, but opens nothing that the user could not read; one of
    anybody else is not followed at all."""
    receipt.write_bytes(b"2\n")
    site.own(receipt)
    secret = site.place / "secret"
    put(secret, ENVELOPE + SECRET)
    secret.chmod(0o600)
    (bulls / "3.secret").symlink_to(secret)
    (bulls / "4.shadow").symlink_to("/etc/shadow")
    (bulls / "5.users").symlink_to(bulls / "1.a")
    os.chown(bulls / "5.users", UID, GID, follow_symlinks=False)
    assert count(site) == 1
    assert notices(site) == ["Unable to open bulletin file 3.secret: Permission denied (13)",
                             "Unable to open bulletin file 4.shadow: Permission denied (13)",
                             "Bulletin 5.users is a symbolic link that is not its directory's owner's"]


def test_names_that_mean_something_elsewhere(site, bulls, receipt):
    """sec.17: a number is digits, few enough to be one; a name is never part of a path, and cannot end a line of the
    log."""
    for name in ("9" * 19, "-1.x", "+1.x", "1e3".replace("1", "x"), "\u0663.x", "..3", "%s%n", "README"):
        assert not number_of(name)
        put(bulls / name)
    put(bulls / "3.x\nnotice: (v0) POP login by user \"root\" at (x) y", b"")
    put(bulls / "4.%s%n{0}\x1b[2J", b"")
    receipt.write_bytes(b"2\n")
    site.own(receipt)
    assert count(site) == 1
    assert len(notices(site)) == 2 and all(line.isprintable() and line.endswith(" is empty") for line in notices(site))


def test_a_huge_bulletin_is_not_read_into_memory(site, bulls, receipt):
    """sec.17: what is larger than bulletin_max costs nothing."""
    with open(bulls / "3.huge", "wb") as huge:
        huge.write(ENVELOPE)
        huge.truncate(1 << 40)
    (bulls / "3.huge").chmod(0o644)
    receipt.write_bytes(b"2\n")
    site.own(receipt)
    pop = site.log_in()
    assert pop.ok("STAT").split()[0] == "1"
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024     # the session began as a copy of this process
    assert pop.memory() < ours + (50 << 20)
    pop.quit()
    assert notices(site) == ["Bulletin 3.huge has more than 1048576 octets"]


def test_what_stands_in_a_bulletin_is_no_template(site, bulls, receipt):
    """row 4 (CVE-2000-0442), row 19: name and host are filled in once, and nothing else is."""
    text = b"To: %u {user} %s%n ~ `id`\nSubject: %u@%h {host} {0.__class__}\n\n%s%n{0}\n"
    put(bulls / "3.x", ENVELOPE + text)
    receipt.write_bytes(b"2\n")
    site.own(receipt)
    pop = site.log_in()
    assert pop.text("RETR 2") == (f"To: {USER}@{HOST}\r\n".encode() + text.partition(b"\n")[2].replace(b"\n", b"\r\n"))
    pop.quit()
