"""Lines to sessions: every style of trace, packed or not, and whatever else may stand in a file."""

import bz2
import gzip
import io
import lzma
import tracemalloc
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper.admin import main, tracelines, traces
from popper.admin.console import Console
from popper.admin.tracelines import Reading, clock, instant, lasting, moment
from popper.admin.traces import Sessions, sessions
from tracing import (ADDRESS, NOON, OURS, QPOPPER_2, QPOPPER_4, asked, begun, ended, logged_in, opened, quitted,
                     retrieved, session, stamp, write, written)
from tracing import conf, popperctl, trace    # noqa: F401, fixtures

QPOPPER_SESSION = [
    'Tracing session and debugging information in file "/tmp/t"', '(v2.53) Servicing request from "pc" at 192.0.2.1',
    "+OK QPOP (version 2.53) at pop.example.org starting.  <4711.1164110000@pop.example.org>", 3,
    'Received: "user joe"', "+OK Password required for joe.", 'Received: "pass xxxxxxxxx"', "uid = 1000, gid = 1000",
    "Msg 1 [uidl aaa] at offset 0 is 100 octets long and has 7 lines.", "+OK joe has 1 message (100 octets).", 5,
    'Received: "retr 1"', "+OK 100 octets", 'Sending line "Subject: x"', 'Sending line ""', 1,
    'Received: "bogus"', 'joe at pc (192.0.2.1): -ERR Unknown command: "bogus".']
QPOPPER_QUIT = ['Received: "quit"', "+OK Pop server at pop.example.org signing off.",
                '(v2.53) Ending request from "joe" at (pc) 192.0.2.1']


def read(path, keeps=False):
    reading = Reading([str(path)])
    return list(sessions(reading, Sessions(lambda mark: keeps))), reading


def one(tmp_path, *said, keeps=False, **how):
    """The only session that these lines make."""
    (found,), reading = read(write(tmp_path / "t", session(*said, **how)), keeps)
    assert reading.odd == 0
    return found


# -- styles ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("style", [QPOPPER_2, QPOPPER_4])
def test_qpoppers_trace(tmp_path, style):
    found = one(tmp_path, *QPOPPER_SESSION, *QPOPPER_QUIT, style=style, keeps=True)
    assert (found.user, found.host, found.address, found.outcome) == ("joe", "pc", "192.0.2.1", "quit")
    assert (found.commands, found.longest, found.seconds) == (5, (5.0, "client"), 9.0)
    assert found.sent == sum(len(line) + 2 for line in QPOPPER_SESSION + QPOPPER_QUIT
                             if isinstance(line, str) and line.startswith("+OK")) + 100
    assert [text for _, text in found.lines][-1] == '(v2.53) Ending request from "joe" at (pc) 192.0.2.1'
    assert found.left_out == 2 and not found.ours


@pytest.mark.parametrize("said, outcome, code", [
    (['joe at pc (192.0.2.1): -ERR POP timeout from pop', *QPOPPER_QUIT[1:]], "timeout", ""),
    (["-ERR POP EOF received", *QPOPPER_QUIT[1:]], "closed", ""),
    (["joe@pc: -ERR POP hangup from pop", *QPOPPER_QUIT[1:]], "signal", ""),
    (["(v4.0.5) Timeout (120 secs) during nw read from joe at pc (192.0.2.1)", *QPOPPER_QUIT[2:]], "timeout", ""),
    (QPOPPER_QUIT[2:], "unknown", ""), ([], "open", ""),
])
def test_how_a_session_of_qpoppers_ended(tmp_path, said, outcome, code):
    found = one(tmp_path, *QPOPPER_SESSION, *said, style=QPOPPER_4)
    assert (found.outcome, found.code) == (outcome, code)


@pytest.mark.parametrize("refusal, code", [
    ('Password supplied for "joe" is incorrect.', "AUTH"), ('[AUTH] Password supplied for "joe" is incorrect.', "AUTH"),
    ("/var/mail/.joe.pop lock busy!  Is another session active? (11)", "IN-USE"),
    ("Maildrop being unlocked; try again.", "IN-USE"), ("[SYS/PERM] Temporary drop x not owned by joe.", "SYS/PERM")])
