"""Octets in and out: stuffing, TOP, terminators and command lines at every split point (RFC 1939 section 3)."""

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popper import wire
from popper.storage.memory import Memory
from popper.wire import TOO_LONG, Incoming, Lines, Reply, number, printable

many = settings(deadline=None, max_examples=300, database=None, derandomize=True)

ENVELOPE = b"From joe@example.org Thu Nov 24 18:22:48 1996\n"
NASTY = [b"", b".", b"\r", b"\n", b"\r\n", b".\r\n", b"..\n.\n", b"a\r", b"a\r\r\n.b", b"\n\n.", b"\r\n.\r\n..\r\n",
         b"A: b\n\n.\n", b"A: b\r\n\r\n.x\r\n.\r\n", b"\r.\n.\r.", b"A: b\n\r\r\n\nx", b"\n.\n\n", b"\0.\n.\0\n",
         b"\r\r\r"]
ALPHABET = (b".", b"\r", b"\n", b"a")
SHORT = [b"".join(letters) for n in range(6) for letters in itertools.product(ALPHABET, repeat=n)]
texts = st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"..", b"a", b"A: b\n", b"\n\n", b"\xff", b"\0"]),
                 max_size=30).map(b"".join)


def splits(octets):
    """Every way to cut octets into pieces."""
    for cuts in range(1 << max(0, len(octets) - 1)):
        yield cut(octets, [at for at in range(1, len(octets)) if cuts >> at - 1 & 1])


def cut(octets, places):
    edges = [0, *sorted(places), len(octets)]
    return [octets[a:b] for a, b in zip(edges, edges[1:])]


def few_splits(octets):
    """Whole, octet by octet, with empty pieces between, and in two pieces at every place."""
    yield [octets]
    yield [octets[i:i + 1] for i in range(len(octets))]
    yield list(itertools.chain.from_iterable((b"", octets[i:i + 1]) for i in range(len(octets))))
    for at in range(1, len(octets)):
        yield [octets[:at], octets[at:]]


def stored_lines(text):
    """The lines of a stored text without their ends: the plain reading that the real thing is compared with."""
    *ended, rest = text.split(b"\n")
    return [line.removesuffix(b"\r") for line in ended] + ([rest] if rest else [])


