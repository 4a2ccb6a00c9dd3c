"""popperctl start, stop, restart and reload, and what of `status` and `config` needs a daemon as it is.

The first part says nothing that only the played daemon does: DAEMONS names those it is tried with.
"""

import os
import sys
import threading

import pytest

from conftest import wait_until
from ctl import popperctl                    # noqa: F401, a fixture
from daemons import Fake, Real, session
from popper.admin import restart, server

DAEMONS = (Fake, Real)


@pytest.fixture
def beside(installed, monkeypatch):
    """popperctl is the installed one, and the popper beside it too."""
    monkeypatch.setattr(sys, "argv", [str(installed / "sbin" / "popperctl")])
    return installed / "sbin" / "popper"


@pytest.fixture(params=DAEMONS, ids=lambda kind: kind.__name__.lower())
def daemon(request, tmp_path, beside):
    one = request.param(tmp_path, **({"program": beside} if request.param.real else {}))
    yield one
    one.close()


@pytest.fixture
def fake(tmp_path, beside):
    one = Fake(tmp_path)
    yield one
    one.close()


def spoil(conf):
    """Put a mistake into a configuration. -> what is said of it."""
    line = conf.read_text().count("\n") + 1
    with conf.open("a") as file:
        file.write("timeout soon\n")
    return f'{conf}:{line}: timeout: "soon" is not what is expected: seconds, 0 to 86400 (0: none)'


# -- with any daemon ---------------------------------------------------------------------------------------------------

def test_status(popperctl, daemon):          # noqa: F811
    done = popperctl("status", "-C", daemon.conf)
    now = daemon.status()
    assert (done.status, done.err) == (0, "")
    first, second, third, *_ = done.out.splitlines()
    assert first.startswith(f"popper {now['version']} runs, process {now['pid']}, since ")
    assert second == f"configuration: {daemon.conf}"
    assert third == f"listening: {', '.join(now['listening'])}"


def test_status_for_programs(popperctl, daemon):           # noqa: F811
    told = popperctl("status", "-C", daemon.conf, "--json").json
    now = daemon.status()
    assert {name: told[name] for name in ("pid", "version", "limits", "sessions", "state")} == {
        name: now[name] for name in ("pid", "version", "limits", "sessions", "state")}
    assert "\npopper_server_up 1\n" in popperctl("status", "-C", daemon.conf, "--prometheus").out


def test_start_where_it_runs_already(popperctl, daemon):   # noqa: F811
    now = daemon.status()
    done = popperctl("start", "-C", daemon.conf)
    assert (done.status, done.err) == (0, "")
    places = ", ".join(now["listening"])
    assert done.out == f"popper {now['version']} runs, process {now['pid']}, on {places} already\n"


def test_reload(popperctl, daemon):          # noqa: F811
    pid = daemon.status()["pid"]
    done = popperctl("reload", "-C", daemon.conf)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"popper, process {pid}, has read {daemon.conf}; it is in force\n"


@pytest.mark.parametrize("word", ["reload", "restart"])
def test_a_mistake_is_refused_and_the_daemon_goes_on(popperctl, daemon, word):       # noqa: F811
    pid, said = daemon.status()["pid"], spoil(daemon.conf)
    done = popperctl(word, "-C", daemon.conf)
    assert (done.status, done.out) == (78, "")
    assert done.err.startswith("popperctl: ") and done.err.endswith(f"{said}\n") and done.err.count("\n") == 1
    assert daemon.running() and daemon.status()["pid"] == pid


def test_restart(popperctl, daemon):         # noqa: F811
    now = daemon.status()
    done = popperctl("restart", "-C", daemon.conf)
    assert (done.status, done.err) == (0, "")
    assert done.out == (f"popper {now['version']} runs, process {now['pid']}, on {', '.join(now['listening'])}; "
                        "no session was open\n")


@pytest.mark.parametrize("words", [["--wait", "60"], ["--now", "--wait", "60"]], ids=" ".join)
def test_stop(popperctl, daemon, words):     # noqa: F811
    done = popperctl("stop", "-C", daemon.conf, *words)
    assert (done.status, done.out, done.err) == (0, "popper has ended\n", "")
    assert not daemon.running() and not daemon.control.exists()
    done = popperctl("stop", "-C", daemon.conf)
    assert (done.status, done.out, done.err) == (
        0, f"popper is not running (no one answers at {daemon.control})\n", "")


