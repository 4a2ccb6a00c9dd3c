"""The shipped file for logrotate, by logrotate itself, while sessions write: no line is lost."""

import os
import re
import subprocess

import pytest

from conftest import TREE
from test_units import program

SHIPPED = TREE / "etc" / "logrotate.d" / "popper"
pytestmark = pytest.mark.root                # it gives the new file to root


class Session:
    """A session on pipes, with a trace."""

    def __init__(self, installed, trace):
        self.process = subprocess.Popen([installed / "sbin/popper", "-C", "/dev/null", "-t", trace, "--stdio"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().startswith("+OK")
        self.said = []

    def say(self, line):
        if line != "QUIT":
            self.said.append(line)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self):
        self.say("QUIT")
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(30) == 0


@pytest.fixture
def rotate(tmp_path):
    conf = tmp_path / "popper"
    conf.write_text(SHIPPED.read_text().replace("/var/log", str(tmp_path)))
    conf.chmod(0o644)

    def rotate():
        done = subprocess.run([program("logrotate"), "-f", "-s", str(tmp_path / "state"), str(conf)],
                              capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    return rotate


def received(text):
    return re.findall(r'Received: "(CAPA\d)', text)


def test_no_line_is_lost_when_it_is_rotated_under_a_session(installed, rotate, tmp_path):
    trace = tmp_path / "popper.trace"
    long = Session(installed, trace)
    long.say("CAPA1")
    rotate()
    assert trace.read_bytes() == b"" and trace.stat().st_mode & 0o7777 == 0o600 and trace.stat().st_uid == 0
    long.say("CAPA2")
    late = Session(installed, trace)
    late.say("CAPA3")
    long.say("CAPA4")
    late.end()
    long.end()
    old, new = (tmp_path / "popper.trace.1").read_text(), trace.read_text()
    assert received(old) == long.said and received(new) == late.said
    assert "POP EOF" not in old + new
    rotate()
    assert (tmp_path / "popper.trace.2.gz").exists()
    assert received((tmp_path / "popper.trace.1").read_text()) == late.said


def test_where_there_is_no_trace_nothing_happens(rotate, tmp_path):
    rotate()
    assert sorted(os.listdir(tmp_path)) == ["popper", "state"]


def test_an_empty_one_stays(rotate, tmp_path):
    (tmp_path / "popper.trace").touch()
    rotate()
    assert (tmp_path / "popper.trace").exists() and not (tmp_path / "popper.trace.1").exists()
