"""The environment, the network, the log: what is around a session. Each test names its row of the security
checklist."""

import socket
import subprocess

import pytest

from dialogue import HOST, ONE, Dialogue, mbox, site, wire          # noqa: F401
from popper.peer import FORGED, VERIFIED, Peer, plain, verify

EVIL = "import os\nos.write(2, b'EVIL')\nos._exit(99)\n"


@pytest.fixture
def evil(tmp_path):
    """A directory of programs and modules with the names that somebody might look for; each shouts when it runs."""
    for name in ("python", "python3", "sendmail", "sh", "env", "uname", "popper"):
        (tmp_path / name).write_text("#!/bin/sh\necho EVIL >&2\nexit 99\n")
        (tmp_path / name).chmod(0o755)
    for name in ("sitecustomize.py", "usercustomize.py", "posix.py", "site.py", "socket.py", "docopt.py", "passlib.py",
                 "syslog.py"):
        (tmp_path / name).write_text(EVIL)
    (tmp_path / "popper.d").mkdir()
    return tmp_path


def test_hostile_environment(site, installed, evil):
    """row 10 (CVE-2003-1452, a program looked up in PATH): nothing of our own environment decides what runs or is
    imported."""
    conf = site.place / "popper.conf"
    conf.write_text(f"password_file {site.passwords}\nmailbox {site.spool}/%u\nlog stderr\nlookup no\nhostname {HOST}\n"
                    f"trace {site.place}/trace\n")
    site.deliver(mbox(ONE))
    hostile = {"PATH": str(evil), "IFS": "/ .", "PYTHONPATH": str(evil), "PYTHONHOME": str(evil),
               "PYTHONSTARTUP": str(evil / "site.py"),
               "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error", "PYTHONUSERBASE": str(evil),
               "PYTHONEXECUTABLE": str(evil / "python"),
               "LD_LIBRARY_PATH": str(evil), "HOME": str(evil), "TMPDIR": str(evil), "LANG": "../../evil",
               "LOCALDOMAIN": "evil.example",
               "HOSTALIASES": str(evil / "hosts"), "RES_OPTIONS": "ndots:15", "BASH_ENV": str(evil / "sh"),
               "ENV": str(evil / "sh")}
    ours, theirs = socket.socketpair()
    with theirs, subprocess.Popen([installed / "sbin" / "popper", "-C", str(conf)], stdin=theirs, stdout=theirs,
                                  stderr=subprocess.PIPE,
                                  env=hostile, cwd=evil) as process:
        theirs.close()
        pop = Dialogue(ours)
        assert pop.reply().startswith("+OK UCB Pop server")
        pop.log_in()
        assert pop.text("RETR 1") == wire(ONE)
        pop.quit()
        assert process.stderr.read() == b"" and process.wait(10) == 0
    assert "EVIL" not in (site.place / "trace").read_text()


def test_never_reading_client(site):
    """sec.05: a client that asks for 40 MB and reads nothing is cut off, and costs no memory meanwhile."""
    site.deliver(mbox(b"Subject: large\n\n" + b"A line of text, as there are many.\n" * 1_150_000))
    pop = site.log_in(timeout=0.5)
    before = pop.memory()
    pop.send("RETR 1\r\n" * 50)
    pop.wait()
    assert pop.memory() - before < 4_000_000
    assert site.logged("Timeout (0.5 secs) during nw write from mrose")
    assert site.left_over() == []


def test_never_reading_client_of_small_replies(site):
    """sec.05: so with replies that are many rather than large: what is held back for it is bounded."""
    site.deliver(mbox(ONE))
    pop = site.log_in(timeout=0.5)
    before = pop.memory()
    pop.socket.settimeout(0.1)
    with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
        while True:
            pop.send("RETR 1\r\n" * 5000)
    pop.wait()
    assert pop.memory() - before < 4_000_000


class Resolver:
    """A DNS that says what it is told to."""

    def __init__(self, name, *addresses):
        self.name = name
        self.addresses = list(addresses)

    def reverse(self, address):
        return self.name

    def forward(self, name):
        return self.addresses


HOSTILE_NAMES = ("a\nb.example", "a\rb", "a\x1b[31m.example", "a b", "\u2028", "a\x85b.example", "\x9b31m", "%s%n",
                 "127.0.0.1", "a..b", "",
                 "x" * 300, "host)", "host\" forged", "popper[1]: Stats: root 1 1 1 1", "1.2.3.4.", "0x7f000001")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_host_names(name):
    """sec.10: the name that DNS gives a client reaches no log, unless it is a host name and nothing else."""
    finding = verify("192.0.2.7", Resolver(name, "192.0.2.7"))
    assert finding.status == FORGED and finding.name == "192.0.2.7"
    assert finding.complaint.isascii() and finding.complaint.isprintable()
    assert not name or name not in finding.complaint


def test_names_are_confirmed_forward():
    """sec.13: a name counts only when it has the address; IPv4 that comes over IPv6 is IPv4, and ::1 is itself."""
    assert verify("192.0.2.7", Resolver("mail.example.org", "192.0.2.8")).status == FORGED
    assert verify("192.0.2.7", Resolver("mail.example.org", "192.0.2.8", "192.0.2.7")).status == VERIFIED
    assert plain("::ffff:192.0.2.7") == plain("::FFFF:192.0.2.7") == "192.0.2.7"
    assert plain("::1") == Peer("::1").name == "::1"


INJECTED = ("mrose\rnotice: forged", "mrose\x1b[2Jx", "a\x85b", "a\u2028b".encode().decode("latin-1"), "\x9b2J", "\x00",
            "\t", "\x7f", "\\n")


@pytest.mark.parametrize("octets", INJECTED)
def test_one_event_is_one_line(site, octets):
    """sec.10: CR, LF, ESC, C1 controls and U+2028 in what a client sends are escaped: one event, one line, plain
    ASCII."""
    site.deliver(mbox(b"Subject: \x1b[2J" + octets.encode("latin-1") + b"\n\nx\n"))
    pop = site.session(debug=True)
    pop.ask(f"USER {octets}")
    pop.ask(f"PASS {octets}")
    pop.hang_up()
    pop = site.log_in(debug=True)
    pop.err(octets + "x")
    pop.text("TOP 1 1")
    pop.text("XTND XLST Subject")
    pop.quit()
    text = site.log_file.read_bytes()
    assert text.isascii() and all(line.decode().isprintable() for line in text.split(b"\n"))
    assert all(line.startswith(b"popper[") for line in text.split(b"\n")[:-1])
    assert not any(line.startswith("notice: forged") for line in site.log())


def test_one_flood_is_one_line(site):
    """sec.10: nor can a client fill the log: what it does wrong in a session is told once."""
    pop = site.log_in()
    for _ in range(100):
        pop.send("XYZZY\r\n" * 15 + "NOOP\r\n")
    for _ in range(1600):
        pop.reply()
    pop.quit()
    assert len(site.log()) == 2                          # the login, and this
    assert site.log()[-1] == 'notice: mrose at local (local): -ERR Unknown command: "xyzzy". (and 1499 more)'
