"""popperctl status: the table, the document, the metrics."""

import datetime
import os
import time

import pytest

from ctl import popperctl                    # noqa: F401, a fixture
from daemons import AWAY, Fake, session
from popper.admin import status

NOW = time.time()


@pytest.fixture
def daemon(tmp_path):
    fake = Fake(tmp_path)
    fake.state.update(waiting=0, sessions=[
        session(12, "joe", since=NOW - 5, received=10, sent=20),
        session(11, "ann", since=NOW - 3 * 86400, name="", address="2001:db8::1", state="UPDATE", sent=123456)])
    yield fake
    fake.close()


@pytest.fixture
def look(popperctl, daemon):                 # noqa: F811
    def call(*words, terminal=False):
        return popperctl("status", "-C", daemon.conf, *words, terminal=terminal)
    return call


def test_the_table(look, daemon):
    done = look()
    assert (done.status, done.err) == (0, "")
    began = datetime.datetime.fromtimestamp(daemon.state["since"])
    long_ago = datetime.datetime.fromtimestamp(NOW - 3 * 86400)
    just_now = datetime.datetime.fromtimestamp(NOW - 5)
    today = just_now.date() == datetime.date.today()
    head, rows = done.out.split("\n\n")
    assert head.splitlines() == [
        f"popper {daemon.state['version']} runs, process {daemon.process.pid}, "
        f"since {began:%Y-%m-%d %H:%M:%S} (1 d 2 h)",
        f"configuration: {daemon.conf}",
        "listening: 0.0.0.0:110, [::]:110",
        "sessions: 2 of 200",
        "before login: 3 of 2000",
        "connections at most: 100 from one address",
        "counted: 11 connections, 7 logins, 2 denied, 512 octets received, 4096 sent",
    ]
    titles, *lines = [line.split() for line in rows.splitlines()]
    assert titles == ["PID", "USER", "ADDRESS", "NAME", "STATE", "SINCE", "RECEIVED", "SENT"]
    assert lines == [
        ["11", "ann", "2001:db8::1", "UPDATE", *f"{long_ago:%Y-%m-%d %H:%M}".split(), "10", "123456"],
        ["12", "joe", "192.0.2.7", "client.example.org", "TRANSACTION",
         *(f"{just_now:%H:%M:%S}" if today else f"{just_now:%Y-%m-%d %H:%M}").split(), "10", "20"]]


def test_what_is_only_said_when_it_is_so(look, daemon):
    daemon.state.update(waiting=4, sessions=[], limits={"maxsessions": 200, "sameaddrmax": 0, "accepts": 20},
                        guessers=[{"what": "192.0.2.9", "kind": "address", "failures": 1.9920095433310172, "wait": 0.5432},
                                  {"what": "joe", "kind": "name", "failures": 7.5, "wait": 12.0}])
    daemon.state["counters"]["turned_away"].update(sameaddrmax=2, allow_deny=1)
    head, rows = look().out.split("\n\n")
    lines = head.splitlines()
    assert lines[4:6] == ["before login: 3", "logins held back: 4"]
    assert lines[6] == "connections at most: 20 a second"
    assert lines[-1] == "turned away: 2 by sameaddrmax, 1 by allow_deny"
    assert [line.split() for line in rows.splitlines()] == [
        ["GUESSER", "KIND", "FAILURES", "WAITS"], ["joe", "name", "7.5", "12.0", "s"],
        ["192.0.2.9", "address", "2.0", "0.5", "s"]]


def test_a_server_that_reads_another_configuration(look, daemon):
    daemon.state["configuration"] = "/etc/other.conf"
    for words in ([], ["--json"], ["--prometheus"]):
        done = look(*words)
        assert (done.status, done.err) == (0, f"popperctl: the server that runs, process {daemon.process.pid}, reads "
                                              f"/etc/other.conf, not {daemon.conf}\n")
        assert done.out


def test_a_daemon_that_is_ending(look, daemon):
    daemon.state.update(state="ending", listening=[])
    lines = look().out.splitlines()
    assert lines[0].startswith(f"popper {daemon.state['version']} is ending, process ")
    assert lines[2] == "listening: nowhere"


def test_a_daemon_of_another_version(look, daemon):
    daemon.state = {"ok": True, "sessions": [{"pid": 1, "user": "joe"}]}
    for words in ([], ["--json"], ["--prometheus"]):
        assert look(*words).status == 0


def test_colour_is_for_a_terminal(look, daemon):
    daemon.state["limits"]["maxsessions"] = 2
    assert "\x1b" not in look().out
    shown = look(terminal=True).out
    assert shown.startswith("\x1b[32mpopper ") and "\x1b[31msessions: 2 of 2\x1b[m" in shown


def test_nothing_a_client_says_reaches_the_terminal_as_it_is(look, daemon):
    daemon.state["sessions"] = [session(1, "joe", name="\x1b[2J")]
    assert "\x1b[2J" not in look(terminal=True).out and "\\x1b[2J" in look(terminal=True).out
    assert "\x1b" not in look("--prometheus").out


