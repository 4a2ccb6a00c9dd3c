"""popperctl mailbox: what an interrupted session left is finished as a login would, and said in one line."""

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from ctl import popperctl                    # noqa: F401, a fixture
from popper.admin import mailbox as module
from popper.storage import record, redo
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox
from processes import Program, as_ordinary_user, dead_process, forks

pytestmark = forks

ROOT = os.geteuid() == 0
UID = 54321                    # whose the mailboxes are when root runs the tests; the system does not know him
ENVELOPE = b"From joe@example.org Thu Nov 19 10:00:00 2026\n"
LATE = b"From late@example.org Sat Nov 21 12:00:00 2026\nSubject: late\n\nDelivered since.\n\n"
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Cut(BaseException):
    """The machine stopped here."""


def messages(*sizes):
    """A mailbox of messages with bodies of so many octets."""
    return b"".join(ENVELOPE + b"Subject: %d\n\n" % number + b"x" * (size - 1) + b"\n\n"
                    for number, size in enumerate(sizes, 1))


def counted(octets):
    """How a line ends that tells of a mailbox with these octets; counted without popper."""
    texts = octets.split(ENVELOPE)[1:]
    wire = sum(len(text) - 1 + text[:-1].count(b"\n") for text in texts)
    return f"{len(texts)} message{'s' * (len(texts) != 1)}, {wire} octets"


class Spool:
    """A directory with mailboxes, whose owner is somebody else than root."""

    def __init__(self, place):
        self.place = place
        self.conf = place / "popper.conf"
        self.conf.write_text(f"lock_timeout 0\nfsync no\nmailbox {place}/%u\n")
        self.path = place / "joe"

    def beside(self, ending):
        return self.place / f".joe.{ending}"

    def put(self, path, octets):
        path.write_bytes(octets)
        return self.own(path)

    def own(self, path):
        if ROOT:
            os.chown(path, UID, UID, follow_symlinks=False)
        return path

    def state(self):
        """All that can be seen of it, but for when it was last read."""
        return {each.name: (each.read_bytes(), each.stat().st_mtime_ns, each.stat().st_ctime_ns, each.stat().st_ino)
                for each in sorted(self.place.iterdir())}

    def names(self):
        return sorted(each.name for each in self.place.iterdir() if each != self.conf)

    def interrupt(self, monkeypatch, steps, act, chunk=200):
        """act(store) until it announces a step for the steps-th time. -> whether it came so far"""
        announced, real = [0], record.Record.announce

        def announce(self, head):
            announced[0] += 1
            if announced[0] > steps:
                raise Cut
            real(self, head)
        store = Mbox(str(self.path), SpoolLocks(str(self.path)), fsync=False, lock_timeout=0)
        if ROOT:                             # who makes the files must be who owns them
            for each in (self.path, self.beside("pop")):
                if each.exists():
                    os.chown(each, 0, 0)
        with monkeypatch.context() as patch:
            patch.setattr(record.Record, "announce", announce)
            patch.setattr(redo, "CHUNK", chunk)
            patch.setattr(redo, "NARROW", 1 << 30)
            try:
                store.locks.session()
                act(store)
                return False
            except Cut:
                return True
            finally:
                store.close()
                for each in (self.path, self.beside("pop"), self.beside("redo")):
                    if each.exists():
                        self.own(each)


@pytest.fixture
def spool():
    place = Path(tempfile.mkdtemp(prefix="popperctl-"))
    place.chmod(0o755)
    if ROOT:
        os.chown(place, UID, UID)
    yield Spool(place)
    shutil.rmtree(place)


@pytest.fixture
def repair(popperctl, spool):                # noqa: F811
    def call(*words):
        return popperctl("mailbox", "repair", "-C", spool.conf, *words)
    return call


def delete(*numbers):
    """What deletes these messages from a store."""
    def act(store):
        entries = store.scan()
        store.commit([entries[number - 1] for number in numbers])
    return act


def without_middle(octets):
    first, second, *rest = octets.split(ENVELOPE)[1:]
    return b"".join(ENVELOPE + each for each in [first, *rest])


# -- nothing to do -----------------------------------------------------------------------------------------------------

def test_a_clean_mailbox(repair, spool):
    octets = messages(10, 300)
    spool.put(spool.path, octets)
    before = spool.state()
    done = repair(spool.path)
    assert (done.status, done.out, done.err) == (0, f"{spool.path}: clean; {counted(octets)}\n", "")
    assert spool.state() == before
    assert repair("-n", spool.path).out == done.out


