"""The command line as somebody types it, or as it stands in inetd.conf: exit status, and who hears of a mistake."""

import re
import socket
import subprocess
import sys

import pytest

from conftest import TREE, with_syslog
from dialogue import HOST
from popper import VERSION, cli

MISCONFIGURED = b"-ERR [SYS/PERM] This server is not configured properly.\r\n"
POPPER = [sys.executable, "-m", "popper"]
BLOCKED = [sys.executable, "-IS", "-c", f"import sys, site; sys.path.insert(0, {str(TREE)!r}); "
           "sys.modules['docopt'] = None; sys.argv[0] = 'popper'; from popper.launch import run; run()"]


def typed(*arguments, command=POPPER):
    """What a shell sees of a command: (status, standard output, standard error)."""
    done = subprocess.run([*command, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60)
    return done.returncode, done.stdout, done.stderr


def connected(command):
    """What a client gets from a command that has the connection as its descriptors 0, 1 and 2: (status, octets)."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen([*map(str, command)], stdin=theirs, stdout=theirs, stderr=theirs)
        ours.settimeout(60)
        octets = b""
        while more := ours.recv(65536):
            octets += more
        return process.wait(60), octets


@pytest.fixture
def conf(tmp_path):
    """conf(text) -> the path of a configuration file."""
    def write(text):
        path = tmp_path / "popper.conf"
        path.write_text(text)
        return path
    return write


USAGE_ERRORS = [["-x"], ["--nonsense"], ["-T"], ["-b"], ["word"], ["-s", "word"], ["-sx"], ["--check=1"]]


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_a_usage_error_at_a_terminal(arguments):
    status, out, err = typed(*arguments)
    assert (status, out) == (64, "")
    stumbled = "-x" if arguments == ["-x"] else arguments[-1]
    assert err.startswith(f"popper: {stumbled} is not understood\nUsage:") and "Traceback" not in err


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_a_usage_error_under_a_super_server_is_one_err(arguments):
    assert connected([*POPPER, *arguments]) == (64, MISCONFIGURED)


@pytest.mark.root
def test_a_usage_error_under_a_super_server_is_in_the_log(syslog):
    since = len(syslog.lines)
    assert connected(with_syslog(syslog, [*POPPER, "--nonsense"])) == (64, MISCONFIGURED)
    text = syslog.wait_for("Usage:", since)
    assert re.search(r"popper\[\d+\]: ", text)
    assert [priority for priority, each in syslog.lines if each == text] == [16 * 8 + 2]     # local0, critical


def test_help_and_version():
    status, out, err = typed("-h")
    assert (status, out, err) == (0, cli.__doc__.rstrip() + "\n", "")
    assert typed("-V") == (0, f"popper {VERSION}\n", "")


@pytest.mark.parametrize("flag", ["-h", "-V", "--check"])
def test_no_client_reads_what_is_no_pop3(installed, flag, conf):
    more = ["-C", conf("timeout 5\n")] if flag == "--check" else []
    assert connected([installed / "sbin" / "popper", *more, flag]) == (64, MISCONFIGURED)


def test_check(conf):
    good = conf("# nothing wrong\ntimeout 60\n")
    assert typed("-C", good, "--check") == (0, f"{good}: no mistake found\n", "")


def test_check_looks_for_what_flags_name(conf, tmp_path):
    """These may stand in a super-server's line, which nobody else reads."""
    good = conf("timeout 5\n")
    assert typed("-C", good, "-b", tmp_path / "none", "--check")[::2] == (
        78, f"popper: bulletins: {tmp_path}/none is not a directory\n")
    assert typed("-C", good, "-t", tmp_path / "none" / "trace", "--check")[::2] == (
        78, f"popper: trace: {tmp_path}/none is not a directory\n")
    assert typed("-C", good, "-b", tmp_path, "-t", tmp_path / "trace", "--check")[0] == 0
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("text, complaint", [
    ("def authenticate(:\n", "ours.own: SyntaxError: invalid syntax (own.py, line 1)"),
    ("raise ValueError('no such realm')\n", "ours.own: ValueError: no such realm"),
    ("import no_such_module\n", "No module named 'no_such_module'")])
@pytest.mark.parametrize("more", [["--check"], []], ids=["check", "daemon"])
def test_a_module_of_ones_own_with_a_mistake(conf, tmp_path, monkeypatch, text, complaint, more):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "own.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, out, err = typed("-C", conf("auth ours.own\n"), *more)
    assert (status, out, err) == (78, "", f"popper: auth: {complaint}\n")


@pytest.mark.parametrize("text, complaint", [
    ("timeout 60\n\ntimeout_ 5\n", '3: unknown directive "timeout_"; expected one of accepts allow_deny '),
    ("timeout soon\n", '1: timeout: "soon" is not what is expected: seconds, 0 to 86400'),
    ("statistics\n", "1: statistics: no value; expected yes or no"),
    ("debug no\ndebug yes\n", "2: debug: given already on line 1; expected once")])
@pytest.mark.parametrize("more", [["--check"], ["--stdio"], []], ids=["check", "stdio", "daemon"])
def test_a_bad_configuration_at_a_terminal(conf, text, complaint, more):
    bad = conf(text)
    status, out, err = typed("-C", bad, *more)
    assert (status, out) == (78, "")
    assert err.startswith(f"popper: {bad}:{complaint}") and err.count("\n") == 1


def test_a_bad_configuration_under_a_super_server(conf):
    assert connected([*POPPER, "-C", conf("timeout soon\n")]) == (78, MISCONFIGURED)


@pytest.mark.root
def test_a_bad_configuration_under_a_super_server_is_in_the_log(conf, syslog):
    bad, since = conf("timeout soon\n"), len(syslog.lines)
    assert connected(with_syslog(syslog, [*POPPER, "-C", bad])) == (78, MISCONFIGURED)
    assert syslog.wait_for(f'{bad}:1: timeout: "soon" is not what is expected: seconds, 0 to 86400', since)


def test_a_bad_flag_value():
    status, out, err = typed("-T", "soon", "--stdio")
    assert (status, out) == (78, "")
    assert err == 'popper: timeout: "soon" is not what is expected: seconds, 0 to 86400 (0: none)\n'


def test_a_missing_configuration(tmp_path):
    status, out, err = typed("-C", tmp_path / "none", "--check")
    assert (status, out, err) == (78, "", f"popper: {tmp_path}/none: cannot be read: No such file or directory\n")


@pytest.mark.parametrize("trap", ["missing/trace", "link"])
def test_a_trace_that_cannot_be_opened(tmp_path, trap, conf):
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "link").symlink_to(target)
    trace, config = tmp_path / trap, conf("timeout 5\n")
    status, out, err = typed("-C", config, "-t", trace, "--stdio")
    assert (status, out) == (73, "")
    assert err.startswith(f'popper: Unable to open trace file "{trace}": ') and err.count("\n") == 1
    assert connected([*POPPER, "-C", config, "-t", trace]) == (73, MISCONFIGURED)
    assert target.read_text() == ""


