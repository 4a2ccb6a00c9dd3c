"""popperctl bulletin: what the administrator types, and what has become of the directory then."""

import email
import email.policy
import os
import pwd
import re
import subprocess
import sys

import pytest

from conftest import TREE
from desk import HOST, ROOT, STAFF, UID, desk, editor, popperctl       # noqa: F401, fixtures
from popper.admin import bulletin, readers, usage
from popper.admin.shelf import LAST, LOCK
from processes import as_nobody, forks

pytestmark = forks
SAMPLES = TREE / "bulletins"
as_root = pytest.mark.root


def parsed(octets):
    return email.message_from_bytes(octets.partition(b"\n")[2], policy=email.policy.default)


def one_line(done, status):
    """What a command complained of, in one line."""
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("popperctl: ") and done.err.count("\n") == 1
    return done.err.removeprefix("popperctl: ").strip()


# -- add -------------------------------------------------------------------------------------------------------------

def test_the_first_bulletin_of_an_empty_directory(desk):
    done = desk.call("add", "-s", "pophost is down", text="On Sunday.\n")
    assert (done.status, done.err) == (0, "")
    assert desk.names == ["1.pophost_is_down"]
    assert done.out.startswith(f"bulletin 1 is {desk.directory}/1.pophost_is_down\n")
    message = parsed(desk.read("1.pophost_is_down"))
    assert (message["Subject"], message.get_content()) == ("pophost is down", "On Sunday.\n")
    assert message["From"].addresses[0].addr_spec == f"postmaster@{HOST}"


def test_a_bulletin_is_for_everybody_to_read_and_for_its_owner_to_write(desk):
    before = os.umask(0o077)
    try:
        desk.add()
    finally:
        os.umask(before)
    modes = {name: (desk.directory / name).stat().st_mode & 0o7777 for name in os.listdir(desk.directory)}
    # Who could open the lock could hold it.
    assert modes == {"1.moving": 0o644, LAST: 0o644, LOCK: 0o600}


def test_numbers_rise_above_the_highest_that_is_there(desk):
    for sample in "7.welcome_to_pophost", "22.pophost_speaks_unicode", "23.pophost_down_sunday":
        desk.put(sample, (SAMPLES / sample).read_bytes())
    desk.add()
    assert desk.names[-1] == "24.moving"


def test_the_text_may_be_a_file_or_standard_input(desk, tmp_path):
    (tmp_path / "sunday.txt").write_text("Grüße\n", "utf-8")
    assert desk.call("add", "-s", "a", tmp_path / "sunday.txt", text="not this").status == 0
    assert desk.call("add", "-s", "b", "-", text="Ä\n").status == 0
    assert [parsed(desk.read(name)).get_content() for name in desk.names] == ["Grüße\n", "Ä\n"]


def test_a_file_may_be_a_message_and_then_has_its_own_subject(desk):
    done = desk.call("add", SAMPLES / "22.pophost_speaks_unicode")
    assert done.status == 0
    (name,) = desk.names
    assert name == "1.grusse_saluts"
    assert desk.read(name) == (SAMPLES / "22.pophost_speaks_unicode").read_bytes()


def test_the_sender_and_the_number_may_be_chosen(desk):
    desk.add("x\n", "x", "--from", "Jörg <root>", "--number", "40")
    assert desk.names == ["40.x"]
    assert str(parsed(desk.read("40.x"))["From"]) == f"Jörg <root@{HOST}>"
    assert one_line(desk.call("add", "-s", "x", "--number", "40", text="x"), 64) == (
        "number 40 cannot be used: numbers rise, and 40 was used; without --number it is 41")
    assert one_line(desk.call("add", "-s", "x", "--number", "x", text="x"), 64) == (
        '--number: "x" is not a number above 0')
    for digits in 18, 5000:
        assert "too many digits" in one_line(desk.call("add", "-s", "x", "--number", "1" + "0" * digits, text="x"), 65)
        assert "no bulletin" in one_line(desk.call("show", "1" + "0" * digits), 66)


