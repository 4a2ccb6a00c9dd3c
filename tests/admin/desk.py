"""A directory of bulletins, users with places for their receipts, and popperctl to look after them: to import."""

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from ctl import Terminal, popperctl          # noqa: F401, a fixture
from popper.bulletins import addressed, candidates
from popper.library import library

library("filelock")                          # who becomes nobody may not be let into it any more

ROOT = os.geteuid() == 0
UID = 65534                    # whom the users are when root runs the tests
STAFF = "games"                # a group that every system has; ann is in it, where users have groups at all
HOST = "pophost.example.org"


class Input(io.TextIOWrapper):
    """What popperctl reads; a terminal or not."""

    def __init__(self, text, terminal):
        super().__init__(io.BytesIO(text.encode() if isinstance(text, str) else text), encoding="utf-8")
        self.terminal = terminal

    def isatty(self):
        return self.terminal


class Desk:
    """place: of all that is made here; users: {name: gid}."""

    def __init__(self, place, popperctl, monkeypatch):
        import grp
        self.place = Path(place)
        self.popperctl = popperctl
        self.monkeypatch = monkeypatch
        self.directory = self.place / "bulletins"
        self.receipts = self.place / "receipts"
        self.conf = self.place / "popper.conf"
        self.users = {"ann": grp.getgrnam(STAFF).gr_gid, "bob": UID, "cat": UID}
        for each in (self.directory, self.receipts):
            each.mkdir()
            each.chmod(0o755)
        (self.place / "users").write_text("".join(f"{name}:x:{UID}:{gid}::/nonexistent:\n"
                                                  for name, gid in self.users.items()))
        self.configure()

    def configure(self, **directives):
        """Write the configuration, with these besides."""
        ours = {"bulletins": self.directory, "popbull_dir": self.receipts, "auth": "file", "hostname": HOST,
                "password_file": self.place / "users", **directives}
        self.conf.write_text("".join(f"{name} {value}\n" for name, value in ours.items() if value is not None))

    def call(self, *words, text="", typing=False, terminal=False):
        """popperctl bulletin WORDS; text: its standard input, which is a terminal when somebody is typing."""
        self.monkeypatch.setattr(sys, "stdin", Input(text, typing))
        return self.popperctl("bulletin", *words, "-C", self.conf, terminal=terminal)

    def add(self, text="We move.\n", subject="Moving", *words):
        done = self.call("add", "-s", subject, *words, text=text)
        assert done.status == 0, done.err
        return done

    def receipt(self, user, number=None):
        """Have a user's receipt say a number; -> its path."""
        path = self.receipts / f"{user}.popbull"
        if number is not None:
            path.write_bytes(number if isinstance(number, bytes) else b"%d\n" % number)
            if ROOT:
                os.chown(path, UID, self.users.get(user, UID))
        return path

    def let_users_write(self):
        """Have users write their receipts, where they are other than whoever runs the tests."""
        if ROOT:
            os.chown(self.receipts, UID, UID)

    @property
    def names(self):
        """Of the bulletins, in order."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            return [name for _, name in candidates(descriptor)]
        finally:
            os.close(descriptor)

    def read(self, name):
        return (self.directory / name).read_bytes()

    def sent(self, name, user):
        return addressed(self.read(name), user, HOST)

    def put(self, name, octets):
        """A file that somebody made by hand."""
        path = self.directory / name
        path.write_bytes(octets)
        path.chmod(0o644)
        return path


@pytest.fixture
def desk(popperctl, monkeypatch):            # noqa: F811
    # Where a sync costs nothing, if there is such a place.
    place = tempfile.mkdtemp(prefix="popper-desk.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")
    os.chmod(place, 0o755)
    yield Desk(place, popperctl, monkeypatch)
    shutil.rmtree(place)


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """editor(script): what VISUAL runs, with the name of the file as $1."""
    def use(script):
        path = tmp_path / "my editor"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("VISUAL", f"'{path}' --wait")
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
        return tmp_path
    return use


__all__ = ["Desk", "HOST", "ROOT", "STAFF", "Terminal", "UID", "desk", "editor", "popperctl"]
