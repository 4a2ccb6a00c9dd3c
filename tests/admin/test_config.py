"""popperctl config: nothing but a configuration without a mistake ever stands in the file."""

import os
import sys

import pytest

from ctl import popperctl                    # noqa: F401, a fixture
from daemons import Fake
from desk import Input

OLD = "# ours\ntimeout 77777\n"      # a number that no port has


@pytest.fixture
def daemon(tmp_path):
    fake = Fake(tmp_path, OLD)
    yield fake
    fake.close()


@pytest.fixture
def edit(popperctl, daemon, installed, monkeypatch, tmp_path):      # noqa: F811
    """edit(SCRIPT, ...) -> Done: popperctl config, with an editor that is this script of the shell; "$1" is the file.
    typed: what is answered at the terminal, None where there is none."""
    monkeypatch.setattr(sys, "argv", [str(installed / "sbin" / "popperctl")])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("VISUAL", raising=False)
    (tmp_path / "tmp").mkdir()
    editor = tmp_path / "editor"

    def call(script, conf=daemon.conf, typed=None):
        editor.write_text(f"#!/bin/sh\n{script}\n")
        editor.chmod(0o755)
        monkeypatch.setenv("EDITOR", str(editor))
        monkeypatch.setattr(sys, "stdin", Input(typed or "", typed is not None))
        return popperctl("config", "-C", conf)
    call.left = lambda: sorted((tmp_path / "tmp").iterdir())
    return call


def test_what_is_right_is_written_and_read(edit, daemon):
    before = daemon.conf.read_text()
    done = edit("sed -i s/77777/90/ $1")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [f"{daemon.conf}: written",
                                     f"popper, process {daemon.process.pid}, has read it; it is in force"]
    assert daemon.conf.read_text() == before.replace("77777", "90") != before
    assert daemon.asked == ["status", "reload"] and edit.left() == []


def test_a_mistake_is_told_by_the_name_of_the_file_and_what_was_written_is_kept(edit, daemon):
    before = daemon.conf.read_text()
    done = edit("sed -i s/77777/soon/ $1")
    (kept,) = edit.left()
    assert (done.status, done.out) == (78, "")
    going_on = (f"{os.environ['EDITOR']} {kept}; popperctl test -C {kept} && cp {kept} {daemon.conf} && popperctl "
                f"reload -C {daemon.conf}")
    assert done.err.splitlines() == [
        f'popperctl: {daemon.conf}:4: timeout: "soon" is not what is expected: seconds, 0 to 86400 (0: none)',
        f"popperctl: what you wrote is kept in {kept}",
        f"popperctl: {daemon.conf}: stays as it is, and popperctl config begins with that again; to go on with what "
        f"you wrote: {going_on}"]
    assert daemon.conf.read_text() == before and kept.read_text() == before.replace("77777", "soon")
    assert kept.stat().st_mode & 0o7777 == 0o600 and daemon.asked == []


def test_a_directive_that_is_none_and_which_was_meant(edit, daemon):
    done = edit("echo MaxSesions 90 >>$1")
    assert done.status == 78 and done.err.splitlines()[0].endswith(" xmit_max; did you mean maxsessions?")
    done = edit("echo zzzzzzzzz 90 >>$1")
    assert done.status == 78 and done.err.splitlines()[0].endswith(" xmit_max")


def test_the_check_is_that_of_the_program(edit, daemon):
    """Of modules, too, which are looked for when popper starts."""
    done = edit("echo auth popper.no.such >>$1")
    assert done.status == 78 and "auth: " in done.err.splitlines()[0]


def test_at_a_terminal_one_may_go_on(edit, daemon, tmp_path):
    script = (f"if [ -e {tmp_path}/again ]; then sed -i s/soon/90/ $1; "
              f"else touch {tmp_path}/again; sed -i s/77777/soon/ $1; fi")
    done = edit(script, typed="\n")
    assert done.status == 0 and "timeout 90" in daemon.conf.read_text() and edit.left() == []
    assert done.err.endswith("Edit it again? [Y/n] ") and "reload" in daemon.asked


@pytest.mark.parametrize("answer", ["n", "No"])
def test_or_give_up(edit, daemon, answer):
    done = edit("sed -i s/77777/soon/ $1", typed=f"{answer}\n")
    assert done.status == 78 and daemon.conf.read_text().endswith(OLD) and len(edit.left()) == 1


def test_nothing_changed(edit, daemon):
    inode = daemon.conf.stat().st_ino
    done = edit("true")
    assert (done.status, done.out, done.err) == (0, f"{daemon.conf}: not changed\n", "")
    assert daemon.conf.stat().st_ino == inode and daemon.asked == [] and edit.left() == []


def test_an_editor_that_fails(edit, daemon):
    done = edit("exit 3")
    assert done.status == 69 and done.err.endswith("ended with status 3\n") and edit.left() == []
    done = edit("echo \\# >>$1; exit 3")
    assert done.status == 69 and daemon.conf.read_text().endswith(OLD) and len(edit.left()) == 1


