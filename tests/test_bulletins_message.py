"""What a bulletin is: names and numbers, the file, and what of it reaches the user (ucb-popper.md 6)."""

import os
import socket
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popper.bulletins import DIGITS_MOST, addressed, candidates, group_of, number_of, open_directory, read_bulletin
from popper.errors import Refused
from popper.storage.scan import is_envelope, scan

ENVELOPE = b"From postmaster@example.org Fri Mar  8 17:05:00 2024\n"
MOST = 1000


def bulletin(text=b"Subject: x\n\ny\n"):
    return ENVELOPE + text


def messages_in(octets):
    return [octets[entry.start:entry.end] for entry in scan(lambda count, at: octets[at:at + count], len(octets))]


def complaint(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert not caught.value.reason
    return caught.value.text


# -- names -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, number", [
    ("23.pophost_down_sunday", 23), ("23", 23), ("23-sunday", 23), ("23sunday", 23), ("23 sunday", 23), ("007.bond", 7),
    ("2.5", 2), ("23.a~b", 23), ("9" * DIGITS_MOST, 10**DIGITS_MOST - 1),
    ("README", 0), ("README.md", 0), (".23.swp", 0), ("#23#", 0), ("-23", 0), ("+23", 0), (" 23", 0), ("23.sunday~", 0),
    ("0", 0), ("000.x", 0), ("1" + "0" * DIGITS_MOST + ".x", 0), ("\u0662\u0663.x", 0), ("\uff12.x", 0),
    ("\u00b2.x", 0),
    ("\udcff23", 0), ("", 0),
])
def test_number_of(name, number):
    assert number_of(name) == number


@settings(deadline=None)
@given(st.integers(0, 10**19), st.text(st.characters(codec="utf-8", exclude_characters="\0/"), max_size=20))
def test_the_number_is_the_digits_in_front_and_nothing_else(number, rest):
    name = f"{number}{rest}"
    digits = len(name) - len(name.lstrip("0123456789"))
    wanted = int(name[:digits]) if digits <= DIGITS_MOST and not name.endswith("~") else 0
    assert number_of(name) == wanted


@pytest.fixture
def board(tmp_path):
    """board(name: octets, ...) -> the descriptor of a directory with these files, all that may be there at once."""
    directory = tmp_path / "bulletins"
    directory.mkdir()
    directory.chmod(0o755)
    descriptor = open_directory(str(directory), os.geteuid())

    def put(**files):
        for name, octets in files.items():
            (directory / name).write_bytes(octets)
            (directory / name).chmod(0o644)
        return descriptor
    put.directory = directory
    yield put
    os.close(descriptor)


def test_candidates_come_in_order_of_number_then_of_name(board):
    names = ("10.ten", "9.nine", "100", "9.alpha", "README", ".11.draft", "12.old~", "011.eleven", "0.none")
    descriptor = board(**dict.fromkeys(names, b""))
    everything = [(9, "9.alpha"), (9, "9.nine"), (10, "10.ten"), (11, "011.eleven"), (100, "100")]
    assert candidates(descriptor) == everything
    for above in range(110):
        assert candidates(descriptor, above) == [each for each in everything if each[0] > above]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("0129.-~a\u0662\u00b2"), min_size=1, max_size=8)), st.integers(0, 300))
def test_candidates_are_the_names_with_a_number_above(names, above):
    with patch("os.listdir", lambda descriptor: names):
        found = candidates(0, above)
    assert found == sorted((number_of(name), name) for name in names if number_of(name) > above)


def test_a_listing_that_fails_is_told(board):
    plain = os.open(board.directory.parent, os.O_RDONLY)
    os.close(plain)
    assert complaint(candidates, plain) == "Unable to read bulletin directory: Bad file descriptor (9)"


@pytest.mark.parametrize("name, group", [
    ("24.staff.pay_day", "staff"), ("25.ALL.quotas", "ALL"), ("24.staff", "staff"), ("24.staff.a.b", "staff"),
    ("24..x", ""), ("24.", ""), ("24", None), ("24-staff", None),
])
def test_group_of(name, group):
    assert group_of(name) == group