# -- stop --------------------------------------------------------------------------------------------------------------

def test_stop_tells_how_many_go_on(popperctl, fake):       # noqa: F811
    fake.state["sessions"] = [session(1, "ann"), session(2, "joe")]
    done = popperctl("stop", "-C", fake.conf, "--wait", "0")
    assert (done.status, done.out) == (75, "")
    assert done.err == (f"popperctl: popper listens no longer; 2 sessions go on in process {fake.process.pid}, which "
                        f"ends with the last one; popperctl stop --now -C {fake.conf} ends the sessions\n")
    assert fake.running() and fake.state["state"] == "ending"


def test_stop_gives_up_and_says_no_more_than_it_has_said(popperctl, fake, monkeypatch):    # noqa: F811
    monkeypatch.setattr("popper.admin.stop.MOMENT", 0.01)
    fake.state["sessions"] = [session(2, "joe")]
    done = popperctl("stop", "-C", fake.conf, "--wait", "1")
    assert (done.status, done.out) == (75, "popper listens no longer; 1 session goes on\n")
    assert done.err == (f"popperctl: after 1 s 1 session goes on in process {fake.process.pid}, which ends with the "
                        f"last one; popperctl stop --now -C {fake.conf} ends the sessions\n")
    fake._stop_now = lambda: None
    assert "--now" not in popperctl("stop", "-C", fake.conf, "--wait", "0", "--now").err


def test_stop_waits_for_the_last_session(popperctl, fake, monkeypatch):    # noqa: F811
    monkeypatch.setattr("popper.admin.stop.LOOK", 0.01)
    monkeypatch.setattr("popper.admin.stop.MOMENT", 0.01)
    fake.state["sessions"] = [session(1, "ann"), session(2, "joe")]

    def leave():
        wait_until(lambda: fake.state["state"] == "ending")
        seen = len(fake.asked)
        wait_until(lambda: len(fake.asked) > seen + 1)
        fake.state = {**fake.state, "sessions": [session(2, "joe")]}
        wait_until(lambda: len(fake.asked) > seen + 4)
        fake.end()
    leaving = threading.Thread(target=leave)
    leaving.start()
    done = popperctl("stop", "-C", fake.conf, "--wait", "60")
    leaving.join()
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == ["popper listens no longer; 2 sessions go on",
                                     "popper listens no longer; 1 session goes on", "popper has ended"]
    assert fake.asked.count("stop") == 1


def test_to_stop_what_is_ending_ends_no_session(popperctl, fake):          # noqa: F811
    fake.state.update(state="ending", sessions=[session(1, "ann")])
    done = popperctl("stop", "-C", fake.conf, "--wait", "0")
    assert done.status == 75 and "1 session goes on in process" in done.err
    assert set(fake.asked) == {"status"}
    done = popperctl("stop", "-C", fake.conf, "--now")
    assert done.status == 0 and done.out.endswith("popper has ended\n") and "stop-now" in fake.asked


def test_stop_is_about_the_daemon_that_was_asked(popperctl, fake, monkeypatch):      # noqa: F811
    """While one ends, another one answers at its place: that one's sessions are not counted."""
    monkeypatch.setattr("popper.admin.stop.LOOK", 0.01)
    fake.state["sessions"] = [session(1, "ann")]

    def replaced():
        wait_until(lambda: "stop" in fake.asked)
        fake.state = {**fake.state, "pid": 1, "state": "running", "sessions": [session(n, "x") for n in range(9)]}
        seen = len(fake.asked)
        wait_until(lambda: len(fake.asked) > seen + 2)
        fake.process.kill()
    other = threading.Thread(target=replaced)
    other.start()
    done = popperctl("stop", "-C", fake.conf, "--wait", "60")
    other.join()
    assert (done.status, done.out.splitlines()[-1]) == (0, "popper has ended") and "9" not in done.out


