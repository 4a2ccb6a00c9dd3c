"""Unique-ids: those of Qpopper 2, so that nobody downloads everything again (ucb-popper.md 5.8; RFC 1939.7)."""

import re
from hashlib import md5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper.storage.identity import seen, told_apart, unique_id

many = settings(deadline=None, max_examples=200, database=None, derandomize=True)

HEADER = b"""From ann@example.org Thu Nov 24 18:22:48 1996
Return-Path: <ann@example.org>
Received: from mx.example.org by mail.example.com (8.6/8.6) id AA01;
\tThu, 24 Nov 1996 18:22:47 -0600
received: from pc.example.org by mx.example.org;
 Thu, 24 Nov 1996 18:22:40 -0600
From: Ann <ann@example.org>
To: joe@example.com
SUBJECT: a subject
 that goes on
DATE: Thu, 24 Nov 1996 18:22:39 -0600
Message-ID: <1@example.org>
Subject:twice
Dated: not this one
X-Subject: nor this
Status: RO

"""
DIGESTED = (
    b"From ann@example.org Thu Nov 24 18:22:48 1996\n"
    b"Received: from mx.example.org by mail.example.com (8.6/8.6) id AA01;\n"
    b"received: from pc.example.org by mx.example.org;\n"
    b"SUBJECT: a subject\n"
    b"DATE: Thu, 24 Nov 1996 18:22:39 -0600\n"
    b"Message-ID: <1@example.org>\n"
    b"Subject:twice\n")


def digest(octets):
    return md5(octets).hexdigest().encode()


# -- the digest ------------------------------------------------------------------------------------------------------

def test_the_digest_is_that_of_envelope_line_and_four_headers_in_file_order():
    assert unique_id(HEADER) == digest(DIGESTED)


def test_a_digest_worked_out_by_hand():
    """With md5sum, so that a fault of both programs at once would show."""
    header = b"From a@b Thu Nov 24 18:22:48 1996\nDate: d\nX: y\nMessage-Id: <m>\n\n"
    assert unique_id(header) == b"5060751e05a73f9fb5694b87568cced2"


def test_a_message_without_those_headers_has_the_digest_of_its_envelope_line():
    envelope = b"From ann@example.org Thu Nov 24 18:22:48 1996\n"
    for header in (envelope, envelope + b"\n", envelope + b"To: joe\n\n"):
        assert unique_id(header) == digest(envelope)


def test_line_ends_are_part_of_the_digest():
    assert unique_id(HEADER.replace(b"\n", b"\r\n")) == digest(DIGESTED.replace(b"\n", b"\r\n"))


def test_of_a_long_line_the_first_piece_of_the_original_buffer_counts():
    envelope = b"From " + b"a" * 2000 + b" Thu Nov 24 18:22:48 1996\n"
    subject = b"Subject: " + b"s" * 2000 + b"\n"
    assert unique_id(envelope + subject + b"\n") == digest(envelope[:1023] + subject[:1023])
    for length in (1022, 1023, 1024):
        line = b"Subject: " + b"s" * (length - 10) + b"\n"
        assert unique_id(HEADER[:46] + line + b"\n") == digest(HEADER[:46] + line[:1023])


def test_octets_of_any_kind_are_digested_as_they_are():
    subject = b"Subject: " + bytes(octet for octet in range(256) if octet != 10) + b"\n"
    assert unique_id(HEADER[:46] + subject + b"\n") == digest(HEADER[:46] + subject)


@pytest.mark.parametrize("before, after", [
    (b"Status: RO\n", b"Status: O\n"), (b"Status: RO\n", b""),
    (b"Status: RO\n", b"Status: RO\nX-Status: A\nX-UID: 7\n"),
    (b"Return-Path: <ann@example.org>\n", b""), (b"\tThu, 24 Nov 1996 18:22:47 -0600\n", b"\tlater\n")])
def test_what_mail_readers_write_into_a_header_changes_no_id(before, after):
    """1939.57: the same in every session."""
    assert unique_id(HEADER.replace(before, after)) == digest(DIGESTED)


def test_other_messages_have_other_ids():
    changes = [(b"18:22:48", b"18:22:49"), (b"a subject", b"b subject"), (b"<1@", b"<2@"), (b"", b"")]
    assert len({unique_id(HEADER.replace(before, after)) for before, after in changes}) == 4


# -- a stored X-UIDL -------------------------------------------------------------------------------------------------

def with_uidl(*values, name=b"X-UIDL"):
    return HEADER[:46] + b"".join(name + b":" + value + b"\n" for value in values) + HEADER[46:]


