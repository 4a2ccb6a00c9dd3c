"""popperctl mailbox test: finds nothing where nothing is wrong, leaves nothing behind, and names faults that are
really there: a disk that lies, programs that keep no rules, rights that are missing."""

import glob
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import TREE, wait_until
from ctl import popperctl                    # noqa: F401, a fixture
from popper.admin import dummies, findings, looks, rounds, trial
from popper.admin.console import Console
from popper.admin.ledger import SESSION, Ledger
from processes import Program, as_ordinary_user, forks, in_child

pytestmark = forks

ROOT = os.geteuid() == 0
UID = 54321 if ROOT else os.geteuid()        # whose the mailboxes are; for root, one that the system does not know
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Spool:
    def __init__(self, place):
        self.place = place
        self.conf = place / "popper.conf"
        self.conf.write_text(f"lock_timeout 5\nfsync no\nmailbox {place}/%u\n")

    def put(self, octets, name="joe"):
        path = self.place / name
        path.write_bytes(octets)
        path.chmod(0o600)
        os.chown(path, UID, UID if ROOT else -1)
        return path

    def names(self):
        return sorted(each.name for each in self.place.iterdir() if each != self.conf)

    def dummies(self):
        """The mailboxes of a test that goes on, without what is beside them."""
        return [Path(path) for path in glob.glob(f"{self.place}/{dummies.MARK}.*[0-9]")]


@pytest.fixture
def spool():
    """A directory in which everybody may make files, as some spools are."""
    place = Path(tempfile.mkdtemp(prefix="popperctl-"))
    place.chmod(0o1777)
    yield Spool(place)
    shutil.rmtree(place)


@pytest.fixture
def tried(popperctl, spool):                 # noqa: F811
    def call(*words, **how):
        return popperctl("mailbox", "test", "-C", spool.conf, *words, **how)
    return call


def known(path):
    status = path.stat()
    return path.read_bytes(), status.st_ino, status.st_mtime_ns, status.st_ctime_ns


# -- where nothing is wrong --------------------------------------------------------------------------------------------

def test_nothing_is_found_and_nothing_is_left(tried, spool):
    done = tried("--rounds", "30", "-j", "4", "--json")
    assert (done.status, done.err, spool.names()) == (0, "", [])
    found = done.json
    assert found["faults"] == [] and found["rounds"] == 30
    assert found["deleted"] == found["delivered"] > 0
    assert {os.path.dirname(path) for path in found["mailboxes"]} == {str(spool.place)} and len(found["mailboxes"]) == 2
    assert set(found["phases"]) == set(findings.PHASES)
    for row in found["phases"].values():
        assert 0 <= row["median_ms"] <= row["worst_ms"] and row["count"] >= 29
    assert found["phases"]["parse"]["count"] == 30           # the last looks at the dummies are none


def test_it_is_told_in_words(tried, spool):
    done = tried("--rounds", "4", "-j", "1")
    who = "nobody" if ROOT else "[a-z_].*"
    first, second, *table, last = done.out.splitlines()
    assert re.fullmatch(rf"1 dummy of 50 messages in {spool.place}, as {who}, 1 at once, for \d+\.\d s", first)
    assert re.fullmatch(r"4 rounds, \d+\.\d a second; (\d+) messages deleted, \1 put back", second)
    assert table[0].split() == ["PHASE", "COUNT", "MEDIAN", "ms", "WORST", "ms"]
    assert [line[:13].rstrip() for line in table[1:9]] == list(findings.PHASES) and last == "no fault was found"
    assert done.err == ""