def test_a_refusal_of_qpoppers_has_the_code_that_it_would_have_today(tmp_path, refusal, code):
    found = one(tmp_path, *QPOPPER_SESSION[:6], 'Received: "pass xxxxxxxxx"', f"joe at pc (192.0.2.1): -ERR {refusal}",
                *QPOPPER_QUIT[1:], style=QPOPPER_2)
    assert (found.outcome, found.code) == ("refused", code)


@pytest.mark.parametrize("ended_by, outcome", [
    ("by QUIT", "quit"), ("by the client, without QUIT", "closed"), ("by a timeout", "timeout"),
    ("by a signal 15", "signal"), ("by a signal", "signal"), ("by a refusal", "refused"),
    ("by an error of ours", "error"), ("by the maildrop", "maildrop"), ("with the maildrop", "maildrop"),
    ("by magic", "unknown")])
def test_how_a_session_of_poppers_ended(tmp_path, ended_by, outcome):
    found = one(tmp_path, *logged_in(), f"Ended {ended_by}; client 12.345 s, DNS 0.003, locks 1.000, all 12.6")
    assert found.outcome == outcome
    assert [found.waits[what] for what in ("client", "DNS", "locks")] == [12.345, 0.003, 1.0]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda octets: octets])
def test_packed_files(tmp_path, pack):
    (tmp_path / "t").write_bytes(pack(written(session(*logged_in(), *quitted())).encode()))
    (found,), _ = read(tmp_path / "t")
    assert found.outcome == "quit"


def test_a_packed_file_that_was_cut_off(trace, tmp_path):
    whole = gzip.compress(written(session(*logged_in(), *quitted()), session(*begun(), pid=1)).encode())
    (tmp_path / "t.gz").write_bytes(whole[:-20])
    done = trace(tmp_path / "t.gz")
    assert done.status == 65 and "what came before that is there" in done.err


def test_standard_input(trace, monkeypatch, tmp_path):
    write(tmp_path / "t", session(*logged_in(), *quitted()))
    with open(tmp_path / "t", "rb") as file:
        monkeypatch.setattr(tracelines.logs, "open", lambda name, *rest, **how: file, raising=False)
        assert " quit " in trace("-").out


def test_lines_of_many_sessions_are_told_apart(tmp_path):
    many = [session(*logged_in(f"u{pid}"), pid / 1000, *retrieved(1, pid), *quitted(f"u{pid}"), pid=pid, at=pid / 9)
            for pid in range(1, 200)]
    found, reading = read(write(tmp_path / "t", *many))
    assert sorted((each.process, each.user, each.commands, each.outcome) for each in found) == [
        (pid, f"u{pid}", 4, "quit") for pid in range(1, 200)]
    assert reading.lines == sum(map(len, many)) and reading.octets == (tmp_path / "t").stat().st_size


# -- where a session begins and ends -----------------------------------------------------------------------------------

LATE = session('Tracing session of "joe" in file "/t"', -9.5, *logged_in(), *quitted(), pid="4711.3", at=69.5)


def test_a_session_begins_with_its_earliest_line(tmp_path, trace):          # noqa: F811
    """Of which it is known only later that it is to be traced, the first line is written before those it noted."""
    (found,), _ = read(write(tmp_path / "t", LATE))
    assert (clock(found.begun, found.begun), round(found.seconds, 3)) == ("12:01:00", 0.02)
    other = session(*logged_in("ann"), *quitted("ann"), pid="4711.3", at=600)
    (tmp_path / "popper.trace").write_text(written(LATE) + written(other))
    rows = trace("--json").json
    assert [(row["session"], row["start"]) for row in rows] == [
        ("4711.3@12:01:00", "2026-11-21T12:01:00"), ("4711.3@12:10:00", "2026-11-21T12:10:00")]
    assert len(trace("--json", "--until", "2026-11-21 12:01:05").json) == 1
    shown = trace("show", "4711.3@12:01:00").out
    assert "C: user joe" in shown and " -- " not in shown and shown.splitlines()[4].startswith("12:01:09.500    ")
    assert "+" not in shown.splitlines()[4][:24]
    assert " joe from " in trace("explain", "4711.3@12:01:00").out
    assert trace("show", "4711.3@12:01:09").status == 65