def test_an_empty_mailbox_and_one_message(repair, spool):
    spool.put(spool.path, b"")
    assert repair(spool.path).out == f"{spool.path}: clean; 0 messages, 0 octets\n"
    spool.put(spool.path, messages(4))
    assert repair("--dry-run", spool.path).out == f"{spool.path}: clean; 1 message, 19 octets\n"


def test_a_relative_path(repair, spool, monkeypatch):
    spool.put(spool.path, messages(4))
    monkeypatch.chdir(spool.place)
    assert repair("joe").out == f"{spool.path}: clean; 1 message, 19 octets\n"


# -- interrupted updates -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("delivered", [b"", LATE], ids=["", "mail came since"])
@pytest.mark.parametrize("sizes, chunk", [((100, 50, 900, 300), 200), ((10, 2000, 300), 5000)],
                         ids=["through the record", "copied"])
def test_wherever_an_update_stopped_it_is_finished(repair, spool, monkeypatch, sizes, chunk, delivered):
    before = messages(*sizes)
    after = without_middle(before)
    said = set()
    for steps in range(100):
        spool.put(spool.path, before)
        if not spool.interrupt(monkeypatch, steps, delete(2), chunk):
            break
        with open(spool.path, "ab") as file:
            file.write(delivered)
        state = spool.state()
        would = repair("-n", spool.path)
        assert spool.state() == state
        done = repair(spool.path)
        assert (done.status, done.err, spool.names()) == (0, "", ["joe"])
        assert spool.path.read_bytes() in (before + delivered, after + delivered)
        found = re.fullmatch(rf"{spool.path}: (an .*); \d+ messages, \d+ octets\n", done.out)[1]
        assert (would.status, would.out) == (65, f"{spool.path}: repair would say: {found}\n")
        assert repair(spool.path).out.startswith(f"{spool.path}: clean; ")
        said.add(found)
    assert steps > 1 and spool.path.read_bytes() == after
    assert {each for each in said if "kept" in each} == \
        {f"an interrupted update was finished; {len(delivered)} octets delivered since were kept"}
    assert "an update that had not begun was forgotten" in said


def test_what_stays_is_counted_after_the_repair(repair, spool, monkeypatch):
    before = messages(100, 50, 900)
    spool.put(spool.path, before)
    assert spool.interrupt(monkeypatch, 2, delete(2))
    assert repair(spool.path).out.endswith(f"; {counted(without_middle(before))}\n")


# -- mail of an older popper -------------------------------------------------------------------------------------------

def test_mail_of_an_older_popper_is_merged(repair, spool):
    older, newer = messages(30, 40), messages(50)
    spool.put(spool.path, newer)
    spool.put(spool.beside("pop"), older)
    state = spool.state()
    would = repair("-n", spool.path)
    assert (would.status, spool.state()) == (65, state)
    assert would.out == (f"{spool.path}: {len(older)} octets of mail that an older popper left are in "
                         f"{spool.beside('pop')}; {counted(newer)}\n")
    done = repair(spool.path)
    assert (done.status, spool.path.read_bytes(), spool.names()) == (0, older + newer, ["joe"])
    assert done.out == (f"{spool.path}: {len(older)} octets of mail that an older popper left in {spool.beside('pop')} "
                        f"were put in front; {counted(older + newer)}\n")


def test_an_older_popper_may_have_left_no_mailbox(repair, spool):
    spool.put(spool.beside("pop"), messages(30))
    assert repair("-n", spool.path).status == 65
    assert repair(spool.path).status == 0
    assert spool.path.read_bytes() == messages(30)


def test_wherever_a_merge_stopped_it_is_finished(repair, spool, monkeypatch):
    older, newer = messages(300, 40), messages(50, 700)
    for steps in range(100):
        spool.put(spool.path, newer)
        spool.put(spool.beside("pop"), older)
        if not spool.interrupt(monkeypatch, steps, lambda store: store.scan()):
            break
        state = spool.state()
        would = repair("-n", spool.path)
        assert would.status == 65 and "repair would say: an " in would.out and spool.state() == state
        found = would.out.partition("repair would say: ")[2].strip()
        done = repair(spool.path)
        assert done.status == 0 and f": {found}; " in done.out
        assert (spool.path.read_bytes(), spool.names()) == (older + newer, ["joe"])
    assert steps > 3


def test_what_an_older_popper_left_may_be_no_mail(repair, spool):
    spool.put(spool.path, messages(50))
    spool.put(spool.beside("pop"), b"nonsense")
    done = repair(spool.path)
    assert (done.status, spool.beside("pop").read_bytes()) == (65, b"nonsense")
    assert done.out == (f"{spool.path}: {spool.beside('pop')} is left alone, it is no mailbox: no envelope line at "
                        f"octet 0; {counted(messages(50))}\n")