@pytest.mark.parametrize("words, text, status, why", [
    (["-s", "a"], "", 65, "the text: there is no text in it"),
    (["-s", "a"], "\n \n", 65, "the text: there is no text in it"),
    (["-s", "a"], "caf\udce9", 65,
     "the text: line 1 of the text is not UTF-8; iconv -f latin1 -t utf-8 may make it so"),
    ([], "text\n", 64, "a bulletin needs a subject: say -s TEXT"),
    (["-s", "a\nb"], "text\n", 65, "the text: the subject must be one line of UTF-8 text"),
    (["-s", "a", "--from", "x y"], "text\n", 65,
     'the text: "x y" is not one address, such as "Postmaster <postmaster@pophost.example.org>"; '
     "a name with a comma in it stands between quotation marks"),
    (["-s", "a", "/nonexistent"], "", 66, "/nonexistent: No such file or directory"),
    (["-s", "a", "--group", "staff"], "text\n", 78,
     'group_bulletins is off in the configuration, so everybody would get it; put a line "group_bulletins yes" there'),
])
def test_what_cannot_be_a_bulletin_is_refused_and_uses_no_number(desk, words, text, status, why):
    done = desk.call("add", *words, text=text.encode("utf-8", "surrogateescape"))
    assert one_line(done, status) == why
    assert desk.names == [] and not (desk.directory / LAST).exists()


def test_a_mailbox_of_two_messages_is_not_one_bulletin(desk, tmp_path):
    sample = (SAMPLES / "7.welcome_to_pophost").read_bytes()
    (tmp_path / "two").write_bytes(sample + b"\n" + sample)
    assert one_line(desk.call("add", tmp_path / "two"), 65) == (
        f"{tmp_path}/two: there are 2 messages in it; a bulletin is one")


def test_what_the_server_would_not_take_is_not_published(desk, tmp_path):
    (tmp_path / "odd").write_bytes(b"From " + b"x" * 2000 + b" Mon Jan  1 00:00:00 2024\nSubject: a\n\ntext\n")
    assert "does not start with a valid" in one_line(desk.call("add", tmp_path / "odd"), 65)
    assert sorted(os.listdir(desk.directory)) == [LAST, LOCK]


def test_a_bulletin_is_no_larger_than_the_server_takes(desk):
    desk.configure(bulletin_max=600)
    assert one_line(desk.call("add", "-s", "a", text="x" * 500), 65) == (
        "the text: it has more than 600 octets, which is bulletin_max")
    assert one_line(desk.call("add", "-s", "a", text="x" * 5000), 65) == (
        "the text: it has more than 600 octets, which is bulletin_max")
    desk.add("x" * 100)


@pytest.mark.parametrize("subject", ["../../../tmp/x", "\u202egnp.exe", "-rf", ".hidden", "a/b", "x~", "~", "23.fake",
                                     "ALL"])
def test_no_subject_makes_a_name_that_is_more_than_a_name(desk, subject):
    before = set(os.listdir(desk.place))
    desk.add("x\n", subject)
    (name,) = desk.names
    assert re.fullmatch("1\\.[a-z0-9_]+", name) and set(os.listdir(desk.place)) == before


def test_json_tells_programs_which_number_it_was(desk):
    assert desk.add("x\n", "x", "--json").json == {
        "number": 1, "path": f"{desk.directory}/1.x", "users": {readers.LEFT_OUT: 3}}


def test_without_a_directory_it_says_which_line_to_write(desk):
    desk.configure(bulletins=None)
    assert one_line(desk.call("add", "-s", "a", text="x"), 78) == (
        f'no directory of bulletins: put a line "bulletins /var/spool/bulletins" into {desk.conf}, or say -b DIR')
    assert desk.call("add", "-s", "a", "-b", desk.directory, text="x").status == 0
    assert desk.names == ["1.a"]