def test_a_process_number_that_comes_again(tmp_path):
    first, second = session(*logged_in(), *quitted()), session(*logged_in("ann"), *quitted("ann"), at=60)
    found, _ = read(write(tmp_path / "t", first, second))
    assert [(each.user, each.outcome) for each in found] == [("joe", "quit"), ("ann", "quit")]


@pytest.mark.parametrize("preamble", [
    [], ["Debugging turned on"], ['Tracing session and debugging information in file "/t"']])
def test_a_process_that_was_killed_and_whose_number_comes_again(tmp_path, preamble):
    first, second = session(*logged_in()), session(*preamble, *logged_in("ann"), *quitted("ann"), at=60)
    found, _ = read(write(tmp_path / "t", first, second), keeps=True)
    assert [(each.user, each.outcome, len(each.lines)) for each in found] == [
        ("joe", "open", len(first)), ("ann", "quit", len(second))]


def test_a_session_whose_beginning_is_not_in_the_trace(tmp_path):
    found = one(tmp_path, 'Received: "quit"', *ended())
    assert (found.user, found.outcome) == ("joe", "quit")


def test_the_trace_of_one_user_says_so_in_the_middle_of_it(tmp_path):
    found = one(tmp_path, *begun(), *asked(), 'Tracing session of "joe" in file "/t"', *opened(), *quitted())
    assert found.commands == 3


def test_a_session_in_which_nothing_was_received(tmp_path):
    found = one(tmp_path, *begun(),
                f'(v0.1.0) Ending request from "(null)" at ({ADDRESS}) {ADDRESS}: 0 octets received, 65 sent',
                "Ended by the client, without QUIT; seconds: client 0.049, all 0.050")
    assert (found.user, found.outcome, found.sent) == ("", "closed", 65)


def test_what_a_daemon_says_is_no_session(tmp_path):
    found, reading = read(write(tmp_path / "t", session("Listening on 0.0.0.0:110", "connection refused: too many")))
    assert (found, reading.odd) == ([], 0)


def test_the_end_of_an_older_poppers_session_may_be_the_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "MOST_ENDING", 3)
    many = [session(*logged_in(), 'Received: "quit"', ended()[0], pid=pid, at=pid) for pid in range(1, 20)]
    table = Sessions()
    for line in Reading([str(write(tmp_path / "t", *many))]):
        table.add(*line)
        assert len(table.open) <= 5
    assert {each.outcome for each in table.ended} == {"quit"}


@pytest.mark.parametrize("complaint", [
    "(v0.1.0) Unable to get canonical name of client 192.0.2.1: no answer in time",
    'Client at "192.0.2.1" resolves to an unknown host name "x.example.org"',
    'Client address "192.0.2.1" not listed for its host name "x.example.org"'])
@pytest.mark.parametrize("style", [OURS, QPOPPER_4])
def test_a_complaint_about_a_name_comes_from_dns(tmp_path, complaint, style):
    """popper says in the next line how long it took; the pause before the complaint is no other wait."""
    took = ["Client 192.0.2.1 has no name to go by, after 4.000 s"] if style == OURS else []
    found = one(tmp_path, *begun(), *asked(), 4.0, complaint, *took, *opened(), *quitted(), style=style)
    assert (found.longest, found.waits.get("popper", 0)) == ((4.0, "DNS"), 0)


def test_sessions_of_a_daemon_have_a_number_of_their_own(tmp_path):
    """All have its process in their mark; 4711.2 is none of 4711.22's, 4711's or 711.2's."""
    marks = ("4711.2", "4711.22", "4711", "711.2", "4711.0", "1.9999999999")
    found, reading = read(write(tmp_path / "t", *[
        session(*logged_in(f"u{place}"), *quitted(f"u{place}"), pid=mark) for place, mark in enumerate(marks)]))
    assert reading.odd == 0
    assert {each.mark: (each.user, each.commands, each.outcome) for each in found} == {
        mark: (f"u{place}", 3, "quit") for place, mark in enumerate(marks)}
    assert {each.mark: each.process for each in found} == {
        "4711": 4711, **dict.fromkeys((mark for mark in marks if "." in mark))}


