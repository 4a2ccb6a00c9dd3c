"""What a local user may put in the way. Each test names its row of the security checklist.

What needs another user than the one who is served is in test_root.py.
"""

import fcntl
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import ONE, PASSWORD, TWO, USER, mbox, site, wire          # noqa: F401
from popper.errors import ConfigError
from popper.journal import open_trace
from popper.storage.locks import SpoolLocks

SECRET = b"root's own file\n"


@pytest.fixture
def victim(site):
    """A file outside the spool that nobody should touch through it."""
    file = site.place / "victim"
    file.write_bytes(SECRET)
    site.own(file)
    yield file
    assert file.read_bytes() == SECRET


def refused(site, **settings):
    """A login that must be answered -ERR, without anything being wrong with popper itself; -> the text."""
    pop = site.session(**{"lock_timeout": 0, **settings})
    pop.ok(f"USER {USER}")
    text = pop.err(f"PASS {PASSWORD}")
    assert text.startswith(("[SYS/", "[IN-USE] ")) and "nternal" not in text
    assert pop.end() == b"" and pop.status == 0
    return text


def symlink(place, victim):
    place.symlink_to(victim)


def dangling(place, victim):
    place.symlink_to(victim.parent / "not there")


def hard_link(place, victim):
    os.link(victim, place)


def directory(place, victim):
    place.mkdir()


def fifo(place, victim):
    os.mkfifo(place)


def sock(place, victim):
    os.mknod(place, stat.S_IFSOCK | 0o600)


TRAPS = [symlink, dangling, hard_link, directory, fifo, sock]


def lay(site, trap, place, victim):
    trap(place, victim)
    site.own(place, follow=False)


@pytest.mark.parametrize("trap", TRAPS)
def test_mailbox_that_is_no_plain_file(site, victim, trap):
    """row 20 (CVE-2008-1199), sec.09: a mailbox that is a link, has two names, or is no file is refused, and not
    touched."""
    victim.write_bytes(mbox(ONE))
    lay(site, trap, site.mailbox(), victim)
    assert refused(site).startswith("[SYS/PERM] ")
    assert victim.read_bytes() == mbox(ONE)
    victim.write_bytes(SECRET)
    assert site.left_over() == []


def test_mailbox_that_becomes_a_link(site, victim):
    """row 20: nor is a link followed that takes the mailbox's place during the session."""
    path = site.deliver(mbox(ONE))
    pop = site.log_in()
    pop.ok("DELE 1")
    path.rename(site.spool / "moved")
    path.symlink_to(victim)
    assert pop.err("QUIT").startswith("[SYS/TEMP] ")
    assert pop.end() == b""
    assert (site.spool / "moved").read_bytes() == mbox(ONE)


@pytest.mark.parametrize("trap", TRAPS)
def test_session_file_that_is_a_trap(site, victim, trap):
    """row 21 (CVE-2010-2023, CVE-2008-2936), row 11: `.USER.pop` laid as a trap gives a clean -ERR; nothing is
    written."""
    site.deliver(mbox(ONE))
    place = site.spool / f".{USER}.pop"
    lay(site, trap, place, victim)
    before = os.lstat(place)
    assert refused(site).startswith("[SYS/PERM] ")
    assert (os.lstat(place).st_ino, os.lstat(place).st_mode) == (before.st_ino, before.st_mode)
    assert not (site.place / "not there").exists()


def huge(place, victim):
    with place.open("wb") as file:
        file.truncate(2**30)


@pytest.mark.parametrize("trap", [*TRAPS[:2], *TRAPS[3:], huge])
def test_dotlock_that_is_a_trap(site, victim, trap):
    """row 21 (CVE-2010-2024, CVE-2008-2937), CVE-2000-1198: `USER.lock` laid as a trap is "busy", however old; it
    stays."""
    site.deliver(mbox(ONE))
    place = site.spool / f"{USER}.lock"
    lay(site, trap, place, victim)
    os.utime(place, (0, 0), follow_symlinks=False)
    before = os.lstat(place)
    assert "lock busy" in refused(site)
    assert os.lstat(place).st_ino == before.st_ino
    assert site.left_over() == [place.name]
    assert site.mailbox().read_bytes() == mbox(ONE)


@pytest.mark.parametrize("trap", [symlink, dangling, directory, fifo])
def test_names_of_lock_files_taken_before(site, victim, trap):
    """row 21: nor does it help to guess the name that the lock is made under."""
    site.deliver(mbox(ONE))

    def guess():
        trap(Path(SpoolLocks(str(site.mailbox())).private), victim)
    pop = site.session(before=guess, lock_timeout=1)
    pop.ok(f"USER {USER}")
    reply = pop.ask(f"PASS {PASSWORD}")
    assert reply.startswith(("+OK ", "-ERR [SYS/", "-ERR [IN-USE] ")) and "nternal" not in reply
    assert not (site.place / "not there").exists()
    pop.hang_up()


def test_private_files(site):
    """row 12 (CVE-2005-1152, no umask): we set our own umask, and the file we leave in the spool for a while is
    0600."""
    site.deliver(mbox(ONE))
    pop = site.log_in(before=lambda: os.umask(0))
    assert pop.proc("Umask") == "0077"
    assert stat.S_IMODE((site.spool / f".{USER}.pop").stat().st_mode) == 0o600
    pop.quit()


