"""XTND XMIT: a message reaches sendmail whole or not at all (xtnd.03 to xtnd.06; security.md sec.14, sec.16)."""

import os
import resource
import signal
import stat
import sys

import pytest
from conftest import wait_until

from popper import submit
from popper.errors import TEMPORARY, Refused
from popper.submit import ARGUMENTS, Submission
from processes import has_ended

MESSAGE = b"To: ann@example.org\nSubject: hello\n\n.\nFrom me\n\xe4\0\n"


@pytest.fixture
def home(tmp_path):
    place = tmp_path / "home"
    place.mkdir()
    return place


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where messages are kept until their last line is in; always without a name."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(submit, "PLACE", str(place))
    yield place
    if place.exists():
        assert list(place.iterdir()) == []


@pytest.fixture
def sendmail(tmp_path, home):
    """sendmail(script, ...) -> a Submission to a program of that text."""
    made = []

    def make(script, most=1_000_000, patience=60, interpreter="/bin/sh"):
        program = tmp_path / "sendmail"
        program.write_text(f"#!{interpreter}\n{script}\n")
        program.chmod(0o755)
        made.append(Submission(str(program), "joe", str(home), most, patience))
        return made[-1]
    yield make
    for each in made:
        each.abandon()


def refusal(submission):
    with pytest.raises(Refused) as caught:
        submission.send()
    assert submission.file is None
    return caught.value


def is_gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


# -- what sendmail gets ----------------------------------------------------------------------------------------------

def test_the_message_is_its_standard_input(sendmail, home):
    submission = sendmail('cat >"$HOME/got"')
    for octet in MESSAGE:
        submission.write(bytes([octet]))
    submission.send()
    assert (home / "got").read_bytes() == MESSAGE
    assert submission.octets == len(MESSAGE)


def test_a_large_message(sendmail, home):
    submission = sendmail('cat >"$HOME/got"', most=10_000_000)
    block = os.urandom(100_000)
    for _ in range(50):
        submission.write(block)
    submission.send()
    assert (home / "got").read_bytes() == block * 50


def test_an_empty_message_is_sendmails_to_judge(sendmail, home):
    sendmail('cat >"$HOME/got"').send()
    assert (home / "got").read_bytes() == b""


def test_the_arguments_are_fixed(sendmail, home):
    """xtnd.05: nothing of the client's stands on the command line."""
    assert ARGUMENTS == ("-oi", "-oem", "-t", "--")
    submission = sendmail('printf "%s\\n" "$0" "$@" >"$HOME/got"')
    submission.write(b"To: -bs -OQueueDirectory=/ x\n\n")
    submission.send()
    assert (home / "got").read_text().splitlines() == [submission.program, "-oi", "-oem", "-t", "--"]


def environment(octets):
    return dict(entry.split(b"=", 1) for entry in octets.split(b"\0") if entry)


@pytest.mark.parametrize("given, home_shown", [("the home", None), ("", b"/")])
def test_the_environment_is_made_anew(sendmail, tmp_path, home, monkeypatch, given, home_shown):
    """CVE-2003-1452: nothing of ours is passed on, PATH is ours to say."""
    for name in ("LD_PRELOAD", "IFS", "PYTHONPATH", "MAILRC", "BASH_ENV", "ENV"):
        monkeypatch.setenv(name, "/hostile")
    monkeypatch.setenv("PATH", "/hostile")
    got = tmp_path / "got"
    submission = sendmail(f'/bin/cat /proc/$$/environ >"{got}"')
    if not given:
        submission.abandon()
        submission = Submission(submission.program, "joe", "", 100)
    submission.send()
    assert environment(got.read_bytes()) == {
        b"PATH": b"/usr/sbin:/usr/bin:/sbin:/bin", b"HOME": home_shown or os.fsencode(home), b"USER": b"joe",
        b"LOGNAME": b"joe", b"SHELL": b"/bin/sh"}


LOOK_AROUND = """
import os
def is_open(descriptor):
    try:
        return bool(os.fstat(descriptor))
    except OSError:
        return False
with open(os.environ["HOME"] + "/got", "w") as file:
    print(*[d for d in range(256) if d != file.fileno() and is_open(d)], file=file)
"""


