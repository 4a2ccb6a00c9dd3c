"""popperctl trace: the table of sessions, which are chosen, one of them as a screen, and what is said of mistakes."""

import datetime
import os

import pytest

from popper.admin import times
from tracing import (ADDRESS, HOST, asked, begun, deleted, ended, logged_in, opened, quitted, retrieved, session, write,
                     written)
from tracing import conf, popperctl, trace    # noqa: F401, fixtures

JOE = session(*logged_in(), 0.02, 'Received: "stat"', "+OK 3 600", *retrieved(1, 100), 0.02, *deleted(1), *quitted(
    update="Update of /var/mail/joe: 1 deleted, 2 left, in 0.024 s"))
ANN = session(*logged_in("ann", address="192.0.2.7"), 61.5, "(v0.1.0) Timeout (60 secs) during nw read from ann at "
              "192.0.2.7 (192.0.2.7)", *ended("a timeout", "ann", "192.0.2.7"), pid=4712, at=3600)
BOB = session(*begun("2001:db8::1"), *asked("bob"), "Login of bob failed: wrong password", 2.0,
              'bob at 2001:db8::1 (2001:db8::1): -ERR [AUTH] Password supplied for "bob" is incorrect.',
              '-ERR [AUTH] Password supplied for "bob" is incorrect.', *ended("a refusal", "bob", "2001:db8::1"),
              pid=4713, at=7200)
ALL = JOE, ANN, BOB


def names(done):
    """The sessions of a table."""
    return [line.split()[0] for line in done.out.splitlines()[1:]]


# -- the table ---------------------------------------------------------------------------------------------------------

def test_a_line_for_each_session(trace):
    done = trace(said=ALL)
    assert (done.status, done.err) == (0, "")
    assert done.out == """\
SESSION  START                USER  PEER         ENDED           COMMANDS  SENT  WAITED  FOR
4711     2026-11-21 12:00:00  joe   192.0.2.1    quit                   6   667    0.12  authentication
4712     2026-11-21 13:00:00  ann   192.0.2.7    timeout                2   667    61.5  client
4713     2026-11-21 14:00:00  bob   2001:db8::1  refused (AUTH)         2   667     2.0  fail_delay
"""


def test_a_program_gets_all_that_is_known(trace):
    row = trace("--json", said=ALL).json[0]
    assert row == {
        "session": "4711", "pid": 4711, "start": "2026-11-21T12:00:00", "end": "2026-11-21T12:00:00.070000",
        "seconds": 0.07, "user": "joe", "peer": ADDRESS, "host": ADDRESS, "address": ADDRESS, "logged_in": True,
        "ended": "quit", "outcome": "quit", "code": None, "commands": 6, "received": 85, "sent": 667, "longest": 0.12,
        "longest_for": "authentication",
        "waits": {"client": 0.032, "DNS": 0.0, "authentication": 0.12, "locks": 0.0, "scan": 0.01, "disk": 0.0,
                  "popper": 0.005}}


@pytest.mark.parametrize("words, found", [
    (["--user", "joe"], ["4711"]), (["--user", "jo"], []),
    (["--address", "192.0.2.7"], ["4712"]), (["--address", "192.0.2.0/24"], ["4711", "4712"]),
    (["--address", "2001:db8::/32"], ["4713"]), (["--address", "2001:0DB8::1"], ["4713"]),
    (["--address", "::ffff:192.0.2.7"], ["4712"]), (["--address", "::FFFF:c000:207"], ["4712"]),
    (["--address", "::ffff:192.0.2.0/120"], ["4711", "4712"]), (["--address", "2001:db8::1%eth0"], ["4713"]),
    (["--address", "::/0"], ["4713"]),
    (["--outcome", "quit"], ["4711"]), (["--outcome", "timeout"], ["4712"]), (["--outcome", "refused"], ["4713"]),
    (["--outcome", "AUTH"], ["4713"]), (["--outcome", "in-use"], []),
    (["--since", "2026-11-21 13:01"], ["4712", "4713"]), (["--since", "2026-11-21 13:01:02"], ["4713"]),
    (["--until", "2026-11-21T13:00"], ["4711", "4712"]), (["--until", "2026-11-21"], ["4711", "4712", "4713"]),
    (["--until", "2026-11-20"], []), (["--since", "2026-11-22"], []),
    (["--user", "ann", "--outcome", "quit"], []),
], ids=" ".join)
def test_which_sessions(trace, words, found):
    assert names(trace(*words, said=ALL)) == found