@pytest.mark.parametrize("seconds, text", [(-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"),
                                           (3725, "1 h 2 min"), (86400, "1 d 0 h"), (200000, "2 d 7 h")])
def test_age(seconds, text):
    assert status.age(seconds) == text


# -- for programs ------------------------------------------------------------------------------------------------------

def test_the_document_has_everything(look, daemon):
    told = look("--json").json
    since = datetime.datetime.fromisoformat(told["since"])
    assert since.tzinfo and since.timestamp() == pytest.approx(daemon.state["since"], abs=1e-5)
    assert datetime.datetime.fromisoformat(told["sessions"][0]["since"]).timestamp() == pytest.approx(NOW - 5, abs=1e-5)
    for one in told, daemon.state, *told["sessions"], *daemon.state["sessions"]:
        one.pop("since")
    assert {"ok": True, **told} == daemon.state


def samples(text):
    """{name and labels: value}, of metrics that are each announced before they come."""
    found, announced = {}, ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            announced, kind = line.split()[2:]
            assert (kind == "counter") == announced.endswith("_total") and kind in ("counter", "gauge")
        elif not line.startswith("# HELP "):
            name, value = line.rsplit(" ", 1)
            assert name.partition("{")[0] == announced and name not in found
            found[name] = float(value)
    return found


def test_the_metrics(look, daemon):
    daemon.state["guessers"] = [{"what": "joe", "kind": "name", "failures": 7.5, "wait": 12.0},
                                {"what": "ann", "kind": "name", "failures": 1.0, "wait": 0.0},
                                {"what": "192.0.2.9", "kind": "address", "failures": 2.0}]       # not held back yet
    daemon.state["counters"]["turned_away"]["accepts"] = 6
    found = samples(look("--prometheus").out)
    assert found.pop("popper_server_start_time_seconds") == pytest.approx(daemon.state["since"])
    assert found == {
        "popper_server_up": 1, "popper_server_ending": 0,
        'popper_server_info{version="%s"}' % daemon.state["version"]: 1,
        'popper_server_sessions{state="LOGIN"}': 0, 'popper_server_sessions{state="OPENING"}': 0,
        'popper_server_sessions{state="TRANSACTION"}': 1,
        'popper_server_sessions{state="UPDATE"}': 1, "popper_server_strangers": 3, "popper_server_logins_waiting": 0,
        'popper_server_guessers{kind="address"}': 0, 'popper_server_guessers{kind="name"}': 1,
        'popper_server_limit{directive="maxsessions"}': 200, 'popper_server_limit{directive="sameaddrmax"}': 100,
        'popper_server_limit{directive="maxstrangers"}': 2000, 'popper_server_limit{directive="accepts"}': 0,
        "popper_server_connections_total": 11, "popper_server_logins_total": 7, "popper_server_logins_denied_total": 2,
        "popper_server_received_bytes_total": 512, "popper_server_sent_bytes_total": 4096,
        **{'popper_server_turned_away_total{limit="%s"}' % why: 0 for why in AWAY},
        'popper_server_turned_away_total{limit="accepts"}': 6}


def test_a_label_cannot_be_left(look, daemon):
    daemon.state["version"] = 'a"} 1\n\\'
    assert 'popper_server_info{version="a\\"} 1\\\\x0a\\\\"} 1\n' in look("--prometheus").out


@pytest.mark.parametrize("form", ["--json", "--prometheus"])
def test_a_file_is_replaced(look, tmp_path, form):
    path = tmp_path / "out.prom"
    path.write_text("old")
    done = look(form, "--output", path)
    assert (done.status, done.out, done.err) == (0, "", "")
    assert path.read_text() == look(form).out
    assert sorted(os.listdir(tmp_path)) == ["control", "out.prom", "popper.conf"]


def test_a_file_for_the_table_is_refused(look, tmp_path, daemon):
    done = look("--output", tmp_path / "out")
    assert (done.status, done.err) == (64, "popperctl: --output is for --json or --prometheus\n")
    done = look("--json", "--output", tmp_path / "none" / "out")
    assert (done.status, daemon.asked) == (73, [])


# -- not running -------------------------------------------------------------------------------------------------------

def test_nothing_runs(look, daemon, tmp_path):
    daemon.end()
    done = look()
    assert (done.status, done.err) == (3, "")
    assert done.out == f"popper is not running (no one answers at {daemon.control})\n"
    done = look("--json")
    assert (done.status, done.err, done.json) == (3, "", {"state": "not running"})
    done = look("--prometheus")
    assert (done.status, done.err, samples(done.out)) == (3, "", {"popper_server_up": 0})
    assert look("--prometheus", "--output", tmp_path / "out").status == 3
    assert samples((tmp_path / "out").read_text()) == {"popper_server_up": 0}