def names_of(*marks):
    """What sessions are called that had these marks, one after the other."""
    table = Sessions()
    for when, mark in enumerate(marks):
        table.add(when, mark, '(v1) Servicing request from "x" at 192.0.2.1')
        table.add(when, mark, "Ended by QUIT")
    return [table.name(each) for each in table.ended]


def test_names_of_sessions_whose_mark_came_again(monkeypatch):
    """A daemon in a container is process 1 every time it is started."""
    assert names_of("1.1", "1.2", "1", "2.1", "1.1") == ["1.1@00:00:00", "1.2", "1", "2.1", "1.1@00:00:04"]
    # where nothing can be remembered of a number, its time is told as well
    assert names_of("1.4194304", "5") == ["1.4194304@00:00:00", "5"]
    monkeypatch.setattr(traces, "MOST_MET", 10)
    assert names_of("1.20", "2.20", "1.7", "1.7") == ["1.20", "2.20@00:00:01", "1.7@00:00:02", "1.7@00:00:03"]


@pytest.mark.parametrize("mark", ["4711.", ".2", "4711.2.3", "4711.x", "4711.12345678901", "4711,2"])
def test_what_is_no_mark(tmp_path, mark):
    found, reading = read(write(tmp_path / "t", session("+OK", pid=mark)))
    assert (found, reading.odd) == ([], 1)


def test_sessions_without_end_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "MOST_OPEN", 10)
    table = Sessions()
    for line in Reading([str(write(tmp_path / "t", *[session(*begun(), pid=pid, at=pid) for pid in range(1, 50)]))]):
        table.add(*line)
        assert len(table.open) <= 10
    assert len(table.ended) == 39


def test_lines_that_are_kept_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "MOST_LINES", 100)
    found = one(tmp_path, *logged_in(), *['Received: "noop"', "+OK "] * 500, *quitted(), keeps=True)
    assert (len(found.lines), found.commands, found.outcome) == (100, 503, "quit")
    assert found.left_out == len(session(*logged_in(), *quitted())) + 1000 - 100


def test_memory_does_not_grow_with_the_file(monkeypatch):
    said = [line.partition("] ")[2].rstrip().encode() for _, line in session(*logged_in(), *quitted())]
    monkeypatch.setattr(traces, "MOST_ENDING", 10)

    def peak(count):
        tracemalloc.start()
        for _ in sessions(((0.0, str(number + 1), str(text, "utf-8"), True) for number in range(count) for text in said),
                          Sessions()):
            pass
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak(2000) < peak(100) + 20000


# -- waits -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("said, longest", [
    ([7, 'Received: "stat"'], (7.0, "client")),
    (['Received: "stat"', 7, "+OK 3 600"], (7.0, "popper")),
    (['Received: "retr 1"', "+OK 100 octets", 9, "Sent 100 octets in 9.000 s, 8.000 s of it waiting for the client"],
     (8.0, "client")),
    (['Received: "retr 1"', "+OK 100 octets", 9, "Sent 100 octets in 9.000 s, 1.000 s of it waiting for the client"],
     (8.0, "popper")),
    ([7, "Client 192.0.2.1 has no name to go by, after 5.000 s"], (5.0, "DNS")),
    ([7, "Authentication took 4.000 s; uid = 1000, gid = 1000"], (4.0, "authentication")),
    ([7, "Scan of /var/mail/joe: 3 messages, 700 octets, in 6.000 s"], (6.0, "scan")),
    ([7, "Update of /var/mail/joe: failed, in 6.000 s"], (6.0, "disk")),
    ([7, 'Locks of /var/mail/joe after 6.000 s; /x said "after 9.000 s" and was 1 s old'], (6.0, "locks")),
    (["Login of joe failed: wrong password", 2, 'joe at x (x): -ERR [AUTH] Password supplied for "joe" is incorrect.'],
     (2.0, "fail_delay")),
    ([60, "(v0.1.0) Timeout (60 secs) during nw read from joe at x (x)"], (60.0, "client")),
    ([60, "joe at x (x): -ERR POP EOF or I/O Error"], (60.0, "client")),
    (['Received: "xtnd xmit"', "+OK Start sending the message.", 8, 'Pop transmit from "joe" on "x": 100 octets'],
     (8.0, "client")),
])
def test_for_whom_was_waited(tmp_path, said, longest):
    assert one(tmp_path, *begun(), *asked(), *said).longest == longest