# -- records that do not fit -------------------------------------------------------------------------------------------

@pytest.fixture
def foreign(spool, monkeypatch):
    """A mailbox that was cut short after its update was interrupted; -> what it was before that."""
    spool.put(spool.path, messages(100, 50, 900, 300))
    assert spool.interrupt(monkeypatch, 2, delete(2))
    octets = spool.path.read_bytes()
    os.truncate(spool.path, 200)
    return octets


WHY = "the mailbox is shorter than it was"


def test_a_record_that_does_not_fit_stays_and_is_told_of(repair, spool, foreign):
    state = spool.state()
    would = repair("-n", spool.path)
    assert (would.status, spool.state()) == (65, state)
    assert would.out == (f"{spool.path}: the record of an interrupted update, {spool.beside('redo')}, does not fit: "
                         f"{WHY}\n")
    done = repair(spool.path)
    assert (done.status, spool.names()) == (65, [".joe.redo.foreign", "joe"])
    assert f"does not fit it: {WHY}. The mailbox was left alone, the record is " in done.out
    assert done.out.endswith(f"; look at the mailbox, mend it, then popperctl mailbox repair --discard {spool.path}\n")
    assert spool.path.stat().st_size == 200
    for words in ([], ["-n"], ["-n", "--discard"]):
        state = spool.state()
        again = repair(*words, spool.path)
        assert (again.status, spool.state()) == (65, state)
        assert again.out == (f"{spool.path}: the record of an interrupted update, {spool.beside('redo.foreign')}, does "
                             f"not fit: {WHY}; look at the mailbox, mend it, then popperctl mailbox repair --discard "
                             f"{spool.path}\n")


@pytest.mark.parametrize("known", [False, True], ids=["found now", "found before"])
def test_discard_removes_it(repair, spool, foreign, known):
    if known:
        repair(spool.path)
    done = repair("--discard", spool.path)
    assert (done.status, spool.names(), spool.path.stat().st_size) == (0, ["joe"], 200)
    assert "removed" in done.out and re.search(r"; 1 message, 160 octets\n$", done.out)
    assert repair(spool.path).out.startswith(f"{spool.path}: clean; ")


@pytest.mark.root
def test_discard_removes_one_that_could_not_be_put_aside(repair, spool, foreign):
    """A stranger's has the name, where everybody may make files."""
    spool.beside("redo.foreign").write_bytes(b"strange")
    os.chown(spool.place, 0, 0)
    spool.place.chmod(0o1777)
    done = repair("--discard", spool.path)
    assert (done.status, spool.names()) == (0, [".joe.redo.foreign", "joe"])
    assert spool.beside("redo.foreign").read_bytes() == b"strange"


@pytest.mark.root
def test_a_record_that_a_stranger_put_there_is_none(repair, spool):
    spool.put(spool.path, messages(50))
    spool.beside("redo.foreign").write_bytes(b"strange")
    for words in ([], ["-n"], ["--discard"]):
        assert repair(*words, spool.path).out.startswith(f"{spool.path}: clean; ")
    assert spool.beside("redo.foreign").read_bytes() == b"strange"


def test_discard_removes_nothing_that_fits(repair, spool, monkeypatch):
    before = messages(100, 50, 900)
    spool.put(spool.path, before)
    assert spool.interrupt(monkeypatch, 2, delete(2))
    assert "was finished" in repair("--discard", spool.path).out
    assert spool.path.read_bytes() == without_middle(before)


def test_a_record_that_fits_again_is_not_to_be_thrown_away(repair, spool, foreign):
    repair(spool.path)
    spool.put(spool.path, foreign)
    assert f"it fits by now: rename it to {spool.beside('redo')}, and repair again" in repair(spool.path).out
    spool.beside("redo.foreign").rename(spool.beside("redo"))
    assert repair(spool.path).status == 0
    assert spool.path.read_bytes() == without_middle(messages(100, 50, 900, 300))


# -- bulletins ---------------------------------------------------------------------------------------------------------

BULLETIN = b"From root@example.org Sat Nov 21 12:00:00 2026\nSubject: bulletin\n\nTo all.\n\n"


def placed(spool, monkeypatch):
    """An update that has added a bulletin, and stopped before its receipt was written."""
    def act(store):
        def unable(number):
            raise Cut
        store.noted = unable
        store.scan()
        store.append([BULLETIN], 7)
    spool.put(spool.path, messages(50))
    assert spool.interrupt(monkeypatch, 100, act)
    assert spool.beside("redo").exists() and spool.path.read_bytes() == messages(50) + BULLETIN


