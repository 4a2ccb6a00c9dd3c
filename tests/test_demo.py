"""make demo, as a person uses it: started, read with curl and by hand, stopped with Ctrl-C; as anybody, and as root."""

import contextlib
import email
import email.policy
import os
import poplib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import TREE, free_port, wait_until
from demo_mail import LETTERS, letters, mailbox

from popper.bulletins import addressed
from popper.storage.scan import scan

COUNT = len(letters()) + 1                   # and a bulletin
NO_PACKAGES = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent", "PIP_CONFIG_FILE": os.devnull}


class Demo:
    """A running `make demo`. said(): what it has written so far."""

    def __init__(self, build, tree=TREE, python=sys.executable, port=0, environment=(), **person):
        self.port = port or free_port()
        self.command = ["make", "demo", f"PORT={self.port}", f"BUILD={build}", f"PYTHON={python}"]
        self.output = tempfile.TemporaryFile("w+b")
        self.process = subprocess.Popen(self.command, cwd=tree, stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=subprocess.STDOUT, start_new_session=True,
                                        env={**os.environ, **dict(environment)}, **person)
        wait_until(self._up, 120)

    def _up(self):
        assert self.process.poll() is None, self.said()
        return "listening on" in self.said()

    def said(self):
        return os.pread(self.output.fileno(), 1 << 20, 0).decode()

    def url(self, rest=""):
        return re.search(r"curl (pop3://\S+)1\n", self.said())[1] + rest

    @contextlib.contextmanager
    def session(self, user="demo", password="demo"):
        """A session of poplib's; it ends without QUIT unless that is said."""
        client = poplib.POP3("127.0.0.1", self.port)
        try:
            client.user(user)
            client.pass_(password)
            yield client
        finally:
            client.close()

    def interrupt(self):
        """Ctrl-C: the terminal sends SIGINT to everybody in the foreground. -> all that was said."""
        try:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(30)
            return self.said()
        finally:
            self.output.close()


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(build):
    running = Demo(build)
    yield running
    if running.process.poll() is None:
        running.interrupt()


def stored(number):
    """A letter, or behind them all the bulletin, as RETR gives it: the lines without their ends."""
    if number == COUNT:
        octets = (TREE / "bulletins" / "23.pophost_down_sunday").read_bytes()
        return addressed(octets, "demo", os.uname().nodename).splitlines()[1:]
    return letters()[number - 1][1].replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")


# -- reading ---------------------------------------------------------------------------------------------------------


def test_it_says_how_to_read_mail_and_how_to_stop(demo):
    said = demo.said()
    assert f"curl pop3://demo:demo@127.0.0.1:{demo.port}/1\n" in said
    assert f"telnet 127.0.0.1 {demo.port}\n" in said
    assert "the user is demo, the password is demo" in said
    assert "Ctrl-C" in said


def test_curl_reads_as_it_is_told_to(demo):
    def curl(url):
        return subprocess.run(["curl", "-sS", url], check=True, capture_output=True).stdout
    assert len(curl(demo.url()).splitlines()) == COUNT
    for number in (1, 17, COUNT):
        assert curl(demo.url(str(number))) == b"".join(line + b"\r\n" for line in stored(number))


def test_a_person_at_a_terminal_reads_as_it_is_told_to(demo):
    with socket.create_connection(("127.0.0.1", demo.port)) as line, line.makefile("rb") as answers:
        said = [answers.readline()]
        for command in (b"USER demo", b"PASS demo", b"RETR 2"):
            line.sendall(command + b"\r\n")
            said.append(answers.readline())
        text = list(iter(answers.readline, b".\r\n"))
        line.sendall(b"QUIT\r\n")
        said += answers.readlines()
    assert [answer[:4] for answer in said] == [b"+OK "] * 5
    assert b"".join(text).replace(b"\r\n", b"\n") == letters()[1][1]


