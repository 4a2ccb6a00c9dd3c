"""RFC 1939 section 4, AUTHORIZATION: USER, PASS, QUIT, and what a login locks. Each test cites its checklist line."""

import os

import pytest

from dialogue import HOST, ONE, PASSWORD, TWO, USER, mbox, site          # noqa: F401

INCORRECT = '[AUTH] Password supplied for "{}" is incorrect.'


def test_user_and_pass_let_in(site):
    """1939.16 USER and PASS are a way in."""
    site.deliver(mbox(ONE, TWO))
    pop = site.session()
    assert pop.ok("USER mrose") == "Password required for mrose."
    assert pop.ok("PASS tanstaaf").startswith("mrose has 2 message(s) (")
    pop.quit()


def test_login_locks_and_marks_nothing(site):
    """1939.17 after success the maildrop is this session's alone, and no message is marked deleted."""
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    assert pop.ok("STAT").startswith("2 ") and len(pop.lines("LIST")) == 2
    other = site.session(lock_timeout=0)
    other.ok("USER mrose")
    assert other.err("PASS tanstaaf").startswith("[IN-USE] ")
    assert other.end() == b""
    pop.ok("DELE 1")
    pop.quit()
    again = site.log_in()
    assert len(again.lines("LIST")) == 1
    again.quit()


def test_marks_of_an_earlier_session_are_gone(site):
    """1939.17 what a session that never got to UPDATE had marked is not marked in the next."""
    site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.ok("DELE 1")
    pop.hang_up()
    pop = site.log_in()
    assert len(pop.lines("LIST")) == 2
    pop.quit()


def not_a_mailbox(path):
    path.write_bytes(b"This is no mailbox.\n")


def a_directory(path):
    path.unlink()
    path.mkdir()


def a_symbolic_link(path):
    path.rename(path.parent / "elsewhere")
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [not_a_mailbox, a_directory, a_symbolic_link])
def test_a_failed_opening_releases_the_locks(site, spoil):
    """1939.18 locks that were taken before the login turned out -ERR are released before that is said."""
    path = site.deliver(mbox(ONE))
    spoil(path)
    pop = site.session()
    pop.ok("USER mrose")
    assert pop.err("PASS tanstaaf").startswith("[SYS/PERM] ")
    assert site.left_over() == []
    assert pop.end() == b""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        path.rmdir()
    site.deliver(mbox(ONE))
    site.log_in(lock_timeout=0).quit()


def test_after_a_refused_password_the_server_closes(site):
    """1939.19 after -ERR to PASS the server closes, and what was pipelined behind it is not answered."""
    pop = site.session()
    pop.ok("USER mrose")
    pop.send("PASS wrong\r\nUSER mrose\r\nPASS tanstaaf\r\nSTAT\r\n")
    assert pop.reply() == "-ERR " + INCORRECT.format(USER)
    assert pop.end() == b""


@pytest.mark.parametrize("before", [(), ("USER mrose",), ("USER nobody-of-that-name",), ("NONSENSE",)])
def test_quit_before_login(site, before):
    """1939.21 QUIT in AUTHORIZATION: +OK and the end, no UPDATE."""
    path = site.deliver(mbox(ONE))
    old = path.stat()
    pop = site.session()
    for command in before:
        pop.ask(command)
    assert pop.quit() == f"Pop server at {HOST} signing off."
    assert path.stat() == old
    assert site.left_over() == []
    assert not site.logged("Stats:")


def test_user_and_password_give_nothing_away(site):
    """1939.61 a name that is unknown and one that is known get the same words, for USER and for PASS."""
    told = []
    for name in (USER, "no-such-user"):
        pop = site.session()
        told.append((pop.ok(f"USER {name}").replace(name, "X"), pop.err("PASS wrong").replace(name, "X"), pop.end()))
    assert told[0] == told[1] == ("Password required for X.", INCORRECT.format("X"), b"")


