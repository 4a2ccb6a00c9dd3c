"""popperctl trace replay: the commands of a session said again, and its replies compared."""

import contextlib
import os
import socket
import sys
import threading

import pytest

from popper.admin import replay
from popper.admin.replay import compared, is_long, octets_of, place, steps
from popper.admin.traces import Session
from tracing import (HOST, QPOPPER_4, asked, begun, deleted, ended, logged_in, opened, quitted, retrieved, session)
from tracing import conf, popperctl, trace    # noqa: F401, fixtures

GREETING = f"+OK UCB Pop server (version 0.1.0) at {HOST} starting."
HANG = object()                              # says nothing to a command, and goes on listening
LOGIN = {"user joe": "+OK Password required for joe.", "PASS secret": "+OK joe has 3 message(s) (600 octets)."}
SIGN_OFF = f"+OK Pop server at {HOST} signing off."


class Server:
    """A server that says what it was told to say, once. heard: the lines that came, in order."""

    def __init__(self, replies, greeting=GREETING):
        self.replies = replies
        self.greeting = greeting
        self.heard = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionResetError):
            connection.sendall(self.greeting.encode() + b"\r\n")
            for line in lines:
                assert line.endswith(b"\r\n")
                self.heard.append(line[:-2].decode("latin-1"))
                reply = self.replies.get(self.heard[-1], "+OK ")
                if reply is None:
                    return
                if reply is HANG:
                    continue
                if reply:
                    connection.sendall(reply.encode("latin-1") + b"\r\n")

    def close(self):
        self.thread.join(60)
        self.listener.close()


@pytest.fixture
def again(trace, tmp_path):                  # noqa: F811
    """again(said, {command: reply}, WORD...) -> Done, what the server heard: a session of these lines replayed."""
    (tmp_path / "password").write_text("secret\nnot this\n")

    def call(said, replies, *words, greeting=GREETING):
        server = Server({"quit": SIGN_OFF, **LOGIN, **replies}, greeting)
        done = trace("replay", "4711", f"127.0.0.1:{server.port}", "--password-file", tmp_path / "password", *words,
                     said=[said])
        server.close()
        return done, server.heard
    return call


# -- the dialogue ------------------------------------------------------------------------------------------------------

def test_the_same_commands_get_the_same_replies(again):
    said = session(*logged_in(), 'Received: "stat"', "+OK 3 600", *retrieved(1, 100), 'Received: "list"',
                   "+OK 3 messages (600 octets)", "Sent 20 octets in 0.000 s, 0.000 s of it waiting for the client",
                   *quitted())
    done, heard = again(said, {"stat": "+OK 3 600", "retr 1": "+OK 100 octets\r\nSubject: x\r\n..\r\n.",
                               "list": "+OK 3 messages (600 octets)\r\n1 100\r\n2 200\r\n3 300\r\n."})
    assert heard == ["user joe", "PASS secret", "stat", "retr 1", "list", "quit"]
    assert (done.status, done.err) == (0, "")
    assert done.out == f"""\
(greeting)
S: {GREETING}
C: user joe
S: +OK Password required for joe.
C: pass xxxxxxxxx
S: +OK joe has 3 message(s) (600 octets).
C: stat
S: +OK 3 600
C: retr 1
S: +OK 100 octets
C: list
S: +OK 3 messages (600 octets)
C: quit
S: {SIGN_OFF}
7 replies, none of them different
"""


def test_what_differs_and_what_may(again):
    said = session(*logged_in(), 'Received: "stat"', "+OK 3 600", 'Received: "uidl 1"', "+OK 1 aaa", 'Received: "noop"',
                   "+OK ", *quitted())
    done, _ = again(said, {"PASS secret": "+OK joe has 4 message(s) (700 octets).", "stat": "+OK 4 700",
                           "uidl 1": "+OK 1 bbb",
                           "noop": "-ERR no", "quit": "+OK Pop server at mx2 signing off."},
                    greeting="+OK UCB Pop server (version 9.9) at mx2 starting.")
    assert done.status == os.EX_DATAERR
    assert done.out == f"""\
(greeting)
S: +OK UCB Pop server (version 9.9) at mx2 starting.
   {GREETING}    in the trace: host, version
C: user joe
S: +OK Password required for joe.
C: pass xxxxxxxxx
S: +OK joe has 4 message(s) (700 octets).
   +OK joe has 3 message(s) (600 octets).    in the trace: count
C: stat
S: +OK 4 700
   +OK 3 600    in the trace: count
C: uidl 1
S: +OK 1 bbb
   +OK 1 aaa    in the trace: unique-id
C: noop
S: -ERR no
   +OK     in the trace: differs
C: quit
S: +OK Pop server at mx2 signing off.
   {SIGN_OFF}    in the trace: host
7 replies, 1 of them different
"""


