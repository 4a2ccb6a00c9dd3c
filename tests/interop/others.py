"""The other programs that lock mailboxes: those that make dotlocks for scripts and mail readers, and Dovecot."""

import contextlib
import os
import poplib
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import free_port, wait_until


def needs(*programs):
    """The mark of tests of programs that `make check` installs for root, and anybody else may have to do without."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing) and os.geteuid() != 0, reason=f"needs root to install {' '.join(missing)}")


class Locker:
    """A program that makes and removes the dotlock of a mailbox. Words that are MAILBOX or LOCK stand for the paths.

    take: try once. wait: try each second. busy: the exit status of one that did not get it.
    """

    def __init__(self, take, leave, busy, wait=""):
        self.commands = {"take": take, "wait": wait, "leave": leave}
        self.busy = busy

    def command(self, what, mailbox):
        return [{"MAILBOX": str(mailbox), "LOCK": f"{mailbox}.lock"}.get(word, word)
                for word in self.commands[what].split()]

    def run(self, what, mailbox, *before):
        """-> exit status. before: a command that runs it."""
        return subprocess.run([*before, *self.command(what, mailbox)], capture_output=True, timeout=60).returncode


LOCKERS = {
    "lockfile": Locker("lockfile -r0 LOCK", "rm -f LOCK", 73),
    "dotlockfile": Locker("dotlockfile -l -r0 LOCK", "dotlockfile -u LOCK", 4),
    "dotlockfile -p": Locker("dotlockfile -l -p -r0 LOCK", "dotlockfile -u LOCK", 4),
    "mutt_dotlock": Locker("mutt_dotlock -r0 MAILBOX", "mutt_dotlock -u MAILBOX", 3),
}
# The same for a user in the system's spool, where it takes the rights of group mail.
SPOOL_LOCKERS = {
    "lockfile": Locker("lockfile -r0 -ml", "lockfile -mu", 73, "lockfile -1 -r30 -ml"),
    "dotlockfile": Locker("dotlockfile -l -r0 -m", "dotlockfile -u -m", 4, "dotlockfile -l -i1 -r30 -m"),
    "mutt_dotlock": Locker("mutt_dotlock -p -r0 MAILBOX", "mutt_dotlock -p -u MAILBOX", 3,
                           "mutt_dotlock -p -r30 MAILBOX"),
}


def as_owner(account):
    """What to put before a command so that the owner of a mailbox runs it, with nothing of our environment."""
    return ["runuser", "-u", account.name, "--", "env", "-i", "PATH=/usr/bin:/bin", f"HOME={account.entry.pw_dir}",
            f"LOGNAME={account.name}"]


def unread(account):
    """Let the mailbox seem not to have been read: procmail waits a second when somebody read it a moment ago."""
    if account.mailbox.exists():
        os.utime(account.mailbox, ns=(0, account.mailbox.stat().st_mtime_ns))


# What Dovecot adds to the header of a message, and takes out again when it shows it.
DOVECOTS = (b"status:", b"x-status:", b"x-keywords:", b"x-uid:", b"x-imap:", b"x-imapbase:", b"content-length:")


def without_dovecots(text):
    """A message without the header lines that Dovecot put there; lines as RETR gives them."""
    header, blank, body = text.partition(b"\r\n\r\n")
    lines = [line for line in header.split(b"\r\n") if not line.lower().startswith(DOVECOTS)]
    return b"\r\n".join(lines) + blank + body


class Dovecot:
    """A real Dovecot on a port of its own, for mailboxes in the system's spool; locks and all as Debian has them.

    settings: lines of its configuration.
    """

    def __init__(self, password, settings=""):
        self.port = free_port()
        # A short path, for the names of sockets; everybody may pass, and each user makes his own index.
        self.place = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self.place.chmod(0o755)
        (self.place / "index").mkdir()
        (self.place / "index").chmod(0o1777)
        self.log = self.place / "log"
        conf = self.place / "dovecot.conf"
        conf.write_text(f"""
            protocols = pop3
            listen = 127.0.0.1
            base_dir = {self.place}/run
            state_dir = {self.place}/state
            instance_name = {self.place.name}
            log_path = {self.log}
            ssl = no
            disable_plaintext_auth = no
            passdb {{
              driver = static
              args = password={password.replace(" ", "")}
            }}
            userdb {{
              driver = passwd
            }}
            mail_location = mbox:~/mail:INBOX=/var/mail/%u:INDEX={self.place}/index/%u
            mail_privileged_group = mail
            service pop3-login {{
              inet_listener pop3 {{
                port = {self.port}
              }}
              inet_listener pop3s {{
                port = 0
              }}
            }}
            {settings}
            """)
        self.password = password.replace(" ", "")
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(conf)], stdin=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    @contextlib.contextmanager
    def session(self, account):
        """A session in TRANSACTION. Who wants UPDATE says quit()."""
        pop = poplib.POP3("127.0.0.1", self.port, timeout=100)
        try:
            pop.user(account.name)
            pop.pass_(self.password)
            yield pop
        finally:
            pop.close()

    def forget(self):
        """What is known of mailboxes, and what was complained of."""
        for index in (self.place / "index").iterdir():
            shutil.rmtree(index)
        self.log.write_text("")

    def complaints(self):
        """The lines of its log that are no mere information."""
        return [line for line in self.log.read_text().splitlines() if ": Info: " not in line]

    def wait_for_complaint(self, words):
        """Wait for a complaint that a test provoked, and forget it."""
        wait_until(lambda: any(words in line for line in self.complaints()))
        self.log.write_text("")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.place)
