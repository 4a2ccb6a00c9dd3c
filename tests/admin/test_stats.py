"""popperctl stats: what it reads, which of it counts, and the forms in which it tells."""

import csv
import datetime
import io
import json
import os
import re
import socket
import stat
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

import corpus
from conftest import TREE, wait_until
from corpus import HOSTILE, at, classic, log       # noqa: F401, log is a fixture
from ctl import Terminal, popperctl          # noqa: F401, a fixture
from popper.admin import logs, main, times
from popper.admin.console import Console

@pytest.fixture
def morning(log):
    """One morning: joe leaves his mail where it is, ann deletes hers, somebody guesses."""
    return log([
        classic(at(days=-1), corpus.login("joe", "192.0.2.7"), pid=1),
        classic(at(days=-1), corpus.stats("joe", 0, 0, 4, 4000, "192.0.2.7", "192.0.2.7"), pid=1),
        *corpus.noise(50),
        classic(at(), corpus.login("joe", "192.0.2.7"), pid=2),
        classic(at(), corpus.stats("joe", 0, 0, 5, 5000, "192.0.2.7", "192.0.2.7"), pid=2),
        classic(at(minutes=5), corpus.login("joe", "192.0.2.8"), pid=3),
        classic(at(minutes=5), corpus.stats("joe", 0, 0, 5, 5000, "192.0.2.8", "192.0.2.8"), pid=3),
        classic(at(hours=1), corpus.stats("ann", 3, 3000, 0, 0), "qpopper", 0),
        classic(at(hours=2), corpus.failed("joe"), pid=4), classic(at(hours=2), corpus.failed("root"), pid=5),
        classic(at(hours=2), corpus.probe("joe"), pid=6),
        classic(at(hours=2), "joe at h (192.0.2.66): -ERR [AUTH] Password supplied for \"joe\" is incorrect.", pid=4)])


# -- tables ------------------------------------------------------------------------------------------------------------

def test_tables(popperctl, morning):
    done = popperctl("stats", morning)
    assert (done.status, done.err) == (0, "")
    lines = [re.sub(r" +", " ", line) for line in done.out.splitlines()]
    assert lines[0] == ("2026-11-15 09:00:00 to 2026-11-16 11:00:00: 4 sessions of 2 users, 2 failed logins, 1 probe; "
                        "3 messages of 3000 octets deleted, 5 messages of 5000 octets left")
    wanted = ["Days", "DAY USERS SESSIONS POLLS FAILED DELETED OCTETS LEFT OCTETS", "2026-11-15 1 1 1 0 0 0 4 4000",
              "2026-11-16 2 3 2 2 3 3000 5 5000",
              "Hours of the day", "HOUR SESSIONS POLLS FAILED DELETED OCTETS OCTETS POLLED", "09 3 3 0 0 0 14000",
              "10 1 0 0 3 3000 0", "11 0 0 2 0 0 0",
              "Users who deleted most", "USER SESSIONS FAILED DELETED OCTETS LEFT OCTETS ADDRESSES",
              "ann 1 0 3 3000 0 0 0", "joe 3 1 0 0 5 5000 2",
              "Mailboxes that grew most", "USER GROWN BY IN DAYS A DAY OCTETS NOW", "joe 1000 1 1000 5000",
              "Mail left on the server: whose polls cost most", "USER POLLS AN HOUR OCTETS POLLED LEFT OCTETS",
              "joe 3 1.5 14000 5 5000",
              "Failed logins by address", "ADDRESS FAILED PROBES NAMES LAST", "192.0.2.66 2 1 2 2026-11-16 11:00:00"]
    assert [line for line in lines[1:] if line][:len(wanted)] == wanted
    assert lines[-1] == f"61 lines, {morning.stat().st_size} octets, read of {morning}"


def test_nothing_to_tell(popperctl, log):
    done = popperctl("stats", log(corpus.noise(10)))
    assert done.status == 0 and done.out.startswith("no login and no session is told of\n\n10 lines, ")


def test_what_could_not_be_read_is_said(popperctl, log):
    done = popperctl("stats", log([classic(at(), corpus.stats("joe")), "Stats: joe 1 2 3 4"]))
    assert done.status == 0 and done.out.splitlines()[-1] == "1 line looked like a login and could not be read"