# -- the directory ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", [0o700, 0o711, 0o755, 0o555, 0o2755])
def test_a_directory_of_ones_own_is_taken(board, mode):
    board.directory.chmod(mode)
    os.close(open_directory(str(board.directory), os.geteuid()))


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777, 0o2775])
def test_a_directory_in_which_others_may_write_is_not(board, mode):
    board.directory.chmod(mode)
    assert complaint(open_directory, str(board.directory), os.geteuid()) == \
        f"Bulletin directory '{board.directory}' may be written in by others than its owner; no bulletins"


def test_what_is_no_directory_is_told(board):
    board(file=b"")
    assert complaint(open_directory, str(board.directory / "file")) == \
        f"Unable to open bulletin directory '{board.directory}/file': Not a directory (20)"
    assert complaint(open_directory, str(board.directory / "none")) == \
        f"Unable to open bulletin directory '{board.directory}/none': No such file or directory (2)"


@pytest.mark.root
def test_a_directory_is_roots_or_of_who_runs_popper(board):
    os.close(open_directory(str(board.directory), 4321))
    os.chown(board.directory, 4321, 0)
    os.close(open_directory(str(board.directory), 4321))
    for owner in (0, 4322):
        assert complaint(open_directory, str(board.directory), owner) == \
            f"Bulletin directory '{board.directory}' is owned neither by root nor by who runs popper; no bulletins"


# -- the file --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("octets", [bulletin(), bulletin(b"x"), bulletin(b"\n\n\nx\n"),
                                    bulletin(b"x" * (MOST - len(ENVELOPE))),
                                    bulletin().replace(b"\n", b"\r\n"), bulletin(b"\0\xff\n\x1a")])
def test_a_file_is_read_as_it_is(board, octets):
    assert read_bulletin(board(**{"1.x": octets}), "1.x", MOST) == octets


@pytest.mark.parametrize("octets, words", [
    (b"", "is empty"),
    (b"Subject: x\n\ny\n", 'does not start with a valid "From " separator'),
    (b"\n" + bulletin(), 'does not start with a valid "From " separator'),
    (b"From now on\nSubject: x\n\ny\n", 'does not start with a valid "From " separator'),
    (b">" + bulletin(), 'does not start with a valid "From " separator'),
    (ENVELOPE.replace(b"post", b"x" * 1024) + b"Subject: x\n\ny\n", "has more than 1000 octets"),
    (ENVELOPE, "has nothing but an envelope line"),
    (ENVELOPE[:-1], "has nothing but an envelope line"),
    (ENVELOPE + b"\n\r\n \n", "has nothing but an envelope line"),
    (bulletin(b"x" * MOST), "has more than 1000 octets"),
    (bulletin(b"x" * (MOST + 1 - len(ENVELOPE))), "has more than 1000 octets"),
])
def test_a_file_that_is_no_bulletin(board, octets, words):
    assert complaint(read_bulletin, board(**{"1.x": octets}), "1.x", MOST) == f"Bulletin 1.x {words}"


def test_an_envelope_line_that_would_not_be_found_again_is_none(board):
    descriptor = board(**{"1.x": ENVELOPE.replace(b"post", b"x" * 1024) + b"Subject: x\n\ny\n"})
    assert complaint(read_bulletin, descriptor, "1.x", 5000).endswith("separator")


def test_a_directory_a_fifo_and_a_socket_are_left_out_at_once(board):
    descriptor = board()
    (board.directory / "1.directory").mkdir()
    os.mkfifo(board.directory / "2.fifo", 0o644)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(board.directory / "3.socket"))
    assert complaint(read_bulletin, descriptor, "1.directory", MOST) == "Bulletin 1.directory is not a regular file"
    assert complaint(read_bulletin, descriptor, "2.fifo", MOST) == "Bulletin 2.fifo is not a regular file"
    assert complaint(read_bulletin, descriptor, "3.socket", MOST) == \
        "Unable to open bulletin file 3.socket: No such device or address (6)"


