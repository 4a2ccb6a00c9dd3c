"""The dotlock: how it is made, whose it respects, and when one is stale (security.md rows 21 and 42)."""

import ast
import errno
import os
import resource
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from places import lock, mailbox                              # noqa: F401  fixtures
from processes import as_nobody, as_ordinary_user, dead_process, forks, make_old, refusal, sticky_spool

import popper.storage
from popper.errors import IN_USE, PERMANENT
from popper.storage.held import Held
from popper.storage.locks import HELD_LONG, STALE, SpoolLocks

pytestmark = forks
HOST = os.uname().nodename
OURS = f"{os.getpid()}:{HOST}\n"


@pytest.fixture
def locks(mailbox):
    locks = SpoolLocks(str(mailbox))
    yield locks
    locks.close()
    assert [name for name in os.listdir(mailbox.parent) if name.startswith(f".joe.{HOST}")] == []


def only_after_a_try(locks):
    """Whether a lock was found stale, removed, and could be made then; and not at once: it might be live again."""
    return [locks.dot(), locks.dot()]


# -- making a dotlock ------------------------------------------------------------------------------------------------

def test_a_dotlock_names_its_process_and_host(locks, lock):
    assert locks.dot() is True
    assert lock.read_text() == OURS
    assert stat.S_ISREG(lock.lstat().st_mode) and lock.stat().st_nlink == 1
    locks.undot()
    assert not lock.exists()


def test_it_is_made_by_link(locks, lock, monkeypatch):
    """O_EXCL is not to be trusted over NFS; two names of one inode are."""
    linked = []

    def link(old, new):
        linked.append((Path(old).read_text(), new))
        real(old, new)
    real = os.link
    monkeypatch.setattr(os, "link", link)
    assert locks.dot() is True
    assert linked == [(OURS, str(lock))]


def test_the_answer_to_link_decides_nothing(locks, lock, monkeypatch):
    """Over NFS link may have worked though it says it failed: the inode decides."""
    def link(old, new):
        real(old, new)
        raise FileExistsError
    real = os.link
    monkeypatch.setattr(os, "link", link)
    assert locks.dot() is True
    locks.undot()
    assert not lock.exists()


def test_a_lock_that_is_held_is_not_made_again(locks, mailbox, lock):
    assert locks.dot() is True
    other = SpoolLocks(str(mailbox))
    other.private += ".other"                # another process would have another name
    assert other.dot() is False
    other.undot()
    other.close()
    assert lock.exists()


def test_only_our_own_lock_is_taken_back(locks, lock):
    """Somebody found it stale, and it is his now."""
    assert locks.dot() is True
    lock.unlink()
    lock.write_text("0")
    locks.undot()
    assert lock.read_text() == "0"


def test_a_lock_is_made_young_again(locks, lock):
    assert locks.dot() is True
    young = lock.stat().st_mtime
    make_old(lock, 200)
    locks.touch()
    assert lock.stat().st_mtime >= young
    assert lock.read_text() == OURS
    locks.undot()
    assert not lock.exists()


def test_the_file_server_says_what_young_is(locks, lock, monkeypatch):
    """No time goes with the request: this host's clock may be wrong by a day."""
    asked = []
    monkeypatch.setattr(os, "utime", lambda *path, **how: asked.append((*path, how)))
    assert locks.dot() is True
    locks.touch()
    assert asked == [(str(lock), {"follow_symlinks": False})]


def test_only_our_own_lock_is_made_young_again(locks, lock):
    """Nor is one made where there is none."""
    locks.touch()
    assert locks.dot() is True
    lock.unlink()
    locks.touch()
    assert not lock.exists()
    lock.write_text("0")
    make_old(lock, 200)
    before = lock.stat().st_mtime
    locks.touch()
    assert lock.stat().st_mtime == before


def test_undoing_twice_or_without_a_lock_does_no_harm(locks, lock):
    locks.undot()
    assert locks.dot() is True
    locks.undot()
    locks.undot()
    lock.write_text("0")
    locks.undot()
    assert lock.exists()


def test_a_left_over_private_file_is_cleared_away(locks):
    """A session of this mailbox was killed between open and link."""
    Path(locks.private).write_text("x")
    assert locks.dot() is True


def test_a_name_that_somebody_put_a_directory_in_the_way_of(locks):
    """Security.md row 21: only a clean -ERR."""
    os.mkdir(locks.private)
    refused = refusal(locks.dot)
    assert refused.text.startswith(f"{locks.lock} cannot be made: ") and refused.code == PERMANENT
    os.rmdir(locks.private)


def test_a_spool_that_is_not_there(tmp_path):
    refused = refusal(SpoolLocks(str(tmp_path / "none" / "joe")).dot)
    assert refused.text == f"{tmp_path}/none/joe.lock cannot be made: No such file or directory."
    assert refused.code == PERMANENT


def test_a_full_disk_is_no_reason_not_to_lock(locks, lock):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        assert locks.dot() is True
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert lock.exists()


# -- other programs --------------------------------------------------------------------------------------------------

def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, timeout=60).returncode