@pytest.mark.parametrize("text, at_end, when", [
    ("90m", False, "2026-11-21 13:30:00"), ("30s", False, "2026-11-21 14:59:30"), ("2h", True, "2026-11-21 13:00:00"),
    ("7d", False, "2026-11-14 15:00:00"), ("today", False, "2026-11-21 00:00:00"),
    ("today", True, "2026-11-22 00:00:00"),
    ("yesterday", True, "2026-11-21 00:00:00"), ("18:00", False, "2026-11-21 18:00:00"),
    ("18:00:01", True, "2026-11-21 18:00:01"), ("2026-11-20", False, "2026-11-20 00:00:00"),
    ("2026-11-20", True, "2026-11-21 00:00:00"), ("2026-11-20 18:00", True, "2026-11-20 18:00:00"),
])
def test_times_that_people_write(text, at_end, when):
    assert str(times.meant(text, datetime.datetime(2026, 11, 21, 15), at_end)) == when


@pytest.mark.parametrize("words, complaint", [
    (["--since", "soon"], '"soon" is no time; write 2026-11-24, "2026-11-24 18:00", 18:00, '),
    (["--since", "2026-13-01"], '"2026-13-01" is no time'), (["--until", "25:00"], '"25:00" is no time'),
    (["--since", "2026-11-21", "--until", "2026-11-20"], "--since is not before --until"),
    (["--address", "here"], '"here" is neither an address nor a network'),
    (["--outcome", "bad"], '"bad" is no outcome; there is quit, closed, timeout, '),
    (["shwo"], 'shwo: No such file or directory; did you mean "trace show"?'),
    (["show"], "expected: popperctl trace show [-C FILE] [--json] SESSION [FILE]..."),
    (["off"], "expected: popperctl trace off [-C FILE] [--json] USER..."),
    (["replay"], "expected: popperctl trace replay [-C FILE] [--password-file FILE] [--pace] [--delete] "),
    (["show", "joe"], '"joe" is no session; write 4711, or 4711@18:22:48, '),
    (["show", "4711@noon"], '"4711@noon" is no session'),
    (["replay", "4711", "localhost"], '"localhost" is not HOST:PORT'),
    (["replay", "4711", "localhost:pop3"], '"localhost:pop3" is not HOST:PORT'),
    (["replay", "4711", ":110"], '":110" is not HOST:PORT'),
    (["replay", "4711", "localhost:65536"], '"localhost:65536" is not HOST:PORT'),
    (["--jsno"], '--jsno is not an option of "trace"; did you mean --json?'),
    (["show", "--user", "joe"], '--user is not an option of "trace show"; there is --json, -C'),
    (["follow", "--since", "1h"], '--since is not an option of "trace follow"; there is --address, --json, '),
    (["--user", ""], '"" is no name of a user'), (["explain", "--user", ""], '"" is no name of a user'),
    (["--address", ""], '"" is neither an address nor a network'),
    (["explain", "--address", ""], '"" is neither an address nor a network'),
    (["follow", "--address", ""], '"" is neither an address nor a network'),
    (["show", "--pace", "1"], '--pace is not an option of "trace show"; there is --json, -C'),
])
def test_what_is_not_understood(trace, words, complaint):
    done = trace(*words, said=ALL)
    assert (done.status, done.out) == (os.EX_USAGE, "")
    assert done.err.startswith(f"popperctl: {complaint}") and done.err.count("\n") == 1


def test_nothing_has_been_traced_yet(trace, tmp_path):
    done = trace()
    assert (done.status, done.out) == (os.EX_NOINPUT, "")
    assert done.err == (f"popperctl: {tmp_path}/popper.trace: No such file or directory; popperctl trace on USER makes "
                        "one\n")