def test_a_file_that_everybody_may_write_to_is_left_out(board):
    descriptor = board(**{"1.x": bulletin()})
    (board.directory / "1.x").chmod(0o646)
    assert complaint(read_bulletin, descriptor, "1.x", MOST) == "Bulletin 1.x may be written by everybody"
    (board.directory / "1.x").chmod(0o664)
    assert read_bulletin(descriptor, "1.x", MOST) == bulletin()


def test_a_file_that_has_gone_since_it_was_listed(board):
    assert complaint(read_bulletin, board(), "1.x", MOST) == \
        "Unable to open bulletin file 1.x: No such file or directory (2)"


def test_a_name_cannot_end_a_log_line(board):
    name = "1.x\ny (z) \u2028"
    descriptor = board(**{name: b""})
    assert complaint(read_bulletin, descriptor, name, MOST) == \
        r"Bulletin 1.x\x0ay\x20\x28z\x29\x20\xe2\x80\xa8 is empty"


# -- symbolic links --------------------------------------------------------------------------------------------------

def test_a_link_of_the_directorys_owner_is_followed_one_step(board):
    descriptor = board(**{".text": bulletin()})
    (board.directory / "1.inside").symlink_to(".text")
    outside = board.directory.parent / "text"
    outside.write_bytes(bulletin(b"outside\n"))
    outside.chmod(0o644)
    (board.directory / "2.outside").symlink_to(outside)
    (board.directory / "3.up").symlink_to("../text")
    (board.directory / "4.chain").symlink_to("1.inside")
    (board.directory / "5.dangling").symlink_to("nowhere")
    (board.directory / "6.itself").symlink_to("6.itself")
    assert read_bulletin(descriptor, "1.inside", MOST) == bulletin()
    assert read_bulletin(descriptor, "2.outside", MOST) == bulletin(b"outside\n")
    assert read_bulletin(descriptor, "3.up", MOST) == bulletin(b"outside\n")
    assert complaint(read_bulletin, descriptor, "4.chain", MOST) == \
        "Unable to open bulletin file 4.chain: Too many levels of symbolic links (40)"
    assert complaint(read_bulletin, descriptor, "5.dangling", MOST) == \
        "Unable to open bulletin file 5.dangling: No such file or directory (2)"
    assert complaint(read_bulletin, descriptor, "6.itself", MOST).endswith("(40)")


def test_a_link_to_what_is_no_bulletin_is_none(board):
    descriptor = board()
    os.mkfifo(board.directory / ".fifo", 0o644)
    (board.directory / "1.fifo").symlink_to(".fifo")
    (board.directory / "2.null").symlink_to(os.devnull)
    (board.directory / "3.passwd").symlink_to("/etc/passwd")
    (board.directory / "4.directory").symlink_to("/")
    assert [complaint(read_bulletin, descriptor, name, 1 << 20).partition(" ")[2].partition(" ")[2] for name in
            ("1.fifo", "2.null", "3.passwd", "4.directory")] == \
        ["is not a regular file", "is not a regular file", 'does not start with a valid "From " separator',
         "is not a regular file"]


@pytest.mark.root
def test_a_link_of_somebody_else_is_not_followed(board):
    descriptor = board(**{".text": bulletin()})
    link = board.directory / "1.x"
    link.symlink_to(".text")
    os.chown(link, 4321, 4321, follow_symlinks=False)
    what = "Bulletin 1.x is a symbolic link that is not its directory's owner's"
    assert complaint(read_bulletin, descriptor, "1.x", MOST) == what
    os.chown(board.directory, 4321, 4321)
    assert read_bulletin(descriptor, "1.x", MOST) == bulletin()
    os.chown(link, 4322, 4321, follow_symlinks=False)
    assert complaint(read_bulletin, descriptor, "1.x", MOST) == what
    os.chown(link, 0, 4321, follow_symlinks=False)
    assert read_bulletin(descriptor, "1.x", MOST) == bulletin()