def test_trace_file_is_private(tmp_path):
    """row 12: the trace file is 0600, whatever the umask, and an old one that was open to all becomes so."""
    for path in (tmp_path / "new", tmp_path / "old"):
        if path.name == "old":
            path.touch(0o666)
            path.chmod(0o666)
        old = os.umask(0)
        try:
            os.close(open_trace(str(path)))
        finally:
            os.umask(old)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("trap", TRAPS)
def test_trace_file_that_is_a_trap(tmp_path, trap):
    """row 13 (CVE-2005-3098, CVE-2001-1487), row 11: a trace file is opened neither through a link nor onto another
    file."""
    victim, place = tmp_path / "victim", tmp_path / "trace"
    victim.write_bytes(SECRET)
    trap(place, victim)
    with pytest.raises(ConfigError, match="Unable to open trace file"):
        open_trace(str(place))
    assert victim.read_bytes() == SECRET
    assert not (tmp_path / "not there").exists()


OPTION_FILES = (".qpopper-options", ".popper.conf", ".popbull", ".poprc", ".netrc")


def test_users_set_nothing(site):
    """row 8 (CVE-2002-0889): no file of the user's configures popper: one in a home directory is not even opened."""
    site.deliver(mbox(ONE))
    for name in OPTION_FILES:
        os.mkfifo(site.place / name)                    # who opens one waits for ever
        os.mkfifo(site.spool / f".{USER}{name}")
    pop = site.log_in()
    assert pop.text("RETR 1") == wire(ONE)
    pop.quit()


def test_nothing_is_setuid(installed):
    """row 17 (CVE-2004-0984, CVE-2019-18862): nothing that is installed has a setuid or setgid bit, or is writable by
    others."""
    found = [path for path in installed.rglob("*") if not path.is_symlink()]
    assert installed / "sbin" / "popper" in found
    for path in found:
        assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | 0o022), path


def test_delivery_goes_on_during_a_session(site):
    """row 40 (a session-long lock elsewhere): both locks of a delivery agent can be had while a session lasts."""
    path = site.deliver(mbox(ONE))
    pop = site.log_in()
    lock = site.spool / f"{USER}.lock"
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with path.open("ab") as mailbox:
        fcntl.lockf(mailbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mailbox.write(mbox(TWO))
    os.close(descriptor)
    lock.unlink()
    assert pop.text("RETR 1") == wire(ONE)
    pop.ok("DELE 1")
    pop.quit()
    assert path.read_bytes() == mbox(TWO)


def test_left_over_mail_is_not_believed(site):
    """row 40 (an index opened through a link elsewhere): our side file is no index; what is in it is neither served nor
    lost."""
    site.deliver(mbox(ONE))
    left = site.spool / f".{USER}.pop"
    left.write_bytes(b"From nobody\0" * 1000)
    site.own(left)
    left.chmod(0o600)
    pop = site.log_in()
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()
    assert left.read_bytes() == b"From nobody\0" * 1000


def test_mailbox_that_cannot_be_opened(site):
    """sec.09: without permission there is a clean -ERR."""
    site.deliver(mbox(ONE)).chmod(0)
    assert refused(site).startswith("[SYS/PERM] ")


def in_update(pop):
    """Whether the session has entered UPDATE: then it holds back what would end it."""
    return int(pop.proc("SigBlk"), 16) & 1 << signal.SIGHUP - 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGALRM,
                                    signal.SIGXFSZ])
def test_a_signal_in_update(site, number):
    """sec.18: a signal during UPDATE waits until it is done: finished, never half."""
    path = site.deliver(mbox(ONE, TWO))
    lock = site.spool / f"{USER}.lock"
    pop = site.log_in(lock_timeout=60, statistics=True)
    pop.ok("DELE 1")
    lock.write_text(f"{os.getpid()}\n{os.uname().nodename}\n")
    pop.send("QUIT\r\n")
    wait_until(lambda: in_update(pop))
    os.kill(pop.child, number)
    assert path.read_bytes() == mbox(ONE, TWO)
    lock.unlink()
    octets = pop.end()
    assert path.read_bytes() == mbox(TWO)
    assert site.left_over() == []
    assert octets.startswith(b"+OK ") and pop.status == 0
    assert site.logged(f"Stats: {USER} 1 {len(wire(ONE))} 1 {len(wire(TWO))} local local")


def test_a_client_that_goes_in_update(site):
    """sec.18 (SIGPIPE): QUIT was said, so the update is made, though nobody is there to hear of it."""
    path = site.deliver(mbox(ONE, TWO))
    lock = site.spool / f"{USER}.lock"
    pop = site.log_in(tcp=True, lock_timeout=60)
    pop.ok("DELE 1")
    lock.write_text(f"{os.getpid()}\n{os.uname().nodename}\n")
    pop.send("QUIT\r\n")
    wait_until(lambda: in_update(pop))
    pop.socket.close()
    lock.unlink()
    assert pop.wait() == 0
    assert path.read_bytes() == mbox(TWO)
    assert site.left_over() == []


def test_the_limit_of_a_file_in_update(site):
    """sec.18 (SIGXFSZ, `ulimit -f`): an update that cannot be finished is not begun; 1939.46 tries where the limit may
    lie."""
    texts = [b"Subject: %d\n\n" % n + b"x" * 3000 + b"\n" for n in range(10)]
    path = site.deliver(mbox(*texts))
    pop = site.log_in(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)))
    pop.ok("DELE 1")
    assert pop.err("QUIT").startswith("[SYS/TEMP] ")
    assert pop.end() == b""
    assert path.read_bytes() == mbox(*texts)