def test_progress_is_seen_on_a_terminal(tried, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert "testing [" in tried("--seconds", "1", "-j", "1", terminal=True).err


def test_for_so_long_and_not_faster_than_asked(tried):
    found = tried("--seconds", "1", "--interval", "400", "-j", "1", "--json").json
    assert 1 <= found["seconds"] and found["rounds"] <= 4 + 1


def test_sessions_contend_and_are_told_what_was_in_the_way(tried):
    waits = tried("--rounds", "40", "-j", "3", "--json").json["waits"]       # one dummy
    assert waits["session lock"]["count"] > 0 and ".pop: held by " in waits["session lock"]["worst_for"]
    assert waits["session lock"]["worst_ms"] / 1000 <= waits["session lock"]["seconds"]


def test_the_next_session_recovers_what_a_killed_one_left(tried, spool, monkeypatch):
    monkeypatch.setattr(trial, "STRUCK", 1.0)
    done = tried("--rounds", "60", "--kill", "--json")
    killed = done.json["killed"]
    assert (done.status, done.json["faults"], spool.names()) == (0, [], [])
    assert killed["sessions"] > 5 and killed["done"] + killed["undone"] > 5
    assert killed["done"] + killed["undone"] <= killed["sessions"]


@pytest.mark.parametrize("octets", [
    b"From a@b Thu Nov 19 10:00:00 2026\nSubject: 1\n\nno end of line",
    b"\n\nFrom a@b Thu Nov 19 10:00:00 2026\nSubject: 1\n\n.\nFrom me to you\n\n" * 3,
    b"From a@b Thu Nov 19 10:00:00 2026\r\nX-UIDL: same\r\n\r\ntext\r\n\r\n" * 4,
    b"From is no envelope line\n\nFrom: so this stays the first\n\nFrom a@b Thu Nov 19 10:00:00 2026\n\n\n",
    (b"From a@b Thu Nov 19 10:00:00 2026\nContent-Length: 50\n\n"
     b"From a@b Thu Nov 19 10:00:00 2026\nNot a message.\n\n") * 2,
], ids=["no end", "empty lines before", "CRLF, alike", "odd first line", "Content-Length"])
@pytest.mark.parametrize("form", ["bsd", "sysv"])
def test_copies_of_mailboxes_of_all_kinds(tried, spool, octets, form):
    path = spool.put(octets)
    with open(spool.conf, "a") as conf:
        conf.write(f"mailbox_format {form}\n")
    before = known(path)
    done = tried("--rounds", "12", "--json", path)
    assert (done.status, done.json["faults"], spool.names(), known(path)) == (0, [], ["joe"], before)
    assert done.json["rounds"] == 12 and done.json["mailboxes"][0].startswith(f"{spool.place}/{dummies.MARK}.")


def test_copies_lie_where_that_is_asked_for(tried, spool):
    path = spool.put(dummies.invented(1))
    other = spool.place / "new"
    other.mkdir()
    other.chmod(0o1777)
    done = tried("--rounds", "2", "--json", "--directory", other, path)
    assert done.status == 0 and done.json["mailboxes"][0].startswith(f"{other}/") and os.listdir(other) == []


@pytest.mark.root
def test_in_a_directory_of_a_users_own_all_is_done_as_that_user(tried, spool):
    home = spool.place / "home"
    home.mkdir(mode=0o700)
    os.chown(home, UID, UID)
    done = tried("--rounds", "6", "--directory", home)
    assert done.status == 0 and f", as {UID}, " in done.out and os.listdir(home) == []


@pytest.mark.root
def test_in_a_spool_of_debians_form_a_keeper_makes_the_locks(tried, spool):
    shutil.chown(spool.place, "root", "mail")
    os.chmod(spool.place, 0o2775)            # and /tmp, where it is, is sticky
    done = tried("--rounds", "12", "--kill", "--json")
    assert (done.status, done.json["faults"], spool.names()) == (0, [], [])


# -- in place ----------------------------------------------------------------------------------------------------------

def test_in_place_nothing_is_changed(tried, spool):
    paths = [spool.put(dummies.invented(1), "ann"), spool.put(b"", "bob")]
    before = [known(path) for path in paths]
    done = tried("--in-place", "--rounds", "20", "--json", *paths)
    assert (done.status, done.json["faults"], done.json["deleted"], done.json["rounds"]) == (0, [], 0, 20)
    assert [known(path) for path in paths] == before and spool.names() == ["ann", "bob"]


def test_test_mail_comes_and_goes_and_the_rest_stays(tried, spool):
    octets = dummies.invented(1)
    path = spool.put(octets)
    for count in ("7", "8"):                 # an odd number leaves a message for the last look
        done = tried("--in-place", "--update", "--rounds", count, "--json", path)
        assert (done.status, done.json["faults"], done.json["deleted"]) == (0, [], 8)
        assert path.read_bytes() == octets and spool.names() == ["joe"]


def test_a_session_under_way_is_waited_for_and_named(tried, spool):
    spool.conf.write_text(f"lock_timeout 0\nmailbox {spool.place}/%u\n")
    path = spool.put(dummies.invented(1))
    beside = spool.put(b"", ".joe.pop")
    holder = Program(HOLD, beside)
    try:
        assert holder.said == "held"
        done = tried("--in-place", "--rounds", "3", path)
    finally:
        holder.close()
    assert done.status == 75 and f"{beside}: held by " in done.out and done.out.endswith("nobody got in\n")
    assert tried("--in-place", "--rounds", "3", path).status == 0


def test_another_program_s_lock_is_no_fault(tried, spool):
    spool.conf.write_text(f"lock_timeout 0\nmailbox {spool.place}/%u\n")
    path = spool.put(dummies.invented(1))
    spool.put(f"{os.getpid()}\n{os.uname().nodename}\n".encode(), "joe.lock")
    done = tried("--in-place", "--rounds", "2", "--json", path)
    assert (done.status, done.json["faults"], done.json["turned_away"]) == (75, [], 2)


@pytest.mark.parametrize("words, status, said", [
    (["-j", "0"], 64, '-j "0": a number from 1 to 100 is expected'),
    (["--seconds", "soon"], 64, '--seconds "soon": a number from 1 to 86400 is expected'),
    (["--rounds", "3", "--seconds", "4"], 64, "popperctl: --rounds and --seconds do not go together\n"),
    (["--roun=3", "--sec=4", "--in-place", "x"], 64, "popperctl: --rounds and --seconds do not go together\n"),
    (["--in-place"], 64, "expected: popperctl mailbox test --in-place [--update] "),
    (["--in-place", "--kill", "x"], 64, "popperctl: --in-place and --kill do not go together\n"),
    (["--update", "x"], 64, "popperctl: --update goes with --in-place only\n"),
    (["/nonexistent/joe"], 66, "/nonexistent/joe: no such file"),
    (["--directory", "/nonexistent"], (66, 73), "/nonexistent: "),
])
def test_what_cannot_be(tried, words, status, said):
    done = tried(*words)
    assert done.status in (status if isinstance(status, tuple) else (status,)) and said in done.err
    assert done.out == "" and done.err.count("\n") == 1


@pytest.mark.root
def test_a_mailbox_where_its_owner_may_make_no_locks(tried, spool):
    """As when root has put a copy of it somewhere."""
    path = spool.put(dummies.invented(1))
    spool.place.chmod(0o755)
    done = tried(path)
    assert (done.status, done.out) == (77, "") and done.err.count("\n") == 1
    assert done.err == (f"popperctl: {path}: {path}.lock cannot be made: Permission denied. In {spool.place} {UID}, "
                        "whose mailbox it is, must be able to make locks, as in the spool\n")
    spool.place.chmod(0o1777)
    os.link(path, spool.place / "ann")
    done = tried(path)
    assert done.status == 77 and done.err == f"popperctl: {path}: {path} has more than one link.\n"


def test_what_holds_no_mail_is_no_test(tried, spool):
    assert "there is no mail in it" in tried(spool.put(b"")).err
    assert "not a mailbox: no envelope line at octet 0" in tried(spool.put(b"no mail\n")).err
    assert spool.names() == ["joe"]


@pytest.mark.root
def test_root_s_mailbox_and_somebody_else_s(tried, spool):
    path = spool.put(dummies.invented(1))
    os.chown(path, 0, 0)
    done = tried(path)
    assert (done.status, done.out) == (77, "") and "is root's" in done.err


# -- faults ------------------------------------------------------------------------------------------------------------

@contextmanager
def meanwhile(act, seconds=0.01):
    """Do act() again and again in the meantime, whatever it meets."""
    over = threading.Event()

    def work():
        while not over.wait(seconds):
            try:
                act()
            except OSError:
                pass
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def faults(spool, *words):
    """What a test in a process of its own finds, as it ends early when all mailboxes are put aside."""
    done = subprocess.run([sys.executable, "-m", "popper.admin", "mailbox", "test", "-C", spool.conf, "--json", *words],
                          cwd=TREE, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (65, ""), done.stdout
    assert spool.names() == []
    return [fault["what"] for fault in json.loads(done.stdout)["faults"]]


def test_a_program_that_writes_without_locks(spool):
    def scribble():
        for path in spool.dummies():
            with open(path, "r+b") as file:
                file.seek(5000)
                file.write(b"?" * 3000)
    with meanwhile(scribble):
        found = faults(spool, "--seconds", "20")
    assert found and all(re.match(
        r"dummy [12]: (after the update )?(at octet \d+, in message \d+ there is \"\?+\" and not \"|"
        r"Mailbox changed by another program; nothing was deleted. \(.* was changed by another program\)|"
        r"\d+ messages were found in|the octets of|an interrupted|.*From lines)", text) for text in found), found
    assert any("?" in text or "another program" in text for text in found)


def test_mail_that_comes_from_nobody(spool):
    def deliver():
        for path in spool.dummies():
            with open(path, "ab") as file:
                file.write(b"From other@example.org Thu Nov 19 10:00:00 2026\n\nNot yours.\n\n")
    with meanwhile(deliver, 0.05):
        found = faults(spool, "--seconds", "20")
    assert any("other@example.org" in text or "stand behind all mail that anybody put there" in text
               or "messages were found" in text for text in found), found


def test_a_mailbox_that_is_cut_short(spool):
    def cut():
        for path in spool.dummies():
            if path.stat().st_size > 20000:
                os.truncate(path, 20000)
    with meanwhile(cut, 0.05):
        found = faults(spool, "--seconds", "20")
    assert any(re.search(r"it ends at octet \d+, within message|messages are not there that were put there"
                         r"|was cut short by another program", text)
               for text in found), found


def test_a_session_lock_that_holds_nobody_back(spool):
    """Somebody tidies up in the spool, and removes what is locked."""
    def tidy():
        for path in glob.glob(f"{spool.place}/.{dummies.MARK}.*.pop"):
            os.unlink(path)
    with meanwhile(tidy, 0.001):
        found = faults(spool, "--seconds", "20", "-j", "8")
    assert any("two sessions had the session lock at one time" in text for text in found), found


def boundary(octets):
    return octets.index(b"From popperctl@", 20000)


@pytest.mark.parametrize("change, said", [
    (lambda octets: octets, []),
    (lambda octets: octets[:boundary(octets)], [r"\d+ messages are not there that were put there"]),
    (lambda octets: octets[:boundary(octets) - 3], [r"it ends at octet \d+, within message \d+"]),
    (lambda octets: b"", ["50 messages are not there that were put there"]),
    (lambda octets: octets + b"From x@y Thu Nov 19 10:00:00 2026\n\nOther.\n\n",
     [r"\d+ octets stand behind all mail that anybody put there, from octet \d+ on"]),
    (lambda octets: octets[:9000] + bytes(4096) + octets[13096:],
     [r"there are 4096 NULs at octet 9000, in message \d+, "]),
    (lambda octets: octets[:9000] + b"=" + octets[9001:],
     [r"at octet 9000, in message \d+ there is \"=.*\" and not \""]),
    (lambda octets: b"nothing\n" + octets, [r"Unable to process From lines .* no envelope line at octet 0"]),
], ids=["as it was", "messages gone", "cut", "empty", "added", "NULs", "one octet", "no mailbox"])
def test_a_session_sees_what_has_become_of_the_mailbox(spool, change, said):
    pristine = dummies.Pristine(dummies.invented(1), False)
    path = spool.put(change(pristine.octets), ".popperctl-test.1.1")
    dummy = dummies.Dummy(str(spool.place), path.name, UID, pristine)
    ledger, options = Ledger(list(range(50))), trial_options(spool)
    found = json.loads(in_child(lambda: json.dumps(rounds.session(dummy, ledger, options, True, None))))
    ledger.close()
    assert len(found["faults"]) == len(said), found["faults"]
    assert all(re.search(words, text) for words, text in zip(said, found["faults"])), found["faults"]
    assert bool(found.get("out")) == (not said) and (path.read_bytes() == change(pristine.octets)) == bool(said)


def test_a_delivery_leaves_a_session_alone_that_makes_its_lock(spool):
    """What a session links to the dotlock has a name that the delivery does not take."""
    path = spool.put(b"")
    others = Path(rounds.SpoolLocks(str(path)).private)
    others.write_bytes(b"")
    agent = rounds.Agent(str(path))
    assert agent.dot() and others.exists() and agent.private != str(others)
    agent.undot()


@pytest.mark.root
def test_a_spool_in_which_the_user_may_not_write(spool):
    os.chmod(spool.place, 0o755)
    found = faults(spool, "--seconds", "20")
    assert len(found) == 2
    said = r"dummy [12]: System error, can't open \S+\.pop, do you own it\? \(Permission denied\)"
    assert all(re.fullmatch(said, text) for text in found)


def test_a_spool_in_which_one_may_not_write_oneself(spool):
    os.chmod(spool.place, 0o555)

    def refused():
        dummy = dummies.Dummy(str(spool.place), ".popperctl-test.1.1", os.geteuid(), dummies.Pristine(b"", False))
        try:
            dummy.make()
        except trial.Failed as failed:
            return f"{failed.status} {failed.text}"
        return "made"
    assert as_ordinary_user(refused) == (f"73 no mailbox can be made in {spool.place}: Permission denied; "
                                         "choose another place with --directory")


@pytest.mark.root
@pytest.mark.parametrize("lie, words", [
    ("lost", r"there is \"|it ends at octet|messages are not there|octets of what was to stay|NULs"),
    ("zeros", r"there are \d+ NULs at octet \d+, in message \d+, where mail was|messages are not there|there is \""),
])
def test_a_file_system_that_lies(spool, lie, words, tmp_path):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse")
    behind, mount = spool.place / "behind", spool.place / "mount"
    for each in behind, mount:
        each.mkdir()
    behind.chmod(0o1777)
    script = Path(__file__).with_name("lying_disk.py")
    disk = subprocess.Popen([sys.executable, script, behind, mount, lie], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.ismount(mount))
        done = subprocess.run([sys.executable, "-m", "popper.admin", "mailbox", "test", "-C", spool.conf, "--json",
                               "--seconds", "30", "--directory", mount], cwd=TREE, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (65, ""), done.stdout
        found = [fault["what"] for fault in json.loads(done.stdout)["faults"]]
        assert any(re.search(words, text) for text in found), found
        assert os.listdir(behind) == []
    finally:
        subprocess.run(["umount", mount], check=True)
        disk.wait(10)


def test_octets_that_change_though_nothing_has_written(spool, monkeypatch):
    """As with a cache that is not what is on the server: the file is the same, as far as it says."""
    path = spool.put(dummies.invented(1))
    os.utime(path, (1, 1))
    options = trial_options(spool)
    time.sleep(0.03)                         # a file as young as that is read anew in any case, and not compared
    known = json.loads(in_child(lambda: json.dumps(looks.look(str(path), UID, options, None, ""))))["known"]
    again = json.loads(in_child(lambda: json.dumps(looks.look(str(path), UID, options, known, ""))))
    assert again["faults"] == [] and again["known"] == known
    other = json.loads(in_child(lambda: json.dumps(looks.look(str(path), UID, options, [known[0], "0"], ""))))
    assert other["faults"] == ["other octets were read than last time, though nothing has changed it since"]


def trial_options(spool):
    from popper.options import settle
    return settle([("config", str(spool.conf))])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_leaves_nothing_behind(spool, number):
    process = subprocess.Popen([sys.executable, "-m", "popper.admin", "mailbox", "test", "-C", spool.conf], cwd=TREE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(glob.glob(f"{spool.place}/.{dummies.MARK}.*.pop")) > 0)
    process.send_signal(number)
    assert (process.communicate(timeout=60), process.returncode) == (("", ""), 130)
    assert spool.names() == []


# -- how it is seen ----------------------------------------------------------------------------------------------------

PIECES = [b"From a@b Thu Nov 19 10:00:00 2026\nSubject: %d\n\n%s\n\n" % (n, bytes([64 + n]) * 40 * n)
          for n in (1, 2, 3)]


@pytest.mark.parametrize("change, said", [
    (lambda octets: octets, None),
    (lambda octets: octets[:100], None),     # a part that is whole: what stands there is right
    (lambda octets: octets[:60] + b"!" + octets[61:], 'at octet 60, in message 1 there is "!AA'),
    (lambda octets: octets[:150] + bytes(40) + octets[190:], "there are 40 NULs at octet 150, in message 2, where"),
    (lambda octets: octets + b"more", "4 octets stand behind all mail that anybody put there, from octet 384 on"),
])
def test_how_octets_differ(tmp_path, change, said):
    octets = b"".join(PIECES)
    pristine = dummies.Pristine(octets, False)
    path = tmp_path / "joe"
    path.write_bytes(change(octets))
    with open(path, "rb") as file:
        found = rounds.difference(file.fileno(), pristine, [0, 1, 2], path.stat().st_size)
        swapped = rounds.difference(file.fileno(), pristine, [0, 2, 1], path.stat().st_size)
    assert found is None if said is None else found.startswith(said)
    assert swapped is None if len(change(octets)) <= 100 else swapped
    with open(path, "rb") as file:
        os.truncate(path, 150)
        assert rounds.difference(file.fileno(), pristine, [0, 1, 2], 300) is not None


def test_a_ledger_knows_when_somebody_else_believes_to_be_alone():
    ledger = Ledger([0, 1, 2])
    assert ledger.alone(SESSION)
    assert in_child(lambda: ledger.alone(SESSION)) == "False"
    ledger.no_longer(SESSION)
    assert in_child(lambda: ledger.alone(SESSION)) == "True"
    assert in_child(lambda: ledger.settle({1})) == "[0, 2]"
    assert ledger.read() == {"order": [0, 2], "intent": None}
    ledger.close()


def test_pieces_can_stand_in_any_order():
    """Whatever is copied, its messages are the same ones in another order."""
    octets = b"\n".join(PIECES)[:-1]
    pristine = dummies.Pristine(octets, False)
    again = dummies.Pristine(b"".join(pristine.piece(index) for index in (2, 0, 1)), False)
    assert again.sizes == [pristine.sizes[index] for index in (2, 0, 1)]
    assert again.ids == pristine.unique_ids([2, 0, 1]) and sorted(again.ids) == sorted(pristine.ids)


@pytest.mark.parametrize("number, said", [
    (1, ["1 round, 1.0 a second; 1 message deleted", "waited for the dotlock 1 time, 1 s in all; ",
         "turned away 1 time, ",
         "killed in an update 1 session; the next one found 1 update done, and 1 not begun"]),
    (2, ["2 rounds, 1.0 a second; 2 messages deleted", "waited for the dotlock 2 times, 1 s in all; ",
         "turned away 2 times, ",
         "killed in an update 2 sessions; the next one found 2 updates done, and 2 not begun"])])
def test_one_is_not_many(number, said):
    found = types.SimpleNamespace(places=[1], jobs=1, seconds=1.0, deleted=number, delivered=0, busy=number, faults={},
                                  killed=number, settled={"done": number, "undone": number}, rounds=number,
                                  options=types.SimpleNamespace(lock_timeout=10))
    waits = {"dotlock": {"count": number, "seconds": 1, "worst_ms": 3.0, "worst_for": "somebody"}}
    out = io.StringIO()
    findings._say(found, {"--in-place": True}, {"rounds": number, "rounds_a_second": 1.0, "phases": {}, "waits": waits,
                                                "faults": []}, Console(out, out))
    lines = out.getvalue().splitlines()[1:]
    assert all(line.startswith(beginning) for line, beginning in zip(lines, said, strict=False)) and len(lines) == 5
