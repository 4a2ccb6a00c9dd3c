"""What root does and does not do: privileges, paths, other people's files. Each test names its row of the checklist."""

import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, PASSWORD, TWO, UID, USER, Dialogue, mbox, site, wire          # noqa: F401
from popper.storage.locks import SpoolLocks

pytestmark = pytest.mark.root

ATTACKER = 54322
SECRET = b"root:secret\n"


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "popper.conf"
    path.write_text(f"lookup no\nfail_delay 0\nlock_timeout 1\nhostname {HOST}\nauth getpw\n")
    return path


@pytest.fixture
def pop(start_inetd, installed, conf, spool):
    """A session of a real account out of a real inetd."""
    spool.deliver(mbox(ONE, TWO))
    server = start_inetd(installed / "sbin" / "popper", "-C", str(conf))
    pop = Dialogue(socket.create_connection(("127.0.0.1", server.port)))
    pop.reply()
    yield pop
    pop.socket.close()
    wait_until(lambda: not processes_of(spool))


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def processes_of(account):
    """{pid: its /proc status} of every process with the account's uid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = status_of(entry.name)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(account.entry.pw_uid) in status["Uid"].split() and not status["State"].startswith("Z"):
                found[int(entry.name)] = status
    return found


def test_privileges_after_login(pop, spool):
    """row 22 (CVE-2010-0301, groups kept): all uids and gids are the user's, groups are his, and no capability is left.

    NoNewPrivs is not set: sendmail may need its own setgid bit for XTND XMIT. What cannot be regained is tried in
    tests/test_privilege.py.
    """
    uid, gid = str(spool.entry.pw_uid), str(spool.entry.pw_gid)
    assert not processes_of(spool)
    pop.ok(f"USER {spool.name}")
    pop.ok(f"PASS {spool.password}")
    found = processes_of(spool)
    keepers = {pid: status for pid, status in found.items() if int(status["PPid"]) in found}
    (session, status), = ((pid, status) for pid, status in found.items() if pid not in keepers)
    assert status["Uid"].split() == [uid] * 4
    assert status["Gid"].split() == [gid] * 4
    assert set(status["Groups"].split()) == {str(group) for group in os.getgrouplist(spool.name, spool.entry.pw_gid)}
    assert status["Umask"] == "0077"
    for status in found.values():
        assert status["Uid"].split() == [uid] * 4
        assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    (keeper,) = keepers.values()
    assert set(keeper["Gid"].split()) <= {gid, str(Path("/var/mail").stat().st_gid)}
    open_files = {os.readlink(link) for link in Path(f"/proc/{session}/fd").iterdir()}
    assert not any("shadow" in name or "passw" in name for name in open_files)
    assert pop.text("RETR 1") == wire(ONE)
    pop.ok("DELE 1")
    pop.ok("QUIT")
    assert spool.mailbox.read_bytes() == mbox(TWO)


def test_nothing_of_a_user_is_opened_by_root(installed, conf, spool, tmp_path):
    """row 11 (CVE-2005-1151, user's files handled as root), row 8: until root is given up, no path that a user controls
    is used."""
    spool.deliver(mbox(ONE, TWO))
    for name in (".qpopper-options", ".popper.conf", ".popbull", ".forward"):
        (Path(spool.entry.pw_dir) / name).write_text("trace /etc/passwd\n")
    trace = tmp_path / "strace"
    ours, theirs = socket.socketpair()
    with theirs, subprocess.Popen(["strace", "-f", "-qq", "-o", trace, "-e", "trace=%file,setresuid,setuid",
                                   installed / "sbin" / "popper", "-C", conf, "-s"],
                                  stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        theirs.close()
        session = Dialogue(ours)
        session.reply()
        session.log_in(spool.name, spool.password)
        session.text("RETR 1")
        session.ok("DELE 1")
        session.quit()
        process.wait(20)
    users = (str(spool.mailbox), f"/var/mail/.{spool.name}", spool.entry.pw_dir)
    lines = trace.read_text().splitlines()
    became = next(n for n, line in enumerate(lines) if f"setresuid({spool.entry.pw_uid}, " in line)
    before = [line for line in lines[:became] if any(f'"{path}' in line for path in users)]
    after = [line for line in lines[became:] if any(f'"{path}' in line for path in users)]
    assert before == []
    assert any("openat" in line and f'"{spool.mailbox}"' in line and "O_NOFOLLOW" in line for line in after)
    assert not any(spool.entry.pw_dir in line for line in after)


@pytest.fixture
def roots(site):
    """A file of root's that no trap may get at."""
    file = site.place / "roots"
    file.write_bytes(SECRET)
    file.chmod(0o600)
    yield file
    assert file.read_bytes() == SECRET and stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_uid == 0


@pytest.mark.parametrize("name", ["{}", ".{}.pop", "{}.lock", ".{}.redo"])
@pytest.mark.parametrize("how", [os.symlink, os.link])
def test_links_to_roots_files(site, roots, name, how):
    """row 11, row 20, row 21: mailbox, session file and dotlock as links to a file of root's leave it alone, and tell
    nothing of it."""
    if name != "{}":
        site.deliver(mbox(ONE))
    how(roots, site.spool / name.format(USER))
    pop = site.session(lock_timeout=0, debug=True)
    pop.ok(f"USER {USER}")
    assert re.match(r"\[(SYS/PERM|IN-USE)\] ", pop.err(f"PASS {PASSWORD}"))
    assert pop.end() == b""
    assert "secret" not in site.log_file.read_text()


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o660])
def test_mailbox_of_somebody_else(site, mode):
    """row 20 (CVE-2008-1199), sec.09: a mailbox that belongs to another is not served, though it may be readable."""
    path = site.deliver(mbox(ONE))
    os.chown(path, ATTACKER, UID)
    path.chmod(mode)
    pop = site.session()
    pop.ok(f"USER {USER}")
    assert pop.err(f"PASS {PASSWORD}").startswith("[SYS/PERM] ")
    assert pop.end() == b""
    assert path.read_bytes() == mbox(ONE) and site.left_over() == []


