"""The control socket from outside: who is believed, how long an answer is waited for, what is made of it."""

import json
import os
import socket
import subprocess
import sys

import pytest

from ctl import popperctl                    # noqa: F401, a fixture
from daemons import Fake
from popper.admin import control
from popper.admin.console import Failed
from popper.admin.control import Control, NotRunning


@pytest.fixture
def daemon(tmp_path):
    fake = Fake(tmp_path)
    yield fake
    fake.close()


def failure(asked, command="status", **how):
    with pytest.raises(Failed) as caught:
        asked.ask(command, **how)
    return caught.value.status, caught.value.text


def test_a_question_and_its_answer(daemon):
    told = Control(str(daemon.control)).ask("status")
    assert told == {name: value for name, value in daemon.state.items() if name != "ok"}
    assert daemon.asked == ["status"]


def test_what_goes_over_the_line(tmp_path):
    """One JSON object and a newline, and what is behind the newline of the answer is nobody's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control"))
        listener.listen()
        script = ("import sys; from popper.admin.control import Control; "
                  "print(Control(sys.argv[1]).ask('reload'))")
        client = subprocess.Popen([sys.executable, "-c", script, tmp_path / "control"], stdout=subprocess.PIPE)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            assert json.loads(lines.readline()) == {"command": "reload"}
            connection.sendall(b'{"ok": tr')
            connection.sendall(b'ue, "a": "\\n"}\nmore')
            assert client.communicate() == (b"{'a': '\\n'}\n", None)


def test_a_daemon_of_another_version_may_tell_less(daemon):
    daemon.state = {"ok": True, "version": "9.9", "news": 1}
    told = Control(str(daemon.control)).status()
    assert (told["version"], told["news"], told["state"], told["sessions"]) == ("9.9", 1, "running", ())
    assert told == {**control.UNKNOWN, "version": "9.9", "news": 1}


def test_nobody_answers(tmp_path):
    path = tmp_path / "control"
    line = 69, f"popper is not running (no one answers at {path})"
    assert failure(Control(str(path))) == line
    assert failure(Control(f"{path}/below")) == (69, f"popper is not running (no one answers at {path}/below)")
    with socket.socket(socket.AF_UNIX) as dead:              # what a killed daemon leaves
        dead.bind(str(path))
    assert failure(Control(str(path))) == line
    with pytest.raises(NotRunning):
        Control(str(path)).status()



def test_what_is_no_socket_is_not_spoken_to(tmp_path):
    (tmp_path / "control").write_text("")
    assert failure(Control(str(tmp_path / "control"))) == (69, f"{tmp_path}/control: is no socket")


def test_a_refusal_is_told_in_the_daemons_words(daemon):
    daemon.refuses["reload"] = 'popper.conf:3: timeout: "x" is not what is expected'
    assert failure(Control(str(daemon.control)), "reload", refused=78) == (78, daemon.refuses["reload"])
    daemon.refuses["stop"] = ""
    assert failure(Control(str(daemon.control)), "stop") == (69, "refused, and no reason was given")


@pytest.mark.parametrize("octets", [b"hello\n", b"[]\n", b"{}\n", b'{"ok": 1}\n', b"\n", b"\xff\n",
                                    b"[" * 100000 + b"\n"], ids=lambda octets: repr(octets[:12]))
def test_an_answer_that_is_none(daemon, octets):
    daemon.raw = octets
    assert failure(Control(str(daemon.control))) == (
        76, f"{daemon.control}: the answer is not understood; is that popper?")


@pytest.mark.parametrize("octets", [b"", b'{"ok": true}'], ids=["nothing", "half"])
def test_a_daemon_that_goes_before_it_has_answered(daemon, octets):
    daemon.raw = octets
    assert failure(Control(str(daemon.control))) == (
        69, f"{daemon.control}: popper ended, or closed the connection, and gave no answer")


def test_an_answer_has_a_largest_size(daemon, monkeypatch):
    monkeypatch.setattr(control, "LARGEST", 100)
    daemon.raw = json.dumps({"ok": True, "a": "a" * 79}).encode() + b"\n"
    assert len(daemon.raw) == 101 and Control(str(daemon.control)).ask("status")
    daemon.raw = b"a" * 101
    assert failure(Control(str(daemon.control))) == (76, f"{daemon.control}: the answer is longer than 100 octets")


def test_silence_is_not_waited_for_without_end(tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control"))
        silent.listen()
        line = 75, f"{tmp_path}/control: no answer within 0.05 s"
        assert failure(Control(str(tmp_path / "control"), patience=0.05)) == line


def test_nor_are_drops(tmp_path):
    """The time is for all of an answer, not for each piece."""
    with socket.socket(socket.AF_UNIX) as slow:
        slow.bind(str(tmp_path / "control"))
        slow.listen()
        asked = Control(str(tmp_path / "control"), patience=0.2)
        script = ("import socket, sys, time\nline = socket.socket(fileno=int(sys.argv[1])).accept()[0]\n"
                  "try:\n  while True: line.send(b' '); time.sleep(0.01)\nexcept OSError: pass")
        with subprocess.Popen([sys.executable, "-c", script, str(slow.fileno())], pass_fds=[slow.fileno()]):
            assert failure(asked) == (75, f"{tmp_path}/control: no answer within 0.2 s")


def test_a_full_queue_is_not_waited_for_without_end(tmp_path):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "control"))
        busy.listen(0)
        first.connect(str(tmp_path / "control"))
        line = 75, f"{tmp_path}/control: no answer within 0.05 s"
        assert failure(Control(str(tmp_path / "control"), patience=0.05)) == line


# -- who is believed ---------------------------------------------------------------------------------------------------

def let_others_in(place):
    for each in (place, *place.parents):
        if each.parent.name:                 # neither / nor /tmp
            each.chmod(each.stat().st_mode | 0o055)


@pytest.mark.root
def test_a_strangers_socket_is_not_spoken_to(daemon):
    os.chown(daemon.control, 4321, -1)
    line = 77, f"{daemon.control}: the socket of user 4321, who is neither root nor you, is not spoken to"
    assert failure(Control(str(daemon.control))) == line and daemon.asked == []


@pytest.mark.root
def test_a_stranger_behind_roots_name_is_not_spoken_to(tmp_path):
    """The file is root's; the process that listens is not."""
    let_others_in(tmp_path)
    tmp_path.chmod(0o777)
    path = tmp_path / "control"
    script = ("import os, socket, sys; os.setuid(4321); one = socket.socket(socket.AF_UNIX); one.bind(sys.argv[1]); "
              "one.listen(); print('here', flush=True); line = one.accept()[0]; print(line.recv(100))")
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        os.chown(path, 0, 0)
        line = 77, f"{path}: the socket of user 4321, who is neither root nor you, is not spoken to"
        assert failure(Control(str(path))) == line
        assert process.stdout.read() == "b''\n"              # and has not heard what was asked


