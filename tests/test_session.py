"""The command table row by row: who may say what, when, with how many words, and what follows (ucb-popper.md 2)."""

import pytest

from dialogue import HOST, ONE, THREE, TWO, mbox
from popper import VERSION, wire
from popper.account import LONGEST_NAME, Credentials
from popper.errors import AUTH, IN_USE, PERMANENT, TEMPORARY, Denied, DropBroken, Refused
from popper.maildrop import Maildrop
from popper.session import _ROWS, HALT, MOST_BAD, MOST_WORDS, PASS, TRANSACTION, USER, Session
from popper.storage.memory import Memory

STATES = (USER, PASS, TRANSACTION)
WORDS = sorted({row.word for row in _ROWS})
ROWS = [pytest.param(row, state, id=f"{row.word.decode()}-{state.replace(' ', '-')}")
        for row in _ROWS for state in row.states]

# What every row of the table should be: word, states, least and most arguments, after +OK, after -ERR; None: the same.
PROMISED = {
    (b"user", USER): (1, 1, PASS, USER),
    (b"user", PASS): (1, 1, PASS, USER),
    (b"pass", PASS): (1, 1, TRANSACTION, HALT),
    (b"rpop", PASS): (1, 1, None, USER),
    (b"quit", USER): (0, 0, HALT, None),
    (b"quit", PASS): (0, 0, HALT, None),
    (b"capa", USER): (0, 0, USER, None),
    (b"capa", PASS): (0, 0, PASS, None),
    (b"stat", TRANSACTION): (0, 0, TRANSACTION, None),
    (b"list", TRANSACTION): (0, 1, TRANSACTION, TRANSACTION),
    (b"retr", TRANSACTION): (1, 1, TRANSACTION, TRANSACTION),
    (b"dele", TRANSACTION): (1, 1, TRANSACTION, TRANSACTION),
    (b"noop", TRANSACTION): (0, 0, TRANSACTION, None),
    (b"last", TRANSACTION): (0, 0, TRANSACTION, None),
    (b"rset", TRANSACTION): (0, 0, TRANSACTION, None),
    (b"top", TRANSACTION): (2, 2, TRANSACTION, TRANSACTION),
    (b"uidl", TRANSACTION): (0, 1, TRANSACTION, TRANSACTION),
    (b"xtnd", TRANSACTION): (1, 99, TRANSACTION, TRANSACTION),
    (b"capa", TRANSACTION): (0, 0, TRANSACTION, None),
    (b"quit", TRANSACTION): (0, 0, HALT, HALT),
}

# A line that each command answers +OK, and one it answers -ERR although the words are counted right.
GOOD = {b"user": b"USER mrose", b"pass": b"PASS tanstaaf", b"quit": b"QUIT", b"capa": b"CAPA", b"stat": b"STAT",
        b"list": b"LIST 1", b"retr": b"RETR 1", b"dele": b"DELE 1", b"noop": b"NOOP", b"last": b"LAST",
        b"rset": b"RSET", b"top": b"TOP 1 0", b"uidl": b"UIDL 1", b"xtnd": b"XTND XLST subject"}
WRONG = {b"user": b"USER " + b"x" * (LONGEST_NAME + 1), b"rpop": b"RPOP mrose", b"list": b"LIST 9",
         b"retr": b"RETR 9", b"dele": b"DELE 9", b"top": b"TOP 9 0", b"uidl": b"UIDL 9", b"xtnd": b"XTND NIL"}


class Troubled(Memory):
    """A store whose commit raises what it is given."""

    def __init__(self, trouble):
        super().__init__(mbox(ONE))
        self.trouble = trouble

    def commit(self, entries, read=()):
        raise self.trouble


def session_in(state, store=None):
    session = Session(HOST)
    if state != USER:
        session.receive(b"USER mrose")
    if state == TRANSACTION:
        assert isinstance(session.receive(b"PASS tanstaaf"), Credentials)
        session.opened(Maildrop("mrose", store or Memory(mbox(ONE, TWO, THREE))))
    assert session.state == state
    return session


def err(session, line, code=""):
    reply = session.receive(line)
    assert (reply.ok, reply.code) == (False, code)
    return reply.text


def ok(session, line):
    reply = session.receive(line)
    assert reply.ok, reply.text
    return reply.text


# -- the table -------------------------------------------------------------------------------------------------------

def test_the_table_has_these_rows_and_no_others():
    assert sorted((row.word, state) for row in _ROWS for state in row.states) == sorted(PROMISED)


@pytest.mark.parametrize("row, state", ROWS)
def test_counts_of_arguments(row, state):
    least, most, _, _ = PROMISED[row.word, state]
    word = row.word.decode()
    if least:
        assert err(session_in(state), row.word + b" x" * (least - 1)) == f"Too few arguments for the {word} command."
    too_many = session_in(state).receive(row.word + b" x" * (most + 1)) if not row.verbatim else None
    if row.verbatim:
        assert session_in(state).receive(b"PASS a b  c d e f").password == b"a b  c d e f"
    elif most + 2 > MOST_WORDS:
        assert (too_many.ok, too_many.text) == (False, "Too many arguments supplied.")
    else:
        assert (too_many.ok, too_many.text) == (False, f"Too many arguments for the {word} command.")