def test_a_program_gets_each_pair(again):
    done, _ = again(session(*logged_in(), *quitted()), {"quit": "-ERR no"}, "--json")
    assert done.json["steps"][-1] == {"command": "quit", "then": SIGN_OFF, "now": "-ERR no", "verdict": "differs"}
    assert {key: done.json[key] for key in ("session", "differ", "trouble")} == {
        "session": "4711", "differ": 1, "trouble": None}


DELETING = session(*logged_in(), *deleted(1), *deleted(2), 'Received: "rset"',
                   "+OK Maildrop has 3 messages (600 octets)", *deleted(1), *quitted())
DELE = {f"dele {number}": f"+OK Message {number} has been deleted." for number in (1, 2)}
RSET = {"rset": "+OK Maildrop has 3 messages (600 octets)", "RSET": "+OK Maildrop has 3 messages (600 octets)"}


def test_nothing_is_deleted_unless_that_is_wanted(again):
    done, heard = again(DELETING, {**DELE, **RSET})
    assert heard[-3:] == ["dele 1", "RSET", "quit"] and done.status == 0
    done, heard = again(DELETING, {**DELE, **RSET}, "--delete")
    assert heard[-2:] == ["dele 1", "quit"] and "RSET" not in heard and done.status == 0
    _, heard = again(session(*logged_in(), *quitted()), {})
    assert "RSET" not in heard


def test_a_session_without_quit_ends_without_it(again):
    said = session(*logged_in(), *deleted(1), *ended("the client, without QUIT"))
    done, heard = again(said, DELE)
    assert heard[-2:] == ["dele 1", "RSET"] and (done.status, done.err) == (0, "")
    done, heard = again(said, DELE, "--delete")
    assert heard[-1] == "dele 1" and done.status == os.EX_DATAERR and "ended without QUIT" in done.err


@pytest.mark.parametrize("said, replies, complaint", [
    (['Received: "stat"', "+OK 3 600"], {"stat": HANG}, "no reply within "),
    (['Received: "dele 2"', "+OK Message 2 has been deleted."], {"dele 2": HANG}, "no reply within "),
    (['Received: "xtnd xmit"', "+OK Start sending the message."], {}, "XTND XMIT sends a message"),
    ([r'Received: "noop \x0d\x0adele 2"', "+OK "], {}, r'"noop \x0d\x0adele 2" has an end of a line'),
    (['Received: "retr 1"', "+OK 100 octets"], {"retr 1": "+OK 100 octets\r\n" + "x" * 70000 + "\r\ny"},
     "127.0.0.1:"),
    (['Received: "retr 1"', "+OK 100 octets"], {"retr 1": "+OK 100 octets\r\n" + "x" * 20_000_000},
     "a line without an end came"),
])
def test_whatever_ends_it_nothing_is_deleted(again, monkeypatch, said, replies, complaint):
    """A server may delete where the client goes without QUIT."""
    monkeypatch.setattr(replay, "PATIENCE", 0.3)
    done, heard = again(session(*logged_in(), *deleted(1), *said, *quitted()), {**DELE, **RSET, **replies})
    assert done.status == os.EX_DATAERR and done.err.startswith(f"popperctl: {complaint}")
    assert heard[-1] == "RSET" and "quit" not in heard


def test_nothing_is_deleted_when_it_is_interrupted(again, monkeypatch):
    tell = replay._tell

    def interrupted(row, console):
        tell(row, console)
        if row["command"] == "dele 1":
            raise KeyboardInterrupt
    monkeypatch.setattr(replay, "_tell", interrupted)
    made, serve = [], Server.__init__
    monkeypatch.setattr(Server, "__init__", lambda server, *how: (serve(server, *how), made.append(server))[0])
    with contextlib.suppress(KeyboardInterrupt):
        again(DELETING, {**DELE, **RSET})
    made[0].close()
    assert made[0].heard[-2:] == ["dele 1", "RSET"]