def test_a_directory_that_the_server_would_not_take_is_refused_with_the_cure(desk):
    desk.directory.chmod(0o775)
    assert one_line(desk.call("add", "-s", "a", text="x"), 78).endswith(
        f"may be written in by others than its owner; no bulletins; chmod 755 {desk.directory}")
    assert one_line(desk.call("list", "-b", "/nonexistent"), 78).endswith("; mkdir -p -m 755 /nonexistent")
    assert one_line(desk.call("list", "-b", desk.conf), 78).endswith("; name a directory")
    if ROOT:
        desk.directory.chmod(0o755)
        os.chown(desk.directory, UID, UID)
        assert f"chown root {desk.directory}" in one_line(desk.call("add", "-s", "a", text="x"), 78)


@as_root
def test_who_owns_the_directory_need_not_be_root(desk):
    os.chown(desk.directory, UID, UID)
    assert as_nobody(lambda: desk.call("add", "-s", "a", text="x").err) == ""
    assert as_nobody(lambda: desk.call("withdraw", "1").err) == ""
    assert as_nobody(lambda: desk.call("add", "-s", "b", text="x").err) == ""
    assert desk.names == ["2.b"]


@as_root
def test_who_does_not_own_the_directory_is_told_to_be_root(desk):
    assert as_nobody(lambda: desk.call("add", "-s", "a", text="x").err) == (
        "popperctl: .lock: Permission denied; try as root\n")


# -- add: to whom ----------------------------------------------------------------------------------------------------

def test_it_says_to_whom_the_bulletin_goes(desk):
    for user in "ann", "bob":
        desk.receipt(user, 0)
    assert desk.add().out.splitlines()[1:] == [
        "2 of 3 users get it at their next login",
        "1 of 3 users have no receipt yet: they count as new, and get none of the bulletins that are there when they "
        'log in; they get the newest with a line "new_user_bulletins 1" in popper.conf']
    desk.configure(new_user_bulletins=1)
    assert desk.add().out.splitlines()[1:] == [
        "2 of 3 users get it at their next login", "1 of 3 users get it at their first login"]


def test_numbers_that_users_had_before_are_not_used_for_new_bulletins(desk):
    """As after a move from another server, whose highest bulletin was deleted."""
    desk.put("7.old", (SAMPLES / "7.welcome_to_pophost").read_bytes())
    desk.receipt("ann", 30)
    desk.receipt("bob", 29)
    assert one_line(desk.call("add", "-s", "a", text="x"), 65) == (
        "ann, bob had bulletins up to 30 already, and would never get number 8: say --number 31, or --number 8 if that "
        "does not matter")
    assert desk.names == ["7.old"]
    desk.add("x\n", "a", "--number", "31")
    # From now on the counter decides: what a user writes into his own receipt is his affair.
    desk.receipt("cat", 10**17)
    desk.add("x\n", "b")
    assert desk.names == ["7.old", "31.a", "32.b"]


@as_root
def test_a_bulletin_for_a_group_has_it_in_its_name(desk):
    desk.configure(group_bulletins="yes")
    for user in desk.users:
        desk.receipt(user, 0)
    assert desk.add("x\n", "a", "--group", STAFF).out.splitlines()[1:] == [
        "1 of 3 users get it at their next login", "2 of 3 users are not in its group"]
    desk.add("x\n", "b")
    desk.add("x\n", "c", "--group", "ALL")
    assert desk.names == [f"1.{STAFF}.a", "2.ALL.b", "3.ALL.c"]
    assert one_line(desk.call("add", "-s", "a", "--group", "nosuch", text="x"), 67) == 'there is no group "nosuch"'


# -- add: at a terminal ----------------------------------------------------------------------------------------------

