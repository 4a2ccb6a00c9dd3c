"""popperctl called within the test's own process: a fixture to import."""

import io
import json
import os

import pytest

from popper.admin import main
from popper.admin.console import Console


class Terminal(io.StringIO):
    """A text file that says it is a terminal."""

    def isatty(self):
        return True


class Done:
    """What a call gave: status, out, err, and out read as JSON."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def popperctl():
    """popperctl(*words, terminal=False) -> Done."""
    def call(*words, terminal=False):
        out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
        status = main.main([os.fspath(word) for word in words], Console(out, err))
        return Done(status, out.getvalue(), err.getvalue())
    return call
