"""The security checklist: every row has a test that names it, or stands here with the reason why it cannot have one
yet."""

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

APPLIES = [f"row {n}" for n in (*range(1, 25), 27, 28, 32, *range(34, 45))] \
    + [f"sec.{n:02}" for n in range(1, 21)]

# row: what is missing until it can be tried
LATER = {
    "row 25": "half-open handshakes: no TLS yet",
    "row 26": "aborted AUTH, SNI: neither yet",
    "row 29": "plaintext behind STLS: no STLS",
    "row 30": "session fixation by STARTTLS: none",
    "row 31": "APOP timestamps: no APOP yet",
    "row 33": "short SASL messages: no SASL",
}
# Parts of rows that apply: what of them waits.
PARTS_LATER = {
    "row 2": "AUTH continuations: no SASL yet",
    "row 10": "transaction program: there is none",
    "row 28": "index file: none is kept",
    "row 44": "APOP and CRAM challenges: later",
    "sec.16": "rate limit of XTND XMIT: later",
}


@functools.cache
def named():
    """The rows that docstrings of test functions name."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.update(re.findall(r"\brow \d+\b|\bsec\.\d\d\b", ast.get_docstring(node) or ""))
    return found


@pytest.mark.parametrize("row", APPLIES)
def test_every_row_that_applies_has_a_test(row):
    """A row without a test is a failure, by name."""
    assert row in named()


def test_no_row_is_forgotten():
    """All rows of the checklist are in one of the two tables, and none is in both."""
    everything = {f"row {n}" for n in range(1, 45)} | {f"sec.{n:02}" for n in range(1, 21)}
    assert set(APPLIES) | set(LATER) == everything
    assert not set(APPLIES) & set(LATER)
    assert set(PARTS_LATER) <= set(APPLIES)


def test_later_is_not_now():
    """What a test names by now is no longer something for later."""
    assert not named() & set(LATER)