def test_at_a_terminal_the_editor_is_started_and_its_text_published(desk, editor):
    place = editor('[ "$1" = --wait ] && shift; sed -i "1s/.*/Subject: Ünder way/; 3a From here on" "$1"')
    done = desk.call("add", typing=True)
    assert (done.status, done.err) == (0, "")
    message = parsed(desk.read("1.under_way"))
    assert (message["Subject"], message.get_content()) == ("Ünder way", "From here on\n")
    assert [path.name for path in place.iterdir()] == ["my editor"]


def test_an_editor_that_is_left_without_a_word_cancels(desk, editor):
    place = editor("true")
    assert one_line(desk.call("add", "-s", "a", typing=True), 65) == "the text: there is a header and no text in it"
    assert desk.names == [] and [path.name for path in place.iterdir()] == ["my editor"]


@pytest.mark.parametrize("script, why", [
    ("printf '%s\\n' 'Subject: a' '' 'much work' >$2; exit 3", "ended with status 3"),
    ("printf 'Subject: a\\n\\nmuch work caf\\351\\n' >$2", "line 1 of the text is not UTF-8"),
    ("printf '%s\\n' '' 'much work' >$2", "a bulletin needs a subject: say -s TEXT"),
])
def test_text_that_was_typed_is_kept_when_it_cannot_be_published(desk, editor, script, why):
    editor(script)
    done = desk.call("add", typing=True)
    assert done.status and why in done.err and desk.names == []
    kept = re.search(r"the text is kept in (\S+); popperctl bulletin add \1$", done.err, re.M)[1]
    with open(kept, "rb") as file:
        assert b"much work" in file.read()


def test_what_was_kept_can_be_published_as_it_is(desk, editor, monkeypatch):
    editor("sed -i '1s/.*/Subject: a/; 3a much work' $2; exit 1")
    done = desk.call("add", typing=True)
    kept = re.search(r"kept in (\S+);", done.err)[1]
    assert desk.call("add", kept).status == 0
    assert parsed(desk.read("1.a")).get_content() == "much work\n"


def test_without_an_editor_it_says_what_to_do(desk, monkeypatch, tmp_path):
    for name in "VISUAL", "EDITOR":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert one_line(desk.call("add", "-s", "a", typing=True), 69) == "no editor: set EDITOR, or give the text as a file"


def test_the_subject_is_asked_for_where_somebody_can_answer(desk, tmp_path):
    (tmp_path / "text").write_text("We move.\n")
    done = desk.call("add", tmp_path / "text", text="Moving on\n", typing=True)
    assert (done.status, done.err, desk.names) == (0, "Subject: ", ["1.moving_on"])


def test_what_is_typed_without_an_editor_is_kept_as_well(desk, editor):
    editor("false")
    done = desk.call("add", "-", text="typed\n", typing=True)
    kept = re.search(r"kept in (\S+);", done.err)[1]
    with open(kept) as file:
        assert file.read() == "typed\n"


# -- list, show, preview ---------------------------------------------------------------------------------------------

def test_list_is_a_table(desk):
    assert desk.call("list").out == f"no bulletins in {desk.directory}\n"
    desk.receipt("ann", 1)
    desk.receipt("bob", 0)
    desk.add("x\n", "Grüße", "--number", "2")
    desk.put("1.old", (SAMPLES / "7.welcome_to_pophost").read_bytes())
    head, first, second, told = desk.call("list").out.splitlines()
    assert head.split() == ["NUMBER", "DATE", "OCTETS", "HAD", "SUBJECT", "NAME"]
    assert first.split()[:2] == ["1", "2024-01-08"]
    assert first.split()[3:] == ["687", "1", "Welcome", "to", "pophost", "1.old"]
    assert second.split()[-2:] == ["Grüße", "2.grusse"]
    assert told == "HAD: of 3 users who may log in"
    desk.receipt("cat", b"nonsense\n")
    assert desk.call("list").out.endswith("\nHAD: of 3 users who may log in; 1 could not be asked\n")


