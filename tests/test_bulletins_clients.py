"""Mail programs that leave mail on the server see each bulletin once, over ten polls, whatever happens to the
directory meanwhile; under a real super-server, in the real spool."""

import re
import subprocess
from pathlib import Path

import pytest

import clients

pytestmark = pytest.mark.root

POLLS = 10


@pytest.fixture
def board(tmp_path):
    directory = tmp_path / "bulletins"
    directory.mkdir()
    for place in (tmp_path, *tmp_path.parents):
        if str(place) not in ("/", "/tmp") and place.owner() == "root":
            place.chmod(0o755)
    conf = tmp_path / "popper.conf"
    conf.write_text(f"bulletins {directory}\nfail_delay 0\n")
    return directory, conf


@pytest.fixture
def client(installed, spool, start_inetd, board):
    Path(spool.entry.pw_dir, ".popbull").unlink(missing_ok=True)
    server = start_inetd(installed / "sbin" / "popper", "-C", str(board[1]))
    client = clients.Client(spool, server.port)
    yield client
    client.remove()
    Path(spool.entry.pw_dir, ".popbull").unlink(missing_ok=True)


@pytest.mark.parametrize("program", ("fetchmail", "mpop", "getmail"))
def test_ten_polls_see_each_bulletin_once(program, installed, client, board):
    directory, conf = board

    def ctl(*words, text=None):
        subprocess.run([installed / "sbin/popperctl", "bulletin", *words, "-C", str(conf)], input=text, text=True,
                       check=True, stdout=subprocess.DEVNULL)

    def poll(news):
        nothing = {"status": 1} if program == "fetchmail" and not news else {}      # its way to say so
        return getattr(client, program)(**nothing)[0]

    client.account.deliver(b"".join(clients.pieces([b"Subject: real mail\n\nfrom joe's friend\n"])))
    ctl("add", "--subject", "old", "-", text="Nobody who comes now gets this.\n")
    received = poll(True)
    for number in range(POLLS):
        if number in (0, 1, 4):
            ctl("add", "--subject", f"news {number}", "-", text=f"What is new, {number}.\n")
        if number == 2:
            edited = next(directory.glob("3.*"))
            edited.write_bytes(edited.read_bytes() + b"PS: not again to who has it.\n")
        if number == 6:
            next(directory.glob("2.*")).unlink()
        received += poll(number in (0, 1, 4))
    subjects = [re.search(rb"(?mi)^Subject: (.*?)\r?$", text)[1] for text in received]
    assert sorted(subjects) == [b"news 0", b"news 1", b"news 4", b"real mail"]
    assert Path(client.account.entry.pw_dir, ".popbull").read_text() == "4\n"