def stdio(conf, *flags, said="QUIT\r\n"):
    """A session on pipes; -> (status, output, standard error)."""
    done = subprocess.run([*POPPER, "-C", str(conf), *flags, "--stdio"], input=said, capture_output=True, text=True,
                          timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_stdio(conf):
    status, out, err = stdio(conf(f"hostname {HOST}\nlog stderr\n"))
    assert out.splitlines() == [f"+OK UCB Pop server (version {VERSION}) at {HOST} starting.",
                                f"+OK Pop server at {HOST} signing off."]
    assert (status, err) == (0, "")


def test_a_flag_wins_over_the_configuration(conf):
    path = conf("log stderr\ntimeout 50\n")
    process = subprocess.Popen([*POPPER, "-C", path, "-sT1", "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    with process:
        log = process.stderr.read()          # to its end, which comes by the timeout: nothing is said, nothing closed
        assert process.wait(60) == 0
        assert "Timeout (1 secs) during nw read" in log


def test_docopt_reads_what_is_not_plain_to_the_same_end(conf):
    path = conf(f"hostname {HOST}\nlog stderr\ndebug no\n")
    assert "octets received" not in stdio(path)[2]
    done = subprocess.run([*POPPER, "-d", "-C", str(path), "--std"], input="QUIT\r\n", capture_output=True, text=True,
                          timeout=60)
    assert (done.returncode, done.stdout.count("+OK")) == (0, 2)
    assert "6 octets received" in done.stderr


def test_without_docopt_plain_flags_work(conf):
    good = conf("timeout 60\n")
    assert typed("-sC", good, "--check", command=BLOCKED) == (0, f"{good}: no mistake found\n", "")


@pytest.mark.parametrize("arguments", [["--nonsense"], ["-x"], ["word"]])
def test_without_docopt_a_usage_error_shows_the_usage(arguments):
    status, out, err = typed(*arguments, command=BLOCKED)
    assert (status, out) == (64, "")
    assert "is not understood\nUsage:" in err and "Traceback" not in err


def test_without_docopt_a_client_gets_one_err():
    assert connected([*BLOCKED, "--nonsense"]) == (64, MISCONFIGURED)