def test_list_as_json(desk):
    assert desk.call("list", "--json").json == []
    desk.put("1.old", (SAMPLES / "7.welcome_to_pophost").read_bytes())
    assert desk.call("list", "--json").json == [{
        "number": 1, "name": "1.old", "date": "2024-01-08T09:00:00+00:00", "octets": 687,
        "subject": "Welcome to pophost", "had": 0}]


def test_list_shows_what_is_wrong_in_the_place_of_the_subject(desk):
    desk.put("1.empty", b"")
    desk.put("2.\x1b[2J", b"no envelope\n")
    os.mkfifo(desk.directory / "3.fifo")
    done = desk.call("list")
    assert done.status == 0 and "\x1b" not in done.out
    assert "(Bulletin 1.empty is empty)" in done.out
    assert '(Bulletin 2.\\x1b\\x5b2J does not start with a valid "From " separator)' in done.out
    assert "(Bulletin 3.fifo is not a regular file)" in done.out


def test_show_is_for_reading(desk):
    desk.put("5.x", (SAMPLES / "22.pophost_speaks_unicode").read_bytes())
    done = desk.call("show", "5")
    assert done.status == 0
    assert "Subject: Grüße, saluts, χαιρετίσματα\n\nBulletins may be written" in done.out
    assert "auch über Öl" in done.out
    assert desk.call("show", "5.x").out == done.out


def test_show_shows_what_is_broken_as_it_stands(desk):
    broken = b"From a@b Mon Jan  1 00:00:00 2024\nSubject: a\nbroken line\n\ntext \xff\n"
    desk.put("1.a", broken)
    assert desk.call("show", "1").out.endswith("Subject: a\nbroken line\n\ntext \\xff\n\n")


def test_show_lets_no_escape_sequence_out(desk):
    desk.add("\x1b]0;title\x07 \x1b[2J\n", "a")
    assert "\x1b" not in desk.call("show", "1", terminal=True).out
    assert "\x1b" not in desk.call("preview", "1", "ann", terminal=True).out


def test_what_is_not_there_cannot_be_shown(desk):
    assert one_line(desk.call("show", "9"), 66) == f"there is no bulletin 9 in {desk.directory}"
    desk.add()
    desk.call("withdraw", "1")
    assert one_line(desk.call("show", "1"), 66) == (
        f"there is no bulletin 1 in {desk.directory}; it was withdrawn, or its number skipped")
    desk.put("2.b", b"")
    desk.put("2.a", b"")
    assert one_line(desk.call("show", "2"), 65) == "2.a, 2.b have the number 2: say which by its name"


def test_preview_is_what_that_user_gets(desk):
    desk.put("5.x", (SAMPLES / "23.pophost_down_sunday").read_bytes() + b"\n\nFrom a@b Mon Jan  1 00:00:00 2024\n")
    done = desk.call("preview", "5", "ann")
    assert (done.status, done.err) == (0, "")
    assert done.out.encode() == desk.sent("5.x", "ann")
    assert f"To: ann@{HOST}\n" in done.out


def test_preview_of_octets_is_octets(desk, tmp_path):
    desk.put("5.x", b"From a@b Mon Jan  1 00:00:00 2024\nSubject: a\nContent-Type: x/y\n\n\xff\xfe\x80\x1b\n")
    printed = subprocess.run([sys.executable, "-m", "popper.admin", "bulletin", "preview", "5", "ann", "-C", desk.conf],
                             capture_output=True, cwd=TREE, check=True).stdout
    assert printed == desk.sent("5.x", "ann") and b"\xff\xfe\x80\x1b" in printed


@as_root
def test_preview_says_when_the_user_does_not_get_it(desk):
    desk.configure(group_bulletins="yes")
    desk.add("x\n", "a", "--group", STAFF)
    assert desk.call("preview", "1", "ann").err == ""
    assert desk.call("preview", "1", "bob").err == (
        f"popperctl: bob does not get bulletin 1: it is for the group {STAFF}\n")
    done = desk.call("preview", "1", "eve")
    assert (done.status, done.err) == (0, "popperctl: eve is nobody who may log in, as far as can be seen\n")
    assert one_line(desk.call("preview", "1", "../x"), 67) == '"../x" cannot be the name of a user'