@pytest.mark.parametrize("reply", ["-ERR not now", None])
def test_without_rset_there_is_no_quit(again, reply):
    done, heard = again(session(*logged_in(), *deleted(1), *quitted()), {**DELE, "RSET": reply})
    assert heard[-2:] == ["dele 1", "RSET"] and done.status == os.EX_DATAERR
    assert done.err == (f"popperctl: the server did not do RSET ({reply or 'no reply'}), and would delete at QUIT, "
                        "which is left out\n")


def test_what_was_refused_needs_no_rset(again):
    said = session(*begun(), 'Received: "dele 1"', '-ERR Unknown command: "dele".', *asked(), *opened(), *quitted())
    done, heard = again(said, {"dele 1": '-ERR Unknown command: "dele".'})
    assert "RSET" not in heard and heard[-1] == "quit" and done.status == 0


@pytest.mark.parametrize("blank", [r"\x09", r"\x0b"])
def test_blanks_that_a_trace_shows_as_such_hide_nothing(again, blank):
    octet = chr(int(blank[2:], 16))
    said = session(*logged_in(), f'Received: "dele{blank}1"', "+OK gone", f'Received: "quit{blank}"', SIGN_OFF,
                   *ended())
    _, heard = again(said, {**RSET, f"dele{octet}1": "+OK gone", f"quit{octet}": SIGN_OFF})
    assert heard[-3:] == [f"dele{octet}1", "RSET", f"quit{octet}"]


def test_no_command_comes_out_of_what_a_client_wrote(again):
    """Qpopper's traces have backslashes as they came."""
    said = session("+OK Qpopper (version 4.0.5) at pop starting.", *asked(), "+OK joe has 3 message(s) (600 octets).",
                   r'Received: "NOOP \x0d\x0aDELE 1"', "+OK ", *quitted(), style=QPOPPER_4)
    _, heard = again(said, {})
    assert r"NOOP \x0d\x0aDELE 1" in heard and "DELE 1" not in heard and heard[-1] == "quit"


def test_commands_are_said_as_they_were(again):
    said = session(*logged_in(), 'Received: "FOO \\x01\\xff"', '-ERR Unknown command: "foo".',
                   'Received: "(line too long)"',
                   "-ERR Command line too long (more than 1024 octets).", 'Received: ""', '-ERR Unknown command: "".',
                   *quitted())
    _, heard = again(said, {"FOO \1\xff": '-ERR Unknown command: "foo".', "": '-ERR Unknown command: "".',
                            "x" * 1100: "-ERR Command line too long (more than 1024 octets)."})
    assert heard[2:5] == ["FOO \1\xff", "x" * 1100, ""]


def test_a_login_that_comes_out_otherwise_ends_it(again):
    done, heard = again(session(*logged_in(), 'Received: "stat"', "+OK 3 600", *quitted()),
                        {"PASS secret": '-ERR [AUTH] Password supplied for "joe" is incorrect.'})
    assert heard == ["user joe", "PASS secret"] and done.status == os.EX_DATAERR
    assert done.err == "popperctl: the login came out otherwise; what follows cannot be compared\n"
    assert done.out.endswith("3 replies, 1 of them different\n")


def test_a_login_that_was_refused_then_and_is_now(again):
    refusal = '-ERR [AUTH] Password supplied for "joe" is incorrect.'
    done, _ = again(session(*begun(), *asked(), refusal, *ended("a refusal")), {"PASS secret": refusal})
    assert (done.status, done.err) == (0, "")


def test_a_server_that_closes_ends_it(again):
    done, _ = again(session(*logged_in(), 'Received: "stat"', "+OK 3 600", *quitted()), {"stat": None})
    assert (done.status, done.err) == (os.EX_DATAERR, "popperctl: the server has closed the connection\n")
    assert "S: (nothing)\n   +OK 3 600    in the trace: differs\n" in done.out


def test_a_command_that_got_no_reply_may_get_none(again, monkeypatch):
    monkeypatch.setattr(replay, "SILENCE", 0.05)
    said = session(*logged_in(), 'Received: ""', 'Received: "stat"', "+OK 3 600", *quitted())
    done, _ = again(said, {"": "", "stat": "+OK 3 600"})
    assert done.status == 0 and "C: \nS: (nothing)\n" in done.out.replace("(greeting)", "C: ")


