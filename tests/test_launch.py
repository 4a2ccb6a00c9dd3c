"""The installed launcher: what reaches a client when popper cannot start, what its log is called, and descriptor 2."""

import os
import socket
import subprocess
import sys

import pytest

from conftest import with_syslog
from popper import VERSION
from test_cli import MISCONFIGURED, connected

CANNOT_START = b"-ERR [SYS/TEMP] This server cannot start.\r\n"
NAMES = ["popper", "in.popper", "qpopper", "in.qpopper"]
NOISY = "import os\ndef main(arguments, connected):\n    os.write(2, b'noise'); os.write(1, b'voice'); return 3\n"


@pytest.fixture
def launcher(installed, tmp_path):
    """launcher(text of popper/cli.py, or None: no popper at all) -> the installed launcher with that behind it."""
    def make(text):
        library = tmp_path / "library"
        if text is not None:
            (library / "popper").mkdir(parents=True)
            (library / "popper" / "__init__.py").write_text("")
            (library / "popper" / "cli.py").write_text(text)
        before = (installed / "sbin" / "popper").read_text()
        after = before.replace(f'LIBRARY = "{installed}/lib/popper"', f'LIBRARY = "{library}"')
        assert after != before
        program = tmp_path / "popper"
        program.write_text(after)
        program.chmod(0o755)
        return program
    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_installed_name_is_popper(installed, name):
    done = subprocess.run([installed / "sbin" / name, "-V"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"popper {VERSION}\n", "")


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "popper", "-V"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"popper {VERSION}\n", "")


@pytest.mark.root
@pytest.mark.parametrize("name", NAMES)
def test_the_log_goes_by_the_name_it_was_called_by(installed, syslog, tmp_path, name):
    since, nowhere = len(syslog.lines), tmp_path / "none"
    assert connected(with_syslog(syslog, [installed / "sbin" / name, "-C", nowhere])) == (78, MISCONFIGURED)
    assert f" {name}[" in syslog.wait_for(f"{nowhere}: cannot be read", since)


@pytest.mark.parametrize("name", NAMES)
def test_complaints_at_a_terminal_go_by_that_name(installed, tmp_path, name):
    done = subprocess.run([installed / "sbin" / name, "-C", tmp_path / "none", "--check"], capture_output=True,
                          text=True)
    assert done.returncode == 78 and done.stderr.startswith(f"{name}: {tmp_path}/none: ")


# -- what cannot start -----------------------------------------------------------------------------------------------

def test_a_missing_package_is_one_err(launcher):
    assert connected([launcher(None)]) == (70, CANNOT_START)


@pytest.mark.parametrize("text", ["this is no Python", "def main(a, c): raise SystemExit('text')",
                                  "def main(a, c): 1 / 0", "def main(a, c): raise KeyboardInterrupt"])
def test_whatever_goes_wrong_is_one_err(launcher, text):
    assert connected([launcher(text)]) == (70, CANNOT_START)


@pytest.mark.root
def test_a_missing_package_is_one_line_in_the_log(launcher, syslog):
    since = len(syslog.lines)
    assert connected(with_syslog(syslog, [launcher(None)])) == (70, CANNOT_START)
    text = syslog.wait_for("cannot start: ModuleNotFoundError: No module named 'popper'", since)
    assert " popper[" in text
    assert [priority for priority, each in syslog.lines if each == text] == [16 * 8 + 2]     # local0, critical


def test_a_missing_package_at_a_terminal_is_told_there(launcher):
    done = subprocess.run([launcher(None)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'popper'\n")


# -- descriptor 2 ----------------------------------------------------------------------------------------------------

def descriptors(program, stdin, stderr):
    """Run with a socket as standard output; -> (status, what was written there)."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen([program], stdin=stdin or theirs, stdout=theirs, stderr=stderr or theirs)
        ours.settimeout(60)
        octets = b""
        while more := ours.recv(4096):
            octets += more
        return process.wait(60), octets


def test_standard_error_that_is_the_connection_is_moved_away(launcher):
    assert descriptors(launcher(NOISY), None, None) == (3, b"voice")


def test_standard_error_that_is_a_file_stays(launcher, tmp_path):
    with (tmp_path / "errors").open("wb") as errors:
        assert descriptors(launcher(NOISY), None, errors) == (3, b"voice")
    assert (tmp_path / "errors").read_bytes() == b"noise"


def test_standard_error_that_is_another_socket_stays(launcher):
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert descriptors(launcher(NOISY), None, theirs) == (3, b"voice")
        ours.settimeout(60)
        assert ours.recv(100) == b"noise"


def test_standard_error_that_is_a_socket_stays_when_standard_input_is_none(launcher):
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert descriptors(launcher(NOISY), subprocess.DEVNULL, theirs) == (3, b"voice")
        ours.settimeout(60)
        assert ours.recv(100) == b"noise"


def test_what_main_is_told(launcher):
    program = launcher("import os\ndef main(arguments, connected):\n"
                       "    os.write(1, repr((arguments, connected)).encode()); return 0\n")
    assert connected([program, "-sT", "30"]) == (0, b"(['-sT', '30'], True)")
    done = subprocess.run([program, "-d"], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.stdout == b"(['-d'], False)"


def test_nothing_of_the_environment_is_believed(installed, tmp_path):
    """A library of somebody's own in PYTHONPATH or in the directory popper is started from is not found."""
    (tmp_path / "popper.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "posix.py").write_text("raise RuntimeError('not this one')")
    done = subprocess.run([installed / "sbin" / "popper", "-V"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "popper.py")})
    assert (done.returncode, done.stdout) == (0, f"popper {VERSION}\n")
