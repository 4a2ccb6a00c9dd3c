"""What lines of popper, of Qpopper in all its versions and of Dovecot say of logins; and what only looks like one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

import corpus
from conftest import TREE
from popper.account import shown_name
from popper.admin import logins
from popper.admin.logins import FAILED, LOGIN, PROBE, UPDATE
from popper.admin.logline import Line
from popper.tally import Tally


def said(text, ident="popper", pid="7", host="mail"):
    return logins.event(Line(corpus.at(), host, ident, pid, text))


def short(text, ident="popper"):
    """(kind, user, address, count, the four numbers) of a line, or None."""
    found = said(text, ident)
    return found and (found.kind, found.user, found.address, found.count, found.deleted, found.deleted_octets,
                      found.left, found.left_octets)


@pytest.mark.parametrize("text, wanted", [
    ("Stats: joe 1 20 3 400", (UPDATE, "joe", "", 1, 1, 20, 3, 400)),
    ("Stats: joe 1 20 3 400 192.0.2.1", (UPDATE, "joe", "192.0.2.1", 1, 1, 20, 3, 400)),
    ("Stats: joe 1 20 3 400 pc.example.org 192.0.2.1", (UPDATE, "joe", "192.0.2.1", 1, 1, 20, 3, 400)),
    ("Stats: joe@example.org 0 0 0 0 2001:db8::1 2001:db8::1",
     (UPDATE, "joe@example.org", "2001:db8::1", 1, 0, 0, 0, 0)),
    ("Stats: joe 1 -5 3 -2147483648 h 192.0.2.1", (UPDATE, "joe", "192.0.2.1", 1, 1, 4294967291, 3, 2147483648)),
    ("Stats: joe -1 -4294967297 -3 -1 h 192.0.2.1", (UPDATE, "joe", "192.0.2.1", 1, 0, 0, 0, 4294967295)),
    ("Stats: joe 0 0 1 999999999999999 h 192.0.2.1", (UPDATE, "joe", "192.0.2.1", 1, 0, 0, 1, 999999999999999)),
    ('(v4.0.5) POP login by user "joe" at (pc.example.org) 192.0.2.1', (LOGIN, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ('(v1.0.0rc1) POP login by user "joe" at () 192.0.2.1', (LOGIN, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("[AUTH] Failed attempted login to joe from host (h) 192.0.2.1", (FAILED, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("Failed attempted login to joe from host pc.example.org", (FAILED, "joe", "pc.example.org", 1, 0, 0, 0, 0)),
    ("Failed attempted login to joe from host (h) 192.0.2.1", (FAILED, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("Possible probe of account joe from host pc.example.org", (PROBE, "joe", "pc.example.org", 1, 0, 0, 0, 0)),
    ("Possible probe of account joe from host h (192.0.2.1)", (PROBE, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
])
@pytest.mark.parametrize("ident", ["popper", "in.popper", "qpopper", "in.qpopper", "qpopper-ssl", "POPPER", "pop3d",
                                   ""])
def test_lines_of_popper_and_qpopper(ident, text, wanted):
    assert short(text, ident) == wanted


@pytest.mark.parametrize("text, wanted", [
    ("pop3-login: Login: user=<joe>, method=PLAIN, rip=192.0.2.1, lip=192.0.2.9, mpid=1, TLS, session=<a/+=>",
     (LOGIN, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("pop3-login: Info: Login: user=<joe>, rip=192.0.2.1, lip=192.0.2.9", (LOGIN, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("pop3-login: Logged in: user=<joe>, method=PLAIN, rip=192.0.2.1, lip=",
     (LOGIN, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("pop3-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<joe>, method=PLAIN, rip=192.0.2.1, lip=x",
     (FAILED, "joe", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("pop3-login: Info: Aborted login (auth failed, 3 attempts): user=<joe>, method=PLAIN, rip=192.0.2.1",
     (FAILED, "joe", "192.0.2.1", 3, 0, 0, 0, 0)),
    ("pop3-login: Login aborted: Connection closed (auth failed, 2 attempts in 1 secs) (auth_failed): user=<joe>, "
     "method=PLAIN, rip=192.0.2.1, lip=x, session=<a>", (FAILED, "joe", "192.0.2.1", 2, 0, 0, 0, 0)),
    ("pop3-login: Disconnected (auth failed, 1 attempts): method=PLAIN, rip=192.0.2.1, lip=x",
     (FAILED, "(none)", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("pop3-login: Disconnected (auth failed, 1 attempts): user=<a>, rip=9.9.9.9, lip=b>, method=PLAIN, rip=192.0.2.1, "
     "lip=x",
     (FAILED, "a>, rip=9.9.9.9, lip=b", "192.0.2.1", 1, 0, 0, 0, 0)),
    ("pop3(joe)<1><a/+=>: Disconnected: Logged out top=0/0, retr=1/1234, del=20/20, size=5000",
     (UPDATE, "joe", "", 1, 20, 5000, 0, 0)),
    ("pop3(joe): Info: Disconnected: Logged out top=0/0, retr=1/1234, del=0/20, size=5000",
     (UPDATE, "joe", "", 1, 0, 0, 20, 5000)),
    ("pop3(joe)<1><a>: Disconnected: Logged out top=0/0, retr=1/1, del=5/20, size=5000",
     (UPDATE, "joe", "", 1, 5, 1250, 15, 3750)),
    ("pop3(joe)<1><a>: Connection closed top=0/0, retr=0/0, del=5/20, size=5000",
     (UPDATE, "joe", "", 1, 0, 0, 20, 5000)),
    ("POP3(joe): Disconnected top=0/0, retr=0/0, del=0/0, size=0", (UPDATE, "joe", "", 1, 0, 0, 0, 0)),
    ("pop3(joe): session=x Disconnected for inactivity top=0/0, retr=0/0, del=1/2, size=10",
     (UPDATE, "joe", "", 1, 0, 0, 2, 10)),
    ("pop3(a(b)c@example.org)<1><s>: Logged out top=0/0, retr=0/0, del=9/2, size=10",
     (UPDATE, "a(b)c@example.org", "", 1, 2, 10, 0, 0)),
])
def test_lines_of_dovecot(text, wanted):
    assert short(text, "dovecot") == wanted
    ident, _, rest = text.partition(": ")
    assert short(rest, ident) == wanted      # in its own log file


def test_octets_that_had_to_be_shared_out_are_marked():
    end = "pop3(joe): Disconnected: Logged out top=0/0, retr=1/1, del={}/20, size=5000"
    assert [said(end.format(deleted), "dovecot").estimated for deleted in (0, 1, 19, 20)] == [False, True, True, False]


@pytest.mark.parametrize("text", [
    "Stats: joe 1 20 3", "Stats: joe 1 20 3 x", "Stats: joe 1 20 3 400 a b c", "Stats: jo e 1 20 3 400",
    "xStats: joe 1 2 3 4", "Stats:  joe 1 2 3 4", "Stats: joe 1 20 3 1234567890123456", "Stats: joe ٣ 2 3 4",
    "Stats: joe 1 2 3 4 h (192.0.2.1)", "Stats: " + "x" * 300 + " 1 2 3 4", 'Received: "Stats: joe 1 2 3 4"',
    "joe at h (192.0.2.1): -ERR Stats: joe 1 2 3 4",
    'x (v1) POP login by user "joe" at (h) 192.0.2.1', '(v1) POP login by user "j"oe" at (h) 192.0.2.1',
    '(v1) POP login by user "joe" at (h) 192.0.2.1 x', "Failed attempted login to joe from host (h) (h) 192.0.2.1",
    "[AUTH] Failed attempted login to x from host (h) 9.9.9.9 from host (h) 192.0.2.1",
    "pop3-login: Disconnected (no auth attempts in 0 secs): user=<>, rip=192.0.2.1, lip=x", "",
    "pop3-login: Login: user=<>, rip=192.0.2.1, lip=x", "pop3(joe): Disconnected: Logged out",
    "imap(joe)<1><a>: Disconnected: Logged out top=0/0, retr=0/0, del=0/0, size=0",
])
@pytest.mark.parametrize("ident", ["popper", "dovecot", "pop3", ""])
def test_what_only_looks_like_one_is_none(ident, text):
    assert said(text, ident) is None


@pytest.mark.parametrize("ident", ["sshd", "postfix/smtpd", "spamd", "kernel"])
def test_other_programs_tell_of_no_logins(ident):
    assert said("Stats: joe 1 2 3 4", ident) is None
    assert said("pop3-login: Login: user=<joe>, rip=192.0.2.1, lip=x", ident) is None


def test_lines_of_one_session_have_something_in_common():
    first, last = said(corpus.login("joe")), said(corpus.stats("joe", 1, 2, 3, 4))
    assert first.session == last.session != ""
    assert said(corpus.login("joe"), pid="8").session != first.session
    assert said(corpus.login("joe"), host="b").session != first.session
    assert said(corpus.login("ann")).session != first.session
    first, last = (said(text, "dovecot") for text in (corpus.dovecot_login("joe"), corpus.dovecot_end("joe", 0, 1, 2)))
    assert first.session == last.session != ""
    assert said("pop3(joe): Disconnected top=0/0, retr=0/0, del=0/0, size=0", "dovecot").session == ""


def test_names_are_printable_and_short():
    assert said("Stats: \x1b[31mjoe\u202e 1 2 3 4").user == "\\x1b[31mjoe\\u202e"
    assert said("Stats: " + "x" * 200 + " 1 2 3 4").user == "x" * 64 + "..."
    assert said("[AUTH] Failed attempted login to a from host (h) \x9b\x07x").address == "\\x9b\\x07x"


@given(some.text(max_size=300),
       some.sampled_from(["Stats: ", "(v1) POP login by user ", "Failed attempted login to ", "pop3(", "",
                          "Possible probe of account ", "pop3-login: Disconnected (auth failed, "]),
       some.sampled_from(["popper", "dovecot", "pop3", ""]))
def test_no_text_is_an_error(text, begin, ident):
    found = said(begin + text, ident)
    assert found is None or (found.user + found.address).isprintable()


@pytest.mark.parametrize("text", [
    "pop3-login: Disconnected (auth failed, 1 attempts" + "(auth failed, 1 attempts" * 1000,
    "pop3-login: Disconnected" + "(auth failed, 1 attempts)" * 1200 + ": user=<", "pop3(" + ")" * 30000,
    "pop3(a): " + " top=0/0" * 3000,
    "pop3-login: Login: user=<" + ">, method=a" * 2500, "Stats: " + "a " * 15000,
    "pop3-login: Login: user=<a>, rip=1," + " session=<" * 3000,
])
def test_hostile_lines_take_no_time_to_speak_of(text):
    """With a pattern that backtracks, these would take minutes."""
    for ident in "dovecot", "popper":
        assert said(text, ident) is None or said(text, ident).kind == LOGIN


# -- what our own server writes ----------------------------------------------------------------------------------------

def test_our_own_stats_line():
    tally = Tally()
    tally.deleted, tally.deleted_octets, tally.left, tally.left_octets = 1, 20, 3, 400
    assert short(tally.stats("joe", "pc.example.org", "192.0.2.1")) == (UPDATE, "joe", "192.0.2.1", 1, 1, 20, 3, 400)


def test_the_shapes_that_the_manual_shows():
    manual = (TREE / "man/popper.8").read_text()
    places = {"VERSION": "0.1.0", "USER": shown_name(b'j o"e\x1b'), "HOST": "pc.example.org", "ADDRESS": "192.0.2.1",
              "NDEL": "1", "BDEL": "20", "NLEFT": "3", "BLEFT": "400"}
    kinds = []
    for begin in "[AUTH] Failed", "Possible probe", "(vVERSION) POP login", "Stats: USER":
        shape = re.search(rf"^{re.escape(begin)}.*$", manual, re.M)[0]
        found = said(re.sub(r"(?<=v)VERSION|\b[A-Z]{4,}\b", lambda word: places.get(word[0], word[0]), shape))
        kinds.append(found.kind)
        assert (found.user, found.address) == (places["USER"], "192.0.2.1")
    assert kinds == [FAILED, PROBE, LOGIN, UPDATE]


@pytest.mark.parametrize("frame", corpus.FRAMES.values(), ids=corpus.FRAMES)
@pytest.mark.parametrize("text", [
    corpus.login("j"), corpus.stats("j"), corpus.failed("j"), corpus.probe("j"), corpus.dovecot_login("j"),
    corpus.dovecot_end("j", 0, 0, 0), corpus.dovecot_failed("j")])
def test_every_line_that_is_understood_holds_a_word(frame, text):
    assert any(word in frame(corpus.at(), text).encode() for word in logins.WORDS)