def wire_lines(text):
    return [(b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in stored_lines(text)]


def top_lines(text, count):
    lines = wire_lines(text)
    header = lines.index(b"\r\n") + 1 if b"\r\n" in lines else len(lines)
    return lines[:header + count]


# -- outgoing --------------------------------------------------------------------------------------------------------

def test_every_short_text_leaves_the_same_however_it_is_split():
    """1939.08, 1939.09: all texts of up to five octets of `.`, CR, LF and a letter, in all ways."""
    for text in SHORT:
        expected = b"".join(wire_lines(text))
        for pieces in splits(text):
            assert b"".join(wire.outgoing(pieces)) == expected, (text, pieces)


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts_leave_the_same_however_they_are_split(text):
    for pieces in few_splits(text):
        assert b"".join(wire.outgoing(pieces)) == b"".join(wire_lines(text)), pieces


@many
@given(texts, st.sets(st.integers(1, 60)))
def test_any_text_leaves_the_same_however_it_is_split(text, places):
    pieces = cut(text, [at for at in places if at < len(text)])
    sent = b"".join(wire.outgoing(pieces))
    assert sent == b"".join(wire_lines(text))
    assert sent == b"" or sent.endswith(b"\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + sent       # nothing in it looks like the terminator


@many
@given(texts)
@example(b"\r")
@example(b"A: b\n\nno end")
@example(b"A: b\r\n\r\nno end\r")
def test_what_leaves_is_as_long_as_was_announced(text):
    """1939.32: the octets of LIST are those of RETR, stuffing not counted."""
    store = Memory(ENVELOPE + text)
    for entry in store.scan():
        stored = b"".join(store.read(entry))
        sent = b"".join(wire.outgoing(store.read(entry)))
        stuffed = sum(line.startswith(b".") for line in stored_lines(stored))
        assert len(sent) - stuffed == entry.octets


def test_a_text_without_final_line_end_is_ended():
    """1939.85."""
    assert b"".join(wire.outgoing([b"A: b\n\nend"])) == b"A: b\r\n\r\nend\r\n"


def test_octets_that_are_no_line_ends_pass_unchanged():
    """1939.86: NUL, 8-bit octets and a CR of its own."""
    every = bytes(octet for octet in range(256) if octet not in b"\n.")
    assert b"".join(wire.outgoing([every + b"\n"])) == every + b"\r\n"


# -- TOP -------------------------------------------------------------------------------------------------------------

def test_top_of_every_short_text_however_it_is_split():
    """1939.50, 1939.51, 1939.52: header, blank line, and so many lines."""
    for text in SHORT:
        for lines in range(3):
            expected = b"".join(top_lines(text, lines))
            for pieces in splits(text):
                assert b"".join(wire.top(wire.outgoing(pieces), lines)) == expected, (text, pieces, lines)


def test_top_of_wire_text_however_that_is_split():
    for text in (b"A: b\n\n1\n2\n", b"\n1\n", b"A: b\n", b"A: b\n\n\n\n.\n"):
        sent = b"".join(wire_lines(text))
        for pieces in splits(sent):
            assert b"".join(wire.top(pieces, 1)) == b"".join(top_lines(text, 1)), pieces


@many
@given(texts, st.integers(0, 12), st.sets(st.integers(1, 60)))
def test_top_of_any_text_however_it_is_split(text, lines, places):
    pieces = cut(text, [at for at in places if at < len(text)])
    assert b"".join(wire.top(wire.outgoing(pieces), lines)) == b"".join(top_lines(text, lines))


@pytest.mark.parametrize("lines", [4, 5, 10**19])
def test_top_of_more_lines_than_there_are_is_the_whole(lines):
    """1939.51."""
    text = b"A: b\n\n1\n2\n3\n4\n"
    assert b"".join(wire.top(wire.outgoing([text]), lines)) == b"".join(wire.outgoing([text]))


def test_top_of_a_text_without_blank_line_is_the_whole():
    assert b"".join(wire.top([b"A: b\r\n", b"C: d\r\n"], 0)) == b"A: b\r\nC: d\r\n"


def test_top_asks_for_no_more_than_it_sends():
    """TOP n 0 of a message of a gigabyte reads its header."""
    def blocks():
        yield b"A: b\r\n\r\n1\r\n"
        yield b"2\r\n3\r\n"
        raise AssertionError("read too far")
    assert b"".join(wire.top(blocks(), 2)) == b"A: b\r\n\r\n1\r\n2\r\n"


# -- blocks of a listing ---------------------------------------------------------------------------------------------

def test_a_listing_is_gathered_into_blocks():
    lines = [b"%d 1000\r\n" % number for number in range(1, 20001)]
    blocks = list(wire.blocks_of(lines))
    assert b"".join(blocks) == b"".join(lines)
    assert len(blocks) > 1 and all(65536 <= len(block) < 65600 for block in blocks[:-1])


def test_a_listing_of_nothing_has_no_block():
    assert list(wire.blocks_of([])) == []


# -- incoming --------------------------------------------------------------------------------------------------------

def received(pieces):
    """(text, rest, done) of an Incoming that is fed until it is done; what it was not fed belongs to the rest."""
    incoming, text, rest = Incoming(), b"", b""
    for piece in pieces:
        if incoming.done:
            rest += piece
        else:
            text += incoming.feed(piece)
    return text, incoming.rest + rest, incoming.done


def plainly_received(stream):
    text = b""
    while True:
        line, end, stream = stream.partition(b"\n")
        assert end
        if line in (b".", b".\r"):
            return text, stream, True
        text += line.removeprefix(b".").removesuffix(b"\r") + b"\n"


def test_every_short_text_arrives_the_same_however_it_is_split():
    """xtnd.03: dots unstuffed, lines ended by LF, up to the first line that is one dot."""
    for text in SHORT:
        stream = text + b"\r\n.\r\nQ"
        expected = plainly_received(stream)
        for pieces in few_splits(stream):
            assert received(pieces) == expected, pieces
    for text in SHORT[:341]:
        stream = text + b"\n.\nQ"
        for pieces in splits(stream):
            assert received(pieces) == plainly_received(stream), pieces


@many
@given(texts, st.sets(st.integers(1, 60)))
def test_any_text_arrives_the_same_however_it_is_split(text, places):
    stream = text + b"\r\n.\r\nQUIT\r\n"
    assert received(cut(stream, [at for at in places if at < len(stream)])) == plainly_received(stream)


@many
@given(texts)
def test_what_leaves_arrives(text):
    sent = b"".join(wire.outgoing([text])) + wire.TERMINATOR + b"QUIT\r\n"
    assert received([sent]) == (b"".join(line + b"\n" for line in stored_lines(text)), b"QUIT\r\n", True)


def test_a_text_that_is_cut_off_is_not_done():
    """xtnd.04: neither a dot without a line end nor one within a line ends a text."""
    for stream in (b"a\r\n.", b"a\r\n.\r", b"a.\r\n", b"a\r\n..\r\n", b"a\r\n. \r\n", b"a\r\n.\r\r\n", b""):
        for pieces in few_splits(stream):
            assert received(pieces)[2] is False, pieces


def test_a_long_text_is_given_on_as_it_comes():
    """Memory does not grow with the text, nor with a line of it."""
    incoming, octets = Incoming(), 0
    for _ in range(100):
        octets += len(incoming.feed(b"x" * 16384))
        assert len(incoming.held) <= 2
    assert octets == 100 * 16384 and not incoming.done


# -- command lines ---------------------------------------------------------------------------------------------------

def taken(pieces):
    """The lines that come out, asked for after each piece until there is none."""
    lines, out = Lines(), []
    for piece in pieces:
        lines.feed(piece)
        while (line := lines.take()) is not None:
            out.append(line)
    return out, lines.rest()


def test_every_short_input_gives_the_same_lines_however_it_is_split():
    """1939.77: commands may come split or joined, and end in CRLF or LF."""
    for stream in SHORT:
        *ended, rest = stream.split(b"\n")
        expected = [line.removesuffix(b"\r") for line in ended], rest
        for pieces in splits(stream):
            assert taken(pieces) == expected, pieces


@pytest.mark.parametrize("octets", [1021, 1022, 1023, 1024, 1025, 16384, 100000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("piece", [1, 7, 1024, 16384])
def test_a_line_of_1024_octets_is_one_and_a_longer_one_is_too_long(octets, end, piece):
    """2449.05: an over-long line is one line, its end is not another command, and the next one is good."""
    stream = b"x" * octets + end + b"NOOP\r\n"
    out, rest = taken(stream[at:at + piece] for at in range(0, len(stream), piece))
    longer = octets + len(end) > wire.LONGEST_LINE
    assert out == [TOO_LONG if longer else b"x" * octets, b"NOOP"] and rest == b""


@many
@given(st.lists(st.tuples(st.sampled_from([0, 1, 500, 1022, 1023, 1024, 1025, 3000]),
                          st.sampled_from([b"\n", b"\r\n"])), max_size=6),
       st.sets(st.integers(1, 12000), max_size=6))
def test_long_and_short_lines_however_they_are_split(shape, places):
    stream = b"".join(b"x" * octets + end for octets, end in shape)
    expected = [TOO_LONG if octets + len(end) > 1024 else b"x" * octets for octets, end in shape]
    assert taken(cut(stream, [at for at in places if at < len(stream)])) == (expected, b"")


def test_input_without_line_end_takes_no_memory_and_is_known_as_a_flood():
    """sec.01, CVE-2002-0454."""
    lines, fed, flooding = Lines(), 0, []
    for _ in range(64):
        lines.feed(b"x" * 16384)
        fed += 16384
        assert lines.take() is None
        assert len(lines.buffer) <= wire.LONGEST_LINE
        flooding.append(lines.flooding)
        assert lines.flooding == (fed > wire.LONGEST_FLOOD)
    assert flooding[0] is False and flooding[-1] is True
    lines.feed(b"\r\nNOOP\r\n")
    assert lines.take() is TOO_LONG
    assert not lines.flooding
    assert lines.take() == b"NOOP"


def test_a_line_that_comes_octet_by_octet_takes_no_memory_either():
    lines = Lines()
    for _ in range(5000):
        lines.feed(b"x")
        assert lines.take() is None
        assert len(lines.buffer) <= wire.LONGEST_LINE


def test_nul_is_data():
    assert taken([b"NO\0OP\r\n"]) == ([b"NO\0OP"], b"")


def test_what_was_read_ahead_is_handed_over():
    """2449.12: the text behind XTND XMIT may come in the packet of the command."""
    lines = Lines(b"XTND XMIT\r\nTo: x\r\n")
    assert lines.take() == b"XTND XMIT"
    assert lines.rest() == b"To: x\r\n"
    assert lines.rest() == b"" and lines.take() is None


# -- replies ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("reply, line", [
    (Reply(True, ""), b"+OK \r\n"),                  # 1957.01: a space follows the status in any case
    (Reply(False, ""), b"-ERR \r\n"),
    (Reply(True, "2 300"), b"+OK 2 300\r\n"),
    (Reply(False, "no", "IN-USE"), b"-ERR [IN-USE] no\r\n"),
    (Reply(False, "no", "", "for the log"), b"-ERR no\r\n"),
    (Reply(True, "grüße"), b"+OK gr??e\r\n"),
    (Reply(False, "/var/mail/j\udcf6rg"), b"-ERR /var/mail/j?rg\r\n"),
    (Reply(True, "%s{0}%n"), b"+OK %s{0}%n\r\n"),
])
def test_status_lines(reply, line):
    assert reply.status() == line


@pytest.mark.parametrize("length", [504, 505, 506, 507, 508, 600, 100_000])
def test_a_long_status_line_is_cut(length):
    line = Reply(True, "x" * length).status()
    assert line == b"+OK " + b"x" * min(length, 506) + b"\r\n" and len(line) <= 512


@many
@given(st.booleans(), st.binary(max_size=2000), st.integers(0, 2000), st.sampled_from(["", "AUTH", "SYS/TEMP"]))
def test_a_status_line_is_one_line_of_at_most_512_octets(ok, octets, most, code):
    """1939.06, 2449.06, CVE-2003-0143: whatever is echoed in it."""
    line = Reply(ok, f'Unknown command: "{printable(octets, most)}".', code).status()
    assert len(line) <= 512
    assert re.fullmatch(rb"(\+OK|-ERR) [\x20-\x7e]*\r\n", line)


# -- numbers ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("word, value", [
    (b"0", 0), (b"1", 1), (b"42", 42), (b"010", 10), (b"4294967297", 4294967297), (b"9" * 20, 10**20 - 1)])