def test_a_file_that_is_not_there(trace, tmp_path):
    done = trace(tmp_path / "other", said=ALL)
    assert (done.status, done.out) == (os.EX_NOINPUT, "")
    assert done.err == f"popperctl: {tmp_path}/other: No such file or directory\n"


@pytest.mark.parametrize("words", [["joe"], ["explain", "joe"], ["explain", "joe", "--json"], ["follow", "joe"]],
                         ids=" ".join)
def test_a_user_in_the_place_of_a_file(trace, words):
    done = trace(*words, said=ALL)
    assert (done.status, done.out) == (os.EX_NOINPUT, "")
    assert done.err == "popperctl: joe: No such file or directory; for the sessions of a user: --user joe\n"


def test_a_file_that_is_named_twice_is_read_once(trace, tmp_path):
    write(tmp_path / "a.trace", JOE)
    (tmp_path / "link.trace").symlink_to("a.trace")
    again = tmp_path / "a.trace", f"{tmp_path}/./a.trace", tmp_path / "link.trace"
    assert names(trace(*again)) == ["4711"]
    assert trace("explain", *again).out.startswith("1 session;")
    assert trace("show", "4711", *again).status == 0


def test_both_traces_of_the_configuration_are_read(trace, conf, tmp_path):
    conf.write_text(conf.read_text() + f"trace {tmp_path}/all.trace\n")
    write(tmp_path / "all.trace", JOE)
    assert names(trace()) == ["4711"]
    assert names(trace(said=[ANN])) == ["4711", "4712"]


def test_files_in_any_order_are_read_the_oldest_first(trace, tmp_path):
    begins, ends = written(ANN)[:300].rpartition("\n")[0] + "\n", ""
    ends = written(ANN)[len(begins):]
    (tmp_path / "t.1").write_text(written(JOE) + begins)
    (tmp_path / "t").write_text(ends + written(BOB))
    (tmp_path / "empty").write_text("")
    done = trace("--json", tmp_path / "empty", tmp_path / "t", tmp_path / "t.1")
    assert [(row["session"], row["outcome"], row["commands"]) for row in done.json] == [
        ("4711", "quit", 6), ("4712", "timeout", 2), ("4713", "refused", 2)]


def test_names_of_sessions_whose_process_came_again(trace):
    again = session(*logged_in("eve"), *quitted("eve"), at=100)
    day_after = session(*logged_in("fay"), *quitted("fay"), at=86400)
    assert names(trace(said=[JOE, again, ANN])) == ["4711@12:00:00", "4711@12:01:40", "4712"]
    assert names(trace("--user", "eve")) == ["4711@12:01:40"]
    assert "eve from 192.0.2.1" in trace("show", "4711@12:01:40").out
    done = trace("show", "4711")
    assert (done.status, done.out) == (os.EX_DATAERR, "")
    assert done.err == ("popperctl: 4711 may be any of 2 sessions; name one of them: 4711@2026-11-21T12:00:00.000, "
                        "4711@2026-11-21T12:01:40.000\n")
    done = trace("show", "4711@12:00:00", said=[JOE, again, day_after])
    assert "any of 2 sessions" in done.err
    assert "fay from" in trace("show", "4711@2026-11-22T12:00:00").out
    assert "fay from" in trace("show", "4711@2026-11-22T12:00:00.000").out