def test_what_popper_adds_up_itself_is_believed(tmp_path):
    found = one(tmp_path, *begun(), *asked(), "Login of joe failed: wrong password", 2, "-ERR [AUTH] no",
                "Ended by a refusal; seconds: client 0.100, DNS 0.000, authentication 2.001, all 2.2")
    assert found.waits == {"client": 0.1, "DNS": 0.0, "authentication": 2.001}
    assert found.longest == (2.0, "fail_delay")


HELD = [*begun(), *asked(), "Too many logins failed: this one waits for 3.9 s", 3.93]
TAKING_LONG = "Ended by QUIT; seconds: client 0.030, DNS 0.000, authentication {}, locks 0.000, all 4.300"


@pytest.mark.parametrize("pid, said, authentication", [
    (4711, ["Authentication took 4.050 s; uid = 1000, gid = 1000", *opened()[1:]], 4.05),
    ("4700.7", ["Handed to process 4812", *opened()], 0.12),
    (4711, ["[AUTH] Failed attempted login to joe from host (x) x", "Login of joe failed: wrong password",
            'joe at x (x): -ERR [AUTH] Password supplied for "joe" is incorrect.'], 4.05)],
    ids=["inetd", "daemon", "wrong again"])
def test_a_login_that_is_held_back_waits_for_guessers(tmp_path, pid, said, authentication):
    """Without a daemon popper's own sums have that wait in them."""
    for end in ([], ended()[:1], [TAKING_LONG.format(f"{authentication:.3f}")]):
        found = one(tmp_path, *HELD, *said, *end, pid=pid)
        assert found.longest == (pytest.approx(3.9), "guessers") and found.waits["guessers"] == pytest.approx(3.9)
        assert found.waits.get("authentication", 0.0) < 0.2 and found.waits.get("popper", 0.0) < 0.05


def test_a_login_that_is_held_back_more_than_once_or_gives_up(tmp_path):
    found = one(tmp_path, *HELD, "Too many logins failed: this one waits for 4.0 s", 4.0, "Handed to process 4812",
                *opened(), pid="4700.7")
    assert found.waits["guessers"] == pytest.approx(7.9, abs=0.05)
    found = one(tmp_path, *HELD[:-1], 1.5, "joe at x (x): -ERR POP EOF or I/O Error", pid="4700.7")
    assert found.waits == {"guessers": pytest.approx(1.5)}


def test_what_is_written_late_hides_no_wait(tmp_path):
    """What DNS said is written when it is asked for, in front of what was noted before: the pause falls there."""
    found = one(tmp_path, *begun(), 5.02,
                "(v0.1.0) Unable to get canonical name of client 192.0.2.1: no answer in time",
                "Client 192.0.2.1 has no name to go by, after 0.001 s", -0.002,
                "(v0.1.0) Timeout (5 secs) during nw read from (null) at x (x)",
                "Ended by a timeout; seconds: client 5.019, DNS 0.001, authentication 0.000, all 5.020")
    assert found.longest == (5.019, "client") == (found.waits["client"], "client")
    found = one(tmp_path, *logged_in(), *[0.2, 'Received: "noop"', "+OK "] * 9, *ended()[:1],
                "Ended by QUIT; seconds: client 1.800, DNS 0.000, all 1.9")
    # a sum of pauses that are all there is no wait
    assert found.longest == (pytest.approx(0.2, abs=1e-4), "client")


def test_a_clock_that_goes_back_makes_no_wait(tmp_path):
    found = one(tmp_path, *logged_in(), -3600, 'Received: "stat"', "+OK 3 600", 2, *quitted())
    assert found.longest == (2.0, "client") and found.seconds == 2.0 and found.outcome == "quit"


