"""Kill an update of mailboxes of every shape at every system call it makes; then see what the next opener makes of it.

Slow, therefore not part of `make check`: `make torture`. Needs strace. What else may happen, and where, is in
test_matrix.py; these run for everybody, on whatever disk there is.
"""

import shutil

import pytest

from matrix import cases, run, total
from matrix_calls import Call, messages

SHAPES = {                     # messages, numbers to be deleted, the widest step of an update
    "first": Call(messages(*[900] * 8), (1,), 700),
    "last": Call(messages(*[900] * 8), (8,), 700),
    "middle": Call(messages(*[900] * 8), (4,), 700),
    "alternate": Call(messages(*[300] * 9), (1, 3, 5, 7), 5000),
    "all": Call(messages(*[300] * 4), (1, 2, 3, 4), 700),
    "tiny gap before a large tail": Call(messages(10, 9000, 9000), (1,), 5000),
    "wide gap before a small tail": Call(messages(9000, 100, 100), (1,), 5000),
    "CRLF": Call(messages(*[500] * 5, end=b"\r\n"), (2, 4), 700),
    "no final newline": Call([*messages(*[500] * 4), messages(*[500] * 5)[4].rstrip(b"\n")], (2, 4), 700),
}


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("fault", ("KILL", "EIO"))
def test_at_every_system_call(fault):
    cells, _ = run(("anywhere",), SHAPES, (fault,))
    whole = total(cells.values())
    assert cases(cells) == []
    assert len(cells) == len(SHAPES) and whole.tried > 20 * len(SHAPES) and whole.pieces > 0
    print(f"{fault}: {whole.tried} injections, {whole.pieces} mailboxes in pieces until the next opener came")