# -- edit ------------------------------------------------------------------------------------------------------------

def test_edit_puts_other_text_in_place_of_the_old(desk, editor):
    desk.add("at six\n", "Sunday")
    before = parsed(desk.read("1.sunday"))
    editor("sed -i s/six/seven/ $2")
    done = desk.call("edit", "1", typing=True)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"bulletin 1 has the new text: {desk.directory}/1.sunday\n")
    after = parsed(desk.read("1.sunday"))
    assert after.get_content() == "at seven\n"
    assert [after[name] for name in after] == [before[name] for name in before]


def test_edit_warns_of_those_who_have_had_it(desk):
    desk.add()
    assert len(desk.call("edit", "1", text="b\n").out.splitlines()) == 1
    desk.receipt("ann", 1)
    assert desk.call("edit", "1", text="c\n").out.splitlines()[1] == (
        "1 of 3 users have had the old text, and do not get the new one; popperctl bulletin resend 1 sends it to "
        "everybody")
    desk.receipt("ann").write_bytes(b"nonsense\n")
    assert desk.call("edit", "1", text="d\n").out.splitlines()[1] == (
        "who has had the old text does not get the new one; popperctl bulletin resend 1 sends it to everybody")


def test_edit_that_changes_nothing_writes_nothing(desk, editor):
    desk.add()
    before = (desk.directory / "1.moving").stat()
    editor("true")
    assert desk.call("edit", "1", typing=True).out == "bulletin 1 is as it was\n"
    assert (desk.directory / "1.moving").stat() == before


@pytest.mark.parametrize("text", ["", "From a\0"])
def test_edit_that_fails_leaves_the_bulletin_as_it_was(desk, text):
    desk.add()
    before = desk.read("1.moving")
    assert desk.call("edit", "1", text=text).status == 65
    assert desk.read("1.moving") == before


def test_edit_takes_text_from_a_file_and_keeps_the_subject(desk, tmp_path):
    desk.add()
    (tmp_path / "new").write_text("Later.\n")
    assert desk.call("edit", "1", tmp_path / "new").status == 0
    message = parsed(desk.read("1.moving"))
    assert (message["Subject"], message.get_content()) == ("Moving", "Later.\n")


def test_edit_does_not_overwrite_what_somebody_else_wrote_meanwhile(desk, editor):
    desk.add()
    editor(f"sed -i s/We/They/ $2; echo >>{desk.directory}/1.moving more")
    done = desk.call("edit", "1", typing=True)
    assert done.status == 75 and "changed by somebody else" in done.err and "kept in" in done.err
    assert desk.read("1.moving").endswith(b"We move.\nmore\n")


def test_edit_shows_a_broken_bulletin_as_it_stands_and_takes_it_when_it_is_mended(desk, editor):
    broken = b"From a@b Mon Jan  1 00:00:00 2024\nSubject: a\nbroken line\n\ntext\n"
    desk.put("1.a", broken)
    editor("sed -i s/text/Text/ $2")
    assert desk.call("edit", "1", typing=True).status == 65 and desk.read("1.a") == broken
    editor("sed -i 's/^broken /X-Mended: /' $2")
    assert desk.call("edit", "1", typing=True).status == 0
    assert b"\nSubject: a\nX-Mended: line\n" in desk.read("1.a") and b"\ntext\n" in desk.read("1.a")


def test_edit_mends_a_header_that_is_in_raw_utf_8(desk, editor):
    desk.put("1.a", "From a@b Mon Jan  1 00:00:00 2024\nSubject: Grüße\n\nä\n".encode())
    assert desk.call("check").status == 65
    editor("sed -i s/ä/Ä/ $2")
    assert desk.call("edit", "1", typing=True).status == 0
    assert parsed(desk.read("1.a"))["Subject"] == "Grüße"
    assert desk.call("check").status == 0


