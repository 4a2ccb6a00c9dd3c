"""The search for passwords at the end of a run finds them, wherever they got to, and fails the run."""

import base64
import os
import shutil
import subprocess
import sys

import pytest

import secrecy
from conftest import TREE

STAMP = "Thu Nov 24 18:22:48.123 1996 [4711] "
SYSLOG = "Nov 24 18:22:48 mail popper[4711]: "


def run(tmp_path, body):
    """A run of one test of its own, with the search at its end -> (status, what it said)."""
    room = tmp_path / "room"
    room.mkdir()
    (tmp_path / "test_it.py").write_text(f"import secrecy\n\ndef test_it(tmp_path):\n    {body}\n")
    environment = {**os.environ, "PYTEST_DEBUG_TEMPROOT": str(room), "PYTHONPATH": f"{TREE}:{TREE / 'tests'}"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path),
                           "-p", "no:cacheprovider", "-p", "secrecy", str(tmp_path / "test_it.py")],
                          env=environment, cwd=tmp_path, capture_output=True, text=True)
    shutil.rmtree(room)                      # or the search of this run would find it, too
    return done.returncode, done.stdout + done.stderr


# what must be found
LEAKS = [f'{STAMP}Received: "PASS tanstaaf"', f'{STAMP.replace("4711", "4711.22")}Received: "xPASS s3cret pass"',
         'popper[4711]: debug: Received: "tanstaaf"', f"{SYSLOG}joe at x (1.2.3.4): -ERR s3cret",
         f'{STAMP}Received: "PASS pass\\x09word"',
         f"{STAMP}Received: \"AUTH PLAIN {base64.b64encode(b'xmrosextanstaafx').decode()}\""]


@pytest.mark.parametrize("line", LEAKS, ids=range(len(LEAKS)))
def test_a_password_in_a_file_fails_the_run(tmp_path, line):
    fine = f'{STAMP}Received: "PASS xxxxxxxxx"\n'
    status, said = run(tmp_path, f"(tmp_path / 'trace').write_text({fine * 200 + line + chr(10) + fine!r})")
    assert status == 1 and "1 passed" in said and "passwords in logs" in said
    assert "/room/" in said and "trace: " in said and said.count("PASS xxxxxxxxx") == 0


def test_a_password_in_syslog_fails_the_run(tmp_path):
    status, said = run(tmp_path, "secrecy.collectors.append([(149, 'popper[1]: tanstaaf')])")
    assert status == 1 and "\nsyslog: popper[1]: tanstaaf\n" in said


def test_a_directory_that_is_removed_is_looked_through_before(tmp_path):
    leak = LEAKS[0] + "\n"
    status, said = run(tmp_path, f"(tmp_path / 'x').write_text({leak!r}); secrecy.overheard(tmp_path); "
                                 "(tmp_path / 'x').unlink()")
    assert status == 1 and "x: Thu Nov 24" in said


def test_what_is_no_log_may_have_passwords(tmp_path):
    fine = f'{STAMP}Received: "PASS xxxxxxxxx"\ntanstaaf\n'
    status, said = run(tmp_path, f"(tmp_path / 'trace').write_text({fine!r}); (tmp_path / 'passwords').write_text("
                                 "'mrose:tanstaaf\\n')")
    assert (status, "passwords in logs" in said) == (0, False), said


def test_the_passwords_of_the_tests_are_searched_for():
    import conftest
    import dialogue
    for secret in (conftest.PASSWORD, dialogue.PASSWORD):
        assert secrecy.ANY.search(f'{STAMP}Received: "pass {secret}"'.encode())
