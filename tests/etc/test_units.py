"""The units, accounts and directories for systemd, as they are shipped and installed, held against systemd itself and
against what a popper really does."""

import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from conftest import TREE, free_port, wait_until
from popper.options import plain_flags

SHIPPED = TREE / "etc" / "systemd"
DAEMONS = ["popper.service", "popper-listen.service"]
SERVICES = [*DAEMONS, "popper@.service"]
SOCKETS = ["popper.socket", "popper-listen.socket"]
# What `systemd-analyze security` gives at most; 10 is no protection at all.
EXPOSED = {"popper.service": 3.6, "popper-listen.service": 3.5, "popper@.service": 3.5}


def program(name):
    """A program that `make check` installs for root, and that anybody else may have to do without."""
    found = shutil.which(name)
    if not found and os.geteuid() != 0:
        pytest.skip(f"needs root to install {name}")
    assert found, f"{name} is missing"
    return found


def directives(text):
    """[(name, value), ...] of a unit file."""
    return re.findall(r"^(\w+)=(.*)$", text, re.M)


@pytest.fixture
def units(installed):
    return installed / "share/popper/etc/systemd"


def test_all_units_are_looked_at():
    assert sorted(path.name for path in SHIPPED.iterdir()) == sorted(SERVICES + SOCKETS)


@pytest.mark.parametrize("name", SERVICES + SOCKETS)
def test_systemd_has_nothing_to_say_of_it(units, name):
    done = subprocess.run([program("systemd-analyze"), "verify", "--man=no", str(units / name)],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SERVICES)
def test_it_starts_the_program_that_was_installed(units, installed, name):
    start = dict(directives((units / name).read_text()))["ExecStart"]
    path, *flags = start.removeprefix("-").split()
    assert path == str(installed / "sbin/popper") and os.access(path, os.X_OK)
    assert plain_flags(flags) and start.startswith("-") == ("@" in name)
    assert "/usr/local" not in "".join(value for _, value in directives((units / name).read_text()))


@pytest.mark.parametrize("name", SERVICES)
def test_how_far_it_is_exposed(units, name, tmp_path):
    """systemd's own figure, which is printed."""
    text = (units / name).read_text()
    unit = tmp_path / name.replace("@", "-each")
    unit.write_text(text)
    done = subprocess.run([program("systemd-analyze"), "security", "--offline=true", "--no-pager", str(unit)],
                          capture_output=True, text=True)
    figure = float(re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)[1])
    print(f"{name}: {figure}")
    assert figure <= EXPOSED[name]
    bare = "".join(line for line in text.splitlines(True) if line.startswith(("[", "Exec", "Type", "Description")))
    unit.write_text(bare)
    done = subprocess.run([program("systemd-analyze"), "security", "--offline=true", "--no-pager", str(unit)],
                          capture_output=True, text=True)
    assert float(re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)[1]) > 9


def test_the_services_are_protected_alike():
    """What stands behind the comment on root, but for the capability that opens a port."""
    def protection(name):
        return (SHIPPED / name).read_text().partition("# Root for as long")[2].partition("\n[Install]")[0].strip()
    assert protection("popper-listen.service") == protection("popper@.service")
    assert protection("popper.service").replace(" CAP_NET_BIND_SERVICE", "") == protection("popper@.service")


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_tells_systemd_how_it_is(name):
    unit = dict(directives((SHIPPED / name).read_text()))
    assert (unit["Type"], unit["KillMode"], unit["RuntimeDirectory"]) == ("notify", "mixed", "popper")
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID" and "-d" not in unit["ExecStart"]


def test_the_sockets():
    each = dict(directives((SHIPPED / "popper.socket").read_text()))
    one = dict(directives((SHIPPED / "popper-listen.socket").read_text()))
    assert (each["Accept"], each["ListenStream"], one["ListenStream"]) == ("yes", "110", "110") and "Accept" not in one
    session = dict(directives((SHIPPED / "popper@.service").read_text()))
    assert session["StandardInput"] == session["StandardOutput"] == "socket"


# -- what the protection leaves is enough ------------------------------------------------------------------------------