@pytest.mark.parametrize("row, state", ROWS)
def test_a_wrong_count_leaves_the_state(row, state):
    session = session_in(state)
    err(session, row.word if PROMISED[row.word, state][0] else row.word + b" a b c d")
    assert session.state == state


@pytest.mark.parametrize("word, state", [(w, s) for w in WORDS for s in STATES if (w, s) not in PROMISED])
def test_a_command_in_another_state_is_unknown(word, state):
    session = session_in(state)
    assert err(session, GOOD.get(word, b"RPOP x")) == f'Unknown command: "{word.decode()}".'
    assert session.state == state


@pytest.mark.parametrize("word, state, then", [(*key, row[2]) for key, row in PROMISED.items() if row[2]])
def test_the_state_after_ok(word, state, then):
    session = session_in(state)
    reply = session.receive(GOOD[word])
    if word == b"pass":
        reply = session.opened(Maildrop("mrose", Memory()))
    assert reply.ok and session.state == then


@pytest.mark.parametrize("word, state, otherwise",
                         [(*key, row[3]) for key, row in PROMISED.items() if row[3] and key[0] != b"quit"])
def test_the_state_after_err(word, state, otherwise):
    session = session_in(state)
    reply = session.refused(Denied("")) if word == b"pass" else session.receive(WRONG[word])
    assert not reply.ok and session.state == otherwise


@pytest.mark.parametrize("line", [b"noop", b"NOOP", b"nOoP", b"  NOOP", b"NOOP  ", b"\tNOOP\t"])
def test_any_case_and_blanks_around(line):
    assert ok(session_in(TRANSACTION), line) == ""


@pytest.mark.parametrize("line, shown", [
    (b"", ""), (b"   ", ""), (b"XYZZY 1", "xyzzy"), (b"N\0OP", r"n\x00op"), (b"\xff", r"\xff"), (b"APOP a b", "apop")])
def test_lines_that_are_no_command(line, shown):
    for state in STATES:
        assert err(session_in(state), line) == f'Unknown command: "{shown}".'


# -- bad commands ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("line", [b"XYZZY", b"CAPA x", wire.TOO_LONG], ids=["unknown", "count", "too-long"])
def test_so_many_bad_commands_close(state, line):
    session = session_in(state)
    for _ in range(MOST_BAD - 1):
        assert "closing" not in err(session, line)
    assert session.state == state
    assert err(session, line) == "Too many bad commands, closing."
    assert session.state == HALT


def test_a_good_command_resets_the_count():
    session = session_in(TRANSACTION)
    for _ in range(5):
        for _ in range(MOST_BAD - 1):
            err(session, b"XYZZY")
        ok(session, b"NOOP")
    assert session.state == TRANSACTION


def test_a_known_command_that_is_refused_is_not_a_bad_one():
    session = session_in(TRANSACTION)
    for _ in range(2 * MOST_BAD):
        assert err(session, b"RETR 9") == "Message 9 does not exist."
    assert session.state == TRANSACTION


def test_a_line_too_long_names_the_limit():
    assert err(session_in(USER), wire.TOO_LONG) == f"Command line too long (more than {wire.LONGEST_LINE} octets)."


# -- AUTHORIZATION ---------------------------------------------------------------------------------------------------

def test_greeting():
    assert Session(HOST).greeting().status() == \
        b"+OK UCB Pop server (version %s) at %s starting.\r\n" % (VERSION.encode(), HOST.encode())


def test_the_dialogue_of_a_login():
    session = Session(HOST)
    assert ok(session, b"USER mrose") == "Password required for mrose."
    credentials = session.receive(b"pass  two  words ")
    assert (credentials.user, credentials.password) == (b"mrose", b" two  words ")
    drop = Maildrop("mrose", Memory(mbox(ONE, TWO)))
    assert session.opened(drop).text == f"mrose has 2 message(s) ({drop.octets} octets)."
    assert session.drop is drop


def test_the_last_user_counts():
    session = session_in(PASS)
    ok(session, b"USER other")
    assert session.receive(b"PASS x").user == b"other"


def test_names_are_shown_plain():
    assert ok(Session(HOST), b"USER \xe4\x1b") == r"Password required for \xe4\x1b."


def test_the_longest_name():
    session = Session(HOST)
    ok(session, b"USER " + b"x" * LONGEST_NAME)
    assert err(session, b"USER " + b"x" * (LONGEST_NAME + 1)) == "User name too long (more than 64 octets)."
    assert err(session, b"PASS x") == 'Unknown command: "pass".'


@pytest.mark.parametrize("refusal, text, code", [
    (Denied(""), 'Password supplied for "mrose" is incorrect.', AUTH),
    (Denied('"mrose": account expired.', "why"), '"mrose": account expired.', AUTH),
    (Refused("/m lock busy!  Is another session active?", IN_USE), "/m lock busy!  Is another session active?", IN_USE),
    (Refused("System error, can't verify passwords.", PERMANENT, "why"), "System error, can't verify passwords.",
     PERMANENT)])
