"""What a connection imports. Each module costs every session its tenth of a millisecond, some cost ten (popper/inetd.py
greets before it imports the rest): so what may be there is written down here, and nothing comes by accident."""

import os
import socket
import subprocess
import sys

import pytest

from conftest import PASSWORD

# Runs the launcher as inetd would, and tells on a pipe what has been imported: when the greeting is written, and at
# the end. What the interpreter had before it began is not told.
PROBE = """
import posix, sys
pipe, launcher = int(sys.argv[1]), sys.argv[2]
before, main = set(sys.modules), posix.getpid()
write, leave = posix.write, posix._exit

def tell():
    write(pipe, " ".join(sorted(set(sys.modules) - before)).encode() + b"\\n")

def written(descriptor, octets):
    if octets.startswith(b"+OK UCB Pop server"):
        posix.write = write
        tell()
    return write(descriptor, octets)

def left(status):
    if posix.getpid() == main:
        tell()
    leave(status)

posix.write, posix._exit = written, left
sys.argv = [launcher, *sys.argv[3:]]
with open(launcher, encoding="utf-8") as source:
    program = compile(source.read(), launcher, "exec")
exec(program, {"__name__": "__main__"})
"""

GREETED = ("popper", "popper.cli", "popper.errors", "popper.inetd", "popper.options")
ENDED = (
    "_bisect", "_collections_abc", "_ctypes", "_heapq", "_md5", "_operator", "_socket", "_stat", "_struct",
    "binascii", "ctypes", "ctypes._endian", "errno", "fcntl", "gc", "genericpath", "os", "os.path", "popper",
    "popper.account", "popper.auth", "popper.auth.crypt", "popper.auth.file", "popper.auth.getpw", "popper.channel",
    "popper.cli", "popper.conversation", "popper.errors", "popper.guessers", "popper.handover", "popper.inetd",
    "popper.journal", "popper.library", "popper.login", "popper.maildrop", "popper.options", "popper.peer",
    "popper.privilege", "popper.separate", "popper.serve", "popper.session", "popper.slots", "popper.storage",
    "popper.storage.held", "popper.storage.identity", "popper.storage.keeper", "popper.storage.locks", "popper.storage.mbox",
    "popper.storage.plan", "popper.storage.record", "popper.storage.redo", "popper.storage.scan",
    "popper.storage.vacant", "popper.stranger", "popper.submit", "popper.tally", "popper.wire", "popper.xtnd",
    "posixpath", "pwd", "resource", "select", "stat", "struct", "syslog", "types")
NEVER = ("argparse", "collections", "dataclasses", "docopt", "email", "enum", "filelock", "functools", "hashlib",
         "importlib.metadata", "json", "logging", "mailbox", "passlib", "re", "signal", "site", "socket", "ssl",
         "subprocess", "typing")

NOBODY = 65534
USER = "joe"
HASH = "$6$popperstart$jvgawvOQsLM1Akut.H5X5SVhYcKcAZMwePpiy3Cna.O6idaNKQE6SS3dBWxcxmtzmkCdki5M.eqD7lqerOC3x/"
MAILBOX = b"From a@example.org Mon Mar  4 10:00:00 2024\nSubject: one\n\n.text\n\n" * 2
COMMANDS = ("CAPA", "USER {user}", f"PASS {PASSWORD}", "STAT", "LIST", "UIDL", "XTND XLST Subject", "RETR 1", "TOP 2 1",
            "RETR 9", "LAST", "DELE 1", "QUIT")


def told(launcher, user, *arguments):
    """Hold a session with everything in it -> (what was imported at the greeting, what at the end)."""
    reader, writer = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        connection, _ = listener.accept()
        with connection:
            process = subprocess.Popen([sys.executable, "-IS", "-c", PROBE, str(writer), str(launcher), *arguments],
                                       stdin=connection, stdout=connection, pass_fds=[writer])
        os.close(writer)
        with client.makefile("rb") as replies, os.fdopen(reader) as pipe:
            assert replies.readline().startswith(b"+OK UCB Pop server")
            client.sendall("".join(f"{line}\r\n" for line in COMMANDS).format(user=user).encode())
            lines = replies.read().split(b"\r\n")
            assert process.wait(30) == 0
            assert lines[-2].endswith(b"signing off."), lines
            assert b"Message 1 has been deleted." in lines[-3]
            greeted, ended = pipe.read().splitlines()
    return greeted.split(), ended.split()


@pytest.fixture(scope="module")
def with_password_file(installed):
    """What a session of a user of a password file imports."""
    place = installed / "start"              # where anybody may come, as root's sessions are nobody's
    mail = place / "mail"
    mail.mkdir(parents=True)
    (mail / USER).write_bytes(MAILBOX)
    if os.geteuid() == 0:
        for each in (mail, mail / USER):
            os.chown(each, NOBODY, NOBODY)
    (place / "users").write_text(f"{USER}:{HASH}:{NOBODY}:{NOBODY}::/:\n")
    (place / "popper.conf").write_text(f"password_file {place}/users\nmailbox {mail}/%u\nguessers {place}/guessers\n")
    return told(installed / "sbin" / "popper", USER, "-s", "-C", str(place / "popper.conf"))


def test_only_what_the_greeting_needs_is_imported_before_it(with_password_file):
    greeted, _ = with_password_file
    assert tuple(greeted) == GREETED


def test_a_session_imports_what_is_listed_and_nothing_else(with_password_file):
    _, ended = with_password_file
    assert tuple(ended) == ENDED


@pytest.mark.root
def test_a_session_of_a_system_account_imports_what_is_listed_and_nothing_else(installed, spool):
    spool.deliver(MAILBOX)
    greeted, ended = told(installed / "sbin" / "popper", spool.name, "-s")
    assert tuple(greeted) == GREETED
    assert tuple(ended) == ENDED


@pytest.mark.parametrize("names", [GREETED, ENDED])
def test_the_lists_are_in_order_and_hold_nothing_expensive(names):
    assert names == tuple(sorted(names))
    assert not [name for name in names for never in NEVER if name == never or name.startswith(never + ".")]