def test_a_receipt_that_belongs_nobody_knows_where_is_left_to_the_next_login(repair, spool, monkeypatch):
    placed(spool, monkeypatch)
    done = repair(spool.path)
    assert (done.status, spool.names()) == (65, [".joe.redo", "joe"])
    assert done.out == (f"{spool.path}: bulletins were added and their receipt is not written yet; the next login "
                        "writes it\n")
    assert spool.path.read_bytes() == messages(50) + BULLETIN


def test_a_receipt_is_written_where_a_session_looks_for_it(repair, spool, monkeypatch):
    receipts = spool.place / "receipts"
    placed(spool, monkeypatch)
    receipts.mkdir()
    spool.own(receipts)
    spool.conf.write_text(f"lock_timeout 0\nmailbox {spool.place}/%u\npopbull_dir {receipts}\n")
    monkeypatch.setattr(module, "account_of", lambda uid: module.Account("joe", uid, uid, "/nonexistent"))
    assert repair(spool.path).status == 0
    assert (receipts / "joe.popbull").read_text() == "7\n"
    assert not spool.beside("redo").exists() and spool.path.read_bytes() == messages(50) + BULLETIN


# -- what stands in the way --------------------------------------------------------------------------------------------

def test_a_session_is_not_disturbed(repair, spool):
    spool.put(spool.path, messages(50))
    spool.put(spool.beside("pop"), b"")
    holder = Program(HOLD, spool.beside("pop"))
    try:
        assert holder.said == "held"
        state = spool.state()
        for words in ([], ["-n"]):
            done = repair(*words, spool.path)
            assert (done.status, done.out) == (75, f"{spool.path}: in use by a session, process {holder.process.pid}; "
                                                   "try again when it has ended\n")
            assert spool.state() == state
    finally:
        holder.close()
    assert repair(spool.path).status == 0


def test_another_program_is_not_disturbed(repair, spool):
    spool.put(spool.path, messages(50))
    lock = spool.put(spool.place / "joe.lock", f"{os.getpid()}\n{os.uname().nodename}\n".encode())
    done = repair(spool.path)
    assert (done.status, done.out) == (75, f"{spool.path}: locked by another program; try again\n")
    spool.conf.write_text("lock_timeout 2\n")
    lock.write_text(f"{dead_process()}\n{os.uname().nodename}\n")
    assert repair(spool.path).status == 0


@pytest.mark.parametrize("octets, place", [(b"no mail\n", 0), (messages(20)[:-1] + b"x", None)])
def test_what_is_no_mailbox(repair, spool, octets, place):
    spool.put(spool.path, octets)
    for words in ([], ["-n"]):
        done = repair(*words, spool.path)
        if place is None:
            assert done.status == 0
        else:
            assert (done.status, done.out) == (65, f"{spool.path}: not a mailbox: no envelope line at octet {place}\n")


def test_what_is_not_there(repair, spool):
    done = repair(spool.path)
    assert (done.status, done.out) == (66, f"{spool.path}: no such file\n")


@pytest.mark.parametrize("make, what", [
    (lambda path: path.mkdir(), "cannot be opened|is not a regular file|Is a directory"),
    (lambda path: path.symlink_to("/etc/passwd"), "is a symbolic link|Too many levels"),
    (lambda path: os.mkfifo(path), "is not a regular file"),
], ids=["directory", "symbolic link", "FIFO"])
def test_what_is_no_plain_file(repair, spool, make, what):
    make(spool.path)
    spool.own(spool.path)
    for words in ([], ["-n"]):
        done = repair(*words, spool.path)
        assert done.status in (65, 74) and re.search(what, done.out)
    spool.path.rmdir() if spool.path.is_dir() and not spool.path.is_symlink() else spool.path.unlink()


def test_a_file_with_another_name_is_refused(repair, spool):
    spool.put(spool.path, messages(50))
    os.link(spool.path, spool.place / "other")
    for words in ([], ["-n"]):
        done = repair(*words, spool.path)
        assert done.status == 65 and "has more than one link" in done.out


def test_the_mailbox_of_somebody_else(popperctl):           # noqa: F811
    """For who is not root."""
    def call():
        done = popperctl("mailbox", "repair", "/etc/passwd")
        return done.status, done.out, done.err
    assert as_ordinary_user(call) == str((77, "/etc/passwd: belongs to root; try as root\n", ""))


def test_where_one_may_not_look(popperctl):                 # noqa: F811
    def call():
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0)
            done = popperctl("mailbox", "repair", f"{place}/joe")
            os.chmod(place, 0o700)
        return done.status, done.out.partition("joe: ")[2], done.err
    assert as_ordinary_user(call) == str((77, "Permission denied; try as root\n", ""))