# -- withdraw, resend ------------------------------------------------------------------------------------------------

def test_a_withdrawn_bulletin_is_gone_and_its_number_not_used_again(desk):
    desk.put("23.down", (SAMPLES / "23.pophost_down_sunday").read_bytes())
    done = desk.call("withdraw", "23")
    assert (done.status, desk.names) == (0, [])
    kept = desk.directory / ".withdrawn.23.down"
    assert str(kept) in done.out and kept.stat().st_mode & 0o777 == 0o600
    desk.add()
    assert desk.names == ["24.moving"]


def test_a_withdrawn_link_leaves_what_it_leads_to_alone(desk, tmp_path):
    (tmp_path / "mine").write_text("x")
    (tmp_path / "mine").chmod(0o644)
    (desk.directory / "1.x").symlink_to(tmp_path / "mine")
    assert desk.call("withdraw", "1").status == 0
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o644


def test_resend_is_a_new_message_with_the_same_text(desk):
    desk.put("23.down", (SAMPLES / "22.pophost_speaks_unicode").read_bytes())
    assert desk.call("resend", "23").status == 0
    assert desk.names == ["23.down", "24.down"]
    old, new = desk.read("23.down"), desk.read("24.down")
    assert old.partition(b"\n\n")[2] == new.partition(b"\n\n")[2]
    assert parsed(old)["Subject"] == parsed(new)["Subject"]
    # Or mail programs would take it for the message that they have.
    assert old.partition(b"\n")[0] != new.partition(b"\n")[0]
    assert all(parsed(old)[name] != parsed(new)[name] for name in ("Date", "Message-ID"))


@as_root
def test_resend_to_a_group_stays_in_the_group(desk):
    desk.configure(group_bulletins="yes")
    desk.add("x\n", "a", "--group", STAFF)
    assert "2 of 3 users are not in its group" in desk.call("resend", "1").out
    assert desk.names == [f"1.{STAFF}.a", f"2.{STAFF}.a"]


def test_resend_to_users_turns_their_receipts_back(desk):
    desk.let_users_write()
    for subject in "a", "b":
        desk.add("x\n", subject)
    desk.receipt("ann", 2)
    desk.receipt("bob", 2)
    done = desk.call("resend", "2", "ann")
    assert (done.status, done.out, done.err) == (0, "ann gets bulletin 2 at the next login\n", "")
    assert desk.receipt("ann").read_bytes() == b"1\n" and desk.receipt("bob").read_bytes() == b"2\n"
    assert desk.receipt("ann").stat().st_uid == (UID if ROOT else os.geteuid())


def test_resend_does_not_send_later_ones_again(desk):
    desk.let_users_write()
    for subject in "a", "b", "c", "d":
        desk.add("x\n", subject)
    desk.call("withdraw", "2")
    for user in desk.users:
        desk.receipt(user, 3)
    done = desk.call("resend", "1", "ann", "bob")
    assert done.status == 65 and done.err.splitlines() == [
        f"popperctl: {user}: would get 3 with it; popperctl bulletin resend 1 sends it to everybody, under a new "
        "number" for user in ("ann", "bob")]
    assert desk.receipt("ann").read_bytes() == b"3\n"
    desk.call("withdraw", "3")
    assert desk.call("resend", "1", "ann").status == 0
    assert desk.receipt("ann").read_bytes() == b"0\n"


def test_resend_to_somebody_without_a_receipt_gives_it_at_the_first_login(desk):
    desk.let_users_write()
    desk.add()
    assert desk.call("resend", "1", "ann").status == 0
    assert desk.receipt("ann").read_bytes() == b"0\n"


