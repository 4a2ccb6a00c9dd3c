"""Golden sessions: every transcript of `sessions/`, fed in three ways, through the session core, `--stdio` and inetd.

What must be left of the mailbox and of the receipt of bulletins is checked besides what is said, and that nothing else
is left in its directory.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

import transcript
from conftest import PASSWORD, TREE
from popper.account import Account
from popper.auth.crypt import hashed
from popper.bulletins import Board
from popper.errors import Denied
from popper.maildrop import Maildrop
from popper.options import Options
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox
from popper.submit import Submission
from transcript import Core, Descriptors, Transcript, conduct

USER = "popjoe"                # conftest's real account has this name, so the others go by it too
HOST = "mail.example.org"
LONG_AGO = 10**9               # a mailbox just written is looked at again before each read


class Served:
    """A session waiting to be held: a connection to it, its server's name, and the paths of mailbox and receipt."""

    def __init__(self, connection, host: str, mailbox: Path, receipt: Path) -> None:
        self.connection = connection
        self.host = host
        self.mailbox = mailbox
        self.receipt = receipt


def identity(path: Path):
    """What of a file an update must keep."""
    status = path.stat()
    return status.st_ino, status.st_uid, status.st_gid, status.st_mode


DRIVERS = {"core": (), "stdio": (), "inetd": (pytest.mark.root,)}
CASES = [pytest.param(name, feed, driver, marks=marks, id=f"{name}-{feed}-{driver}")
         for name in transcript.names() for feed in transcript.FEEDS for driver, marks in DRIVERS.items()
         if driver not in Transcript(name).not_through]


@pytest.mark.parametrize("name, feed, driver", CASES)
def test_session(name, feed, driver, request):
    script = Transcript(name)
    with request.getfixturevalue(driver)(script) as served:
        mailbox = served.mailbox
        kept = identity(mailbox) if mailbox.exists() else None
        conduct(script, served.host, served.connection, feed)
        left = [path for path in mailbox.parent.iterdir() if mailbox.name in path.name]
        assert left == ([] if script.after is None else [mailbox])
        if script.after is not None:
            assert mailbox.read_bytes() == script.after
        if kept is not None:
            assert identity(mailbox) == kept
        assert (served.receipt.read_bytes() if served.receipt.exists() else None) == script.left_receipt


# -- drivers ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def signals():
    """UPDATE leaves some blocked, as its process is to end; this one is not."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture
def core(tmp_path, signals):
    """The session core over a mailbox file, in this process."""
    @contextmanager
    def serve(script):
        mailbox = put(tmp_path, script)
        options = dict(line.split(None, 1) for line in script.options)
        receipt = put_receipt(tmp_path / "home" / ".popbull", script)
        board = board_of(tmp_path, script, receipt)

        def login(credentials):
            if (credentials.user, credentials.password) != (USER.encode(), PASSWORD.encode()):
                raise Denied("", "no such user or password")
            locks = SpoolLocks(str(mailbox))
            locks.session()
            store = Mbox(str(mailbox), locks, options.get("mailbox_format") == "sysv",
                         **({"noted": board.noted} if board else {}))
            try:
                drop = Maildrop(USER, store)
                if board and board.deliver(store):
                    drop.number(store.entries)
                return drop
            except BaseException:
                store.close()
                raise

        def submission():
            return Submission(options["sendmail"], USER, "/", 1 << 20)

        yield Served(Core(HOST, login, submission if "sendmail" in options else None,
                          options.get("update_on_abort") == "yes"), HOST, mailbox, receipt)
    return serve


@pytest.fixture
def stdio(tmp_path):
    """`python -m popper --stdio`, a child on pipes; for root it serves as nobody, else as whoever runs this."""
    @contextmanager
    def serve(script):
        users = tmp_path / "users"
        entry = f"{USER}:{hashed(PASSWORD.encode(), b'$6$rounds=1000$golden$').decode()}"
        # Not in tmp_path: that is closed to nobody.
        with TemporaryDirectory() as spool, TemporaryDirectory() as place, open(tmp_path / "log", "w+") as log:
            mailbox = put(Path(spool), script)
            receipt = put_receipt(Path(place, "receipts", f"{USER}.popbull"), script)
            if os.geteuid() == 0:
                os.chmod(place, 0o755)
                give_to_nobody(receipt)
                entry += ":{0.pw_uid}:{0.pw_gid}::/:".format(give_to_nobody(mailbox))
            users.write_text(f"{entry}\n")
            conf = write_conf(tmp_path, script, f"password_file {users}", "auth file", "log stderr",
                              f"hostname {HOST}", f"mailbox {spool}/%u", f"popbull_dir {receipt.parent}",
                              *pinned_up(Path(place), script))
            child = subprocess.Popen([sys.executable, "-m", "popper", "--stdio", "-C", str(conf)], bufsize=0, cwd=TREE,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            with child:
                try:
                    yield Served(Descriptors(child.stdout.fileno(), child.stdin.fileno(), child.stdin.close, True),
                                 HOST, mailbox, receipt)
                except BaseException:
                    child.kill()             # it may be waiting for us
                    raise
            log.seek(0)
            assert child.returncode == 0
            assert "critical" not in log.read()
    return serve


@pytest.fixture
def inetd(tmp_path, start_inetd, installed, spool):
    """The installed program under a real inetd, serving a real account out of the real spool."""
    @contextmanager
    def serve(script):
        if script.before is not None:
            spool.deliver(script.before)
        # Bulletins have the name of the host in them, so it must be the one that is written down.
        host = HOST if script.bulletins else os.uname().nodename
        receipt = put_receipt(Path(spool.entry.pw_dir, ".popbull"), script)
        if script.receipt is not None:
            os.chown(receipt, spool.entry.pw_uid, spool.entry.pw_gid)
        with TemporaryDirectory() as place:
            os.chmod(place, 0o755)
            bulletins = pinned_up(Path(place), script)
            conf = write_conf(tmp_path, script, *bulletins, *([f"hostname {HOST}"] if bulletins else []))
            server = start_inetd(installed / "sbin" / "popper", "-C", str(conf))
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield Served(Descriptors(client.fileno(), client.fileno(), lambda: client.shutdown(socket.SHUT_WR)),
                             host, spool.mailbox, receipt)
        receipt.unlink(missing_ok=True)
    return serve


def put(directory: Path, script) -> Path:
    """The mailbox of a transcript in a directory; -> where it is, or, when there is to be none, would be."""
    mailbox = directory / USER
    if script.before is not None:
        mailbox.write_bytes(script.before)
        mailbox.chmod(0o640)
        os.utime(mailbox, (LONG_AGO, LONG_AGO))
    return mailbox


def put_receipt(path: Path, script) -> Path:
    """The receipt of a transcript in its place, or nothing there; -> the place."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if script.receipt is not None:
        path.write_bytes(script.receipt)
    return path