def test_every_letter_arrives_as_it_was_written_and_as_long_as_announced(demo, monkeypatch):
    monkeypatch.setattr(poplib, "_MAXLINE", 1 << 20)         # a line of 100,000 octets is too much for poplib as it is
    with demo.session() as client:
        sizes = {int(number): int(octets) for number, octets in map(bytes.split, client.list()[1])}
        assert list(sizes) == list(range(1, COUNT + 1))
        for number, size in sizes.items():
            _, lines, _ = client.retr(number)
            assert lines == stored(number), number
            assert sum(len(line) + 2 for line in lines) == size, number


def test_the_first_poll_finds_a_bulletin_and_the_next_ones_none(demo):
    with demo.session() as client:
        assert b"To: demo@" + os.uname().nodename.encode() in client.retr(COUNT)[1]
    for _ in range(3):
        with demo.session() as client:
            assert client.stat()[0] == COUNT


def test_another_bulletin_is_found_as_it_is_told(tmp_path):
    demo = Demo(tmp_path, environment=NO_PACKAGES)
    try:
        with demo.session() as client:
            assert client.stat()[0] == COUNT
        subprocess.run(re.search(r"next login to find:\n +(cp .*)\n", demo.said())[1], shell=True, check=True)
        with demo.session() as client:
            assert client.stat()[0] == COUNT + 1
    finally:
        said = demo.interrupt()
    assert "notice: Bulletin" not in said and "Traceback" not in said


def test_another_password_is_refused(demo):
    with pytest.raises(poplib.error_proto, match="AUTH"), demo.session("demo", "Demo"):
        pass


def test_nobody_can_send_mail_through_it(demo):
    """The password is known to everybody on the machine."""
    with demo.session() as client, pytest.raises(poplib.error_proto):
        client._shortcmd("XTND XMIT")


def test_ctrl_c_ends_it_while_somebody_reads_and_the_next_one_begins_afresh(demo, build):
    with demo.session() as client:
        client.dele(1)
        client.quit()
    with demo.session() as reader:
        assert reader.stat()[0] == COUNT - 1
        said = demo.interrupt()
    assert said.endswith("demo: ended\n")
    assert "Traceback" not in said and "***" not in said
    with socket.socket() as one:
        assert one.connect_ex(("127.0.0.1", demo.port)) != 0

    again = Demo(build, port=demo.port)
    try:
        assert "Making an environment" not in again.said()
        with again.session() as client:
            assert client.stat()[0] == COUNT
    finally:
        assert "Traceback" not in again.interrupt()


# -- what may be in the way ------------------------------------------------------------------------------------------


def test_without_packages_it_says_so_in_a_line_and_serves_all_the_same(tmp_path):
    demo = Demo(tmp_path, environment=NO_PACKAGES)
    try:
        with demo.session() as client:
            assert client.stat()[0] == COUNT
        told = [line for line in demo.said().splitlines() if "plain python3" in line]
        assert len(told) == 1 and "pip cannot get docopt-ng, passlib and filelock" in told[0]
        assert not (tmp_path / "demo" / "venv").exists()
    finally:
        assert "Traceback" not in demo.interrupt()


def refusal(*arguments, **person):
    """What demo.py says when it does not start: one line."""
    ended = subprocess.run([sys.executable, TREE / "tests" / "demo.py", *map(str, arguments)], capture_output=True,
                           text=True, stdin=subprocess.DEVNULL, **person)
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr.startswith("demo: ") and ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def test_a_busy_port_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refusal(tmp_path / "demo", port)
    assert said == f"demo: 127.0.0.1 port {port}: Address already in use; for another one: make demo PORT=NUMBER\n"
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "pop3", ""])
def test_a_port_that_is_none_is_one_clear_line(tmp_path, port):
    assert "1 to 65535" in refusal(tmp_path, port)


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory; for another place: make demo BUILD=" in refusal(tmp_path / "file", free_port())


