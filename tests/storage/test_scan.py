"""Where messages begin and end, and how many octets they are on the wire (ucb-popper.md 5.4; RFC 1939 section 11)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mboxes import ENVELOPE, LEAST_WINDOW, crlf, lines_of, message, numbered, plainly_scanned, pread_of, scanned, texts

from popper.storage.scan import ENVELOPE_MOST, Entry, NotMailbox, first_blank, is_envelope, scan

many = settings(deadline=None, max_examples=300, database=None, derandomize=True)

# -- envelope lines --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line", [
    b"From joe Wed Dec  2 05:53 1992",
    b"From joe Wed Dec  2 05:53:22 1992",
    b"From joe Wed Dec  2 05:53 PST 1992",
    b"From joe Wed Dec  2 05:53:22 PST 1992",
    b"From joe Wed Dec  2 05:53:22 -0700 1992",
    b"From joe Wed Dec  2 05:53:22 1992 PST",
    b"From joe Wed Dec  2 05:53:22 1992 +0100",
    b"From joe Wed Dec  2 05:53:22 CEST 1992 +0200",
    b"From joe Wed Dec  2 05:53:22 1992 remote from mcvax",
    b"From joe Wed Dec  2 05:53:22 PST 1992 remote from mcvax",
    b"From joe Wed Dec  2 05:53:22 1992 +0100 remote from mcvax",
    b"From joe Wed Dec 02 05:53:22 1992",
    b"From joe Wed Dec 22 05:53:22 1992",
    b"From  joe  Wed  Dec  2  05:53:22  1992",
    b"From joe wed dec  2 05:53:22 1992",
    b"From joe@example.org Tue Jan  2 03:04:05 2024\n",
    b"From joe@example.org Tue Jan  2 03:04:05 2024\r\n",
    b"From joe@example.org Tue Jan  2 03:04:05 2024 \n",
    b"From MAILER-DAEMON Fri Jul  8 12:08:34 2011",
    b"From - Fri Jul  8 12:08:34 2011",
    b'From "joe doe"@example.org Fri Jul  8 12:08:34 2011',
    b"From j\xf6rg Fri Jul  8 12:08:34 2011",
    b"From fri@jul.example Fri Jul  8 12:08:34 2011",
])
def test_envelope_lines(line):
    assert is_envelope(line)


@pytest.mark.parametrize("line", [
    b"", b"From", b"From ", b"From joe", b"from joe Wed Dec  2 05:53 1992", b">From joe Wed Dec  2 05:53 1992",
    b" From joe Wed Dec  2 05:53 1992", b"From: joe Wed Dec  2 05:53 1992", b"From\tjoe Wed Dec  2 05:53 1992",
    b"From joe Wed Dec  2 1992",
    b"From joe Dec  2 05:53:22 1992",
    b"From joe Wed  2 Dec 05:53:22 1992",
    b"From joe Wed, 2 Dec 1992 05:53:22",
    b"From joe Foo Dec  2 05:53:22 1992",
    b"From joe Wed Foo  2 05:53:22 1992",
    b"From joe Wed Dec 222 05:53:22 1992",
    b"From joe Wed Dec two 05:53:22 1992",
    b"From joe Wed Dec  2 05:53:22",
    b"From joe Wed Dec  2 05:53:22 92",
    b"From joe Wed Dec  2 05:53:22 19922",
    b"From joe Wed Dec  2 0553 1992",
    b"From joe Wed Dec  2 05:53:22:01 1992",
    b"From joe Wed Dec  2 05.53 1992",
    b"From joe Wed Dec  2 05:: 1992",
    b"From joe Wed Dec  2 05:53:22 PST PDT 1992",
    b"From joe Wed Dec  2 05:53:22 1992 and so it was that we",
    b"From joe Wed Dec  2 05:53 1992, when all was well,",
    b"From joe Wed Dec  2 05:53:22 1992 remote from",
    b"From joe Wed Dec  2 05:53:22 1992 remote from mcvax by train",
    b"From what I hear on Wed we meet",
    "From joe Wed Dec  2 05:53:22 ١٩٩٢".encode(),
])
def test_lines_that_are_no_envelope(line):
    assert not is_envelope(line)
    body = b"Subject: x\n\n" + (line if line.strip() else b"x") + b"\nmore\n"
    assert len(scanned(message(body))) == 1


# -- whole mailboxes -------------------------------------------------------------------------------------------------

def test_an_empty_file_is_an_empty_mailbox():
    """1939.30."""
    assert scanned(b"") == []


@pytest.mark.parametrize("octets", [b"\n", b"\n\n", b"\r\n", b"\n\r\n\n", b"\n" * 200])
def test_a_file_of_empty_lines_is_an_empty_mailbox(octets):
    """1939.90: two octets are no endless loop."""
    assert scanned(octets) == []


@pytest.mark.parametrize("octets, offset", [
    (b"x\n", 0), (b"xx", 0), (b"F", 0), (b"From", 0), (b"from joe\n", 0), (b">" + numbered(1), 0),
    (b" " + numbered(1), 0), (b"Subject: x\n\nbody\n", 0), (b"\xef\xbb\xbf" + numbered(1), 0),
    (b"\0" + numbered(1), 0), (b"\n\nx\n", 2),
    (b"\1\1\1\1\n" + numbered(1), 0), (b"\n" + b"x" * 5000, 1), (b"From " + b"x" * 5000, 0),
    (b"x\n\n" + numbered(1), 0)])
def test_what_does_not_begin_with_an_envelope_is_no_mailbox(octets, offset):
    with pytest.raises(NotMailbox, match=f"^no envelope line at octet {offset}$"):
        scanned(octets)


def test_messages_in_order_with_separators_left_out():
    """1939.20."""
    octets = numbered(1, 2, 3)
    assert texts(octets) == [b"Subject: %d\nMessage-Id: <%d@example.org>\n\n" % (n, n) + b"line of %d\n" % n * 3
                             for n in (1, 2, 3)]
    assert scanned(octets) == plainly_scanned(octets)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n", b"\r\n\n", b"\n\r\n", b"\n\n\n"])
@pytest.mark.parametrize("text", [
    b"A: b\n\nbody", b"A: b\r\n\r\nbody", b"A: b", b"A: b\n", b"", b"\n\nbody", b"\nbody"])
def test_however_the_file_ends(text, end):
    """1939.85: no final line end; an empty line too few or too many."""
    octets = ENVELOPE + text + end
    assert scanned(octets) == plainly_scanned(octets)


@pytest.mark.parametrize("text, octets", [
    (b"A: b\n\n", 8), (b"A: b\n\nx", 11), (b"A: b\n\nx\n", 11), (b"A: b\n\n\n", 8), (b"A: b\n\n\n\n", 10),
    (b"A: b\r\n\r\nx\r\n", 11), (b"A: b\n\n\r\r\n", 11), (b"A: b\n\nx\r", 12), (b"A: b", 6), (b"", 0), (b"\n", 2)])
def test_sizes(text, octets):
    """1939.32: lines counted as the wire has them; a header without body is whole with its empty line."""
    (entry,) = scanned(ENVELOPE + text)
    assert entry[3] == octets


def test_header_only_messages_keep_their_empty_line():
    octets = ENVELOPE + b"A: b\n\n" + ENVELOPE + b"C: d\n\n\n" + ENVELOPE + b"E: f\n\n"
    assert texts(octets) == [b"A: b\n\n", b"C: d\n\n", b"E: f\n\n"]


def test_leading_empty_lines():
    octets = b"\n\r\n" + numbered(1, 2)
    assert [offset for offset, *_ in scanned(octets)] == [3, 3 + len(numbered(1))]
    assert scanned(octets) == plainly_scanned(octets)


def test_an_envelope_at_the_very_end():
    for end in (b"", b"\n", b"\r\n"):
        octets = numbered(1) + ENVELOPE.rstrip() + end
        assert scanned(octets)[1:] == [(len(numbered(1)), len(octets), len(octets), 0)]


@pytest.mark.parametrize("before", [b"x\n", b"x\r\n", b"x\n\r", b" \n", b"\t\n", b"\n>", b"\n "])
def test_an_envelope_line_that_follows_no_empty_line_is_text(before):
    octets = ENVELOPE + b"A: b\n\ntext" + before + ENVELOPE + b"more\n"
    assert len(scanned(octets)) == 1


@pytest.mark.parametrize("before", [b"\n\n", b"\n\r\n", b"\r\n\r\n", b"\r\n\n", b"\n\n\n", b"\r\n\r\n\r\n"])
def test_an_envelope_line_that_follows_an_empty_line_begins_a_message(before):
    octets = ENVELOPE + b"A: b\n\ntext" + before + ENVELOPE + b"C: d\n\nmore\n"
    assert len(scanned(octets)) == 2
    assert scanned(octets) == plainly_scanned(octets)


def test_a_crlf_mailbox():
    """1939.90."""
    octets = crlf(numbered(1, 2, 3))
    assert scanned(octets) == plainly_scanned(octets)
    assert [entry[3] for entry in scanned(octets)] == [entry[3] for entry in scanned(numbered(1, 2, 3))]


def test_line_ends_of_both_kinds_in_one_mailbox():
    octets = numbered(1) + crlf(numbered(2)) + numbered(3) + crlf(numbered(4))
    assert len(scanned(octets)) == 4
    assert scanned(octets) == plainly_scanned(octets)


@pytest.mark.parametrize("length", [ENVELOPE_MOST - 1, ENVELOPE_MOST, ENVELOPE_MOST + 1, 3 * ENVELOPE_MOST])
@pytest.mark.parametrize("behind", [0, 10, 5000])
def test_an_over_long_envelope_line_is_text(length, behind):
    """CVE-2000-0320: what does not fit a buffer is no reason to see a line where there is none."""
    end = b" Thu Nov 24 18:22:48 1996\n"
    long = b"From " + b"x" * (length - len(end) - 5) + end
    assert is_envelope(long) and len(long) == length
    octets = numbered(1) + long + b"A: b\n\n" + b"y\n" * behind
    assert len(scanned(octets)) == (2 if length <= ENVELOPE_MOST else 1)
    for window in (LEAST_WINDOW, LEAST_WINDOW + 1, 3000, 4096):
        assert scanned(octets, window=window) == plainly_scanned(octets)


def test_a_thousand_messages():
    """1939.88."""
    octets = numbered(*range(1000))
    assert len(scanned(octets)) == 1000
    assert scanned(octets) == plainly_scanned(octets)


@pytest.mark.parametrize("text", [
    b"Subject: " + b"x" * 5_000_000 + b"\n\nbody\n",
    b"X-Header: y\n" * 100_000 + b"\nbody\n",
    b"no colon\n\0: nul\n\nbody\n",
    b"A: b\n\n" + b"x" * 5_000_000 + b"\n",
    b"A: b\n\n" + bytes(range(256)) * 1000 + b"\n",
    b"A: b\n\n" + b"\nFrom " * 100_000 + b"\n",
    b"A: b\n\n" + b"\n\nFrom x" * 20_000 + b"\n",
])
def test_monstrous_messages(text):
    """Security.md rows 18 and 35."""
    octets = message(text) + numbered(2)
    assert len(scanned(octets)) == 2
    assert scanned(octets) == plainly_scanned(octets)


# -- windows and edges -----------------------------------------------------------------------------------------------

NASTY = b"".join([
    b"\n", numbered(1), message(b"A: b\n\n" + b"x" * 1500 + b"\n.\n\n>From x\n"), crlf(numbered(2)),
    message(b"A: b\n\nFrom here on\n\nFrom joe Mon\n\n\n\n"), message(b""), message(b"\n"), message(b"A: b\n"),
    message(b"A: b\r\n\r\n\r\n\r\nFrom x\r\n" + b"\r" * 7 + b"\n\r\r\n"), message(b"A: b\n\n" + b"\n" * 1200),
    message(b"y" * 2500 + b"\n\nFrom joe Thu Nov 24 18:22:48 1996 zz\n"), numbered(3, 4, lines=0), ENVELOPE, b"\nend"])


def test_every_window_finds_the_same():
    expected = plainly_scanned(NASTY)
    assert len(expected) == 14
    entries = list(scan(pread_of(NASTY), len(NASTY)))
    for window in range(LEAST_WINDOW, len(NASTY) + 20):
        assert scanned(NASTY, window=window) == expected, window
        assert list(scan(pread_of(NASTY), len(NASTY), window=window)) == entries, window


parts = st.one_of(
    st.sampled_from([ENVELOPE, ENVELOPE[:-1], crlf(ENVELOPE), b"\n", b"\n\n", b"\r\n", b"\r", b"\r\n\r\n", b"A: b\n",
                     b"x", b"From ", b"\nFrom joe\n", b".\n", b"From joe Thu Nov 24 18:22:48 1996 +0100\n"]),
    st.integers(0, 2100).map(lambda count: b"x" * count), st.integers(0, 1100).map(lambda count: b"y\n" * count))


@many
@given(st.lists(parts, max_size=25).map(b"".join), st.integers(LEAST_WINDOW, 4200))
def test_any_mailbox_through_any_window(octets, window):
    octets = ENVELOPE + octets
    assert scanned(octets, window=window) == plainly_scanned(octets)


EDGES = [512, 1023, 1024, 2048, 4095, 4096, 8191, 65535, 131071, 131072, 262143]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("ends", [lambda octets: octets, crlf], ids=["LF", "CRLF"])
def test_a_boundary_on_the_edge_of_a_buffer(edge, ends):
    """Security.md row 5, CVE-2000-0320: whatever octet of it lies on the edge."""
    second = ends(message(b"Subject: second\n\nbody\n"))
    for shift in range(-len(ends(ENVELOPE)) - 3, 6):
        begin = ends(ENVELOPE + b"A: b\n\n")
        padding = edge + shift - len(begin) - len(ends(b"\n\n"))
        octets = begin + b"x" * padding + ends(b"\n\n") + second
        assert octets.find(second) == edge + shift
        assert texts(octets) == [ends(b"A: b\n\n") + b"x" * padding + ends(b"\n"), ends(b"Subject: second\n\nbody\n")]
        assert scanned(octets) == plainly_scanned(octets)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("trap", [b"\n.\n", b"\r\n.\r\n", b"\n.\r\n", b"\r\r\n", b"\nFrom joe\n",
                                  b"From " + b"x" * 30 + b"\n", ENVELOPE, b"\n\n\n", b"\n\r\n"])
def test_what_is_no_boundary_on_the_edge_of_a_buffer(edge, trap):
    """Neither a dot line nor a From line behind a long line, or on its own, splits a message."""
    for shift in range(-len(trap) - 2, 4):
        octets = ENVELOPE + b"A: b\n\n"
        octets += b"x" * (edge + shift - len(octets)) + trap + b"y\n\n" + numbered(2)
        assert len(scanned(octets)) == 2
        assert scanned(octets) == plainly_scanned(octets)


def test_a_file_that_is_cut_short_meanwhile_ends_the_scan():
    """It is for the caller to see that something is wrong; it is for scan to return."""
    octets = numbered(*range(40))
    for there in (*range(0, 200), *range(2000, len(octets), 311)):
        reads = []

        def pread(count, offset):
            reads.append(offset)
            assert len(reads) < 1000, "scan does not end"
            return octets[:there][offset:offset + count] if len(reads) > 1 else octets[offset:offset + count]
        assert list(scan(pread, len(octets), window=LEAST_WINDOW)) != list(scan(pread_of(octets), len(octets)))


def test_what_was_appended_is_not_looked_at():
    """1939.79."""
    octets = numbered(1, 2)
    assert [e.end for e in scan(pread_of(octets + numbered(3)), len(octets))] == [e[2] for e in scanned(octets)]


def test_entries_are_told_apart_by_place_size_and_beginning():
    """Another message of the same size in the same place is another message."""
    def entry(octets):
        return next(scan(pread_of(octets), len(octets)))
    ours = ENVELOPE + b"A: b\n\nbody\n"
    assert entry(ours) == entry(ours)
    assert entry(ours) != entry(b"\n" + ours)
    assert entry(ours) != entry(ours + b"more\n")
    assert entry(ours) != entry(ours.replace(b"18:22:48", b"18:22:49"))
    assert entry(ours) != entry(ours.replace(b"joe", b"jim"))
    assert entry(ours) != entry(ours.replace(b"A: b", b"A: c"))
    assert entry(ours) != None                       # noqa: E711: what a list that has ended gives


# -- helpers of the reading side -------------------------------------------------------------------------------------

@pytest.mark.parametrize("octets, offset", [
    (b"", -1), (b"A: b", -1), (b"A: b\n", -1), (b"A: b\n\n", 6), (b"A: b\n\nbody\n\n", 6), (b"A: b\r\n\r\n", 8),
    (b"A: b\n\r\nx\n\n", 7), (b"A: b\r\n\nx\r\n\r\n", 7), (b"\n", -1), (b"\n\n", 2), (b"\r\n", -1), (b"A: b\n\r", -1),
    (b"A: b\n\r\r\n", -1)])
def test_the_first_empty_line_behind_another_line(octets, offset):
    assert first_blank(octets) == offset


@many
@given(st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"a"]), max_size=12).map(b"".join))
def test_the_first_empty_line_of_any_text(octets):
    at = 0
    for number, line in enumerate(lines_of(octets)):
        at += len(line)
        if number and line in (b"\n", b"\r\n"):
            assert first_blank(octets) == at
            return
    assert first_blank(octets) == -1


def test_an_entry_is_small():
    """Twenty thousand of them are a login."""
    with pytest.raises(AttributeError):
        Entry(0, 1).anything_else = 1
