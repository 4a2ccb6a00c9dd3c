"""What the log and the trace say of lines and replies, whoever speaks: once, at the right time, and no password."""

from types import SimpleNamespace

import pytest

from popper import VERSION
from popper.account import Credentials
from popper.conversation import Conversation, text_of
from popper.errors import AUTH, TEMPORARY, Flooded, Refused
from popper.journal import Notes
from popper.session import HALT, PASS, USER
from popper.wire import LONGEST_FLOOD, LONGEST_LINE, TOO_LONG, Reply

HOST = "pop.example.org"
WHO = "(null) at pc.example.org (192.0.2.1)"


def talk(debugging=False, introduce=lambda: None):
    return Conversation(HOST, SimpleNamespace(name="pc.example.org", address="192.0.2.1"), Notes(debugging), introduce)


def texts(one):
    return [text for _, _, text in one.log.take()]


def end(one):
    one.end(12, 345, {"client": 1.25, "DNS": 0.5}, 2.0)
    return texts(one)


def say(one, octets):
    """Feed octets and answer all lines; -> what was answered"""
    one.lines.feed(octets)
    replies = []
    while (line := one.line()) is not None:
        reply = one.answer(line)
        if isinstance(reply, Reply):
            one.record(reply)
        replies.append(reply)
    return replies


def test_a_good_session_is_silent():
    one = talk()
    one.record(one.greeting("by the tests"))
    assert [reply.ok for reply in say(one, b"CAPA\r\nUSER mrose\r\n")] == [True, True]
    assert end(one) == []


@pytest.mark.parametrize("line", [b"\0PASS tanstaaf", b"PASS:tanstaaf", b"PASS\xa0tanstaaf", b"tanstaaf",
                                  b"AG1yb3NlAHRhbnN0YWFm", b"password tanstaaf"])
def test_what_is_no_command_may_be_a_password(line):
    """A client that mistypes the word, or says it to who asked for something else."""
    one = talk(True)
    reply, = say(one, b"USER mrose\r\n" + line + b"\r\n")[1:]
    assert reply.text.startswith("Unknown command: ") and "xxxx" not in reply.text
    found = texts(one)[2:] + end(one)
    assert found[:2] == ['Received: "xxxxxxxxx"', '-ERR Unknown command: "xxxxxxxxx".']
    assert found[2] == 'mrose at pc.example.org (192.0.2.1): -ERR Unknown command: "xxxxxxxxx".'
    assert not any("tanstaaf" in text or "AG1y" in text for text in found)


@pytest.mark.parametrize("line, shown", [
    (b"list tanstaaf", "list xxxxxxxxx"), (b"QUIT tanstaaf tanstaaf", "QUIT xxxxxxxxx"), (b"CAPA  x", "CAPA xxxxxxxxx"),
    (b"capa", "capa"), (b"PASS tanstaaf", "PASS xxxxxxxxx"), (b"USER joe", "USER joe"), (b"USER joe x", "USER joe xxxxxxxxx")])
def test_a_password_may_begin_with_the_word_of_a_command(line, shown):
    one = talk(True)
    say(one, b"USER mrose\r\n" + line + b"\r\n")
    found = texts(one) + end(one)
    assert f'Received: "{shown}"' in found and not any("tanstaaf" in text for text in found)


@pytest.mark.parametrize("method", [b"AUTH PLAIN", b"auth login", b"AUTH"])
def test_what_follows_auth_may_be_a_password_though_it_was_refused(method):
    """A client that does not wait for the answer, or takes it for a yes."""
    one = talk(True)
    say(one, b" " + method + b"\r\nam9l\r\nAHRhbnN0YWFm\r\nCAPA\r\nAHRhbnN0YWFm\r\n")
    found = [text for text in texts(one) if text.startswith("Received")]
    assert found[1:] == ['Received: "xxxxxxxxx"'] * 2 + ['Received: "CAPA"', 'Received: "AHRhbnN0YWFm"']
    one = talk(True)
    say(one, method + b"\r\nUSER joe\r\n")
    assert texts(one)[-2:] == ['Received: "USER joe"', "+OK Password required for joe."]


@pytest.mark.parametrize("line", [b"PAS tanstaaf", b"a1 LOGIN joe tanstaaf", b"psas tanstaaf", b"password tanstaaf", b"PASS:tanstaaf"])
def test_pass_is_mistyped_before_anybody_asked(line):
    one = talk(True)
    say(one, line + b"\r\n")
    assert not any("tanstaaf" in text for text in texts(one) + end(one))