def test_estimates_are_said(popperctl, log):
    lines = [corpus.dovecot_login("joe"), corpus.dovecot_end("joe", 1, 4, 1000),
             corpus.dovecot_login("ann", session="x"), corpus.dovecot_end("ann", 4, 4, 1000, "x"),
             corpus.dovecot_failed("eve", attempts=3)]
    done = popperctl("stats", log([classic(at(), text, "dovecot", 0) for text in lines]))
    assert done.out.startswith("2026-11-16 09:00:00 to 2026-11-16 09:00:00: 2 sessions of 2 users, 3 failed logins, "
                               "0 probes; 5 messages of 1250 octets deleted, 3 messages of 750 octets left\n")
    assert done.out.splitlines()[-1] == "1 session of Dovecot's: octets deleted and left are an estimate"


def test_top(popperctl, log):
    lines = log(corpus.busy_month())
    wanted = {"1": 1, "3": 3, "0": 12, "999999": 12}
    for top, users in wanted.items():
        part = popperctl("stats", "--top", top, lines).out.partition("Users who deleted most\n")[2].partition("\n\n")[0]
        assert len(part.splitlines()) == users + 1
    days = popperctl("stats", "--top", "2", lines).out.partition("Days\n")[2].partition("\n\n")[0].splitlines()
    assert [day[:10] for day in days[1:]] == ["2026-11-14", "2026-11-15"]
    assert len(popperctl("stats", lines).out.partition("Days\n")[2].partition("\n\n")[0].splitlines()) == 11


# -- which lines count -------------------------------------------------------------------------------------------------

def sessions(done):
    return done.json["totals"]["sessions"], done.json["totals"]["failures"]


@pytest.mark.parametrize("words, wanted", [
    ((), (4, 2)), (("--since", "2026-11-16"), (3, 2)), (("--since", "2026-11-16 09:05"), (2, 2)),
    (("--since", "2026-11-16T09:05:01"), (1, 2)), (("--until", "2026-11-15"), (1, 0)),
    (("--until", "2026-11-16"), (4, 2)),
    (("--until", "2026-11-16 11:00:00"), (4, 0)), (("--until", "2026-11-16 11:00:01"), (4, 2)),
    (("--since", "2026-11-15", "--until", "2026-11-15"), (1, 0)),
    (("--user", "joe"), (3, 1)), (("--user", "root"), (0, 1)), (("--user", "joe", "--user", "ann"), (4, 1)),
    (("--user", "jo"), (0, 0)),
])
def test_times_and_users(popperctl, morning, words, wanted):
    assert sessions(popperctl("stats", "--json", *words, morning)) == wanted


def test_times_that_are_relative():
    now = datetime.datetime(2026, 11, 16, 15, 30)
    assert times.meant("today", now) == datetime.datetime(2026, 11, 16)
    assert times.meant("today", now, at_end=True) == datetime.datetime(2026, 11, 17)
    assert times.meant("yesterday", now) == datetime.datetime(2026, 11, 15)
    assert times.meant("7d", now) == datetime.datetime(2026, 11, 9, 15, 30)
    assert times.meant("36h", now, at_end=True) == datetime.datetime(2026, 11, 15, 3, 30)


@pytest.mark.parametrize("words, line", [
    (["--since", "soon"], '"soon" is no time; write 2026-11-24,'), (["--since", ""], '"" is no time'),
    (["--until", "2026-02-30"], '"2026-02-30" is no time'), (["--since", "99999d"], None),
    (["--since", "99999999d"], '"99999999d" is no time'), (["--since", "٣d"], '"٣d" is no time'),
    (["--since", "2026-11-16", "--until", "2026-11-15"], "--since is not before"),
    (["--top", "x"], '--top: "x" is no number of rows'), (["--top", "-1"], '--top: "-1" is no number of rows'),
    (["--output", "x"], "--output is for --json, --csv or --prometheus"),
    (["--json", "--csv"], "--json and --csv do not go together"),
])
def test_what_makes_no_sense_is_a_usage_error(popperctl, morning, words, line):
    done = popperctl("stats", *words, morning)
    if line:
        assert (done.status, done.out) == (os.EX_USAGE, "")
        assert done.err.startswith(f"popperctl: {line}") and done.err.count("\n") == 1
    else:
        assert done.status == 0


# -- what is read ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("frame", corpus.FRAMES)
def test_every_frame(popperctl, log, frame):
    make = corpus.FRAMES[frame]
    lines = [(at(), corpus.login("joe")), (at(), corpus.stats("joe", 1, 2, 3, 4)), (at(hours=1), corpus.failed("joe"))]
    done = popperctl("stats", "--json", log([make(*line) for line in lines]))
    assert sessions(done) == (1, 1) and done.json["first"] == at().isoformat()


def test_a_file_given_twice_counts_once(popperctl, morning):
    assert sessions(popperctl("stats", "--json", morning, morning)) == (4, 2)