@pytest.mark.root
@pytest.mark.parametrize("group, who", [("", "root, or the group that control_group names,"),
                                        ("staff", "root and the group staff")])
def test_who_may_not_ask_is_told_who_may(daemon, tmp_path, group, who):
    let_others_in(tmp_path)
    daemon.control.chmod(0o660)
    child = os.fork()
    if not child:
        os.setgid(4321)
        os.setuid(4321)
        right = failure(Control(str(daemon.control), group)) == (77, f"{daemon.control}: only {who} may ask")
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0 and daemon.asked == []


# -- where it is -------------------------------------------------------------------------------------------------------

def test_the_configuration_says_where(tmp_path):
    conf = tmp_path / "popper.conf"
    conf.write_text("control /run/here\ncontrol_group staff\n")
    found = control.control({"-C": str(conf)})
    assert (found.path, found.group) == ("/run/here", "staff")


@pytest.mark.parametrize("text, path", [
    ("timeout soon\ncontrol /run/here\n", "/run/here"),
    ("control /run/here\nnonsense\n", "/run/here"),
    ("control here\n", "/run/popper/control"),
    ("nonsense\n", "/run/popper/control"),
    ("control\n", "/run/popper/control"),
])
def test_a_mistake_does_not_keep_popperctl_from_the_daemon(tmp_path, text, path):
    conf = tmp_path / "popper.conf"
    conf.write_text(text)
    assert control.control({"-C": str(conf)}).path == path


def test_a_file_that_is_not_there_is_told(popperctl, tmp_path):       # noqa: F811
    done = popperctl("status", "-C", tmp_path / "none")
    assert (done.status, done.out) == (78, "")
    assert done.err == f"popperctl: {tmp_path}/none: cannot be read: No such file or directory\n"