def test_a_refused_login_ends_the_session(refusal, text, code):
    session = session_in(PASS)
    session.receive(b"PASS x")
    reply = session.refused(refusal)
    assert (reply.ok, reply.text, reply.code, reply.reason) == (False, text, code, refusal.reason)
    assert session.state == HALT and session.drop is None


def test_rpop_is_refused():
    session = session_in(PASS)
    assert err(session, b"RPOP mrose") == "Permission denied."
    assert session.state == USER


def test_quit_before_login_updates_nothing():
    session = session_in(PASS)
    assert ok(session, b"QUIT") == f"Pop server at {HOST} signing off."
    assert session.updated is None


# -- TRANSACTION -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line, text", [
    (b"RETR x", '"x" is not a message number.'), (b"DELE -1", '"-1" is not a message number.'),
    (b"LIST +1", '"+1" is not a message number.'), (b"UIDL 1.0", '"1.0" is not a message number.'),
    (b"TOP 0x1 1", '"0x1" is not a message number.'), (b"TOP 1 x", '"x" is not a number of lines.'),
    (b"TOP 1 -1", '"-1" is not a number of lines.'), (b"RETR \xb2", r'"\xb2" is not a message number.'),
    (b"RETR 0", "Message 0 does not exist."), (b"RETR 4", "Message 4 does not exist."),
    (b"RETR 4294967297", "Message 4294967297 does not exist."),
    (b"RETR " + b"1" * 21, f'"{"1" * 21}" is not a message number.')])
def test_numbers_that_are_none(line, text):
    assert err(session_in(TRANSACTION), line) == text


@pytest.mark.parametrize("word, number", [(b"1", 1), (b"001", 1), (b"18446744073709551616", 2 ** 64)])
def test_number(word, number):
    assert Session(HOST).number(word) == number


def test_deleted_messages_are_refused_each_in_its_own_words():
    session = session_in(TRANSACTION)
    assert ok(session, b"DELE 2") == "Message 2 has been deleted."
    assert err(session, b"DELE 2") == "Message 2 has already been deleted."
    assert err(session, b"RETR 2") == "Message 2 has been deleted."
    assert err(session, b"UIDL 2") == "Message 2 has been marked for deletion."


@pytest.mark.parametrize("line, text", [
    (b"XTND NIL", 'Unknown command: "xtnd nil".'), (b"XTND XLST", "Too few arguments for the xtnd xlst command."),
    (b"XTND XMIT x", "Too many arguments for the xtnd xmit command."),
    (b"XTND XLST a 1 2", "Too many arguments for the xtnd xlst command.")])
def test_the_words_of_xtnd(line, text):
    assert err(session_in(TRANSACTION), line) == text


# -- UPDATE ----------------------------------------------------------------------------------------------------------

def test_quit_updates_and_then_signs_off():
    store = Memory(mbox(ONE, TWO, THREE))
    session = session_in(TRANSACTION, store)
    ok(session, b"DELE 2")
    assert store.octets == mbox(ONE, TWO, THREE)
    assert ok(session, b"QUIT") == f"Pop server at {HOST} signing off."
    assert (session.updated, session.state, store.octets) == (True, HALT, mbox(ONE, THREE))


@pytest.mark.parametrize("trouble, text, code, reason", [
    (Refused("/m lock busy!", IN_USE), "/m lock busy!", IN_USE, ""),
    (Refused("No room.", TEMPORARY, "disk full"), "No room.", TEMPORARY, "disk full"),
    (DropBroken("The mailbox has changed.", TEMPORARY, "inode"), "The mailbox has changed.", TEMPORARY, "inode")])
def test_quit_that_fails_is_answered_err_and_ends(trouble, text, code, reason):
    session = session_in(TRANSACTION, Troubled(trouble))
    ok(session, b"DELE 1")
    reply = session.receive(b"QUIT")
    assert (reply.ok, reply.text, reply.code, reply.reason) == (False, text, code, reason)
    assert session.updated is False and session.state == HALT


def test_nothing_deleted_nothing_committed():
    session = session_in(TRANSACTION, Troubled(AssertionError("nothing to commit")))
    ok(session, b"QUIT")
    assert session.updated is True


@pytest.mark.parametrize("wanted, left", [(False, mbox(ONE, TWO)), (True, mbox(TWO))])
def test_an_aborted_session_deletes_only_where_the_site_wants_it(wanted, left):
    store = Memory(mbox(ONE, TWO))
    session = session_in(TRANSACTION, store)
    ok(session, b"DELE 1")
    session.aborted(wanted)
    assert (store.octets, session.state) == (left, HALT)
    assert session.updated is (True if wanted else None)


@pytest.mark.parametrize("state", [USER, PASS])
def test_an_aborted_login_updates_nothing(state):
    session = session_in(state)
    session.aborted(True)
    assert session.updated is None and session.state == HALT
