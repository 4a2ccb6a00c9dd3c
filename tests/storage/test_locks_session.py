"""The session lock `.NAME.pop`: one session for a mailbox, and none that outlives its process (1939.80 to 1939.82)."""

import fcntl
import os
import stat

import pytest
from processes import Program, as_nobody, forks, refusal, sticky_spool

from popper.errors import IN_USE, PERMANENT
from popper.storage.locks import SpoolLocks

pytestmark = forks

HOLDER = """
import sys
from popper.storage.locks import SpoolLocks
locks = SpoolLocks(sys.argv[1])
locks.session()
locks.dot()
print("held", flush=True)
sys.stdin.read()
locks.close()
"""


@pytest.fixture
def mailbox(tmp_path):
    return tmp_path / "joe"


@pytest.fixture
def file(mailbox):
    """Where the session lock of the mailbox is."""
    return mailbox.parent / ".joe.pop"


@pytest.fixture
def locks(mailbox):
    locks = SpoolLocks(str(mailbox))
    yield locks
    locks.close()


def is_held(file):
    """Whether a Qpopper on the same spool would find a session there."""
    with open(file, "rb") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_session_lock_is_there_until_it_is_closed(locks, file):
    assert locks.session() == 0
    assert file.stat().st_size == 0 and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert is_held(file)
    locks.close()
    assert not file.exists()
    locks.close()


def test_a_second_session_is_refused(locks, mailbox, file):
    """[IN-USE], and the words by which fetchmail knows the case."""
    locks.session()
    second = SpoolLocks(str(mailbox))
    refused = refusal(second.session)
    assert refused.code == IN_USE
    assert refused.text == f"{mailbox} lock busy!  Is another session active?"
    second.close()
    assert file.exists() and is_held(file)
    assert refusal(second.session).code == IN_USE
    locks.close()
    assert second.session() == 0
    second.close()


def test_mailboxes_side_by_side_do_not_hinder_each_other(locks, mailbox):
    other = SpoolLocks(str(mailbox) + "2")
    assert locks.session() == other.session() == 0
    other.close()


def test_a_session_of_another_process_is_respected_until_that_is_killed(locks, mailbox, file):
    """Security.md row 42: nothing that a killed session leaves makes the next login fail."""
    holder = Program(HOLDER, mailbox)
    assert holder.said == "held"
    assert refusal(locks.session).code == IN_USE
    holder.kill()
    assert file.exists() and (mailbox.parent / "joe.lock").exists()
    assert locks.session() == 0
    assert [locks.dot(), locks.dot()] == [False, True]
    locks.close()
    assert os.listdir(mailbox.parent) == []


def test_a_lock_of_qpopper_is_respected(locks, file):
    with open(file, "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert refusal(locks.session).code == IN_USE
    assert locks.session() == 0


def test_mail_that_an_older_popper_left_is_reported_and_kept(locks, file):
    mail = b"From joe@example.org Thu Nov 24 18:22:48 1996\nSubject: x\n\nbody\n"
    file.write_bytes(mail)
    assert locks.session() == len(mail)
    locks.close()
    assert file.read_bytes() == mail


def test_mail_that_comes_into_the_file_meanwhile_is_kept(locks, file):
    assert locks.session() == 0
    file.write_bytes(b"mail\n")
    locks.close()
    assert file.read_bytes() == b"mail\n"


def test_a_file_that_took_the_place_of_ours_is_not_removed(locks, file):
    locks.session()
    file.unlink()
    file.write_bytes(b"")
    os.link(file, file.parent / "keeps the inode of its own")
    locks.close()
    assert file.exists()


def test_a_file_that_its_owner_removes_between_our_open_and_our_lock(locks, file, monkeypatch):
    """What was locked then is no lock: nobody would find it."""
    def flock(descriptor, how):
        if not replaced:
            replaced.append(os.fstat(descriptor).st_ino)
            os.rename(file, file.parent / "old")
        real(descriptor, how)
    real, replaced = fcntl.flock, []
    monkeypatch.setattr(fcntl, "flock", flock)
    assert locks.session() == 0
    assert file.stat().st_ino not in replaced and is_held(file)
    os.unlink(file.parent / "old")


def test_a_file_that_is_removed_again_and_again(locks, file, monkeypatch):
    real = fcntl.flock

    def flock(descriptor, how):
        os.unlink(file)
        real(descriptor, how)
    monkeypatch.setattr(fcntl, "flock", flock)
    refused = refusal(locks.session)
    assert (refused.code, refused.text) == (IN_USE, "Maildrop being unlocked; try again.")


# -- files that are none ---------------------------------------------------------------------------------------------

def symlink(file, target):
    file.symlink_to(target)


def hard_link(file, target):
    os.link(target, file)


@pytest.mark.parametrize("make, said", [
    (symlink, "System error, can't open {}, do you own it?"),
    (lambda file, target: file.symlink_to("nowhere"), "System error, can't open {}, do you own it?"),
    (lambda file, target: file.mkdir(), "System error, can't open {}, do you own it?"),
    (hard_link, "{} has more than one link."),
    (lambda file, target: os.mkfifo(file), "{} is not a regular file."),
], ids=["symlink", "dangling symlink", "directory", "hard link", "FIFO"])
def test_a_file_that_somebody_put_there(locks, file, make, said):
    """CVE-2005-1151: refused for good, and neither it nor what it leads to is touched."""
    target = file.parent / "target"
    target.write_text("as it was")
    make(file, target)
    before = file.lstat().st_mode, target.stat().st_mtime_ns, target.stat().st_mode
    refused = refusal(locks.session)
    assert (refused.code, refused.text) == (PERMANENT, said.format(file))
    locks.close()
    assert (file.lstat().st_mode, target.stat().st_mtime_ns, target.stat().st_mode) == before
    assert target.read_text() == "as it was" and not (file.parent / "nowhere").exists()


def test_a_spool_that_is_not_there(tmp_path):
    refused = refusal(SpoolLocks(str(tmp_path / "none" / "joe")).session)
    assert refused.code == PERMANENT and refused.reason == "No such file or directory"


@pytest.mark.root
@pytest.mark.parametrize("mode, said", [(0o600, "can't open"), (0o666, "is not owned by this user.")])
def test_somebody_elses_file(mode, said):
    def attempt():
        refused = refusal(SpoolLocks(str(spool / "nobody")).session)
        return f"{refused.code}: {refused.text}"
    with sticky_spool() as spool:
        file = spool / ".nobody.pop"
        file.write_text("")
        file.chmod(mode)
        answer = as_nobody(attempt)
        assert answer.startswith("SYS/PERM: ") and said in answer
        assert file.exists()


@pytest.mark.root
def test_a_users_file_is_not_roots(locks, file):
    """What root opens must be root's: an account of uid 0 aside, nobody's session lock is."""
    file.write_text("")
    os.chown(file, 65534, 65534)
    assert refusal(locks.session).text == f"{file} is not owned by this user."


def test_a_refusal_leaves_no_descriptor(locks, mailbox, file):
    before = os.listdir("/proc/self/fd")
    os.mkfifo(file)
    refusal(locks.session)
    file.unlink()
    with open(file, "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refusal(locks.session)
    assert os.listdir("/proc/self/fd") == before