def test_no_descriptor_but_the_usual_three_is_open_in_it(sendmail, home):
    """sec.14: neither the connection nor anything that somebody left open for children."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        sendmail(LOOK_AROUND, interpreter=f"{sys.executable} -IS").send()
    finally:
        os.close(reading)
        os.close(writing)
    assert (home / "got").read_text().split() == ["0", "1", "2"]


def test_what_it_says_reaches_neither_client_nor_log(sendmail, capfd):
    sendmail("echo to standard output; echo to standard error >&2").send()
    assert capfd.readouterr() == ("", "")


def test_it_starts_with_all_signals_as_usual(sendmail, home):
    """Python ignores some signals, UPDATE blocks some, and sendmail is to inherit neither."""
    submission = sendmail('exec cat /proc/self/status >"$HOME/got"')
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))
    hup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        submission.send()
    finally:
        signal.signal(signal.SIGHUP, hup)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    status = dict(line.split(":\t") for line in (home / "got").read_text().splitlines())
    ignored = int(status["SigIgn"], 16)
    assert int(status["SigBlk"], 16) == 0
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGXFSZ):
        assert not ignored >> number - 1 & 1, number.name


# -- how it ends -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("script, ended", [("exit 1", "1"), ("cat >/dev/null; exit 67", "67"), ("kill -9 $$", "-9")])
def test_a_sendmail_that_fails(sendmail, script, ended):
    """xtnd.03: +OK only when sendmail exited 0."""
    submission = sendmail(script)
    submission.write(MESSAGE)
    refused = refusal(submission)
    assert (refused.text, refused.code) == ("Unable to send message", "")
    assert refused.reason == f"{submission.program} ended with {ended}"


def test_a_sendmail_that_does_not_read(sendmail):
    submission = sendmail("exit 0")
    submission.write(b"x" * 1_000_000)
    submission.send()


def test_a_sendmail_that_hangs_is_killed_with_all_it_started(sendmail, home):
    """xtnd.06: bounded time, no zombie."""
    submission = sendmail('trap "" TERM HUP; sleep 1000 & echo $$ $! >"$HOME/got"; wait; sleep 1000', patience=1)
    refused = refusal(submission)
    assert (refused.text, refused.code) == ("Unable to send message", TEMPORARY)
    assert refused.reason == f"{submission.program} did not end in 1 s"
    own, child = map(int, (home / "got").read_text().split())
    assert is_gone(own)
    wait_until(lambda: has_ended(child))     # maybe for init to bury


@pytest.mark.parametrize("script", ["exit 0", "exit 3"])
def test_no_zombie_is_left(sendmail, home, script):
    submission = sendmail(f'echo $$ >"$HOME/got"; {script}')
    try:
        submission.send()
    except Refused:
        pass
    assert is_gone(int((home / "got").read_text()))


@pytest.mark.parametrize("make", [
    lambda path: None,
    lambda path: path.mkdir(),
    lambda path: path.write_text("#!/bin/sh\nexit 0\n"),                 # not executable
    lambda path: (path.write_text("touch ran\n"), path.chmod(0o755)),    # no program, and no shell is to guess at it
    lambda path: (path.write_text("#!/no/such/program\n"), path.chmod(0o755)),
], ids=["missing", "directory", "not executable", "not a program", "no interpreter"])
def test_a_sendmail_that_cannot_be_run(tmp_path, make):
    path = tmp_path / "sendmail"
    make(path)
    submission = Submission(str(path), "joe", str(tmp_path), 100)
    refused = refusal(submission)
    assert (refused.text, refused.code) == (f'Unable to execute "{path}"', TEMPORARY)
    assert refused.reason
    assert not (tmp_path / "ran").exists()


def test_no_search_path_is_asked(home, monkeypatch, tmp_path):
    """CVE-2003-1452: a name that is no path is no program."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "mailer").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "mailer").chmod(0o755)
    assert refusal(Submission("mailer", "joe", str(home), 100)).text == 'Unable to execute "mailer"'


# -- what is not sent ------------------------------------------------------------------------------------------------

def test_a_message_of_just_the_limit_is_sent(sendmail, home):
    submission = sendmail('cat >"$HOME/got"', most=10)
    submission.write(b"x" * 7)
    submission.write(b"y" * 3)
    submission.send()
    assert (home / "got").read_bytes() == b"xxxxxxxyyy"


def test_a_message_over_the_limit_is_refused_and_takes_no_room(sendmail, home):
    submission = sendmail('cat >"$HOME/got"', most=10)
    for _ in range(100):
        submission.write(b"x" * 11)
        assert os.fstat(submission.file).st_size <= 10
    assert refusal(submission).text == "Message is larger than 10 octets"
    assert not (home / "got").exists()


def test_a_message_that_there_is_no_room_for(sendmail, home):
    """Trouble does not interrupt the client; it is the answer when the text is complete."""
    submission = sendmail('cat >"$HOME/got"')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        submission.write(b"x" * 5000)
        submission.write(b"y" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused = refusal(submission)
    assert (refused.text, refused.code) == ("Unable to store message: File too large", TEMPORARY)
    assert not (home / "got").exists()


def test_an_abandoned_message_is_not_sent(sendmail, home, place):
    """xtnd.04."""
    submission = sendmail('cat >"$HOME/got"')
    submission.write(MESSAGE)
    submission.abandon()
    submission.abandon()
    assert not (home / "got").exists()


# -- where it is kept ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("nameless", [True, False])
def test_the_text_is_kept_in_a_file_without_a_name(sendmail, home, place, monkeypatch, nameless):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")         # as on a system that has no such thing
    submission = sendmail('cat >"$HOME/got"')
    submission.write(MESSAGE)
    status = os.fstat(submission.file)
    assert list(place.iterdir()) == [] and status.st_nlink == 0
    assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
    assert os.get_inheritable(submission.file) is False
    submission.send()
    assert (home / "got").read_bytes() == MESSAGE


def test_a_place_that_is_missing(sendmail, place):
    place.rmdir()
    with pytest.raises(Refused) as caught:
        sendmail("exit 0")
    assert caught.value.text.startswith(f'Unable to create temporary message file "{place}/popper.')
    assert caught.value.code == TEMPORARY


def test_no_descriptor_is_left_open(sendmail):
    before = os.listdir("/proc/self/fd")
    sendmail("exit 0").send()
    for script in ("exit 1", "kill -9 $$"):
        refusal(sendmail(script))
    refusal(Submission("/no/such/program", "joe", "/", 100))
    assert os.listdir("/proc/self/fd") == before