def pinned_up(directory: Path, script) -> "list[str]":
    """The bulletins of a transcript as popper takes them; -> the line of popper.conf that says so, if there are any."""
    if script.bulletins is None:
        return []
    board = directory / "bulletins"
    shutil.rmtree(board, ignore_errors=True)
    shutil.copytree(script.bulletins, board, copy_function=shutil.copyfile)
    for path in board, *board.iterdir():
        path.chmod(0o755 if path.is_dir() else 0o644)
    return [f"bulletins {board}"]


def board_of(directory: Path, script, receipt: Path) -> "Board | None":
    """What delivers the bulletins of a transcript in this process."""
    lines = pinned_up(directory, script)
    if not lines:
        return None
    options = Options()
    for line in (*lines, *script.options, f"hostname {HOST}"):
        options.set(*line.split(None, 1))
    silent = SimpleNamespace(notice=lambda text: None, debug=lambda text: None)
    return Board(options, Account(USER, home=str(receipt.parent)), silent)


def give_to_nobody(mailbox: Path):
    """Let nobody have a mailbox, or another file, and its directory."""
    nobody = pwd.getpwnam("nobody")
    for path in (mailbox.parent, mailbox):
        if path.exists():
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return nobody


def write_conf(directory: Path, script, *lines: str) -> Path:
    conf = directory / "popper.conf"
    conf.write_text("\n".join(("lookup no", "fail_delay 0", *lines, *script.options, "")))
    return conf


# -- the transcripts themselves --------------------------------------------------------------------------------------

def test_transcripts_announce_what_they_send():
    """What is written below a RETR has as many octets as are written beside its +OK (1939.32, sizes are exact)."""
    checked = 0
    for name in transcript.names():
        said = Transcript(name).said(HOST)
        text = b"".join(b"\0" + line.octets if line.by_client else line.octets for line in said)
        for announced, body in re.findall(rb"\+OK (\d+) octets\r\n((?:(?!\.\r\n).*\r\n)*)\.\r\n", text):
            assert (name, int(announced)) == (name, len(re.sub(rb"(?m)^\.", b"", body)))
            checked += 1
    assert checked > 30


def test_every_mailbox_is_spoken_of():
    """A mailbox without a transcript shows nothing."""
    spoken_of = set()
    for name in transcript.names():
        spoken_of |= {f"{name}.mbox", f"{name}.after.mbox"}
        spoken_of |= set(re.findall(r"^@ mailbox (\S+)", (transcript.SESSIONS / f"{name}.txt").read_text(), re.M))
    assert {path.name for path in transcript.SESSIONS.glob("*.mbox")} <= spoken_of