def test_a_link_that_is_replaced_while_it_is_opened_is_not_believed(board, monkeypatch):
    descriptor = board(**{".text": bulletin(), ".other": bulletin(b"other\n")})
    link = board.directory / "1.x"
    link.symlink_to(".other")
    os.rename(link, board.directory / ".spare")
    link.symlink_to(".text")
    readlink = os.readlink

    def replacing(*arguments, **directory):
        os.replace(board.directory / ".spare", link)
        return readlink(*arguments, **directory)
    monkeypatch.setattr(os, "readlink", replacing)
    assert complaint(read_bulletin, descriptor, "1.x", MOST) == "Bulletin 1.x was replaced while it was opened"


def test_nothing_stays_open(board):
    descriptor = board(**{"1.x": bulletin(), "2.x": b"", "3.x": b"x", ".text": bulletin()})
    (board.directory / "4.x").symlink_to(".text")
    (board.directory / "5.x").mkdir()
    before = os.listdir("/proc/self/fd")
    for name in os.listdir(board.directory):
        try:
            read_bulletin(descriptor, name, MOST)
        except Refused:
            pass
    board.directory.chmod(0o777)
    with pytest.raises(Refused):
        open_directory(str(board.directory), os.geteuid())
    assert os.listdir("/proc/self/fd") == before


# -- what the user gets ----------------------------------------------------------------------------------------------

def given_to(text, user="joe", host="pop.example.org"):
    """What becomes of a bulletin behind its envelope line."""
    octets = addressed(ENVELOPE + text, user, host)
    assert octets.startswith(ENVELOPE)
    return octets[len(ENVELOPE):]


@pytest.mark.parametrize("before, after", [
    (b"To: all\nSubject: x\n\ny\n", b"To: joe@pop.example.org\nSubject: x\n\ny\n"),
    (b"tO:all\n\ny\n", b"To: joe@pop.example.org\n\ny\n"),
    (b"To:\n\ny\n", b"To: joe@pop.example.org\n\ny\n"),
    # What continues it goes with it.
    (b"To: a,\n b,\n\tc\nCc: d,\n e\n\ny\n", b"To: joe@pop.example.org\nCc: d,\n e\n\ny\n"),
    # Every one.
    (b"To: a\nSubject: x\nTo: b\n c\n\ny\n", b"To: joe@pop.example.org\nSubject: x\nTo: joe@pop.example.org\n\ny\n"),
    # None is added.
    (b"Subject: x\n\ny\n", b"Subject: x\n\ny\n"),
    # What only looks like it.
    (b"To \nX-To: a\nTo-: b\n To: c\nSubject: To:\n\ny\n", b"To \nX-To: a\nTo-: b\n To: c\nSubject: To:\n\ny\n"),
    (b"Subject: x\n\nTo: all\nStatus: RO\nX-UIDL: 1\n", b"Subject: x\n\nTo: all\nStatus: RO\nX-UIDL: 1\n"),
    (b"Status: RO\nSubject: x\nSTATUS: O\nx-uidl: abc\n more\nX-Status: A\nStatus-x: y\n\ny\n",
     b"Subject: x\nX-Status: A\nStatus-x: y\n\ny\n"),
    (b"Status: RO\n\ny\n", b"\ny\n"),
    # Line ends, and the end.
    (b"To: a,\r\n b\r\nSubject: x\r\n\r\ny\r\n\r\nz\r\n", b"To: joe@pop.example.org\nSubject: x\n\ny\n\nz\n"),
    (b"Subject: x\n\ny", b"Subject: x\n\ny\n"),
    (b"Subject: x\n\ny\n\n\n\n", b"Subject: x\n\ny\n"),
    (b"Subject: x\n\n\n\ny\n", b"Subject: x\n\n\n\ny\n"),
    (b"Subject: x\n", b"Subject: x\n\n"),
    (b"Subject: x", b"Subject: x\n\n"),
    (b"Subject: x\n\n", b"Subject: x\n\n"),
    (b"Subject: x\n\n\n\n", b"Subject: x\n\n"),
    (b"\ny\n", b"\ny\n"),
    (b"Subject: x\n\na\rb\0\xff\x1a\n", b"Subject: x\n\na\rb\0\xff\x1a\n"),
    # Envelope lines in the text.
    (b"Subject: x\n\n" + ENVELOPE + b"y\n", b"Subject: x\n\n>" + ENVELOPE + b"y\n"),
    (b"Subject: x\n\ny\n\n" + ENVELOPE + b"\n" + ENVELOPE, b"Subject: x\n\ny\n\n>" + ENVELOPE + b"\n>" + ENVELOPE),
    (b"Subject: x\n\ny\n" + ENVELOPE, b"Subject: x\n\ny\n" + ENVELOPE),
    (b"Subject: x\n\n>" + ENVELOPE, b"Subject: x\n\n>" + ENVELOPE),
    (b"Subject: x\n\nFrom now on\n\nFrom Monday to Friday\n", b"Subject: x\n\nFrom now on\n\nFrom Monday to Friday\n"),
    (b"Subject: x\r\n\r\n" + ENVELOPE.replace(b"\n", b"\r\n"), b"Subject: x\n\n>" + ENVELOPE),
])
def test_addressed(before, after):
    assert given_to(before) == after
    assert given_to(after) == after