def allowed_calls(names):
    """The system calls that a SystemCallFilter lets through, by systemd's own lists."""
    found, ahead = set(), list(names)
    while ahead:
        name = ahead.pop()
        if not name.startswith("@"):
            found.add(name)
            continue
        said = subprocess.run([program("systemd-analyze"), "syscall-filter", name], capture_output=True, text=True,
                              check=True)
        listed = map(str.strip, said.stdout.splitlines()[1:])
        ahead += [line for line in listed if line and not line.startswith("#")]
    return found


def converse(port, account):
    """A session as clients hold it: something is deleted, and mail is sent."""
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as replies:
        said = [replies.readline()]
        for line in (f"USER {account.name}", f"PASS {account.password}", "STAT", "DELE 1", "QUIT"):
            connection.sendall(line.encode() + b"\r\n")
            said.append(replies.readline())
    assert all(line.startswith(b"+OK") for line in said), said


class Master:
    """popper as the unit starts it, but for systemd."""

    def __init__(self, installed, tmp_path, *before):
        self.port = free_port()
        self.conf = tmp_path / "popper.conf"
        self.conf.write_text(f"bindto 127.0.0.1:{self.port}\nlog stderr\nlookup no\ncontrol {tmp_path}/control\n"
                             f"guessers {tmp_path}/guessers\n")
        self.log = tmp_path / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*before, installed / "sbin/popper", "-s", "-C", self.conf], stderr=log,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_until(lambda: "listening on" in self.log.read_text() or self.process.poll() is not None, 30)

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)


@pytest.mark.root
def test_a_session_makes_no_call_that_the_filter_holds_back(installed, spool, tmp_path):
    spool.deliver(b"From a@b Thu Nov 19 10:00:00 2026\nSubject: 1\n\none\n\n")
    calls = tmp_path / "calls"
    master = Master(installed, tmp_path, program("strace"), "-f", "-qq", "-o", str(calls))
    try:
        converse(master.port, spool)
    finally:
        master.stop()
    made = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", calls.read_text(), re.M))
    assert {"setresuid", "accept4", "flock", "execve"} <= made
    wanted = dict(directives((SHIPPED / "popper.service").read_text()))["SystemCallFilter"].split()
    assert made - allowed_calls(wanted) == set()


@pytest.mark.root
@pytest.mark.parametrize("name", DAEMONS)
def test_its_capabilities_are_enough(installed, spool, tmp_path, name):
    spool.deliver(b"From a@b Thu Nov 19 10:00:00 2026\nSubject: 1\n\none\n\n")
    unit = dict(directives((SHIPPED / name).read_text()))
    kept = ",".join("+" + word.removeprefix("CAP_").lower() for word in unit["CapabilityBoundingSet"].split())
    master = Master(installed, tmp_path, program("setpriv"), "--bounding-set", "-all," + kept)
    try:
        converse(master.port, spool)
        assert spool.mailbox.read_bytes() == b""
        with open(f"/proc/{master.process.pid}/status") as file:
            bounding = int(re.search(r"^CapBnd:\t(\w+)$", file.read(), re.M)[1], 16)
        assert bin(bounding).count("1") == len(unit["CapabilityBoundingSet"].split())
    finally:
        master.stop()
    assert "Traceback" not in master.log.read_text() and "not permitted" not in master.log.read_text()


# -- accounts and directories ------------------------------------------------------------------------------------------

@pytest.mark.root
def test_sysusers_makes_an_account_that_nobody_logs_in_to(installed, tmp_path):
    for place in "usr/lib/sysusers.d", "etc":
        (tmp_path / place).mkdir(parents=True)
    shutil.copy(installed / "share/popper/etc/sysusers.d/popper.conf", tmp_path / "usr/lib/sysusers.d")
    done = subprocess.run([program("systemd-sysusers"), f"--root={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fields = re.search(r"^popper:.*$", (tmp_path / "etc/passwd").read_text(), re.M)[0].split(":")
    assert fields[4:6] == ["POP3 strangers", "/"] and fields[6].endswith("/nologin") and 0 < int(fields[2]) < 1000
    assert re.search(r"^popper:!\*?:", (tmp_path / "etc/shadow").read_text(), re.M)


@pytest.mark.root
def test_tmpfiles_makes_the_directories(installed, tmp_path):
    done = subprocess.run([program("systemd-tmpfiles"), "--create", f"--root={tmp_path}",
                           str(installed / "share/popper/etc/tmpfiles.d/popper.conf")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for path in tmp_path / "run/popper", tmp_path / "run/popper/trace":
        status = path.stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)
