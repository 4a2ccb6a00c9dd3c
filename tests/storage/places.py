"""Where the tests of locks put a mailbox: fixtures to import."""

import pytest


@pytest.fixture
def mailbox(tmp_path):
    path = tmp_path / "joe"
    path.write_bytes(b"mail\n")
    return path


@pytest.fixture
def lock(mailbox):
    """Where the dotlock of the mailbox is."""
    return mailbox.parent / "joe.lock"