def test_a_server_that_says_nothing_is_not_waited_for_forever(again, monkeypatch):
    monkeypatch.setattr(replay, "PATIENCE", 0.05)
    done, _ = again(session(*logged_in(), *quitted()), {"user joe": ""})
    assert done.status == os.EX_DATAERR and done.err.startswith("popperctl: no reply within ")


def test_what_is_no_pop3_server(again, monkeypatch):
    monkeypatch.setattr(replay, "LONGEST_REPLY", 1000)
    done, _ = again(session(*logged_in(), *quitted()), {}, greeting="x" * 100000)
    assert (done.status, done.err) == (os.EX_DATAERR, "popperctl: a line without an end came: this is no POP3 server\n")


def test_nobody_is_there(trace, tmp_path):    # noqa: F811
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (tmp_path / "password").write_text("secret\n")
    done = trace("replay", "4711", f"127.0.0.1:{port}", "--password-file", tmp_path / "password",
                 said=[session(*logged_in(), *quitted())])
    assert (done.status, done.err) == (os.EX_UNAVAILABLE, f"popperctl: 127.0.0.1:{port}: Connection refused\n")
    done = trace("replay", "4711", "host.invalid:110", "--password-file", tmp_path / "password")
    assert done.status == os.EX_UNAVAILABLE and done.err.startswith("popperctl: host.invalid:110: ")


def test_mail_is_not_sent_again(again):
    said = session(*logged_in(), 'Received: "xtnd xmit"', "+OK Start sending the message.",
                   'Pop transmit from "joe" on "x": 100 octets', "+OK Message sent successfully", *quitted())
    done, heard = again(said, {})
    assert heard[-1] == "PASS secret" and done.status == os.EX_DATAERR
    assert done.err == "popperctl: XTND XMIT sends a message, whose text is not in the trace; the rest is left out\n"


def test_a_login_by_apop_is_done_by_user_and_pass(again):
    said = session(*begun()[:2], "+OK Qpopper (version 4.0.5) at pop starting.  <1.2@pop>",
                   'Received: "apop joe xxxxxxxxx"',
                   "+OK joe has 3 visible messages (0 hidden) in 600 octets.", *quitted())
    done, heard = again(said, {"USER joe": "+OK Password required for joe.",
                               "PASS secret": "+OK joe has 3 visible messages (0 hidden) in 600 octets."},
                        greeting="+OK Qpopper (version 4.0.9) at mx2 starting.  <77.88@mx2>")
    assert heard == ["USER joe", "PASS secret", "quit"] and done.status == 0
    assert "in the trace: host, process, version" in done.out


def test_what_was_refused_is_said_without_its_secret(again):
    said = session(*begun(), 'Received: "auth plain xxxxxxxxx"', '-ERR Unknown command: "auth".', *asked(), *opened(),
                   *quitted())
    done, heard = again(said, {"auth plain": "+ ", "*": '-ERR Unknown command: "auth".'})
    assert heard[:2] == ["auth plain", "*"] and done.status == 0


@pytest.mark.parametrize("words, pauses", [([], 0), (["--pace"], 2)])
def test_pauses(again, monkeypatch, words, pauses):
    slept = []
    monkeypatch.setattr(replay.time, "sleep", slept.append)
    again(session(*logged_in(), 3.5, 'Received: "stat"', "+OK 3 600", *quitted()), {"stat": "+OK 3 600"}, *words)
    assert slept == ([0.02, 0.0, 3.5, 0.0] if words else [])


def test_the_password_is_asked_for_when_there_is_one(trace, monkeypatch):     # noqa: F811
    asked_for = []
    monkeypatch.setattr(replay.getpass, "getpass", lambda prompt: asked_for.append(prompt) or "secret")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for begins, prompts in ((logged_in(), ["Password of joe: "]), (begun(), [])):
        server = Server({**LOGIN, "quit": SIGN_OFF})
        asked_for.clear()
        assert trace("replay", "4711", f"127.0.0.1:{server.port}", said=[session(*begins, *quitted())]).status == 0
        assert asked_for == prompts
        server.close()


def test_without_a_terminal_the_password_needs_a_file(trace, monkeypatch):    # noqa: F811
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    done = trace("replay", "4711", "127.0.0.1:1", said=[session(*logged_in(), *quitted())])
    assert (done.status, done.err) == (
        os.EX_USAGE, "popperctl: no terminal to ask for the password on; name a file: --password-file FILE\n")


