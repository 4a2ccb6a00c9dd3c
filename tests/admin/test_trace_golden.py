"""Troubles, each really caused: what popper writes into the trace, line for line, and what explain makes of it.

tests/traces has the trace of each, where what differs from run to run is the same: stamps, numbers of processes,
seconds, places. After a wanted change of trace lines write them anew, and read the difference:

    POPPER_GOLDEN=write python -m pytest tests/admin/test_trace_golden.py
"""

import ctypes
import mmap
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import ONE, PASSWORD, ROOT, THREE, TWO, USER, Dialogue, mbox, site    # noqa: F401, a fixture
from popper import VERSION
from ctl import popperctl                                # noqa: F401, a fixture

TRACES = Path(__file__).resolve().parent.parent / "traces"
WRITE = os.environ.get("POPPER_GOLDEN") == "write"
STAMP = "Sat Nov 21 12:00:00.000 2026"
NEWNS = 0x20000                # CLONE_NEWNS, linux/sched.h
LONG = b"Subject: long\n\n" + (b"x" * 79 + b"\n") * 100000


# -- the same in every run ---------------------------------------------------------------------------------------------

def whole(seconds):
    """Whole seconds; nearly one is one, and what a busy machine adds is none."""
    return int(float(seconds) + 0.1)


class Normal:
    """Makes lines and sentences the same in every run. places: {directory: what it is to be called}."""

    def __init__(self, places):
        self.places = places
        self.numbers = {}

    def number(self, found):
        """A process by the order in which they are met, whatever stands in front of it."""
        return found[1] + self.numbers.setdefault(found[2], str(1001 + len(self.numbers)))

    def line(self, text):
        """A line of a trace."""
        stamp, _, text = text.partition(" [")
        assert re.fullmatch(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d\.\d{3} \d{4}", stamp), stamp
        text = re.sub(r"^()([\d.]+)", self.number, text)
        text = re.sub(r"\b(\d+\.\d{3})\b(?!\.)", lambda found: f"{whole(found[1])}.000", text)
        text = re.sub(r"\buid = \w+, gid = \w+", "uid = 1000, gid = 1000", text)
        text = re.sub(r"; uid \d+, ", "; uid 0, ", text)
        text = re.sub(r" \d+ sent$", " 1000 sent", text)                   # among it the version, and names of places
        return f"{STAMP} [{self.words(text.replace(VERSION, '0'))}"

    def words(self, text):
        """What lines and sentences have in common."""
        for place, called in self.places.items():
            text = text.replace(place, called)
        text = re.sub(r'(\bprocess |\bsaid "|mailbox: |session )(\d+)\b', self.number, text)
        return re.sub(r"\d+ s old", "30 s old", text)

    def sentence(self, text):
        """A sentence of `explain`."""
        text = re.sub(r"\b\d\d:\d\d:\d\d\b", "12:00:00", text)
        return self.words(re.sub(r"\b(\d+\.\d) s\b", lambda found: f"{whole(found[1])} s", text))


class AsItIs(Normal):
    """Of what has been made the same already."""

    def number(self, found):
        return found[0]


# -- the troubles: each gets (site, call), causes it and leaves when all sessions are over ----------------------------

def refused(pop, user=USER, password=PASSWORD):
    """A login that fails."""
    pop.ok(f"USER {user}")
    pop.err(f"PASS {password}")
    pop.end()


def logged_in(call, **settings):
    return call(**settings).log_in()


def wrong_password(site, call):              # noqa: F811
    refused(call(), password="not the one")


def no_such_user(site, call):                # noqa: F811
    refused(call(), user="nosuch")


def probe(site, call):                       # noqa: F811
    pop = call()
    pop.ok("USER root")
    pop.quit()


def session_lock(site, call):                # noqa: F811
    holding = logged_in(call)
    refused(call())
    holding.quit()


def session_lock_of_another_program(site, call):         # noqa: F811
    """As Qpopper has it: its own process is in the file."""
    path = site.spool / f".{USER}.pop"
    path.write_text("")
    site.own(path)
    with held(path, "flock"):
        refused(call())


def dotlock_of_a_delivery(site, call):       # noqa: F811
    lock = site.spool / f"{USER}.lock"
    lock.write_text(f"{os.getpid()} mx1\n")
    os.utime(lock, (time.time() - 30,) * 2)
    refused(call(lock_timeout=1))
    lock.unlink()


def fcntl_lock(site, call):                  # noqa: F811
    with held(site.mailbox(), "lockf"):
        refused(call(lock_timeout=1))


def dotlock_at_quit(site, call):             # noqa: F811
    pop = logged_in(call, lock_timeout=1)
    pop.ok("DELE 1")
    lock = site.spool / f"{USER}.lock"
    lock.write_text(f"{os.getpid()} mx1\n")
    os.utime(lock, (time.time() - 30,) * 2)
    pop.err("QUIT")
    pop.end()
    lock.unlink()


def stops_reading(site, call):               # noqa: F811
    site.deliver(mbox(LONG))
    pop = logged_in(call, timeout=1, tcp=True)
    pop.ok("DELE 1")
    pop.ok("RSET")
    pop.send("RETR 1\r\n")
    pop.wait()


def closes_without_quit(site, call):         # noqa: F811
    pop = logged_in(call)
    pop.ok("DELE 1")
    pop.hang_up()


def closes_amid_a_message(site, call):       # noqa: F811
    site.deliver(mbox(LONG))
    pop = logged_in(call)
    pop.ok("RETR 1")
    pop.hang_up()


def pauses(site, call):                      # noqa: F811
    pop = logged_in(call, timeout=1)
    pop.text("LIST")
    pop.ok("DELE 1")
    assert pop.end() == b""


def never_logs_in(site, call):               # noqa: F811
    pop = call(login_timeout=1)
    pop.ok("USER mrose")
    assert pop.end() == b""


def told_to_end(site, call):                 # noqa: F811
    pop = logged_in(call)
    pop.ok("DELE 3")
    os.kill(pop.child, signal.SIGTERM)
    pop.end()


def mailbox_truncated(site, call):           # noqa: F811
    pop = logged_in(call)
    os.truncate(site.mailbox(), 100)
    pop.err("RETR 2")
    pop.end()


def mailbox_rewritten(site, call):           # noqa: F811
    """A mail reader that takes none of our locks and puts another file in place."""
    pop = logged_in(call)
    pop.ok("DELE 1")
    new = site.spool / "new"
    new.write_bytes(mbox(ONE, THREE))
    site.own(new)
    new.rename(site.mailbox())
    pop.err("QUIT")
    pop.end()


def size_lie(site, call):                    # noqa: F811
    """A program that writes by a mapping, which on a tmpfs moves no time: a line end less makes the size a lie."""
    place = tempfile.mkdtemp(prefix="popper-site-", dir="/dev/shm")
    os.chmod(place, 0o755)
    site.own(place)
    site.spool, call.places[place] = Path(place), "/site/mail"
    site.settings["mailbox"] = f"{place}/%u"
    try:
        site.deliver(mbox(ONE, TWO, THREE))
        # What was changed this very moment is looked at again.
        wait_until(lambda: time.time() - site.mailbox().stat().st_ctime > 0.1)
        pop = logged_in(call)
        with open(site.mailbox(), "r+b") as file, mmap.mmap(file.fileno(), 0) as octets:
            at = octets[:].index(b"\nSubject: one")
            octets[at:at + 1] = b" "
        pop.text("RETR 1")
        pop.quit()
    finally:
        shutil.rmtree(place)


def mailbox_damaged(site, call):             # noqa: F811
    site.deliver(b"mail?\n" + mbox(ONE))
    refused(call())


def unique_ids_changed(site, call):          # noqa: F811
    """As when a mail reader, or a move, has rewritten the header of a message."""
    logged_in(call).quit()
    site.deliver(mbox(ONE, TWO, THREE).replace(b"subject: one", b"Subject: one").replace(b"<1@", b"<9@"))
    logged_in(call).quit()


def everything_again(site, call):            # noqa: F811
    for _ in range(2):
        pop = logged_in(call)
        for number in (1, 2, 3):
            pop.text(f"RETR {number}")
        pop.quit()


def bulletins_unreadable(site, call):        # noqa: F811
    directory = site.place / "bulletins"
    directory.mkdir(mode=0o700 if ROOT else 0)
    logged_in(call, bulletins=str(directory)).quit()
    directory.chmod(0o700)


def full_disk(site, call):                   # noqa: F811
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", site.spool], check=True)
    try:
        site.own(site.spool)
        site.deliver(mbox(ONE, TWO, THREE))
        with pytest.raises(OSError, match="No space"), open(site.spool / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        pop = logged_in(call)
        pop.ok("DELE 1")
        pop.err("QUIT")
        pop.end()
    finally:
        subprocess.run(["umount", site.spool], check=True)


def slow_resolver(site, call):               # noqa: F811
    """A name server that takes questions and does not answer; the session has a resolv.conf of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.53.0.53", 53))
        conf = site.place / "resolv.conf"
        conf.write_text("nameserver 127.53.0.53\n")

        def away():
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.unshare(NEWNS) == 0, os.strerror(ctypes.get_errno())
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "--bind", conf, "/etc/resolv.conf"], check=True)
        pop = call(source="127.53.0.7", before=away, lookup=True, dns_timeout=5)
        pop.log_in().quit()
        assert silent.recv(512)


class held:
    """A lock that another process has: "flock", or fcntl's by "lockf"."""

    SCRIPT = ("import fcntl, sys; file = open(sys.argv[1], 'r+b'); getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX); "
              "file.seek(0); sys.argv[2] == 'flock' and file.write(b''); print('held', flush=True); sys.stdin.read()")

    def __init__(self, path, how):
        self.words = [sys.executable, "-c", self.SCRIPT, str(path), how]

    def __enter__(self):
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"held\n"

    def __exit__(self, *_):
        self.process.communicate()


# trouble: for each session, in the order in which they began, what explain says of it
TROUBLES = {
    wrong_password: [
        ["The password given for mrose is wrong."]],
    no_such_user: [
        ["There is no user nosuch."]],
    probe: [
        ["The client gave the name root and left without a password."]],
    session_lock: [
        [],
        ["Another session holds the mailbox: 1001 from local, since 12:00:00, 0 s before this; it ended at "
         "12:00:00, by QUIT."]],
    session_lock_of_another_program: [
        ["Another session holds the mailbox: process 1002, of which nothing is in this trace."]],
    dotlock_of_a_delivery: [
        ["The mailbox was locked: /site/mail/mrose.lock was there by process 1002 on mx1, 30 s old, as delivery "
         "agents and mail readers make it. popper waited 1 s for it, `lock_timeout` in popper.conf."]],
    fcntl_lock: [
        ["The mailbox was locked: process 1002 had a lock. popper waited 1 s for it, `lock_timeout` in "
         "popper.conf."]],
    dotlock_at_quit: [
        ["At QUIT the mailbox was locked: /site/mail/mrose.lock was there by process 1002 on mx1, 30 s old, as "
         "delivery agents and mail readers make it. popper waited 1 s for it, `lock_timeout` in popper.conf."]],
    stops_reading: [
        ["The client stopped reading: it took nothing of message 1, 8100017 octets, for 1 s; nothing was marked as"
         " deleted."]],
    closes_without_quit: [
        ["The client closed the connection without QUIT, so the message that was marked as deleted stays."]],
    closes_amid_a_message: [
        ["The client closed the connection without QUIT while message 1 was sent; nothing was marked as deleted."]],
    pauses: [
        ['The client paused for longer than 1 s after "DELE 1", so the message that was marked as deleted stays. '
         "RFC 1939 wants 600 s at least, `timeout` in popper.conf."]],
    never_logs_in: [
        ["The client had not logged in after 1 s, `login_timeout` in popper.conf."]],
    told_to_end: [
        ["popper was told to end by a signal, and the message that was marked as deleted stays."]],
    mailbox_truncated: [
        ["During the session /site/mail/mrose was cut short by another program; nothing was deleted. Does that "
         "program take the same locks, `locks` in popper.conf?"]],
    mailbox_rewritten: [
        ["During the session /site/mail/mrose was replaced by another program; nothing was deleted. Does that "
         "program take the same locks, `locks` in popper.conf?"]],
    size_lie: [
        ["Message 1 was announced with 88 octets, and 87 were sent."]],
    mailbox_damaged: [
        ["The mailbox /site/mail/mrose is damaged at octet 0: a message should begin there. popperctl mailbox "
         "repair -n /site/mail/mrose says more."]],
    unique_ids_changed: [
        [],
        ["Unique-ids have changed since session 1001 at 12:00:00, those of 1 of 3 messages: number 1 had "
         "0f53bd147ddd51f0e6c23de21a2cd4c5 and has d34382d090752d8df336809f1dd4a7d5. Clients take such messages "
         "for new, and retrieve them again."]],
    everything_again: [
        [],
        ["The client retrieved 3 of 3 messages, 300 octets, again, which session 1001 at 12:00:00 had retrieved "
         "and left on the server. It did not ask for unique-ids, by which it could know them."]],
    bulletins_unreadable: [
        ["Bulletins were not given: Unable to open bulletin directory '/site/bulletins': Permission denied (13). "
         "popperctl bulletin check says more."]],
    full_disk: [
        ['"QUIT" was refused: Error updating mailbox. (update of /site/mail/mrose failed: No space left on device)']],
    slow_resolver: [
        ["DNS took 4 s for 127.53.0.7, which has no name to go by. Whoever keeps the reverse zone can mend that; "
         "`lookup no` in popper.conf does without."]],
}
NEEDS_ROOT = (full_disk, slow_resolver)


# -- the proof ---------------------------------------------------------------------------------------------------------

class Call:
    """call(**settings) -> a session of the site; all of them in one trace. source: the address it comes from."""

    def __init__(self, site):                # noqa: F811
        self.site = site
        self.trace = site.place / "trace"
        self.places = {str(site.place): "/site"}

    def __call__(self, source=None, before=None, **settings):
        settings = {"trace": str(self.trace), **settings}
        if source is None:
            return self.site.session(before=before, **settings)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname(), source_address=(source, 0))
            theirs, _ = listener.accept()
        with theirs:
            child = self.site.fork(theirs, self.site.options(**settings), before)
        pop = Dialogue(ours, child)
        self.site.sessions.append(pop)
        assert pop.reply().startswith("+OK ")
        return pop


@pytest.mark.parametrize("trouble", [
    pytest.param(each, marks=[pytest.mark.root] * (each in NEEDS_ROOT), id=each.__name__) for each in TROUBLES])
def test_a_trouble(trouble, site, popperctl, tmp_path):  # noqa: F811
    conf = tmp_path / "conf"
    conf.write_text("")

    def said(path, normal):
        done = popperctl("trace", "explain", "--json", "-C", conf, path)
        assert (done.status, done.err) == (0, "")
        return [[normal.sentence(finding["text"]) for finding in row["findings"]]
                for row in sorted(done.json, key=lambda row: normal.numbers.get(str(row["session"]), row["session"]))]

    site.deliver(mbox(ONE, TWO, THREE))
    call = Call(site)
    trouble(site, call)
    normal = Normal(call.places)
    lines = "".join(normal.line(line) + "\n" for line in call.trace.read_text().splitlines())
    golden = TRACES / f"{trouble.__name__}.trace"
    if WRITE:
        golden.write_text(lines)
    assert lines.splitlines() == golden.read_text().splitlines()
    assert said(call.trace, normal) == TROUBLES[trouble]
    assert said(golden, AsItIs({})) == TROUBLES[trouble]


def test_every_golden_trace_is_of_a_trouble():
    assert sorted(path.name for path in TRACES.iterdir()) == sorted(f"{each.__name__}.trace" for each in TROUBLES)
