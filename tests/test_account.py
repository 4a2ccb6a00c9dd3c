"""Names and passwords as strangers send them (security.md rows 15, 19, 38 and sec.10)."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popper.account import LONGEST_NAME, Account, Credentials, plain_name, shown_name

many = settings(deadline=None, max_examples=200, database=None, derandomize=True)
LINE_ENDERS = b"\n\r\x0b\x0c\x1b\x00\x85\xe2\x80\xa8"


def test_credentials_show_neither_name_nor_password():
    credentials = Credentials(b"joe", b"secret")
    for shown in (repr(credentials), str(credentials), f"{credentials}", "%s" % (credentials,), repr([credentials])):
        assert "joe" not in shown and "secret" not in shown and "***" in shown


def test_credentials_take_no_further_attributes():
    with pytest.raises(AttributeError):
        Credentials(b"joe", b"secret").copy = b"secret"


def test_account_without_numbers():
    account = Account("joe")
    assert (account.user, account.uid, account.gid, account.home) == ("joe", None, None, "")


@pytest.mark.parametrize("name", [
    b"joe", b"joe.doe", b"joe_doe-1", b"joe@example.org", b"joe+tag", b"7", b"J", b"a" * LONGEST_NAME, b"joe.locker"])
def test_plain_names(name):
    assert plain_name(name) == name.decode()


@pytest.mark.parametrize("name", [
    b"", b".", b"..", b".joe", b"-joe", b"a..b", b"../etc/passwd", b"joe/mail", b"/joe", b"joe\0", b"joe\n", b" joe",
    b"jo e", b"joe.lock", b"joe.pop", b"*", b"joe%u", b"%u%h%{env:HOME}", b"a=b", b"a'b\"c;--*)(", b"%n%s", b"~joe",
    b"j\xf6rg", "jörg".encode(), b"a" * (LONGEST_NAME + 1), b"joe:x", b"joe\\", b"{0}", b"$HOME", b"`id`"])
def test_names_that_may_not_become_part_of_a_path(name):
    assert plain_name(name) is None


@many
@given(st.binary(max_size=80))
@example(b"\xef\xbc\xa1")                    # a fullwidth A is no letter of a name
def test_a_plain_name_stays_in_its_directory(octets):
    name = plain_name(octets)
    if name is not None:
        assert re.fullmatch(r"[A-Za-z0-9_@+][A-Za-z0-9_.@+-]{0,63}", name)
        assert ".." not in name and name.encode() == octets


@pytest.mark.parametrize("name, shown", [
    (b"joe", "joe"),
    (b"joe doe", r"joe\x20doe"),
    (b"joe\nNov 1 popper: Stats: x", r"joe\x0aNov\x201\x20popper\x3a\x20Stats\x3a\x20x"),
    (b'joe" at (host) 10.0.0.1', r"joe\x22\x20at\x20\x28host\x29\x2010.0.0.1"),
    (b"\xff", r"\xff"),
    (b"%n%s", r"\x25n\x25s"),
    (b"a" * 64, "a" * 64),
    (b"a" * 65, "a" * 64 + "..."),
    (b"", ""),
])
def test_shown_names(name, shown):
    assert shown_name(name) == shown


@many
@given(st.binary(max_size=200))
@example(LINE_ENDERS)
def test_a_shown_name_is_one_short_word(octets):
    shown = shown_name(octets)
    assert re.fullmatch(r"(?:[A-Za-z0-9_.@+-]|\\x[0-9a-f]{2})*", shown)
    assert len(shown) <= 4 * LONGEST_NAME + 3