def test_a_process_that_is_not_to_be_seen_has_ended_with_its_socket(popperctl, fake, monkeypatch):   # noqa: F811
    def nowhere(pid):
        raise ProcessLookupError
    monkeypatch.setattr(os, "pidfd_open", nowhere)
    assert popperctl("stop", "-C", fake.conf).out == "popper has ended\n"


@pytest.mark.parametrize("seconds", ["soon", "-1", "86401", "1.5", "\u0663", ""])
def test_seconds_that_are_none(popperctl, fake, seconds):  # noqa: F811
    done = popperctl("stop", "-C", fake.conf, f"--wait={seconds}")
    assert (done.status, done.out) == (64, "")
    assert done.err == f'popperctl: --wait: "{seconds}" is not what is expected: seconds, 0 to 86400\n'
    assert fake.asked == []


# -- reload and restart ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("word", ["reload", "restart", "stop"])
def test_another_file_than_the_daemon_reads(popperctl, fake, word):        # noqa: F811
    fake.state["configuration"] = "/etc/other.conf"
    done = popperctl(word, "-C", fake.conf)
    assert (done.status, done.out) == (64, "")
    assert done.err == (f"popperctl: the server that runs, process {fake.process.pid}, reads /etc/other.conf, "
                        f"not {fake.conf}\n")
    assert fake.asked == ["status"]


def test_start_where_one_runs_that_reads_another_file(popperctl, fake):   # noqa: F811
    fake.state["configuration"] = "/etc/other.conf"
    done = popperctl("start", "-C", fake.conf)
    assert done.status == 0 and done.out.endswith(" already\n")
    assert done.err == (f"popperctl: the server that runs, process {fake.process.pid}, reads /etc/other.conf, "
                        f"not {fake.conf}\n")


def test_reload_where_nothing_runs(popperctl, fake):       # noqa: F811
    fake.end()
    done = popperctl("reload", "-C", fake.conf)
    assert (done.status, done.out) == (69, "")
    assert done.err == f"popperctl: popper is not running (no one answers at {fake.control})\n"


def test_restart_tells_of_sessions_and_of_the_version_before(popperctl, fake):       # noqa: F811
    fake._upgrade = lambda: fake.become(version="9.9")
    before = fake.state["version"]
    fake.state["sessions"] = [session(1, "ann")]
    done = popperctl("restart", "-C", fake.conf)
    assert (done.status, done.err) == (0, "")
    assert done.out == (f"popper 9.9 runs, process {fake.process.pid}, on 0.0.0.0:110, [::]:110, in the place of "
                        f"{before}; 1 session goes on\n")


def test_a_daemon_that_does_not_come_back(popperctl, fake, monkeypatch):   # noqa: F811
    monkeypatch.setattr(restart, "PATIENCE", 0.1)
    fake._upgrade = fake.end
    done = popperctl("restart", "-C", fake.conf)
    assert (done.status, done.out) == (69, "")
    assert done.err == ("popperctl: popper was to be replaced and does not answer any more (popper is not running (no "
                        f"one answers at {fake.control})); its log may say why\n")


def test_what_the_old_one_says_is_not_taken_for_the_new_ones(popperctl, fake, monkeypatch):     # noqa: F811
    monkeypatch.setattr(restart, "LOOK", 0.01)
    told = threading.Event()
    fake._upgrade = told.set
    moving = threading.Thread(target=lambda: told.wait() and fake.become(version="9.9"))
    moving.start()
    done = popperctl("restart", "-C", fake.conf)
    moving.join()
    assert done.status == 0 and done.out.startswith("popper 9.9 runs, ")


@pytest.mark.parametrize("waiting, why", [(0, "its log may say why"), (3, "it waits for 3 logins that are held back")])
def test_a_daemon_that_stays_what_it_is(popperctl, fake, monkeypatch, waiting, why):         # noqa: F811
    monkeypatch.setattr(restart, "PATIENCE", 0.1)
    fake.state["waiting"] = waiting
    fake._upgrade = lambda: None
    done = popperctl("restart", "-C", fake.conf)
    assert (done.status, done.out) == (75, "")
    assert done.err == (f"popperctl: process {fake.process.pid} was told to become the new one and is the old one yet; "
                        f"{why}\n")


# -- start -------------------------------------------------------------------------------------------------------------