# -- its parts ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command, then, now, verdict", [
    ("", "+OK a", "+OK a", "same"), ("noop", "+OK ", "+OK", "same"), ("stat", "+OK 3 600", "+OK 2 400", "count"),
    ("pass x", "+OK joe has 1 message (5 octets).", "+OK joe has 2 messages (5 octets).", "count"),
    ("", "+OK QPOP (version 2.53) at a.b.c starting.  <12.34@a.b.c>", "+OK QPOP (version 2.5) at d starting.  <5.6@d>",
     "host, process, version"),
    ("uidl 1", "+OK 1 aaa", "+OK 1 b-b.b", "unique-id"), ("UIDL 1", "+OK 1 12", "+OK 1 34", "unique-id"),
    ("uidl 1", "+OK 1 aaa", "+OK 2 aaa", "count"),
    ("stat", "+OK 3 600", "-ERR 3 600", "differs"), ("stat", "+OK 3 600", "", "differs"),
    ("stat", "", "+OK", "differs"),
    ("retr 1", "-ERR [IN-USE] x", "-ERR [AUTH] x", "differs"), ("retr 1", "-ERR [IN-USE] x", "-ERR x", "differs"),
    ("noop", "+OK no big woop", "+OK", "differs"), ("stat", "+OK 3 600", "+OK 3 x", "differs"),
    ("quit", "+OK bye at home", "+OK bye at 1234", "differs"),
    ("quit", "+OK bye to home", "+OK bye to work", "differs"),
    ("stat", "+OK 3, 600", "+OK 3; 600", "differs"), ("stat", "+OK  3 600", "+OK 3 600", "differs"),
])
def test_two_replies_compared(command, then, now, verdict):
    assert compared(command, then, now) == verdict


@pytest.mark.parametrize("command, octets", [
    ("user joe", b"user joe"), (r"a\x01\xff\x5c", b"a\1\xff\\"), (r"\xZZ\x", rb"\xZZ\x"),
    ("caf\u00e9 \u20ac", b"caf\xe9 ?")])
def test_what_the_client_sent(command, octets):
    assert octets_of(command) == octets


@pytest.mark.parametrize("octet", ["00", "0a", "0d"])
def test_what_is_more_than_a_line_is_not_sent(octet):
    with pytest.raises(replay.Trouble):
        octets_of(rf"noop \x{octet}dele 1")
    assert octets_of(rf"noop \x{octet}dele 1", False) == rb"noop \x" + octet.encode() + b"dele 1"


def test_octets_in_a_trace_of_qpopper():
    assert octets_of(r"user j\xf6\x5c", False) == b"user j\xf6\\x5c"


def test_which_replies_are_long():
    for command in ("retr 1", "TOP 1 5", "capa", "list", "UIDL", "euidl", "auth", "xtnd XLST subject",
                    "xtnd xlist from 1"):
        assert is_long(command), command
    for command in ("list 1", "uidl 1", "stat", "xtnd xmit", "auth plain", "", "quit", "listing"):
        assert not is_long(command), command


def test_servers():
    assert place("mx.example.org:110") == ("mx.example.org", 110) and place("[::1]:1110") == ("::1", 1110)


def said_in(*said, style=None):
    one = Session("1", 0.0, style is None, True)
    for text in said:
        if isinstance(text, str):
            one.take(0.0, text)
    return [(step.command, step.reply) for step in steps(one)]


def test_the_steps_of_a_session():
    assert said_in(*begun(), *asked(), *opened(), 'Received: "retr 1"', "+OK 100 octets", *quitted()) == [
        ("", GREETING), ("user joe", "+OK Password required for joe."),
        ("pass xxxxxxxxx", "+OK joe has 3 message(s) (600 octets)."), ("retr 1", "+OK 100 octets"), ("quit", SIGN_OFF)]


def test_a_message_that_could_not_be_opened_was_never_announced():
    assert said_in(GREETING, 'Received: "retr 1"', "+OK 100 octets", "joe at x (x): -ERR [SYS/TEMP] no (why)",
                   "-ERR [SYS/TEMP] no")[1:] == [("retr 1", "-ERR [SYS/TEMP] no")]


def test_qpopper_tells_itself_what_it_tells_nobody():
    assert said_in("+OK QPOP", 'Received: "stat"', "joe at pc (192.0.2.1): -ERR no", "-ERR POP EOF received",
                   "+OK Pop server at pop signing off.", style=QPOPPER_4)[1:] == [("stat", "-ERR no")]