# -- what else may stand there -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("octets, odd", [
    (b"", 0), (b"\n", 0), (b"\n\n\n", 0), (b"garbage\n", 1), (b"no end", 1), (b"\0" * 5000, 1),
    (b"Sat Nov 21 12:00:00 2026 \n", 0), (b"Nov 21 12:00:00.123 2026\n", 0), (b"Sat Foo 21 12:00:00 2026 [1] x\n", 1),
    (b"Sat Nov 31 12:00:00 2026 [1] x\n", 1), (b"Sat Nov 21 24:00:00 2026 [1] x\n", 1),
    (b"Sat Nov 21 23:59:60 2026 [1] x\n", 0), (b"Sat Nov 21 12:00:00.5 0000 [1] x\n", 1),
    (b"Fri Dec 31 23:59:60.999999 9999 [1] x\n", 1), (b"Sat Nov 21 12:00:00.123 2026 [99999999999] x\n", 1),
    (b"Sat Nov 21 12:00:00.123 2026 [-1] x\n", 1), (b"Sat Nov 21 12:00:00.123 2026 [9999999999] x\n", 0),
    (b"Sat Nov 21 12:00:00.123 2026 [1] \n", 0), (b"Sat Nov 21 12:00:00.123 2026 [1]\n", 1),
    ("Sat Nov 21 12:00:00.123 2026 [\u0661] x\n".encode(), 1), (b"x" * 3000000 + b"\n", 0),
], ids=lambda value: "" if isinstance(value, bytes) else str(value))
def test_what_is_no_line_is_counted(tmp_path, octets, odd):
    good = written(session(*logged_in(), *quitted())).encode()
    for order in (good + octets, octets + (b"" if octets.endswith(b"\n") else b"\n") + good):
        (tmp_path / "t").write_bytes(order)
        found, reading = read(tmp_path / "t")
        assert [each.outcome for each in found if each.process == 4711] == ["quit"]
        assert reading.odd == odd


def test_how_many_lines_were_left_out_is_told(trace, tmp_path):
    (tmp_path / "t").write_text("junk\n" + written(session(*logged_in(), *quitted())) + "junk\n")
    done = trace(tmp_path / "t")
    assert done.status == 0 and done.err.endswith("2 of 21 lines are none of a trace, and were left out\n")


def test_quoted_lines_are_what_the_client_said_and_no_more(tmp_path):
    forged = 'Received: "x" [1] (v0.1.0) Ending request from "joe" at (x) x: 1 octets received, 1 sent"'
    found = one(tmp_path, *logged_in(), forged, 'Received: "+OK Ended by QUIT"', 'Received: "joe at x (x): -ERR [AUTH] '
                                                                                 'x"',
                *quitted(), keeps=True)
    assert (found.commands, found.code, found.outcome) == (6, "", "quit")


@pytest.mark.parametrize("name", ["Sent", "Client", "Received:", "Scan", "Locks", "Update", "Ended", "Msg", "Pop",
                                  "Session"])
def test_names_that_look_like_the_beginning_of_a_line(tmp_path, name):
    found = one(tmp_path, *begun(), *asked(name), f"{name} at x (192.0.2.1): -ERR [SYS/TEMP] no", *ended("a refusal",
                                                                                                         name))
    assert (found.user, found.code, found.outcome) == (name, "SYS/TEMP", "refused")