@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(script): what stands beside popperctl as popper. Its arguments go to `arguments`, a line each."""
    def make(script):
        place = tmp_path / "sbin"
        place.mkdir(exist_ok=True)
        path = place / "popper"
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/arguments\n'
                        f'[ -S /dev/stdin ] && exit 99\n{script}\ntrue\n')
        path.chmod(0o755)
        monkeypatch.setattr(sys, "argv", [str(place / "popperctl")])
        return path
    return make


@pytest.mark.parametrize("word", ["start", "restart"])
def test_start(popperctl, fake, program, tmp_path, word):  # noqa: F811
    hidden = tmp_path / "hidden"
    fake.control.rename(hidden)
    program(f"mv {hidden} {fake.control}")
    done = popperctl(word, "-C", fake.conf)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"popper {fake.state['version']} runs, process {fake.process.pid}, on 0.0.0.0:110, [::]:110\n"
    assert (tmp_path / "arguments").read_text().splitlines() == ["--daemon", "-C", str(fake.conf)]
    assert fake.asked == ["status"]


@pytest.mark.parametrize("word", ["start", "restart"])
def test_a_new_one_starts_beside_one_that_is_ending(popperctl, fake, program, tmp_path, word):       # noqa: F811
    fake.state["state"] = "ending"
    (tmp_path / "new").mkdir()
    new = Fake(tmp_path / "new")
    program(f"mv {new.control} {fake.control}")
    done = popperctl(word, "-C", fake.conf)
    new.close()
    assert (done.status, done.err) == (0, "") and f", process {new.process.pid}, " in done.out
    assert set(fake.asked) == {"status"} == set(new.asked)


def test_an_old_one_that_is_ending_is_not_taken_for_the_new(popperctl, fake, program):       # noqa: F811
    fake.state["state"] = "ending"
    path = program("")
    done = popperctl("start", "-C", fake.conf)
    assert (done.status, done.out) == (69, "")
    assert done.err == f"popperctl: {path} was started, but does not answer at {fake.control}; its log may say why\n"


@pytest.mark.parametrize("status", [69, 78, 1])
def test_a_start_that_fails_is_the_programs_to_tell(popperctl, fake, program, capfd, status):        # noqa: F811
    fake.end()
    program(f"echo 'popper: no, and why' >&2; exit {status}")
    done = popperctl("start", "-C", fake.conf)
    assert (done.status, done.out, done.err) == (status, "", "")
    assert capfd.readouterr() == ("", "popper: no, and why\n")


def test_a_program_that_is_killed(popperctl, fake, program):               # noqa: F811
    fake.end()
    program("kill -9 $$")
    assert popperctl("start", "-C", fake.conf).status == 70


def test_a_daemon_that_ends_at_once(popperctl, fake, program):             # noqa: F811
    fake.end()
    path = program("")
    done = popperctl("start", "-C", fake.conf)
    assert (done.status, done.out) == (69, "")
    assert done.err == f"popperctl: {path} was started, but does not answer at {fake.control}; its log may say why\n"


def test_the_default_configuration_is_the_programs(popperctl, program, tmp_path, monkeypatch):       # noqa: F811
    monkeypatch.setattr("popper.options.CONFIG", str(tmp_path / "none.conf"))
    monkeypatch.setitem(__import__("popper.options").options.DIRECTIVES, "control",
                        (str, str(tmp_path / "none"), ""))
    program("exit 3")
    assert popperctl("start").status == 3
    assert (tmp_path / "arguments").read_text() == "--daemon\n"


def test_the_program_beside_popperctl_and_that_in_path(program, tmp_path, monkeypatch):
    path = program("")
    assert server.program() == str(path)
    link = tmp_path / "popperctl"
    link.symlink_to(path.parent / "popperctl")
    monkeypatch.setattr(sys, "argv", [str(link)])
    assert server.program() == str(path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "elsewhere" / "popperctl")])
    monkeypatch.setenv("PATH", str(path.parent))
    assert server.program() == str(path)
    path.chmod(0o644)
    with pytest.raises(server.Failed, match=f"there is no program popper in {tmp_path}/elsewhere, nor in PATH"):
        server.program()