def test_the_worst_of_several_is_the_status(repair, spool):
    spool.put(spool.path, messages(50))
    no_mail = spool.put(spool.place / "bad", b"no mail\n")
    missing = spool.place / "missing"
    assert repair(spool.path, missing).status == repair(missing, spool.path).status == 66
    done = repair(missing, no_mail, spool.path)
    assert done.status == 65
    assert [line.split(":")[0] for line in done.out.splitlines()] == [str(missing), str(no_mail), str(spool.path)]


def test_json(repair, spool):
    spool.put(spool.path, messages(50))
    missing = spool.place / "missing"
    done = repair("--json", spool.path, missing)
    assert done.status == 66
    assert done.json == [
        {"file": str(spool.path), "state": "clean", "found": [], "messages": 1,
         "octets": int(counted(messages(50)).split()[2])},
        {"file": str(missing), "state": "missing", "found": ["no such file"], "messages": None, "octets": None}]


def test_a_format_that_believes_content_length(repair, spool):
    octets = ENVELOPE + b"Content-Length: 100\n\n" + b"x" * 30 + b"\n\n" + ENVELOPE.ljust(100 - 32, b"y") + b"\n"
    spool.put(spool.path, octets)
    assert "; 2 messages" in repair(spool.path).out or "; 1 message" in repair(spool.path).out
    spool.conf.write_text("mailbox_format sysv\nlock_timeout 0\n")
    assert "; 1 message, " in repair(spool.path).out


# -- root --------------------------------------------------------------------------------------------------------------

@pytest.mark.root
def test_what_is_roots_is_not_looked_at(repair, spool):
    spool.path.write_bytes(b"no mail\n")
    done = repair(spool.path)
    assert (done.status, done.out) == (0, f"{spool.path}: not looked at: it is root's, and popper serves no mailbox of "
                                          "root's\n")


@pytest.mark.root
def test_it_is_the_owner_who_looks(repair, spool, monkeypatch):
    spool.put(spool.path, messages(50))

    def told(*arguments):
        return module._result(str(spool.path), "clean", [repr((os.getresuid(), os.getresgid(), os.getgroups()))])
    monkeypatch.setattr(module, "_scanned", told)
    monkeypatch.setattr(module, "_listed", lambda path, options: [type("Entry", (), {"octets": os.geteuid()})])
    nogroup = module.privilege.NOBODY
    assert repair(spool.path).out == f"{spool.path}: {((UID,) * 3, (nogroup,) * 3, [nogroup])}\n"
    assert repair("-n", spool.path).out == f"{spool.path}: clean; 1 message, {UID} octets\n"


@pytest.mark.root
def test_a_child_that_dies_is_told_of(repair, spool, monkeypatch):
    spool.put(spool.path, messages(50))
    monkeypatch.setattr(module, "_scanned", lambda *_: os._exit(3))
    done = repair(spool.path)
    assert (done.status, done.out) == (70, "")
    assert done.err == "popperctl: a process of its own ended early; the system's log may say why\n"


@pytest.fixture
def debian(account, spool):
    """The real spool, root:mail 2775, with a mailbox of a real user, and mail that an interrupted update has moved."""
    place = account.mailbox
    for left in place.parent.glob(f"*{account.name}*"):
        left.unlink()
    yield account
    for left in place.parent.glob(f"*{account.name}*"):
        left.unlink()


@pytest.mark.root
def test_in_the_systems_spool(installed, debian, monkeypatch, spool):
    spool.put(spool.path, messages(100, 50, 900))
    assert spool.interrupt(monkeypatch, 2, delete(2))
    os.truncate(spool.path, 300)
    debian.deliver(spool.path.read_bytes())
    foreign = debian.mailbox.parent / f".{debian.name}.redo"
    foreign.write_bytes(spool.beside("redo").read_bytes())
    shutil.chown(foreign, debian.name, debian.name)

    def call(*words):
        command = [installed / "sbin" / "popperctl", "mailbox", "repair", "-C", spool.conf, "--json", *words]
        done = subprocess.run([*command, debian.mailbox], capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)[0]["state"]
    assert call("-n") == (65, "needs repair")
    assert call() == (65, "left")
    aside = foreign.with_name(foreign.name + ".foreign")
    assert aside.exists() and not foreign.exists()
    assert call("--discard") == (0, "repaired")
    assert call() == (0, "clean")
    assert [each.name for each in debian.mailbox.parent.glob(f"*{debian.name}*")] == [debian.name]
    assert debian.mailbox.stat().st_uid == pwd.getpwnam(debian.name).pw_uid
