"""A whole Friday evening: from an empty directory to bulletins in mail programs, with nothing but what is installed."""

import email
import email.policy
import os
import pty
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import clients
from processes import forks

pytestmark = [pytest.mark.root, forks]
SUBJECT = "pophost ist am Sonntag weg, 6:00–9:00 – χαίρετε"
TEXT = "Am Sonntag zieht pophost um.\n\nFrom 6:00 to 9:00 nobody can fetch mail: über Öl, Käse und Füße.\n.\n"


class Evening:
    """An administrator at a terminal, a server, and joe with his mail program."""

    def __init__(self, installed, account, place, syslog):
        self.program = installed / "sbin" / "popperctl"
        self.account = account
        self.place = place
        self.syslog = syslog
        self.directory = place / "bulletins"
        self.conf = place / "popper.conf"

    def configure(self, **directives):
        ours = {"auth": "getpw", "lookup": "no", "fail_delay": 0, "bulletins": self.directory, **directives}
        self.conf.write_text("".join(f"{name} {value}\n" for name, value in ours.items()))

    def __call__(self, *words, text=None, status=0):
        """popperctl bulletin WORDS, not at a terminal; -> what it printed."""
        done = subprocess.run([self.program, "bulletin", *words, "-C", self.conf], input=text, capture_output=True,
                              text=True, stdin=None if text is not None else subprocess.DEVNULL,
                              env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    def at_terminal(self, *words, editor):
        """The same at a terminal, with this script as the editor; -> what was on the screen."""
        script = self.place / "editor"
        script.write_text(f"#!/bin/sh\n{editor}\n")
        script.chmod(0o755)
        child, terminal = pty.fork()
        if not child:
            try:
                os.execve(self.program, [self.program, "bulletin", *words, "-C", self.conf],
                          {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "EDITOR": str(script), "TERM": "xterm"})
            finally:
                os._exit(127)
        screen = b""
        try:
            while octets := os.read(terminal, 65536):
                screen += octets
        except OSError:                      # how a terminal says that nobody is there any more
            pass
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, screen
        return screen.decode().replace("\r\n", "\n")

    def state(self, number):
        """How joe stands to a bulletin."""
        return re.search(rf"^{self.account.name} +(.*?)  ", self("reach", str(number)), re.M)[1]


@pytest.fixture
def evening(installed, spool, syslog):
    place = Path(tempfile.mkdtemp(prefix="popper-evening.", dir="/tmp"))
    place.chmod(0o755)
    (Path(spool.entry.pw_dir) / ".popbull").unlink(missing_ok=True)
    yield Evening(installed, spool, place, syslog)
    shutil.rmtree(place)
    (Path(spool.entry.pw_dir) / ".popbull").unlink(missing_ok=True)


@pytest.fixture
def joe(evening, installed, spool, start_inetd):
    """joe's mail programs."""
    evening.configure()
    client = clients.Client(spool, start_inetd(installed / "sbin" / "popper", "-C", str(evening.conf)).port)
    yield client
    client.remove()


def parsed(text):
    return email.message_from_bytes(text, policy=email.policy.default)


def test_friday_evening(evening, joe):
    assert evening("list", status=78).endswith(f"; mkdir -p -m 755 {evening.directory}\n")
    evening.directory.mkdir(mode=0o755)
    assert evening("list") == f"no bulletins in {evening.directory}\n"
    assert evening("check") == f"{evening.directory}: nothing has to be mended\n"
    assert joe.mpop()[0] == []               # from now on he has a receipt

    screen = evening.at_terminal("add", editor=f"printf '%s\\n' 'Subject: {SUBJECT}' '' '{TEXT}' >$1")
    assert f"bulletin 1 is {evening.directory}/1.pophost_ist_am_sonntag_weg_6_00_9_00\n" in screen
    assert "users get it at their next login" in screen
    assert evening.state(1) == "next login"
    preview = evening("preview", "1", joe.account.name)

    (text,), said = joe.mpop()
    assert text == preview.partition("\n")[2].encode()
    message = parsed(text)
    assert (message["Subject"], message.get_content()) == (SUBJECT, TEXT.strip() + "\n")
    assert message["To"].addresses[0].username == joe.account.name
    assert evening.state(1) == "had it"
    assert joe.mpop()[0] == []               # once

    evening("add", "-s", "Second", text="Plain.\n")
    evening("edit", "2", text="Plainer.\n")
    assert parsed(joe.mpop()[0][0]).get_content() == "Plainer.\n"
    assert "Some" not in evening("edit", "2", text="Too late.\n")
    assert joe.mpop()[0] == []
    assert evening("resend", "2", joe.account.name) == f"{joe.account.name} gets bulletin 2 at the next login\n"
    assert evening.state(2) == "next login"
    assert parsed(joe.mpop()[0][0]).get_content() == "Too late.\n"

    evening("add", "-s", "Mistake", text="Never mind.\n")
    evening("withdraw", "3")
    assert joe.mpop()[0] == []
    evening("resend", "1")
    assert [path.name for path in sorted(evening.directory.iterdir()) if path.name[0].isdigit()] == [
        "1.pophost_ist_am_sonntag_weg_6_00_9_00", "2.second", "4.pophost_ist_am_sonntag_weg_6_00_9_00"]
    assert parsed(joe.mpop()[0][0])["Subject"] == SUBJECT
    assert evening("check").endswith("nothing has to be mended\n")


def test_a_mail_reader_shows_what_was_written(evening, joe):
    """s-nail decodes it, a program that shares nothing with this one."""
    evening.directory.mkdir(mode=0o755)
    joe.mpop()
    evening("add", "-s", SUBJECT, "--from", "Jörg Müller <root>", text=TEXT)
    joe.mpop()
    shown = subprocess.run(["s-nail", "-n", "-R", "-S", "v15-compat", "-f", joe.place / "mpop.mbox"],
                           input="type 1\nexit\n", capture_output=True, text=True,
                           env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent", "TERM": "dumb",
                                "COLUMNS": "200"}).stdout
    assert SUBJECT in shown and "Jörg Müller <root@" in shown
    for line in TEXT.splitlines():
        assert f"\n{line}\n" in shown


def test_the_first_bulletin_reaches_those_who_are_new_when_the_administrator_says_so(evening, joe):
    evening.directory.mkdir(mode=0o755)
    assert "count as new, and get none" in evening("add", "-s", "One", text="one\n")
    evening.configure(new_user_bulletins=1)
    assert evening.state(1) == "first login"
    assert len(joe.mpop()[0]) == 1


def test_bulletins_come_in_order_with_joes_own_mail_before_them(evening, joe):
    evening.directory.mkdir(mode=0o755)
    joe.mpop()
    joe.account.deliver(clients.ENVELOPE + clients.PLAIN)
    for number in range(1, 12):
        evening("add", "-s", f"number {number}", text="x\n")
    with joe.session() as pop:
        subjects = [parsed(b"\n".join(pop.top(number, 0)[1]) + b"\n")["Subject"] for number in range(1, 13)]
        assert subjects == ["Lunch?"] + [f"number {number}" for number in range(1, 12)]
        pop.quit()
