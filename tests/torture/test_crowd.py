"""A crowd that polls while bulletins are added, edited and withdrawn: each user gets each once.

200 users of a password file, one daemon, popperctl beside it. A bulletin that was never withdrawn must be in each
mailbox once; one that was, once or not at all. USERS= and BULLETINS= scale a run.
"""

import collections
import fcntl
import os
import poplib
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from conftest import SuperServer, free_port
from popper.auth.crypt import hashed

USERS, BULLETINS = int(os.environ.get("USERS", 200)), int(os.environ.get("BULLETINS", 40))
PASSWORD = "sesame"
UID = 54321                    # whom they are served as, when root runs the tests
MARK = re.compile(rb"(?m)^Bulletin number <(\d+)>")
MAIL = re.compile(rb"(?m)^Letter number <(\d+)>")


class Crowd:
    """The users, and what they were told."""

    def __init__(self, place, installed):
        self.place = Path(place)
        for name in ("bulletins", "receipts", "spool"):
            (self.place / name).mkdir()
        self.names = [f"user{number}" for number in range(USERS)]
        for each in (self.place, *self.place.parents):
            if str(each) not in ("/", "/tmp") and each.stat().st_uid == os.geteuid():
                each.chmod(0o755)
        line = hashed(PASSWORD.encode(), b"$5$rounds=1000$crowd$").decode()
        if os.geteuid() == 0:
            line += f":{UID}:{UID}::/nonexistent:/bin/sh"
            for name in ("receipts", "spool"):
                os.chown(self.place / name, UID, UID)
        (self.place / "users").write_text("".join(f"{name}:{line}\n" for name in self.names))
        self.port = free_port()
        self.conf = self.place / "popper.conf"
        self.conf.write_text(f"bindto 127.0.0.1:{self.port}\nauth file\npassword_file {self.place}/users\n"
                             f"mailbox {self.place}/spool/%u\nbulletins {self.place}/bulletins\nlookup no\n"
                             f"popbull_dir {self.place}/receipts\nmaxsessions 1000\nsameaddrmax 0\n"
                             f"control {self.place}/control\nguessers {self.place}/guessers\nlog stderr\nfsync no\n")
        self.sbin = installed / "sbin"
        self.errors = []
        self.polls = collections.Counter()

    def ctl(self, *words, text=""):
        subprocess.run([self.sbin / "popperctl", "bulletin", *words, "-C", str(self.conf)], input=text, text=True,
                       check=True, stdout=subprocess.DEVNULL)

    def poll(self, name):
        """One session: leave all on the server, and sometimes go without QUIT."""
        pop = poplib.POP3("127.0.0.1", self.port, timeout=120)
        try:
            pop.user(name)
            pop.pass_(PASSWORD)
            pop.stat()
            if random.random() < 0.9:
                pop.quit()
        finally:
            pop.close()
        self.polls[name] += 1

    def keep_polling(self, names, done):
        while not done.is_set():
            name = random.choice(names)
            try:
                self.poll(name)
            except Exception as trouble:     # two threads may want one mailbox: that is refused, and nothing else is
                if "lock busy" not in str(trouble):
                    self.errors.append(f"{name}: {trouble!r}")

    def deliver(self, number):
        path = self.place / "spool" / random.choice(self.names)
        with open(path, "ab", 0) as mailbox:
            if os.geteuid() == 0:
                os.chown(path, UID, UID)
            fcntl.lockf(mailbox, fcntl.LOCK_EX)
            mailbox.write(b"From friend@example.org Fri Nov 20 10:00:00 2026\nSubject: hello\n\n"
                          b"Letter number <%d>\n\n" % number)


def test_each_user_gets_each_bulletin_once(tmp_path, installed):
    crowd = Crowd(tmp_path, installed)
    crowd.ctl("add", "--subject", "first", "-", text="Bulletin number <0>\n")
    server = SuperServer([str(crowd.sbin / "popper"), "-C", str(crowd.conf)], crowd.port)
    done = threading.Event()
    try:
        for name in crowd.names:             # everybody has come once, and has a receipt
            crowd.poll(name)
        threads = [threading.Thread(target=crowd.keep_polling, args=(crowd.names, done)) for _ in range(16)]
        for thread in threads:
            thread.start()
        withdrawn, letters = set(), 0
        for number in range(1, BULLETINS + 1):
            crowd.ctl("add", "--subject", f"news {number}", "-", text=f"Bulletin number <{number}>\n")
            if number % 5 == 0:
                crowd.ctl("withdraw", str(number))       # its number in the directory is one more than its own here
                withdrawn.add(number - 1)
            if number % 7 == 0:
                edited = next((crowd.place / "bulletins").glob(f"{number + 1}.*"))
                fresh = edited.with_name(".edited")
                fresh.write_bytes(edited.read_bytes() + b"Edited.\n")
                fresh.chmod(0o644)
                fresh.rename(edited)
            crowd.deliver(letters)
            letters += 1
        seen = crowd.polls.total()
        while crowd.polls.total() < seen + USERS and not crowd.errors:
            time.sleep(0.05)
        done.set()
        for thread in threads:
            thread.join()
        for name in crowd.names:             # whoever was not chosen of late
            crowd.poll(name)
    finally:
        done.set()
        server.stop()
    assert crowd.errors == []
    wanted = collections.Counter(set(range(1, BULLETINS + 1)) - withdrawn)
    arrived = collections.Counter()
    for name in crowd.names:
        mailbox = crowd.place / "spool" / name
        octets = mailbox.read_bytes() if mailbox.exists() else b""
        got = collections.Counter(map(int, MARK.findall(octets)))
        assert max(got.values(), default=0) <= 1, name
        assert not wanted - got, name
        assert not got - wanted - collections.Counter(withdrawn), name
        arrived.update(map(int, MAIL.findall(octets)))
        assert (crowd.place / "receipts" / f"{name}.popbull").read_text() == f"{BULLETINS + 1}\n"
    assert arrived == collections.Counter(range(letters))
    print(f"{USERS} users, {BULLETINS} bulletins, {crowd.polls.total()} polls", file=sys.stderr)