HOSTILE = ["\x1b[2J\x1b]0;owned\x07", "\x00\x01\x7f\x9b31m", "\u202egnp.exe", "\ud800", "x" * 20000, '" "" \\',
           "%s%n{0}"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("words", [[], ["show", "4711"], ["explain"], ["explain", "4711"]], ids=" ".join)
@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_raw_reaches_a_terminal(trace, tmp_path, text, words, as_json):
    octets = written(session(
        *begun(), f'Received: "user {text}"', f"+OK Password required for {text}.",
        f'Client 192.0.2.1 is {text}, after 3.000 s',
        f"Login of {text} failed: {text}", f"{text} at {text} ({text}): -ERR [IN-USE] {text} ({text})",
        f"-ERR [IN-USE] {text}",
        f'Locks of {text} after 9.000 s; {text} said "{text}" and was 1 s old', text, f'Received: "{text}"',
        f"-ERR {text}",
        f'(v0.1.0) Ending request from "{text}" at ({text}) {text}: 1 octets received, 1 sent', f"Ended by {text}"))
    (tmp_path / "popper.trace").write_bytes(octets.encode("utf-8", "surrogatepass"))
    done = trace(*words, *(["--json"] if as_json else []), terminal=True)
    assert done.status == 0
    for line in (done.out + done.err).replace("\x1b[m", "").split("\n"):
        for colour in ("\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\r\x1b[K"):
            line = line.replace(colour, "")
        assert line.isprintable(), line


WORDS = st.sampled_from(["Received: \"", "user joe\"", "pass xxx\"", "retr 1\"", "+OK ", "-ERR ", "[IN-USE] ",
                         "100 octets", "Sent 5 octets",
                         " in 1.000 s, 0.500 s of it waiting for the client", "Ended by ", "QUIT", "; client 1.000 s",
                         "\r",
                         '(v0.1.0) Servicing request from "x" at 192.0.2.1', "Msg 1 [uidl a] at offset 0 is 5 octets "
                                                                             "long",
                         '(v1) Ending request from "j" at (h) 1.2.3.4', ": 1 octets received, 2 sent", "joe at x (y): ",
                         "Locks of /m after 3.000 s", '; /m.lock said "1 x" and was 9 s old', "Login of joe failed: ",
                         "(v0.1.0) Timeout (60 secs) during nw write from ", "lock busy", "no envelope line at octet 5",
                         "Sending line ", "x\"", "\x1b", "\ufffd", "\0", "0" * 30, "Update of /m: failed, in 9.000 s"])
ANYTHING = st.lists(st.tuples(st.sampled_from(["0", "1", "2", "1.1", "1.2", "0.9999999999"]), st.integers(-100, 100),
                               st.lists(WORDS, max_size=5).map("".join)),
                    max_size=40)


@settings(deadline=None)
@given(ANYTHING, st.binary(max_size=60))
def test_no_trace_is_too_odd(said, rest):
    lines = "".join(f"{stamp(seconds, style)} [{mark}] {text}\n" for (mark, seconds, text), style in
                    zip(said, [OURS, QPOPPER_2, QPOPPER_4, OURS] * 10))
    octets = rest + b"\n" + lines.encode("utf-8", "replace")
    for words in ([], ["explain"], ["show", "1"], ["show", "1.1"], ["explain", "2"]):
        out, err = io.StringIO(), io.StringIO()
        source = types.SimpleNamespace(name="t", size=0)
        status = _with_octets(octets, source, ["trace", *words, "-C", "/dev/null", "-"], Console(out, err))
        assert status in (0, 65), err.getvalue()
        assert all(line.isprintable() for line in (out.getvalue() + err.getvalue()).split("\n"))


def _with_octets(octets, source, words, console):
    """popperctl with these octets as standard input."""
    class Opened:
        def __enter__(self):
            return io.BytesIO(octets).read, lambda: 0

        def __exit__(self, *_):
            pass
    before = tracelines.logs.opened
    tracelines.logs.opened = lambda *_: Opened()
    try:
        return main.main(words, console)
    finally:
        tracelines.logs.opened = before


# -- times -------------------------------------------------------------------------------------------------------------

@given(st.datetimes(min_value=NOON.replace(year=1970), max_value=NOON.replace(year=9990)))
def test_a_time_is_a_date_and_back(when):
    when = when.replace(microsecond=when.microsecond // 1000 * 1000)
    assert moment(instant(when)) == when


def test_times_for_people():
    noon = instant(NOON)
    assert clock(noon, noon) == "12:00:00" and clock(noon, noon - 86400) == "2026-11-21 12:00:00"
    assert [lasting(seconds) for seconds in (0, 0.04, 1.25, 9.94, 9.96, 59.4, 60, 3599, 3600, 90061)] == [
        "0.0 s", "0.0 s", "1.2 s", "9.9 s", "10 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 1 min"]