def test_what_is_no_command_is_shown_where_nobody_was_asked_for_a_password():
    one = talk(True)
    say(one, b"xyzzy 1\r\n")
    assert texts(one) == ['Received: "xyzzy xxxxxxxxx"', '-ERR Unknown command: "xyzzy".']
    say(one, b"my Pass tanstaaf\r\nUSER mrose tanstaaf\r\n")
    assert [text for text in texts(one) if text.startswith("Rec")] == ['Received: "xxxxxxxxx"',
                                                                       'Received: "USER mrose xxxxxxxxx"']


def test_everything_is_traced_but_the_password():
    one = talk(True)
    greeting = one.greeting("by the tests")
    assert texts(one)[1:] == ["by the tests", text_of(greeting)]
    say(one, b"USER mrose\r\nPASS tanstaaf\r\n")
    assert texts(one) == ['Received: "USER mrose"', "+OK Password required for mrose.", 'Received: "PASS xxxxxxxxx"']
    assert end(one) == [f'(v{VERSION}) Ending request from "mrose" at (pc.example.org) 192.0.2.1: 12 octets received,'
                        " 345 sent", "Ended by QUIT; seconds: client 1.250, DNS 0.500, all 2.000"]


def test_a_password_is_credentials():
    one = talk()
    _, credentials = say(one, b"USER mrose\r\nPASS a b \r\n")
    assert isinstance(credentials, Credentials) and (credentials.user, credentials.password) == (b"mrose", b"a b ")
    assert one.session.state == PASS


def test_what_cannot_be_printed_is_shown():
    one = talk(True)
    say(one, b"\0\x1b[2J\xff\r\n")
    assert texts(one)[0].isprintable() and texts(one) == []


def test_a_line_that_is_too_long():
    one = talk(True)
    one.lines.feed(b"x" * LONGEST_LINE + b"\r\n")
    assert one.line() is TOO_LONG and texts(one) == ['Received: "(line too long)"']
    one.record(one.answer(TOO_LONG))
    assert one.mistakes == 1 and one.session.state == USER


def test_a_flood():
    one = talk()
    one.lines.feed(b"x" * (LONGEST_FLOOD + 1))
    with pytest.raises(Flooded):
        one.line()


def test_mistakes_are_told_at_the_end_and_once():
    one = talk()
    say(one, b"XYZZY\r\nPLUGH\r\nSTAT\r\n")
    assert texts(one) == []
    assert end(one) == [f'{WHO}: -ERR Unknown command: "xyzzy". (and 2 more)']


def test_the_last_mistake_is_the_one_that_is_told_when_it_ends_the_session():
    one = talk()
    say(one, b"XYZZY\r\n" * 100)
    assert one.session.state == HALT and one.ending == "a refusal"
    assert "Too many bad commands" in end(one)[0]


def test_trouble_of_ours_is_told_at_once_with_its_reason():
    one = talk()
    one.record(one.session.refused(Refused("No room.", TEMPORARY, "disk\nfull")))
    assert texts(one) == [rf"{WHO}: -ERR [SYS/TEMP] No room. (disk\x0afull)"]
    assert one.mistakes == 0 and end(one) == []


def test_why_a_login_failed_is_for_the_debug_log_alone():
    one = talk()
    one.record(one.session.refused(Refused("", AUTH, "no such user")))
    assert texts(one) == [f'{WHO}: -ERR [AUTH] Password supplied for "" is incorrect.']


def test_who_goes_at_the_password_is_a_probe():
    calls = []
    one = talk(introduce=lambda: calls.append(1))
    say(one, b"USER mrose\r\nQUIT\r\n")
    assert texts(one) == ["Possible probe of account mrose from host pc.example.org (192.0.2.1)"] and calls == [1]
    other = talk()
    say(other, b"QUIT\r\n")
    assert texts(other) == [] and other.ending == "QUIT"


def test_the_name_is_asked_for_before_it_is_logged():
    one = talk(introduce=lambda: setattr(one.peer, "name", "verified.example.org"))
    say(one, b"XYZZY\r\n")
    assert end(one)[0].startswith("(null) at verified.example.org (192.0.2.1): ")


@pytest.mark.parametrize("silence", ["read", "write"])
def test_a_timeout(silence):
    one = talk()
    one.timed_out(silence, 120)
    assert texts(one) == [f"(v{VERSION}) Timeout (120 secs) during nw {silence} from {WHO}"]
    assert one.ending == "a timeout"
