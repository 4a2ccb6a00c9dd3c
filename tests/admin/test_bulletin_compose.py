"""What somebody writes becomes a message that every mail program reads back as it was written."""

import datetime
import email
import email.policy
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popper.admin import compose
from popper.admin.compose import Unfit
from popper.bulletins import addressed
from popper.storage.scan import is_envelope, scan

HOST = "pophost.example.org"
NOW = datetime.datetime(2024, 3, 7, 11, 15, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
PRINTABLE = st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp", "Cn"))


def composed(text, subject="Down on Sunday", sender="", group=""):
    octets = text.encode() if isinstance(text, str) else text
    return compose.compose(compose.read(octets), 24, HOST, NOW, subject, sender, group)


def parsed(octets):
    """The message as another program reads it."""
    message = email.message_from_bytes(octets.partition(b"\n")[2], policy=email.policy.default)
    assert not message.defects and not any(message[name].defects for name in message if name != "To")
    return message


def count(octets):
    """The messages that popper would find in a mailbox with this behind other mail."""
    before = b"From a@b Mon Jan  1 00:00:00 2024\n\n\n"
    octets = before + octets
    return len(list(scan(lambda most, at: octets[at:at + most], len(octets)))) - 1


def text_of(octets):
    return parsed(octets).get_content()


# -- text ------------------------------------------------------------------------------------------------------------

def test_a_text_becomes_a_message_of_one_part():
    assert composed("We move.\n\nSunday it is.\n") == b"""\
From postmaster@pophost.example.org Thu Mar  7 11:15:00 2024
From: Postmaster <postmaster@pophost.example.org>
To: all users:;
Subject: Down on Sunday
Date: Thu, 07 Mar 2024 11:15:00 +0100
Message-ID: <bulletin.24.20240307111500@pophost.example.org>
MIME-Version: 1.0
Content-Type: text/plain; charset="us-ascii"
Content-Transfer-Encoding: 7bit

We move.

Sunday it is.
"""


@pytest.mark.parametrize("text, subject, sender", [
    ("plain\n", "plain", "Postmaster <postmaster@x.org>"),
    ("Grüße aus Köln, 5 €\n", "Grüße, saluts, χαιρετίσματα", "Jörg Müller <joerg@x.org>"),
    ("日本語のお知らせです。\n" * 30, "日本語" * 40, "山田 <yamada@x.org>"),
    ("x" * 2000 + "\n", "long " * 60 + "end", "a@b.org"),
    ("tab\tand space \n  indented\n", "a =?utf-8?q?trap?=", '"Last, First" <a@b.org>'),
    ("From here on\n\nFrom a@b Mon Jan  1 00:00:00 2024\n\n>From quoted\n", "From", "a@b.org"),
    (".\n..\n.hidden\n", ".", "a@b.org"),
    ("\x1b[1mbold\x07 and \x0c\n", "escape", "a@b.org"),
    ("= equals =3D\n" + "=" * 200 + "\n", "=?", "a@b.org"),
    ("trailing = \nü \n", "x", "a@b.org"),
])
def test_text_subject_and_sender_are_read_back_as_they_were_written(text, subject, sender):
    octets = composed(text, subject, sender)
    message = parsed(octets)
    assert message.get_content() == text
    assert message["Subject"] == subject.strip()
    wanted = email.policy.default.header_factory("From", sender).addresses
    assert message["From"].addresses == wanted
    assert octets.isascii() and max(map(len, octets.split(b"\n"))) <= 998 and count(octets) == 1


@given(st.text(PRINTABLE, min_size=1, max_size=120).map(lambda text: " ".join(text.split())).filter(bool))
@example("पन्ह पन्ह त्र र्च कृकृ ड्ड न्हृे إلا بسم الله")
@settings(max_examples=150, deadline=None)
def test_any_subject_is_read_back(subject):
    octets = composed("text\n", subject)
    assert parsed(octets)["Subject"] == subject
    assert max(map(len, octets.split(b"\n"))) <= 78 or max(map(len, subject.split())) > 60


@given(st.text(st.one_of(PRINTABLE, st.sampled_from("\n\n From :\t=.\x00\r\x85\u2028\x1c")), max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_back_or_refused(text):
    try:
        octets = composed(text)
    except Unfit:
        named = text.partition(":")[0].strip().lower().encode()
        assert not text.strip("\n \t\r\x0b\x0c\ufeff") or "\0" in text or named in compose.KNOWN
        return
    kept = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip("\n") + "\n"
    draft = compose.read(text.encode())
    if not draft.fields:
        assert text_of(octets) == kept
    assert count(octets) == 1 and is_envelope(octets.partition(b"\n")[0])
    # What the server does on the way to a user changes nothing in the body.
    assert text_of(addressed(octets, "joe", HOST)).rstrip("\n") == text_of(octets).rstrip("\n")


def test_plain_text_travels_as_it_is_and_other_text_quoted():
    assert b"7bit" in composed("a" * 998 + "\n") and b"us-ascii" in composed("a\n")
    for text in "a" * 999, "ä", "From a", "a\x1b", "a\0b".replace("\0", "\x01"):
        octets = composed(text + "\n")
        assert b"quoted-printable" in octets and b"utf-8" in octets
        assert max(map(len, octets.split(b"\n"))) <= 78
    assert max(map(len, composed("From " * 1000 + "\n").partition(b"\n\n")[2].split(b"\n"))) <= 76


@pytest.mark.parametrize("octets, why", [
    (b"", "there is no text in it"),
    (b" \n\t\n", "there is no text in it"),
    (b"\xef\xbb\xbf", "there is no text in it"),
    (b"Subject: only\n\n\n", "there is a header and no text in it"),
    (b"Subject: only\nFrom: me", "there is a header and no text in it"),
    (b"a\0b\n", "there is a NUL in it: it is no text and no message"),
    (b"one\ntwo caf\xe9\n", "line 2 of the text is not UTF-8; iconv -f latin1 -t utf-8 may make it so"),
    (b"From a@b Mon Jan  1 00:00:00 2024\nno header\n\ntext\n",
     "behind its envelope line is no header: each line of one is NAME: TEXT, and an empty line ends it"),
    (b"Subject: caf\xe9\n\ntext\n", "the Subject line is not UTF-8"),
])
def test_what_is_no_text_is_refused_with_the_reason(octets, why):
    with pytest.raises(Unfit) as caught:
        composed(octets, "")
    assert str(caught.value) == why


@pytest.mark.parametrize("subject", ["a\nb", "a\rBcc: x@y", "a\x1b[2J", "a\u2028b", "a\udce9"])
def test_a_subject_is_one_line(subject):
    with pytest.raises(Unfit, match="the subject must be one line of UTF-8 text"):
        composed("text\n", subject)


def test_without_a_subject_there_is_no_bulletin():
    with pytest.raises(Unfit, match="it has no subject"):
        composed("text\n", "")


@pytest.mark.parametrize("sender, field", [
    ("root", "From: root@pophost.example.org"),
    ("a@b.org", "From: a@b.org"),
    ("Ann <a@b.org>", "From: Ann <a@b.org>"),
    ("Dr. Ann <a@b.org>", 'From: "Dr. Ann" <a@b.org>'),
    ("Jörg <a@b.org>", "From: =?utf-8?b?SsO2cmc=?= <a@b.org>"),
    ("Jörg Jörg Jörg Jörg Jörg <a@long.name.of.a.host.b.org>",
     "From: =?utf-8?b?SsO2cmcgSsO2cmcgSsO2cmcgSsO2cmcgSsO2cmc=?=\n <a@long.name.of.a.host.b.org>"),
    ("=?utf-8?q?x?= <root>", "From: x <root@pophost.example.org>"),
])
def test_a_sender_is_an_address_of_this_host_unless_it_says_more(sender, field):
    octets = composed("text\n", sender=sender)
    assert f"\n{field}\n" in octets.decode()
    assert octets.decode().partition(" Thu ")[0] == "From " + parsed(octets)["From"].addresses[0].addr_spec


@pytest.mark.parametrize("sender", ["a b", "<>", "a@b, c@d", "Last, First <a@b.org>", "a@b c", "a@ü.org", "ü@b.org",
                                    "@", "a@", "(", '"', "x:;", "a\nb@c", '"a b"@c.org', "a@[1.2.3.4]\udce9"])
def test_what_is_not_one_address_is_refused(sender):
    with pytest.raises(Unfit):
        composed("text\n", sender=sender)


def test_a_group_is_named_in_the_file_and_nobody_is_addressed():
    message = parsed(composed("text\n", group="staff"))
    assert str(message["To"]) == "members of staff:;" and message["To"].addresses == ()


# -- what is a message already ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    "Attention: all users\n\nThe server moves.\n", "From Monday on we are closed.\n\nYours\n",
    "From: me\nplease read\n", "http://example.org/\n\nlook there\n", "Subject matter\n\nis this\n",
    "From Monday 9:00\nNote: bring food\n\nor go hungry\n",
])
def test_text_that_begins_like_a_header_is_text(text):
    assert text_of(composed(text)) == text


def test_a_header_is_taken_and_what_is_lacking_is_added():
    octets = composed("Subject: Own\nReply-To: help@x.org\n\nbody\n", "")
    message = parsed(octets)
    assert (message["Subject"], message["Reply-To"], message["Date"].datetime) == ("Own", "help@x.org", NOW)
    assert message["Message-ID"] and message["From"].addresses[0].username == "postmaster"
    assert message.get_content() == "body\n"


def test_what_was_asked_for_wins_over_the_header_and_stands_in_its_place():
    date = "Date: Mon, 1 Jan 2024 00:00:00 +0000"
    octets = composed(f"From: a@b.org\nSubject: old\n more\n{date}\n\nbody\n", "new", "c@d.org")
    assert octets.decode().splitlines()[:4] == [
        "From c@d.org Thu Mar  7 11:15:00 2024", "From: c@d.org", "Subject: new", date]


def test_a_header_in_raw_utf_8_is_encoded():
    message = parsed(composed("Subject: Grüße\nFrom: Jörg <j@x.org>\nCc: Ä <a@x.org>, b@x.org\nX-Note: ü\n\nä\n", ""))
    assert (message["Subject"], str(message["From"]), message["X-Note"]) == ("Grüße", "Jörg <j@x.org>", "ü")
    assert str(message["Cc"]) == "Ä <a@x.org>, b@x.org"
    assert message.get_content() == "ä\n"


def test_a_message_with_mime_keeps_its_body_octet_for_octet():
    body = b'--b\nContent-Type: text/plain; charset=utf-8\n\nGr\xc3\xbc\xc3\x9fe\n--b\n\n\xff\xfe\n--b--\n'
    given = (b'From a@b.org Mon Jan  1 00:00:00 2024\nSubject: parts\nMIME-Version: 1.0\n'
             b'Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\nStatus: RO\n'
             b'Content-Length: 5\n\n' + body)
    octets = composed(given, "")
    header, _, rest = octets.partition(b"\n\n")
    assert rest == body and octets.startswith(b"From a@b.org Mon Jan  1 00:00:00 2024\nSubject: parts\n")
    assert b"Status" not in header and b"Content-Length" not in header and header.count(b"\nMIME-Version:") == 1


def test_a_mime_message_gets_the_mime_fields_it_lacks():
    header = composed("Subject: a\nContent-Type: text/plain; charset=utf-8\n\nä\n", "").partition(b"\n\n")[0]
    assert header.endswith(b"\nMIME-Version: 1.0\nContent-Transfer-Encoding: 8bit")


def test_line_ends_of_other_systems_become_ours():
    assert text_of(composed(b"one\r\ntwo\r\n")) == "one\ntwo\n"
    assert parsed(composed(b"Subject: a\r\nFrom: b@c.org\r\n\r\none\r\n", ""))["Subject"] == "a"


# -- names, templates, editing ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("subject, slug", [
    ("pophost is down", "pophost_is_down"), ("Grüße, café: 10 €", "grusse_cafe_10"), ("χαιρετίσματα", "bulletin"),
    ("../../etc/passwd", "etc_passwd"), ("a" * 100, "a" * 40), ("-rf *", "rf"), ("one " * 30, "one_" * 9 + "one"),
    ("6:00–9:00", "6_00_9_00"), ("ﬁne Ⅷ", "fine_viii"),
])
def test_a_slug_is_small_letters_and_digits_only(subject, slug):
    assert compose.slug(subject) == slug