def test_without_a_file_the_usual_ones_and_the_trace_are_read(popperctl, monkeypatch, log, tmp_path, morning):
    """With the directive `trace` the log is told of no session."""
    monkeypatch.setattr(logs, "PLACES", (str(morning), str(log(morning.read_bytes(), "syslog"))))
    trace = log([corpus.trace(at(), corpus.login("bob"))], "trace")
    conf = tmp_path / "popper.conf"
    conf.write_text(f"trace {trace}\n")
    done = popperctl("stats", "-C", conf, "--json")
    assert sessions(done) == (5, 2)
    assert done.json["read"]["logs"] == [str(path) for path in (morning, tmp_path / "syslog", trace)]


def test_a_mistake_in_the_configuration_is_told(popperctl, tmp_path, morning):
    (tmp_path / "popper.conf").write_text("trace nowhere\n")
    assert popperctl("stats", "-C", tmp_path / "popper.conf", morning).status == os.EX_CONFIG


def test_a_file_that_is_missing_is_told_before_anything_is_read(popperctl, morning, tmp_path):
    done = popperctl("stats", morning, tmp_path / "none")
    assert (done.status, done.out) == (os.EX_NOINPUT, "")
    assert done.err == f"popperctl: {tmp_path}/none: No such file or directory\n"


def test_a_damaged_log_is_told_and_the_rest_counts(popperctl, morning, log):
    done = popperctl("stats", "--json", morning, log(b"\x1f\x8bx", "other.gz"))
    assert (done.status, sessions(done), done.json["read"]["broken"]) == (os.EX_DATAERR, (4, 2), 1)
    assert done.err.startswith("popperctl: ") and "other.gz: " in done.err and done.err.count("\n") == 1


def program(*words, **how):
    return subprocess.run([sys.executable, "-m", "popper.admin", "stats", *map(str, words)], cwd=TREE, **how)


def test_standard_input(morning):
    with open(morning, "rb") as file:
        done = program("--json", "-", stdin=file, capture_output=True)
    assert done.returncode == 0 and json.loads(done.stdout)["totals"]["sessions"] == 4
    done = program("--json", "/dev/stdin", input=morning.read_bytes(), capture_output=True)
    assert done.returncode == 0 and json.loads(done.stdout)["totals"]["sessions"] == 4


def test_no_library_of_plots_is_loaded_without_need(morning):
    script = ("import sys; from popper.admin import main, console; main.main(['stats', sys.argv[1]], console.Console("
              "sys.stdout, sys.stderr)); print('matplotlib' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", script, morning], cwd=TREE, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nFalse\n")