@pytest.mark.root
def test_root_serves_as_nobody_and_nobody_else_where_nobody_could_not_enter(tmp_path, account):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    demo = Demo(closed, environment=NO_PACKAGES)
    try:
        mail = Path(re.search(r"mailbox +(\S+)/demo\n", demo.said())[1])
        with demo.session() as client:
            # The session lock shows who serves.
            assert (mail / ".demo.pop").stat().st_uid == (mail / "demo").stat().st_uid == 65534
            client.dele(1)
            client.quit()
        assert "Stats: demo 1 " in demo.said()
        # The accounts of the system are not its business.
        with pytest.raises(poplib.error_proto, match="AUTH"), demo.session(account.name, account.password):
            pass
    finally:
        assert "Traceback" not in demo.interrupt()
    assert closed not in mail.parents and not mail.exists()


@pytest.mark.root
def test_an_ordinary_user_needs_no_more_than_the_tree_and_python(tmp_path):
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    place = Path(tempfile.mkdtemp(prefix="popper-test.", dir="/tmp"))
    try:
        shutil.copytree(TREE, place / "tree", ignore=shutil.ignore_patterns("build", ".git", ".hypothesis"))
        for path in (place, *place.rglob("*")):
            os.chown(path, 65534, 65534)
        person = {"user": 65534, "group": 65534, "extra_groups": []}
        demo = Demo("build", place / "tree", python, environment={"HOME": str(place), **NO_PACKAGES}, **person)
        try:
            with demo.session() as client:
                assert len(client.list()[1]) == COUNT
                assert (place / f"tree/build/demo/{demo.port}/mail/.demo.pop").stat().st_uid == 65534
        finally:
            assert "Traceback" not in demo.interrupt()
    finally:
        shutil.rmtree(place)


# -- the letters -----------------------------------------------------------------------------------------------------


def test_the_mailbox_is_the_same_every_time():
    say = "import demo_mail, sys; sys.stdout.buffer.write(demo_mail.mailbox())"
    runs = [subprocess.run([sys.executable, "-c", say], cwd=TREE / "tests", check=True, capture_output=True,
                           env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}).stdout
            for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))]
    assert runs == [mailbox()] * 2


def test_popper_finds_the_letters_that_were_written():
    octets = mailbox()
    found = [octets[entry.start:entry.end] for entry in scan(lambda count, at: octets[at:at + count], len(octets))]
    assert found == [text for _, text in letters()]


@pytest.mark.parametrize("number", range(1, COUNT))
def test_a_letter_is_well_formed(number):
    message = email.message_from_bytes(letters()[number - 1][1], policy=email.policy.default)
    for part in message.walk():
        assert not part.defects
        assert not [header for header in part.values() if header.defects]
    hosts = re.findall(rb"@([a-z0-9]+\.[a-z0-9.]+)", letters()[number - 1][1])
    assert hosts and all(host.endswith(b".example.org") for host in hosts)


def test_the_letters_are_as_odd_as_the_first_one_says():
    octets, texts = mailbox(), {letter.what: letter.text(number) for number, letter in enumerate(LETTERS, 2)}
    assert all(f"{number:2}  {letter.what}\n".encode() in letters()[0][1] for number, letter in enumerate(LETTERS, 2))
    assert max(map(len, texts["a line of 100,000 octets"].split(b"\n"))) == 100_000
    assert b"\n.\n" in texts["a line of one dot"]
    assert b"\n..\n" in texts["lines that begin with dots"]
    assert texts["an empty body"].endswith(b"\n\n") and texts["an empty body"].count(b"\n\n") == 1
    assert b"\n>From " in texts["a forwarded message with >From in it"]
    crlf = texts["lines that end in CRLF in the mailbox"]
    assert crlf.count(b"\r\n") == crlf.count(b"\n") > 0
    assert b"\r" not in octets.replace(crlf, b"")
    assert not octets.endswith(b"\n")
    for what, charset in (("8-bit UTF-8", "utf-8"), ("8-bit Latin-1", "latin-1")):
        assert not texts[what].isascii() and texts[what].decode(charset).encode(charset) == texts[what]
    with pytest.raises(UnicodeDecodeError):
        texts["8-bit Latin-1"].decode("utf-8")