@given(st.text(max_size=200))
def test_any_slug_is_a_harmless_part_of_a_name(subject):
    assert re.fullmatch("[a-z0-9_]{1,40}", compose.slug(subject))


def test_what_the_editor_is_given_is_empty_until_somebody_writes():
    given_text = compose.template("About", "Postmaster <p@x.org>", "every user")
    with pytest.raises(Unfit, match="no text in it"):
        compose.read(compose.without_comments(given_text))
    above, _, below = given_text.partition(b"\n\n\n")
    draft = compose.read(compose.without_comments(above + b"\n\n# a line of the text\n" + below))
    assert (draft.subject, draft.body.strip()) == ("About", b"# a line of the text")


def test_an_edited_bulletin_keeps_what_makes_it_the_same_message():
    before = composed("Grüße\n", "Alt", "Jörg <j@x.org>")
    text = compose.editable(before)
    assert text.decode() == "Subject: Alt\nFrom: Jörg <j@x.org>\n\nGrüße\n"
    later = NOW + datetime.timedelta(days=3)
    draft = compose.revised(before, "Subject: Neu\nFrom: Jörg <j@x.org>\n\nSo: ö\n".encode())
    after = compose.compose(draft, 24, HOST, later)
    old, new = parsed(before), parsed(after)
    assert after.partition(b"\n")[0] == before.partition(b"\n")[0]
    assert [new[name] for name in ("Date", "Message-ID", "From", "To")] == \
        [old[name] for name in ("Date", "Message-ID", "From", "To")]
    assert (new["Subject"], new.get_content()) == ("Neu", "So: ö\n")
    assert compose.compose(compose.revised(before, text), 24, HOST, later) == before


def test_an_edited_bulletin_may_become_a_mime_message():
    draft = compose.revised(composed("a\n"), b"Subject: b\nContent-Type: text/html\n\n<p>b\n")
    message = parsed(compose.compose(draft, 24, HOST, NOW))
    assert (message.get_content_type(), message["Subject"]) == ("text/html", "b")
    assert message["Message-ID"] == parsed(composed("a\n"))["Message-ID"]


@pytest.mark.parametrize("header", ["Content-Type: multipart/mixed; boundary=b\n", "Content-Type: text/html\n",
                                    "Content-Type: text/plain; charset=no-such\n",
                                    "Content-Type: text/plain; charset=utf-8\n\n\udcff", "\n\udcff"])
def test_what_is_more_than_text_is_edited_as_it_stands(header):
    octets = f"From a@b Mon Jan  1 00:00:00 2024\nSubject: a\n{header}\n--b--\n".encode("utf-8", "surrogateescape")
    assert compose.editable(octets) is None