def test_a_session_of_a_daemon(trace):
    """Its mark has the number of the daemon and one of its own; both must be given. Its process is another one."""
    one = session(*logged_in("ann"), *quitted("ann"), pid="4711.2")
    other = session("Handed to process 4799", *logged_in("bob"), *quitted("bob"), pid="4711.22", at=100)
    done = trace("--json", said=[one, other])
    assert [(row["session"], row["pid"], row["user"]) for row in done.json] == [
        ("4711.2", None, "ann"), ("4711.22", 4799, "bob")]
    assert names(trace()) == ["4711.2", "4711.22"]
    assert [line.split()[:2] for line in trace().out.splitlines()] == [
        ["SESSION", "PROCESS"], ["4711.2", "-"], ["4711.22", "4799"]]
    assert trace("show", "4711.2").out.startswith("4711.2: ann from 192.0.2.1, ")
    assert trace("show", "4711.22@12:01:40").out.startswith("4711.22, process 4799: bob from ")
    assert " 4711.2  ann from" in trace("explain", "4711.2").out
    assert " 4711.22, process 4799  bob from" in trace("explain", "4711.22").out
    done = trace("show", "4711")
    assert (done.status, done.err) == (os.EX_DATAERR,
                                       "popperctl: there is no session 4711; popperctl trace lists them\n")
    again = session(*logged_in("eve"), *quitted("eve"), pid="4711.2", at=200)
    assert names(trace(said=[one, again])) == ["4711.2@12:00:00", "4711.2@12:03:20"]
    assert "eve from" in trace("show", "4711.2@12:03:20").out


def test_a_process_that_is_only_spoken_of(trace):
    ann = session(*logged_in("ann"), 'Received: "x [4711] y"', "-ERR [4711] no [4711] ", *quitted("ann"), pid=4712)
    out = trace("show", "4711", said=[ann, JOE]).out
    assert "ann" not in out and out.count("\n") == len(JOE) + 4


def test_there_is_no_such_session(trace):
    for words in (["show", "1"], ["show", "4711@13:00:00"], ["explain", "1"], ["explain", "4711@13:00:00"]):
        done = trace(*words, said=ALL)
        assert (done.status, done.out) == (os.EX_DATAERR, "")
        assert done.err == f"popperctl: there is no session {words[1]}; popperctl trace lists them\n"