def test_procmails_lockfile_is_respected_and_respects_us(locks, lock):
    assert run("lockfile", "-r0", lock) == 0
    assert only_after_a_try(locks) == [False, False]
    lock.unlink()
    assert locks.dot() is True
    assert run("lockfile", "-r0", lock) == 73
    locks.undot()
    assert run("lockfile", "-r0", lock) == 0


@pytest.mark.parametrize("flags", [[], ["-p"]], ids=["", "with PID"])
def test_liblockfiles_dotlockfile_is_respected_and_respects_us(locks, lock, flags):
    assert run("dotlockfile", "-l", *flags, "-r0", lock) == 0
    assert only_after_a_try(locks) == [False, False]
    assert run("dotlockfile", "-u", lock) == 0
    assert locks.dot() is True
    assert run("dotlockfile", "-l", *flags, "-r0", lock) == 4
    assert lock.read_text() == OURS


def test_a_delivery_waits_for_our_lock(locks, mailbox, lock):
    """A real procmail delivers when the lock is gone, and not before."""
    assert locks.dot() is True
    before = mailbox.read_bytes()
    procmail = subprocess.Popen(["procmail", "-m", "LOCKSLEEP=1", f"DEFAULT={mailbox}", f"ORGMAIL={mailbox}",
                                 "SHELL=/bin/sh", "/dev/null"], stdin=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"})
    procmail.stdin.write(b"From joe@example.org Thu Nov 24 18:22:48 1996\nSubject: x\n\nbody\n")
    procmail.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        procmail.wait(1)
    assert mailbox.read_bytes() == before
    locks.undot()
    assert procmail.wait(60) == 0
    assert b"Subject: x" in mailbox.read_bytes() and not lock.exists()


def test_filelock_is_used_on_no_mailbox():
    """It empties what it locks."""
    for path in Path(popper.storage.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) else []
            assert "filelock" not in names, path
        assert 'library("filelock' not in path.read_text(), path


# -- stale locks -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", ["{}:{}\n", "{}:{}", "{}\n{}\n", "{}\n{}", "{}@{}", "{}@{}\n"])
def test_the_lock_of_a_dead_process_of_this_host_is_broken(locks, lock, shape):
    """Security.md row 42: a killed session never makes the next login fail. As Dovecot and we write it, as the first
    version did, and as Qpopper does."""
    lock.write_text(shape.format(dead_process(), HOST))
    assert only_after_a_try(locks) == [False, True]


@pytest.mark.parametrize("shape", [
    "{live}:{host}\n", "{live}:{host}", "{live}\n{host}\n", "{live}@{host}", "{dead}\nother.example\n",
    "{dead}:other.example", "{dead}", "{dead}\n", "0", "", "0\n", "-{dead}\n{host}\n", ":{host}",
    "0{nul}\n{host}\n", "0\n{host}\n", "99999999999999999999\n{host}\n", "{host}\n{dead}\n", "x{dead}\n{host}\n",
    "\u0663\n{host}\n"])
def test_a_young_lock_of_anybody_else_is_not_broken(locks, lock, shape):
    text = shape.format(live=os.getpid(), dead=dead_process(), host=HOST, nul="\0")
    lock.write_text(text)
    assert only_after_a_try(locks) == [False, False]
    assert lock.read_text() == text


@pytest.mark.parametrize("text", ["0", "", "{}\nother.example\n", "{}:other.example\n", "garbage\xff", "\xb2:" + HOST])
@pytest.mark.parametrize("age, broken", [(STALE - 20, False), (STALE + 20, True), (1_000_000, True), (-3600, False)])
def test_a_lock_is_stale_after_five_minutes(locks, lock, text, age, broken):
    lock.write_text(text.format(os.getpid()), encoding="latin-1")
    make_old(lock, age)
    assert only_after_a_try(locks) == [False, broken]


@pytest.mark.parametrize("shape", ["{}:{}\n", "{}@{}", "{}\n{}\n", "{}\n", "{}"])
@pytest.mark.parametrize("age, broken", [(STALE + 20, False), (HELD_LONG - 20, False), (HELD_LONG + 20, True)])
def test_an_old_lock_of_a_live_process(locks, lock, age, broken, shape):
    """Believed for long, as some hold theirs for a whole session; not for ever: a number may go to another process.
    liblockfile writes a number alone."""
    lock.write_text(shape.format(os.getpid(), HOST))
    make_old(lock, age)
    assert only_after_a_try(locks) == [False, broken]


@pytest.mark.parametrize("age, broken", [(STALE - 20, False), (STALE + 20, True)])
def test_the_number_alone_of_a_process_that_is_not_here(locks, lock, age, broken):
    """It may be of another host."""
    lock.write_text(f"{dead_process()}\n")
    make_old(lock, age)
    assert only_after_a_try(locks) == [False, broken]


@pytest.mark.parametrize("age, broken", [(0, False), (STALE + 20, True)])
def test_a_lock_that_nobody_may_read(age, broken):
    """mutt makes such locks."""
    def attempt():
        with tempfile.TemporaryDirectory() as spool:
            lock = Path(spool) / "joe.lock"
            lock.touch(0)
            make_old(lock, age)
            locks = SpoolLocks(f"{spool}/joe")
            return only_after_a_try(locks), lock.read_text() == locks.text.decode() if broken else None
    assert as_ordinary_user(attempt) == str(([False, broken], broken or None))


@pytest.mark.parametrize("skew", [-86400, 86400])
def test_age_is_by_the_file_servers_clock(locks, lock, monkeypatch, skew):
    """This host's clock may be wrong by a day."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew)
    lock.write_text("0")
    assert only_after_a_try(locks) == [False, False]
    os.utime(lock, (real() - STALE - 20,) * 2)
    assert only_after_a_try(locks) == [False, True]


def obstacle_symlink(lock):
    target = lock.parent / "target"
    target.write_text("as it was")
    lock.symlink_to(target)


def obstacle_large_file(lock):
    lock.write_text(f"{dead_process()}\n{HOST}\n")
    os.truncate(lock, 1 << 30)


@pytest.mark.parametrize("make", [
    obstacle_symlink, obstacle_large_file, lambda lock: lock.symlink_to("nowhere"), lambda lock: lock.mkdir(),
    lambda lock: os.mkfifo(lock)], ids=["symlink", "1 GB", "dangling symlink", "directory", "FIFO"])
def test_what_nobody_made_as_a_lock_is_left_alone(locks, mailbox, lock, make):
    """Security.md row 21."""
    make(lock)
    make_old(lock, 1_000_000)
    before = lock.lstat()
    assert only_after_a_try(locks) == [False, False]
    assert refusal(Held(locks, None, str(mailbox), 0).__enter__).code == IN_USE
    after = lock.lstat()
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime) == \
        (before.st_ino, before.st_mode, before.st_size, before.st_mtime)
    if (lock.parent / "target").exists():
        assert (lock.parent / "target").read_text() == "as it was"


def test_a_live_lock_that_took_the_place_of_a_stale_one_is_put_back(locks, lock, monkeypatch):
    """Between the look and the removal another process may have broken it and made its own."""
    lock.write_text("0")
    make_old(lock, STALE + 20)

    def rename(old, new):
        lock.unlink()
        lock.write_text("live")
        real(old, new)
    real = os.rename
    monkeypatch.setattr(os, "rename", rename)
    assert locks.dot() is False
    assert lock.read_text() == "live"


# -- a spool that others may write in --------------------------------------------------------------------------------

@pytest.fixture
def sticky():
    with sticky_spool() as spool:
        yield spool


@pytest.mark.root
@pytest.mark.parametrize("age", [0, 1_000_000])
def test_a_lock_that_we_may_not_remove(sticky, age):
    """CVE-2000-1198: a clean refusal after a bounded wait, however old it is."""
    lock = sticky / "nobody.lock"
    lock.write_text("0")
    make_old(lock, age)

    def attempt():
        locks = SpoolLocks(str(sticky / "nobody"))
        return only_after_a_try(locks), refusal(Held(locks, None, locks.mailbox, 0).__enter__).code
    assert as_nobody(attempt) == "([False, False], 'IN-USE')"
    assert lock.read_text() == "0"


@pytest.mark.root
def test_a_private_name_that_somebody_took(sticky):
    def attempt():
        locks = SpoolLocks(str(sticky / "nobody"))
        locks.private = str(sticky / ".taken")
        return refusal(locks.dot).code
    (sticky / ".taken").write_text("x")
    assert as_nobody(attempt) == "SYS/PERM"
    assert (sticky / ".taken").exists() and not (sticky / "nobody.lock").exists()


@pytest.mark.root
def test_a_spool_that_we_may_not_write_in(sticky):
    sticky.chmod(0o755)
    assert as_nobody(lambda: refusal(SpoolLocks(str(sticky / "nobody")).dot).code) == "SYS/PERM"


@pytest.mark.parametrize("error", (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))
def test_a_file_system_that_syncs_no_directories_is_no_reason_to_delete_no_mail(mailbox, monkeypatch, error):
    def refuses(descriptor):
        raise OSError(error, os.strerror(error))
    monkeypatch.setattr(os, "fsync", refuses)
    SpoolLocks(str(mailbox)).sync_names()


def test_an_error_of_the_disk_is_one(mailbox, monkeypatch):
    def refuses(descriptor):
        raise OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(os, "fsync", refuses)
    with pytest.raises(OSError, match="Input"):
        SpoolLocks(str(mailbox)).sync_names()


def test_a_directory_that_may_not_be_read_is_not_synced(mailbox, monkeypatch):
    def refuses(*_):
        raise PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(os, "open", refuses)
    SpoolLocks(str(mailbox)).sync_names()


def test_a_holder_that_has_ended_but_was_not_reaped_is_dead(mailbox, lock):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        lock.write_text(f"{child}:{os.uname().nodename}\n")
        locks = SpoolLocks(str(mailbox))
        assert not locks.dot() and locks.dot()           # broken, then taken
        locks.undot()
    finally:
        os.waitpid(child, 0)
