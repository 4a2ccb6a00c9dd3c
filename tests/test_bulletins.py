"""The sample bulletins: what bulletins/README.md says of a bulletin is true of each (ucb-popper.md 6)."""

import email
import email.policy
import os
import re
import shutil
from pathlib import Path

import pytest

from popper.bulletins import addressed, candidates, open_directory, read_bulletin
from popper.storage.scan import scan

DIRECTORY = Path(__file__).resolve().parent.parent / "bulletins"
SAMPLES = sorted(path.name for path in DIRECTORY.iterdir() if path.name != "README.md")


def messages_in(octets):
    """The texts that popper finds in a mailbox."""
    return [octets[entry.start:entry.end] for entry in scan(lambda count, at: octets[at:at + count], len(octets))]


def parsed(name):
    return email.message_from_bytes(messages_in((DIRECTORY / name).read_bytes())[0], policy=email.policy.default)


def test_there_are_three_and_their_numbers_differ():
    assert len(SAMPLES) == len({int(re.match(r"\d+", name)[0]) for name in SAMPLES}) == 3


def test_the_readme_names_them_all():
    readme = (DIRECTORY / "README.md").read_text()
    assert all(name in readme for name in SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_name_is_a_number_a_dot_and_words(name):
    assert re.fullmatch(r"[1-9]\d{0,9}\.[a-z_]+", name)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_a_mailbox_of_exactly_one_message(name):
    octets = (DIRECTORY / name).read_bytes()
    assert octets.startswith(b"From ") and octets.endswith(b"\n")
    assert len(messages_in(octets)) == 1
    # And still one when it is appended to mail, as a bulletin is.
    assert len(messages_in(octets + b"\n" + octets)) == 2


@pytest.mark.parametrize("name", SAMPLES)
def test_the_header_is_complete_and_the_text_is_what_it_says_it_is(name):
    message = parsed(name)
    assert not message.defects
    assert all(len(message.get_all(header, ())) == 1 for header in
               ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"))
    assert message["Message-ID"] == f"<bulletin.{name.partition('.')[0]}@pophost.example.org>"
    assert "Postmaster" in message.get_payload(decode=True).decode(message.get_content_charset())


@pytest.mark.parametrize("name", SAMPLES)
def test_the_envelope_has_the_date_of_the_header(name):
    envelope = (DIRECTORY / name).read_text("utf-8").split("\n", 1)[0]
    message = parsed(name)
    assert envelope == f"From {message['From'].addresses[0].addr_spec} {message['Date'].datetime.ctime()}"


def test_one_of_them_is_in_utf_8():
    assert [parsed(name).get_content_charset() for name in SAMPLES].count("utf-8") == 1


@pytest.fixture
def pinned_up(tmp_path):
    """The samples, README and all, in a directory that popper takes."""
    directory = tmp_path / "bulletins"
    directory.mkdir()
    for path in DIRECTORY.iterdir():
        shutil.copyfile(path, directory / path.name)
        (directory / path.name).chmod(0o644)
    directory.chmod(0o755)
    descriptor = open_directory(str(directory), os.geteuid())
    yield descriptor
    os.close(descriptor)


def test_popper_takes_them_in_order_of_number(pinned_up):
    assert candidates(pinned_up) == \
        [(7, "7.welcome_to_pophost"), (22, "22.pophost_speaks_unicode"), (23, "23.pophost_down_sunday")]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_reaches_the_user_with_his_address_and_otherwise_as_it_is(name, pinned_up):
    octets = read_bulletin(pinned_up, name, 1048576)
    assert octets == (DIRECTORY / name).read_bytes()
    assert addressed(octets, "joe", "pophost.example.org") == \
        octets.replace(b"\nTo: all users of pophost\n", b"\nTo: joe@pophost.example.org\n")


def test_the_sample_of_a_friday_evening_is_of_a_friday_evening():
    date = parsed("23.pophost_down_sunday")["Date"].datetime
    assert date.strftime("%A %H") == "Friday 17"