def test_numbers(word, value):
    assert number(word) == value


@pytest.mark.parametrize("word", [
    b"", b" ", b"+1", b"-1", b"1_0", b"_1", b" 1", b"1 ", b"1\n", b"\t1", b"1x", b"x", b"0x1", b"1e0", b"1.0", b"1\0",
    b"\xb2", "٣".encode(), "１".encode(), "²".encode(), b"0b1", b"9" * 21, b"9" * 100000])
def test_what_int_would_take_is_no_number(word):
    """1939.76: signs, underscores, spaces, other scripts' digits, and numbers beyond any use."""
    assert number(word) is None


@many
@given(st.one_of(st.binary(max_size=30), st.text(max_size=25).map(str.encode),
                 st.text("0123456789+-_ x", max_size=25).map(str.encode)))
def test_a_number_is_plain_digits_or_nothing(word):
    expected = int(word) if re.fullmatch(rb"[0-9]{1,20}", word) else None
    assert number(word) == expected


# -- what is echoed --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("octets, shown", [
    (b"stat", "stat"), (b"", ""), (b"a b", "a b"), (b"\r\n", r"\x0d\x0a"), (b"\x1b[2J", r"\x1b[2J"), (b"\0", r"\x00"),
    (b"\x7f\x80\x9b\xff", r"\x7f\x80\x9b\xff"), ("\u2028".encode(), r"\xe2\x80\xa8"), (b"%n%s{0}", "%n%s{0}")])
def test_printable(octets, shown):
    assert printable(octets) == shown


@many
@given(st.binary(max_size=400), st.integers(0, 200))
def test_printable_lets_no_control_octet_and_nothing_over_long_out(octets, most):
    """sec.04, sec.10."""
    shown = printable(octets, most)
    assert re.fullmatch(r"[\x20-\x7e]*", shown)
    assert len(shown) <= 4 * most + 3
    assert shown.endswith("...") or len(octets) <= most


@many
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=128))
def test_printable_leaves_plain_text_alone(text):
    assert printable(text.encode()) == text