def test_progress_on_a_terminal_only(log, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr("time.monotonic", iter(range(10 ** 6)).__next__)
    monkeypatch.setattr(tqdm.std, "time", iter(range(10 ** 6)).__next__)
    path = log(corpus.noise(30000))
    for terminal in True, False:
        out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
        assert main.main(["stats", str(path)], Console(out, err)) == 0
        shown = re.findall(r"reading \[[#\d ]*\] +(\d+)%", err.getvalue())
        if terminal:
            assert len(shown) >= 3 and shown[-1] == "100" and re.search(r"\r +\r$", err.getvalue())
        else:
            assert err.getvalue() == ""


# -- forms for programs ------------------------------------------------------------------------------------------------

def test_json(popperctl, morning):
    found = popperctl("stats", "--json", morning).json
    assert found["totals"] == {"users": 2, "sessions": 4, "polls": 3, "failures": 2, "probes": 1, "deleted": 3,
                               "deleted_octets": 3000, "polled_octets": 14000, "left": 5, "left_octets": 5000}
    assert found["read"] == {"logs": [str(morning)], "octets": morning.stat().st_size, "lines": 61, "odd": 0,
                             "broken": 0, "estimated": 0, "forgotten": False}
    assert [user["user"] for user in found["users"]] == ["ann", "joe", "root"]
    assert found["users"][1] == {
        "user": "joe", "sessions": 3, "polls": 3, "failures": 1, "probes": 1, "deleted": 0, "deleted_octets": 0,
        "polled_octets": 14000, "left": 5, "left_octets": 5000, "grown_octets": 1000, "grown_days": 1,
        "grown_octets_a_day": 1000, "polls_an_hour": 1.5, "addresses": 2, "last": "2026-11-16T11:00:00"}
    assert [(day["day"], day["sessions"], day["addresses"]) for day in found["days"]] == [
        ("2026-11-15", 1, 1), ("2026-11-16", 3, 3)]
    assert [(hour["day"], hour["hour"], hour["sessions"], hour["failures"]) for hour in found["hours"]] == [
        ("2026-11-15", 9, 1, 0), ("2026-11-16", 9, 2, 0), ("2026-11-16", 10, 1, 0), ("2026-11-16", 11, 0, 2)]
    assert [address["address"] for address in found["addresses"]] == ["192.0.2.66"]
    assert found["polls_by_weekday"][0][9] == 2 and found["polls_by_weekday"][6][9] == 1


def test_json_has_all_rows_unless_so_many_were_asked_for(popperctl, log):
    lines = log(corpus.busy_month(users=15))
    assert len(popperctl("stats", "--json", lines).json["users"]) > 15
    assert len(popperctl("stats", "--json", "--top", "0", lines).json["users"]) > 15
    assert len(popperctl("stats", "--json", "--top", "4", lines).json["users"]) == 4


def test_csv(popperctl, morning):
    rows = list(csv.DictReader(io.StringIO(popperctl("stats", "--csv", morning).out)))
    assert [(row["day"], row["user"], row["sessions"], row["failures"], row["left_octets"]) for row in rows] == [
        ("2026-11-15", "joe", "1", "0", "4000"), ("2026-11-16", "ann", "1", "0", "0"),
        ("2026-11-16", "joe", "2", "1", "5000"), ("2026-11-16", "root", "0", "1", "")]


def test_csv_of_many_users_comes_in_pieces(popperctl, log):
    users = [f"user{number:05}" for number in range(5000)]
    lines = log([classic(at(), corpus.stats(user, 1, 2, 3, 4), pid=number) for number, user in enumerate(users)])
    rows = list(csv.DictReader(io.StringIO(popperctl("stats", "--csv", lines).out)))
    assert [row["user"] for row in rows] == users


def samples(text):
    return {(sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def test_prometheus(popperctl, morning):
    text = popperctl("stats", "--prometheus", morning).out
    found = samples(text)
    wanted = {"popper_users": 2, "popper_sessions": 4, "popper_polls": 3, "popper_login_failures": 2,
              "popper_probes": 1, "popper_deleted_messages": 3, "popper_deleted_bytes": 3000,
              "popper_polled_bytes": 14000, "popper_left_messages": 5, "popper_left_bytes": 5000, "popper_log_lines": 61}
    assert {name: found[name,] for name in wanted} == wanted
    assert found["popper_log_begin_timestamp_seconds",] == at(days=-1).timestamp()
    assert found["popper_log_end_timestamp_seconds",] == at(hours=2).timestamp()
    assert found["popper_user_left_bytes", "joe"] == 5000 and found["popper_user_polled_bytes", "joe"] == 14000
    assert found["popper_address_login_failures", "192.0.2.66"] == 2
    assert text.endswith("\n") and all(name.startswith("popper_") for name, *_ in found)


def test_prometheus_of_nothing(popperctl, log):
    found = samples(popperctl("stats", "--prometheus", log([])).out)
    assert found["popper_sessions",] == 0 and ("popper_log_begin_timestamp_seconds",) not in found


# -- files that are replaced at once -----------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["--json", "--csv", "--prometheus"])
def test_output_has_what_would_be_printed(popperctl, morning, tmp_path, form):
    output = tmp_path / "popper.prom"
    output.write_text("old")
    os.link(output, tmp_path / "kept")
    before = set(os.listdir(tmp_path)) | {"popper.prom"}
    done = popperctl("stats", form, "--output", output, morning)
    assert (done.status, done.out, done.err) == (0, "", "")
    assert output.read_bytes() == popperctl("stats", form, morning).out.encode()
    assert set(os.listdir(tmp_path)) == before
    assert (tmp_path / "kept").read_text() == "old"          # what a reader has open stays what it was


def test_output_may_be_read_as_the_umask_says(popperctl, morning, tmp_path):
    before = os.umask(0o027)
    try:
        popperctl("stats", "--csv", "--output", tmp_path / "out", morning)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_output_follows_a_link_and_leaves_no_traces_of_trouble(popperctl, morning, tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "place" / "file")
    assert popperctl("stats", "--csv", "--output", link, morning).status == 0
    assert link.is_symlink() and (tmp_path / "place" / "file").read_text().startswith("day,user")

    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "place" / "file").write_text("old")
    done = popperctl("stats", "--csv", "--output", link, morning)
    assert (done.status, done.err) == (os.EX_CANTCREAT, f"popperctl: {link}: No space left on device\n")
    assert os.listdir(tmp_path / "place") == ["file"] and (tmp_path / "place" / "file").read_text() == "old"


@pytest.mark.parametrize("option", ["--output", "--html"])
@pytest.mark.parametrize("place, told", [("none/x", "there is no directory"), (".", "is a directory")])
def test_a_place_where_nothing_can_be_written_is_told_before_anything_is_read(popperctl, tmp_path, option, place, told):
    words = ["--csv"] * (option == "--output")
    done = popperctl("stats", *words, option, tmp_path / place, tmp_path / "no log")
    assert done.status == os.EX_CANTCREAT and done.err.startswith(f"popperctl: {tmp_path / place}: {told}")


def test_output_to_what_is_no_plain_file_is_written_as_it_comes(morning):
    done = program("--csv", "--output", "/dev/stdout", morning, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("day,user,")


# -- hostile input -----------------------------------------------------------------------------------------------------

@pytest.fixture
def hostile(log):
    return log(corpus.hostile())


@pytest.mark.parametrize("form", ["", "--json", "--csv", "--prometheus"])
@pytest.mark.parametrize("terminal", [False, True], ids=["file", "terminal"])
def test_nothing_hostile_gets_through(popperctl, hostile, form, terminal):
    done = popperctl("stats", "--top", "0", *filter(None, [form]), hostile, terminal=terminal)
    assert done.status == 0
    shown = done.out.replace("\x1b[1m", "").replace("\x1b[m", "") if terminal else done.out
    assert all(line.isprintable() for line in shown.replace("\r\n", "\n").split("\n"))
    assert form == "--prometheus" or "alert(1)" in shown


def test_hostile_names_are_told_apart_and_counted(popperctl, hostile):
    found = popperctl("stats", "--json", hostile).json
    names = {user["user"] for user in found["users"]}
    assert {"<script>alert(1)</script>", r"\x1b[31mred\x1b[m", r"\u202egnp.exe", "=cmd|'/C'!A0", "x" * 64 + "...",
            r"\xff\xfe", "joe"} <= names and len(names) == len(HOSTILE) + 1
    assert next(user for user in found["users"] if user["user"] == "joe")["left_octets"] == 10 ** 15 - 1
    assert found["read"]["odd"] >= 2


def test_a_spreadsheet_finds_no_formula(popperctl, log):
    lines = [classic(at(), corpus.stats(name)) for name in ("=1+1", "+1", "-1", "@SUM", "joe")]
    rows = csv.DictReader(io.StringIO(popperctl("stats", "--csv", log(lines)).out))
    assert sorted(row["user"] for row in rows) == ["'+1", "'-1", "'=1+1", "'@SUM", "joe"]


def test_labels_of_metrics_are_quoted(popperctl, log):
    names = ['quo"te', "back\\slash", 'x"}1\\n', "{}"]
    lines = [classic(at(), corpus.stats(name, 0, 0, 1, 5)) for name in names]
    found = samples(popperctl("stats", "--prometheus", log(lines)).out)
    assert {name for metric, *labels in found if metric == "popper_user_left_bytes" for name in labels} == set(names)


# -- the real thing ----------------------------------------------------------------------------------------------------

@pytest.mark.root
def test_a_trace_of_real_sessions(popperctl, installed, start_inetd, spool, tmp_path):
    message = b"From a@example.org Thu Nov 24 18:22:48 1996\nSubject: x\n\n" + b"x" * 500 + b"\n\n"
    spool.deliver(message * 3)
    trace = tmp_path / "trace"
    (tmp_path / "conf").write_text("fail_delay 0\n")
    server = start_inetd(installed / "sbin" / "popper", "-C", str(tmp_path / "conf"), "-st", str(trace))
    names = b"USER %s\r\nPASS %s\r\n" % (spool.name.encode(), spool.password.encode())
    for sent in (names + b"QUIT\r\n", names + b"DELE 1\r\nQUIT\r\n", names, b"USER x\x1bx\r\nPASS x\r\n",
                 b"USER joe\r\nQUIT\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as client, client.makefile("rb") as replies:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert replies.read().startswith(b"+OK ")
    wait_until(lambda: "Possible probe" in trace.read_text())        # what is counted comes before a session's end
    found = popperctl("stats", "--json", trace).json
    users = {each["user"]: each for each in found["users"]}
    assert spool.name in users, trace.read_text()        # refused, say, as the mailbox was in use
    user = users[spool.name]
    assert (user["sessions"], user["polls"], user["deleted"], user["left"]) == (3, 1, 1, 2)
    assert (found["totals"]["failures"], found["totals"]["probes"], found["read"]["odd"]) == (1, 1, 0)