@pytest.mark.parametrize("value, kept", [
    (b" 0123456789abcdef0123456789abcdef", b"0123456789abcdef0123456789abcdef"),
    (b"x", b"x"), (b"  spaced \t", b"spaced"), (b" a\r", b"a"), (b" !~\"#$%&", b"!~\"#$%&"),
    (b" " + b"x" * 70, b"x" * 70)])
def test_a_valid_stored_id_wins(value, kept):
    assert unique_id(with_uidl(value)) == kept


@pytest.mark.parametrize("value", [
    b"", b"   ", b" two words", b" " + b"x" * 71, b" \x7f", b" gr\xfcn", b" a\0b", b" a\tb", b" \x1b["])
def test_what_is_no_unique_id_is_not_one_because_it_is_stored(value):
    """1939.56: 1 to 70 octets of 0x21 to 0x7E. A stranger may have written it."""
    assert unique_id(with_uidl(value)) == digest(DIGESTED)


def test_the_name_in_any_case():
    for name in (b"x-uidl", b"X-Uidl", b"X-UIDL"):
        assert unique_id(with_uidl(b" abc", name=name)) == b"abc"


def test_other_names_are_others():
    for name in (b"X-UIDL2", b" X-UIDL", b"X-UID", b"UIDL"):
        assert unique_id(with_uidl(b" abc", name=name)) == digest(DIGESTED)


def test_the_first_of_several_counts():
    assert unique_id(with_uidl(b" first", b" second")) == b"first"
    assert unique_id(with_uidl(b" no id", b" second")) == digest(DIGESTED)
    assert unique_id(with_uidl(b"", b" second")) == digest(DIGESTED)


def test_the_envelope_line_is_no_header():
    envelope = b"X-UIDL: abc\n"
    assert unique_id(envelope + b"\n") == digest(envelope)


@many
@given(st.lists(st.one_of(st.binary(max_size=90), st.binary(max_size=90).map(lambda value: b"X-UIDL:" + value)),
    max_size=5))
def test_any_header_gives_a_valid_id(lines):
    assert re.fullmatch(rb"[\x21-\x7e]{1,70}", unique_id(b"\n".join([HEADER[:45], *lines])))


# -- told apart ------------------------------------------------------------------------------------------------------

def test_ids_that_differ_are_left_alone():
    assert told_apart([b"a", b"b", b"c"]) == [b"a", b"b", b"c"]
    assert told_apart([]) == []


def test_copies_have_ids_of_their_own():
    """1939.58."""
    first, second, third = told_apart([b"a", b"a", b"a"])
    assert first == b"a"
    assert len({first, second, third}) == 3
    assert re.fullmatch(rb"[0-9a-f]{32}", second) and re.fullmatch(rb"[0-9a-f]{32}", third)


def test_mail_that_comes_later_changes_no_id():
    ids = [b"a", b"b", b"a", b"a", b"b"]
    for length in range(len(ids)):
        assert told_apart(ids[:length]) == told_apart(ids)[:length]


def test_a_copy_is_not_taken_for_a_message_that_has_that_id_by_itself():
    """X-UIDL is anybody's to write."""
    derived = told_apart([b"a", b"a"])[1]
    for ids in ([b"a", derived, b"a"], [derived, b"a", b"a"], [b"a", b"a", derived], [b"a", b"a", derived, derived,
        b"a"]):
        assert len(set(told_apart(ids))) == len(ids)


@many
@given(st.data())
def test_any_ids_are_told_apart_the_same_way_every_time(data):
    pool = told_apart([b"a"] * 6) + told_apart([b"b"] * 4)
    ids = data.draw(st.lists(st.sampled_from(pool), max_size=20))
    apart = told_apart(ids)
    assert len(set(apart)) == len(ids)
    assert apart == told_apart(iter(ids))
    for number, (before, after) in enumerate(zip(ids, apart)):
        assert after == before or before in apart[:number]   # nobody's id is changed without need
    assert all(re.fullmatch(rb"[\x21-\x7e]{1,70}", unique) for unique in apart)


def test_many_copies_are_told_apart_in_no_time():
    """A flood of copies must not cost the square of its number."""
    assert len(set(told_apart([b"a"] * 20_000))) == 20_000


# -- Status ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("status", [b"Status: RO\n", b"Status: R\n", b"status:R\n", b"STATUS: OR\r\n",
    b"A: b\nStatus: RO\n\n"])
def test_read(status):
    assert seen(status)


@pytest.mark.parametrize("status", [
    b"", b"Status: O\n", b"Status:\n", b"Status: U\n", b"X-Status: R\n", b" Status: R\n", b"Subject: Status: R\n",
    b"Statuses: R\n"])
def test_not_read(status):
    assert not seen(status)