def test_mailbox_that_is_a_device(site):
    """row 20: nor is a device read."""
    os.mknod(site.mailbox(), stat.S_IFCHR | 0o666, os.makedev(1, 5))          # /dev/zero
    site.own(site.mailbox())
    pop = site.session()
    pop.ok(f"USER {USER}")
    assert pop.err(f"PASS {PASSWORD}").startswith("[SYS/PERM] ")
    assert pop.end() == b""


def test_link_to_a_neighbours_mailbox(start_inetd, installed, conf, spool):
    """row 20: in the real spool, with its group mail, a link of his own making shows a user no other's mail."""
    neighbour = Path("/var/mail/popneighbour")
    neighbour.write_bytes(mbox(TWO))
    os.chown(neighbour, ATTACKER, Path("/var/mail").stat().st_gid)
    neighbour.chmod(0o660)
    spool.mailbox.symlink_to(neighbour)
    os.chown(spool.mailbox, spool.entry.pw_uid, spool.entry.pw_gid, follow_symlinks=False)
    try:
        server = start_inetd(installed / "sbin" / "popper", "-C", str(conf))
        pop = Dialogue(socket.create_connection(("127.0.0.1", server.port)))
        pop.reply()
        pop.ok(f"USER {spool.name}")
        assert pop.err(f"PASS {spool.password}").startswith("[SYS/PERM] ")
        assert pop.end() == b""
        assert neighbour.read_bytes() == mbox(TWO)
        assert sorted(path.name for path in Path("/var/mail").glob("*popjoe*")) == [spool.name]
    finally:
        neighbour.unlink()


def attackers_file(place):
    place.write_bytes(b"x")
    place.chmod(0o666)


def attackers_symlink(place):
    place.symlink_to("/etc/passwd")


def attackers_directory(place):
    place.mkdir()


def attackers_gigabyte(place):
    with place.open("wb") as file:
        file.truncate(2**30)


@pytest.mark.parametrize("name", ["{}", "{}.lock", ".{}.pop", ".{}.redo", "private"])
@pytest.mark.parametrize("trap", [attackers_file, attackers_symlink, attackers_directory, attackers_gigabyte])
def test_an_attacker_was_there_first(site, name, trap):
    """row 21 (CVE-2010-2023, CVE-2010-2024, CVE-2008-2936, CVE-2008-2937): in a spool that all may write in, only a
    clean -ERR."""
    site.spool.chmod(0o1777)
    os.chown(site.spool, 0, 0)
    if name != "{}":
        site.deliver(mbox(ONE))
    places = []

    def lay(place):
        trap(place)
        os.chown(place, ATTACKER, ATTACKER, follow_symlinks=False)
        places.append(place)
    if name != "private":
        lay(site.spool / name.format(USER))
    early = (lambda: lay(Path(SpoolLocks(str(site.mailbox())).private))) if name == "private" else None
    pop = site.session(lock_timeout=0, before=early)
    pop.ok(f"USER {USER}")
    reply = pop.err(f"PASS {PASSWORD}")
    assert re.match(r"\[(SYS/PERM|SYS/TEMP|IN-USE)\] ", reply) and "nternal" not in reply
    assert pop.end() == b"" and pop.status == 0
    for place in places:
        assert os.lstat(place).st_uid == ATTACKER


def test_unlock_in_a_spool_that_all_may_write_in(site):
    """row 21: where nobody was there first, such a spool serves, and is left as it was."""
    site.spool.chmod(0o1777)
    os.chown(site.spool, 0, 0)
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.ok("DELE 1")
    pop.quit()
    assert path.read_bytes() == mbox(TWO)
    assert os.listdir(site.spool) == [USER]