def test_pass_wants_a_good_user_first(site):
    """1939.62 PASS only behind a USER that was answered +OK, and both only with an argument."""
    pop = site.session()
    assert pop.err("PASS tanstaaf").startswith("Unknown command")
    assert pop.err("USER") == "Too few arguments for the user command."
    assert pop.err("PASS tanstaaf").startswith("Unknown command")
    pop.ok("USER mrose")
    assert pop.err("USER " + "n" * 65).startswith("User name too long")
    assert pop.err("PASS tanstaaf").startswith("Unknown command")
    pop.ok("USER mrose")
    assert pop.err("PASS") == "Too few arguments for the pass command."
    assert pop.err("USER one two") == "Too many arguments for the user command."
    pop.ok("USER mrose")
    pop.ok("PASS tanstaaf")
    pop.quit()


@pytest.mark.parametrize("password", ["two words", " leading", "trailing ", "  ", "a  b", "tab\there",
                                      "8-bit \xfc\xff"])
def test_spaces_belong_to_the_password(site, password):
    """1939.63 all behind `PASS ` is the password, spaces and all; with one more or one less it is another."""
    site.add("spacy", password)
    pop = site.session()
    pop.ok("USER spacy")
    pop.ok(f"PASS {password}")
    pop.quit()
    for other in (password + " ", " " + password, password.strip() or " ", password.replace("  ", " ")):
        if other == password:
            continue
        pop = site.session()
        pop.ok("USER spacy")
        assert pop.err(f"PASS {other}") == INCORRECT.format("spacy")
        assert pop.end() == b""


@pytest.mark.parametrize("command", ["PASS wrong", "PASS tanstaafl", "PASS tanstaa", "PASS TANSTAAF", "PASS  tanstaaf",
                                     "PASS  ", "PASS *", "PASS !", "PASS x"])
def test_wrong_password(site, command):
    """1939.64 a wrong password is answered -ERR; 1939.19 and the server closes."""
    pop = site.session()
    pop.ok("USER mrose")
    assert pop.err(command) == INCORRECT.format(USER)
    assert pop.end() == b""


@pytest.mark.parametrize("command", ["PASS", "PASS "])
def test_no_password(site, command):
    """1939.64 PASS without a password is answered -ERR and lets nobody in, whatever the password file says."""
    with site.passwords.open("a") as lines:
        lines.write("open:\nlocked:*\nalso-locked:!\n")
    for name in (USER, "open", "locked", "also-locked"):
        pop = site.session()
        pop.ok(f"USER {name}")
        pop.err(command)
        assert pop.err("STAT").startswith("Unknown command")
        pop.quit()


def test_second_user_replaces_the_first(site):
    """1939.65 the last USER counts."""
    site.add("other", "another word")
    site.deliver(mbox(ONE), "other")
    pop = site.session()
    pop.ok("USER mrose")
    pop.ok("USER other")
    assert pop.ok("PASS another word").startswith("other has 1 message(s)")
    pop.quit()
    pop = site.session()
    pop.ok("USER other")
    pop.ok("USER mrose")
    assert pop.err("PASS another word") == INCORRECT.format(USER)
    assert pop.end() == b""


@pytest.mark.parametrize("command", [f"USER {USER}", f"PASS {PASSWORD}", "APOP mrose c4c9334bac560ecc979e58001b3e22fb"])
def test_no_second_login(site, command):
    """1939.66 USER, PASS and APOP are invalid after login, and change nothing."""
    site.deliver(mbox(ONE))
    pop = site.log_in()
    assert pop.err(command).startswith("Unknown command")
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()


def test_retention_is_announced(site):
    """1939.72 the site's policy for mail left on the server can be read before and after login: it stays."""
    pop = site.session()
    assert "EXPIRE NEVER" in pop.lines("CAPA")
    pop.log_in()
    assert "EXPIRE NEVER" in pop.lines("CAPA")
    pop.quit()


def test_login_on_a_dead_connection_lets_go(site):
    """1939.18 a client that is gone before it hears of its login leaves no lock."""
    site.deliver(mbox(ONE))
    pop = site.session()
    pop.send("USER mrose\r\nPASS tanstaaf\r\n")
    pop.hang_up()
    assert site.left_over() == []
    assert os.listdir(site.spool) == [USER]