@pytest.mark.parametrize("user, to", [("joe", b"joe@pop.example.org"), ("joe@example.net", b"joe@example.net"),
                                      ("j.o_e+x-y", b"j.o_e+x-y@pop.example.org")])
def test_the_address(user, to):
    assert given_to(b"To: all\n\nx\n", user) == b"To: " + to + b"\n\nx\n"


FIELDS = st.sampled_from([b"To: all", b"to:x", b"Status: RO", b"X-UIDL: 1", b"Subject: x", b" more", b"\tmore",
                          b"Cc: y", b"X-To: z", b"no field", b"From a@b Mon Jan  1 00:00:00 2024"])
LINES = st.one_of(FIELDS, st.sampled_from([b"", b"\r", b".", b">From", ENVELOPE[:-1], b"From now on", b"\0\xff"]),
                  st.binary(max_size=20).map(lambda octets: octets.replace(b"\n", b"").rstrip(b"\r")))
LAST = st.sampled_from([b"", b"\n", b"\n\n", b"\n\n\n"])


@settings(deadline=None)
@given(st.lists(FIELDS), st.lists(LINES), LAST, st.sampled_from([b"\n", b"\r\n"]))
@example([], [b"", ENVELOPE[:-1]], b"\n", b"\r\n")
def test_a_bulletin_is_one_message_wherever_it_stands(header, body, last, end):
    octets = (ENVELOPE[:-1] + b"\n" + b"\n".join([*header, b"", *body]) + last).replace(b"\n", end)
    given = addressed(octets, "joe", "pop.example.org")
    assert given.endswith(b"\n") and b"\r\n" not in given
    text = given[len(ENVELOPE):]
    assert len(messages_in(given)) == 1
    other = bulletin() + b"\n"
    assert messages_in(other + given + b"\n" + other)[1] == text
    assert messages_in(other + given) == [other[len(ENVELOPE):-1], text]
    assert addressed(given, "joe", "pop.example.org") == given


@settings(deadline=None)
@given(st.lists(FIELDS), st.lists(LINES), LAST)
def test_what_is_not_to_change_does_not(header, body, last):
    text = b"\n".join([*header, b"", *body]) + last
    given = given_to(text)
    head, _, rest = given.partition(b"\n\n") if not given.startswith(b"\n") else (b"", b"", given[1:])
    kept, goes = [], False
    for line in header:
        if line[:1] not in (b" ", b"\t"):
            name = line.partition(b":")[0].lower() if b":" in line else b""
            goes = name in (b"to", b"status", b"x-uidl")
            if name == b"to":
                kept.append(b"To: joe@pop.example.org")
        if not goes:
            kept.append(line)
    assert head == b"\n".join(kept)
    wanted = [line.rstrip(b"\r") for line in (b"\n".join(body) + last).rstrip(b"\r\n").split(b"\n")]
    found = rest.removesuffix(b"\n").split(b"\n")
    assert len(found) == len(wanted)
    for before, after in zip(wanted, found):
        assert after == before or (after == b">" + before and is_envelope(before))
