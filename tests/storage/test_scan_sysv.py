"""Content-Length: believed when it is true, and harmless when it is not (security.md row 39)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mboxes import ENVELOPE, LEAST_WINDOW, crlf, message, numbered, scanned, texts

many = settings(deadline=None, max_examples=200, database=None, derandomize=True)
TAIL = numbered(7, 8)
FAKE = b"words\n\n" + ENVELOPE + b"Subject: fake\n\nnot a message\n"


def as_octets(value):
    return value if isinstance(value, bytes) else str(value).encode()


def measured(body, length=None, name=b"Content-Length"):
    """A text with a length of its body in the header: the true one, or another."""
    return b"Subject: x\n%s: %s\n\n" % (name, as_octets(len(body) if length is None else length)) + body


# -- the truth -------------------------------------------------------------------------------------------------------

def test_a_true_length_keeps_an_envelope_line_of_a_body_in_the_body():
    octets = message(measured(FAKE)) + TAIL
    assert len(scanned(octets)) == 4
    assert texts(octets, sysv=True)[0] == measured(FAKE)
    assert len(scanned(octets, sysv=True)) == 3


def test_it_is_a_matter_of_sysv_alone():
    assert scanned(message(measured(b"body\n")) + TAIL, sysv=True) == scanned(message(measured(b"body\n")) + TAIL)


@pytest.mark.parametrize("name", [b"content-length", b"CONTENT-LENGTH", b"Content-length"])
def test_the_name_in_any_case(name):
    assert len(scanned(message(measured(FAKE, name=name)) + TAIL, sysv=True)) == 3


@pytest.mark.parametrize("value", [b"%d", b" %d", b"   %d  ", b"\t%d", b"000%d"])
def test_the_value_in_any_spacing(value):
    octets = message(b"Content-Length:" + value % len(FAKE) + b"\n\n" + FAKE) + TAIL
    assert len(scanned(octets, sysv=True)) == 3


def test_a_mailbox_with_crlf():
    body = crlf(FAKE)
    octets = crlf(ENVELOPE) + b"A: b\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"\r\n" + crlf(TAIL)
    assert len(scanned(octets, sysv=True)) == 3
    assert texts(octets, sysv=True)[0].endswith(body)


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_the_last_message(end):
    octets = numbered(1) + ENVELOPE + measured(FAKE) + end
    assert len(scanned(octets, sysv=True)) == 2


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b"\n\n", b"\n\n\n"])
def test_however_many_empty_lines_follow(between):
    """Solaris appends messages without an empty line between."""
    octets = ENVELOPE + measured(FAKE) + between + TAIL
    assert len(scanned(octets, sysv=True)) == 3
    assert texts(octets, sysv=True)[0].startswith(measured(FAKE))


def test_a_body_that_does_not_end_its_line():
    """The mailer that counted wrote the line end behind it."""
    octets = ENVELOPE + measured(b"no end") + b"\n\n" + TAIL
    assert texts(octets, sysv=True)[0] == measured(b"no end") + b"\n"


def test_an_empty_body():
    octets = message(measured(b"")) + TAIL
    assert texts(octets, sysv=True)[0] == measured(b"")
    assert len(scanned(octets, sysv=True)) == 3


def test_a_body_of_many_windows():
    body = FAKE * 300
    octets = message(measured(body)) + message(measured(FAKE)) + TAIL
    expected = scanned(octets, sysv=True)
    assert len(expected) == 4
    for window in range(LEAST_WINDOW, LEAST_WINDOW + 300):
        assert scanned(octets, sysv=True, window=window) == expected


def test_a_header_of_many_windows():
    padding = b"X-Padding: y\n" * 4000
    octets = message(padding + measured(FAKE)) + TAIL
    for window in (LEAST_WINDOW, 4096, 131072):
        assert len(scanned(octets, sysv=True, window=window)) == 3


# -- lies ------------------------------------------------------------------------------------------------------------

def same_as_without(octets):
    assert scanned(octets, sysv=True) == scanned(octets)
    for window in range(LEAST_WINDOW, LEAST_WINDOW + 100, 7):
        assert scanned(octets, sysv=True, window=window) == scanned(octets)


@pytest.mark.parametrize("value", [
    0, -1, "-0", 1, 5, 2**31, 2**31 - 1, 2**32, 2**63, 2**63 - 1, 2**64, 10**17, "9" * 5000, "", " ", "x", "12x", "+5",
    "5_0", "0x10", "1e3", "٣", "²", "5 5", "5, 5", "%s"])
def test_a_length_that_leads_nowhere_is_not_believed(value):
    """0, -1, 2^63, past the end, no number: the count of messages is as without."""
    for body in (b"body\nof two lines\n", FAKE):
        same_as_without(message(measured(body, str(value))) + TAIL)
        same_as_without(TAIL + message(measured(body, str(value))))


def test_every_length_that_leads_elsewhere():
    """Into the body, the separator, the next header or body, past the end: the messages are those without it."""
    rest = numbered(2, 3)
    for length in range(len(rest) + 100):
        octets = message(measured(b"body\n", b"%03d" % length)) + rest
        counted_from = octets.index(b"body")
        leads_to = len(octets) - len(octets[counted_from + length:].lstrip(b"\n"))
        places = {offset for offset, *_ in scanned(octets)} | {len(octets)}
        if leads_to not in places or counted_from + length > len(octets):
            assert scanned(octets, sysv=True) == scanned(octets), length


@pytest.mark.parametrize("body", [
    b"some words " + ENVELOPE + b"more\n",           # in the middle of a line
    b"some words\r" + ENVELOPE + b"more\n",
    b">" + ENVELOPE + b"more\n",
    b"x\nFrom joe on Thursday\nmore\n",
    b"x\nFrom joe Thu Nov 24 18:22:48 1996 as agreed\nmore\n",
])
def test_a_length_that_leads_to_a_fake_is_not_believed(body):
    at = body.index(b"From ")
    for length in range(max(0, at - 3), at + 4):
        same_as_without(message(measured(body, length)) + TAIL)


def test_a_length_that_leads_to_an_over_long_line_is_not_believed():
    long = b"From " + b"x" * 3000 + b" Thu Nov 24 18:22:48 1996\n"
    body = b"words\n" + long + b"more\n"
    same_as_without(message(measured(body, 6)) + TAIL)


def test_a_length_of_a_body_that_only_looks_like_a_header():
    """A message without header has no Content-Length, whatever its body says."""
    second = numbered(2)
    body = b"\nContent-Length: %d\n\n" % len(second) + b"x\n\n"
    same_as_without(ENVELOPE + body + second + TAIL)
    octets = message(b"Subject: x\n\nContent-Length: 5\n\n" + FAKE) + TAIL
    same_as_without(octets)


def test_the_first_of_two_lengths_counts():
    octets = message(b"Content-Length: %d\nContent-Length: 0\n\n" % len(FAKE) + FAKE) + TAIL
    assert len(scanned(octets, sysv=True)) == 3
    same_as_without(message(b"Content-Length: 0\nContent-Length: %d\n\n" % len(FAKE) + FAKE) + TAIL)


def test_a_header_without_end():
    same_as_without(ENVELOPE + b"Content-Length: 5\n")
    same_as_without(ENVELOPE + b"Content-Length: 0")


@many
@given(st.lists(st.tuples(st.integers(-2, 300),
                          st.sampled_from([b"", b"a\n", FAKE, b"x" * 100, b"\n\n", b"From joe\n"])),
                min_size=1, max_size=5), st.integers(LEAST_WINDOW, 4200))
def test_any_lengths_through_any_window(parts, window):
    octets = b"".join(message(measured(body, length)) for length, body in parts)
    found = scanned(octets, sysv=True)
    assert scanned(octets, sysv=True, window=window) == found
    for (offset, start, end, _), (following, *_) in zip(found, found[1:] + [(len(octets),)]):
        assert octets.startswith(b"From ", offset) and octets[start - 1:start] == b"\n"
        assert octets[offset - 1:offset] in (b"", b"\n")
        assert start <= end <= following