def test_colours_on_a_terminal(trace, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    done = trace(said=ALL, terminal=True)
    assert [line[:5] for line in done.out.splitlines()] == ["\x1b[1mS", "4711 ", "\x1b[33m", "\x1b[31m"]


# -- one session -------------------------------------------------------------------------------------------------------

SLOW = session(
    *begun(), 0.027, 'Received: "user joe"', "+OK Password required for joe.", 0.02, 'Received: "pass xxxxxxxxx"', 2.5,
    "Client 192.0.2.1 is mail.example.org, after 2.500 s", *opened(address=ADDRESS), 0.011,
    'Received: "foo"', '-ERR Unknown command: "foo".', *retrieved(2, 200, 200, 65.2, 64.9), 12.25,
    *deleted(2), 'Received: "quit"', 6.2, 'Locks of /var/mail/joe after 6.200 s; /var/mail/joe.lock said "4242 mx1" '
                                          'and '
    "was 3 s old", 0.024, "Update of /var/mail/joe: 1 deleted, 2 left, in 0.024 s",
    f"+OK Pop server at {HOST} signing off.", "Deleting message 2 at offset 140 of length 200",
    'joe at mail.example.org (192.0.2.1): -ERR Unknown command: "foo".', ended()[0],
    "Ended by QUIT; seconds: client 90.208, DNS 2.500, authentication 0.120, locks 6.200, scan 0.010, disk 0.024, "
    "all 99.2")


def test_the_screen_of_a_session(trace):
    done = trace("show", "4711", said=[ANN, SLOW])
    assert (done.status, done.err) == (0, "")
    assert done.out == """\
4711: joe from 192.0.2.1, 2026-11-21 12:00:00 to 12:01:26
ended by QUIT; 6 commands, 85 octets received, 667 sent
waited: client 90.208 s, locks 6.200 s, DNS 2.500 s, popper 0.300 s, authentication 0.120 s, disk 0.024 s, scan 0.010 s

12:00:00.000               (v0.1.0) Servicing request from "192.0.2.1" at 192.0.2.1
12:00:00.000               Started out of inetd; uid 0, configuration /etc/popper.conf
12:00:00.000            S: +OK UCB Pop server (version 0.1.0) at pop.example.org starting.
12:00:00.027    +0.027  C: user joe
12:00:00.027            S: +OK Password required for joe.
12:00:00.047    +0.020  C: pass xxxxxxxxx
                        -- 2.5 s, DNS --
12:00:02.547    +2.500     Client 192.0.2.1 is mail.example.org, after 2.500 s
12:00:02.547               Authentication took 0.120 s; uid = 1000, gid = 1000
12:00:02.547               Session lock of /var/mail/joe is taken
12:00:02.547               Locks of /var/mail/joe after 0.000 s
12:00:02.547               Scan of /var/mail/joe: 3 messages, 700 octets, in 0.010 s
12:00:02.547               Msg 1 [uidl aaa] at offset 0 is 100 octets long.
12:00:02.547               Msg 2 [uidl bbb] at offset 140 is 200 octets long.
12:00:02.547               Msg 3 [uidl ccc] at offset 380 is 300 octets long.
12:00:02.547               (v0.1.0) POP login by user "joe" at (192.0.2.1) 192.0.2.1
12:00:02.547            S: +OK joe has 3 message(s) (600 octets).
12:00:02.558    +0.011  C: foo
12:00:02.558            S: -ERR Unknown command: "foo".
12:00:02.558            C: retr 2
12:00:02.558            S: +OK 200 octets
                        -- 1 min 4 s, client --
12:01:07.758   +65.200     Sent 200 octets in 65.200 s, 64.900 s of it waiting for the client
                        -- 12 s, client --
12:01:20.008   +12.250  C: dele 2
12:01:20.008            S: +OK Message 2 has been deleted.
12:01:20.008            C: quit
                        -- 6.2 s, locks --
12:01:26.208    +6.200     Locks of /var/mail/joe after 6.200 s; /var/mail/joe.lock said "4242 mx1" and was 3 s old
12:01:26.232    +0.024     Update of /var/mail/joe: 1 deleted, 2 left, in 0.024 s
12:01:26.232            S: +OK Pop server at pop.example.org signing off.
12:01:26.232               Deleting message 2 at offset 140 of length 200
12:01:26.232               joe at mail.example.org (192.0.2.1): -ERR Unknown command: "foo".
12:01:26.232               (v0.1.0) Ending request from "joe" at (192.0.2.1) 192.0.2.1: 85 octets received, 667 sent
12:01:26.232               Ended by QUIT; seconds: client 90.208, DNS 2.500, authentication 0.120, locks 6.200, \
scan 0.010, disk 0.024, all 99.2
"""


def test_long_runs_are_cut_short_and_texts_left_out(trace):
    many = [(f"u{number}", number * 40, 30) for number in range(1000)]
    said = session(*logged_in(messages=many), 'Received: "retr 7"', "+OK 30 octets", 'Sending line "Subject: secret"',
                   'Sending line ""', "Sent 30 octets in 0.000 s, 0.000 s of it waiting for the client", *quitted())
    done = trace("show", "4711", said=[said])
    assert done.out.count("Msg ") == 5 and "... 995 more of these\n" in done.out
    assert "secret" not in done.out and done.out.endswith("\n\n2 lines are left out: texts of messages\n")
    document = trace("show", "4711", "--json").json
    assert document["left_out"] == 2 and sum(line["text"].startswith("Msg ") for line in document["lines"]) == 1000


def test_a_session_for_a_program(trace):
    document = trace("show", "4711", "--json", said=[SLOW]).json
    assert document["user"] == "joe" and document["outcome"] == "quit"
    assert document["lines"][3] == {"when": "2026-11-21T12:00:00.027000", "gap": 0.027, "who": "client",
                                    "text": "user joe", "waits": [{"seconds": 0.027, "for": "client"}]}
    waits = [(wait["seconds"],
              wait["for"]) for line in document["lines"] for wait in line["waits"] if wait["seconds"] > 1]
    assert waits == [(2.5, "DNS"), (64.9, "client"), (12.25, "client"), (6.2, "locks")]


def test_a_session_that_goes_on(trace):
    done = trace("show", "4711", said=[session(*logged_in())])
    assert done.out.splitlines()[1] == "its end is not in the trace; 2 commands, 0 octets received, 137 sent"