def test_resend_to_somebody_who_has_not_had_it_takes_nothing_from_him(desk):
    desk.let_users_write()
    for subject in "a", "b", "c":
        desk.add("x\n", subject)
    desk.receipt("ann", 0)
    assert desk.call("resend", "3", "ann").out == "ann gets bulletin 3 at the next login\n"
    assert desk.receipt("ann").read_bytes() == b"0\n"
    desk.configure(new_user_bulletins=2)
    assert desk.call("resend", "2", "bob").out == "bob gets bulletin 2 at the next login\n"
    assert not desk.receipt("bob").exists()


def test_resend_to_nobody_changes_nothing(desk):
    desk.let_users_write()
    desk.add()
    desk.receipt("ann", 1)
    assert one_line(desk.call("resend", "1", "ann", "eve"), 67) == "nobody who may log in: eve"
    assert desk.receipt("ann").read_bytes() == b"1\n"


@as_root
def test_resend_tells_whose_receipt_cannot_be_written(desk):
    desk.add()
    desk.receipt("ann", 1)
    done = desk.call("resend", "1", "ann")
    assert done.status == 65
    assert done.err.startswith(f"popperctl: ann: Unable to open {desk.receipt('ann')} for writing")
    assert desk.receipt("ann").read_bytes() == b"1\n"


# -- reach -----------------------------------------------------------------------------------------------------------

def test_reach_tells_who_has_had_it(desk):
    for subject in "a", "b":
        desk.add("x\n", subject)
    desk.receipt("ann", 2)
    desk.receipt("bob", 1)
    states = {row["user"]: (row["state"], row["receipt"]) for row in desk.call("reach", "2", "--json").json}
    assert states == {"ann": ("had it", 2), "bob": ("next login", 1), "cat": ("not sent", None)}
    desk.configure(new_user_bulletins=1)
    assert [row["state"] for row in desk.call("reach", "2", "--json").json] == ["had it", "next login", "first login"]
    assert [row["state"] for row in desk.call("reach", "1", "--json").json] == ["had it", "had it", "not sent"]
    head, ann, bob, cat, *told = desk.call("reach", "2").out.splitlines()
    assert head.split() == ["USER", "BULLETIN", "2", "HAS", "HAD", "UP", "TO", "TROUBLE"]
    assert bob.split() == ["bob", "next", "login", "1"]
    assert told == ["1 of 3 users had it, or were given a later number", "1 of 3 users get it at their next login",
                    "1 of 3 users get it at their first login"]


def test_reach_says_whose_receipt_cannot_be_read(desk):
    desk.add()
    desk.receipt("ann", 1)
    desk.receipt("bob", b"nonsense\n")
    desk.receipt("cat").symlink_to("/etc/passwd")
    ann, bob, cat = desk.call("reach", "1", "--json").json
    assert (ann["state"], bob["state"], cat["state"]) == ("had it", "not known", "not known")
    assert "holds no number" in bob["trouble"] and "cat.popbull" in cat["trouble"]
    assert "2 of 3 users could not be asked" in desk.call("reach", "1").out


@as_root
def test_who_has_had_it_is_for_root_to_know(desk):
    os.chown(desk.directory, UID, UID)
    assert as_nobody(lambda: desk.add().status) == "0"
    desk.configure(auth="getpw")
    desk.monkeypatch.setattr(readers.pwd, "getpwall", lambda: [
        pwd.struct_passwd((name, "x", 54321, 54321, "", "/nonexistent", "/bin/sh")) for name in ("joe", "jim")])
    assert as_nobody(lambda: desk.call("reach", "1").err) == "popperctl: only root can see who has had a bulletin\n"
    assert as_nobody(lambda: desk.call("list").out).endswith(
        "\nHAD: how many users have had it; only root can see that\n")
    assert as_nobody(lambda: desk.call("add", "-s", "b", text="x").out).endswith(
        "\nusers get it at their next login; how many they are is known to root only\n")


def test_the_usage_names_every_command_that_there_is():
    assert tuple(usage.commands(bulletin.__doc__)) == bulletin.COMMANDS