def test_no_editor(edit, popperctl, daemon, monkeypatch):  # noqa: F811
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    done = popperctl("config", "-C", daemon.conf)
    assert (done.status, done.err) == (69, "popperctl: no editor: set EDITOR\n") and edit.left() == []


def test_somebody_else_was_quicker(edit, daemon):
    done = edit(f"sed -i s/77777/90/ $1; echo '# theirs' >>{daemon.conf}")
    assert (done.status, done.out) == (75, "")
    assert done.err.endswith(f"popperctl: {daemon.conf}: somebody else has changed it since you began\n")
    assert daemon.conf.read_text().endswith(OLD + "# theirs\n") and len(edit.left()) == 1 and daemon.asked == []


def test_mode_and_a_symbolic_link_stay(edit, daemon, tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    real /= "ours.conf"
    daemon.conf.rename(real)
    daemon.conf.symlink_to(real)
    real.chmod(0o640)
    os.utime(real, (0, 0))
    assert edit("sed -i s/77777/90/ $1").status == 0
    assert daemon.conf.is_symlink() and "timeout 90" in real.read_text()
    assert real.stat().st_mode & 0o7777 == 0o640 and real.stat().st_mtime > 0
    assert os.listdir(real.parent) == ["ours.conf"] and "reload" in daemon.asked


@pytest.mark.root
def test_the_owner_stays(edit, daemon):
    os.chown(daemon.conf, 4321, 4322)
    assert edit("sed -i s/77777/90/ $1").status == 0
    assert (daemon.conf.stat().st_uid, daemon.conf.stat().st_gid) == (4321, 4322)


def test_a_reader_finds_the_old_one_or_the_new_one_whole(edit, daemon):
    """Who has it open reads on in the old one."""
    with daemon.conf.open() as old:
        assert edit("sed -i s/77777/90/ $1").status == 0
        assert old.read().endswith(OLD)


def test_a_disk_that_takes_nothing(edit, daemon, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    done = edit("sed -i s/77777/90/ $1")
    assert done.status == 74 and "what you wrote is kept in " in done.err
    assert daemon.conf.read_text().endswith(OLD) and len(edit.left()) == 1
    assert sorted(os.listdir(daemon.conf.parent)) == ["control", "editor", "popper.conf", "tmp"]


def test_a_first_configuration_begins_with_the_sample(edit, installed, tmp_path):
    conf = tmp_path / "new.conf"
    done = edit(f"cp $1 {tmp_path}/begun; echo timeout 90 >>$1", conf)
    sample = (installed / "share/popper/etc/popper.conf").read_text()
    assert (tmp_path / "begun").read_text() == sample and conf.read_text() == sample + "timeout 90\n"
    assert done.status == 0 and conf.stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("kind", ["directory", "fifo", "large"])
def test_what_is_no_configuration(edit, tmp_path, kind):
    path = tmp_path / "odd"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"#" * 1048577)
    done = edit("exit 99", path)
    assert done.status == {"directory": 73, "fifo": 66, "large": 65}[kind] and done.out == "" and edit.left() == []


# -- the daemon --------------------------------------------------------------------------------------------------------

def test_the_daemon_is_asked_where_it_listens_until_now(edit, daemon):
    """Not where the new configuration says that it is to listen."""
    done = edit("sed -i s/^control.*/control\\ \\\\/nonexistent/ $1")
    assert done.status == 0 and "control /nonexistent" in daemon.conf.read_text()
    assert daemon.asked == ["status", "reload"]


def test_a_daemon_that_will_not(edit, daemon):
    daemon.refuses["reload"] = "cannot listen on *:110: Permission denied"
    done = edit("sed -i s/77777/90/ $1")
    assert (done.status, done.out) == (78, "")
    assert done.err == (f"popperctl: {daemon.conf}: written, but the server that runs, process {daemon.process.pid}, "
                        "goes on as before: cannot listen on *:110: Permission denied\n")
    assert "timeout 90" in daemon.conf.read_text() and edit.left() == []


@pytest.mark.parametrize("change, line", [
    ({"configuration": "/etc/other.conf"}, "the server that runs, process {pid}, reads /etc/other.conf, not this"),
    ({"state": "ending"}, "popper is ending, and does not read it")], ids=["another", "ending"])
def test_a_daemon_that_does_not_read_it(edit, daemon, change, line):
    daemon.state.update(change)
    done = edit("sed -i s/77777/90/ $1")
    assert (done.status, done.err, daemon.asked) == (0, "", ["status"])
    assert done.out.splitlines()[1] == line.format(pid=daemon.process.pid)


def test_no_daemon(edit, daemon):
    daemon.end()
    done = edit("sed -i s/77777/90/ $1")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1] == "popper is not running as a daemon; inetd's next connection reads it"
