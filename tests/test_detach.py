"""A daemon's manners, tried with real daemons: the way from the terminal, and pid files that are believed rightly."""

import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from conftest import TREE, wait_until
from popper import detach
from popper.errors import ConfigError
from processes import has_ended, state_of

# What each process under test begins with. `say` tells the test something from where there is no terminal any more.
HEAD = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from popper import detach
from popper.errors import ConfigError
path = sys.argv[2]

def say(*words):
    with open(path + ".said", "a") as file:
        file.write(" ".join(map(str, words)) + chr(10))

def wait():
    with open(path + ".wait") as fifo:       # until the test lets go
        fifo.read()
"""


class Run:
    """A program that is run in the foreground, and what it leaves behind."""

    def __init__(self, tmp_path):
        self.path = str(tmp_path / "popper.pid")
        os.mkfifo(self.path + ".wait")
        self.command = [sys.executable, "-IS", "-c"]
        self.processes = []

    def start(self, source, shell='exec "$@"'):
        command = ["sh", "-c", shell, "sh", *self.command, HEAD + textwrap.dedent(source), str(TREE), self.path]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return self.processes[-1]

    def run(self, source):
        """-> exit status, standard output, standard error; these end only when nobody has them any more"""
        process = self.start(source)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def said(self):
        try:
            with open(self.path + ".said") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def wait_for(self, word):
        return wait_until(lambda: next((line.split()[1:] for line in self.said() if line.split()[0] == word), None))

    def let_go(self):
        """Whoever waits goes on; somebody does, or will."""
        def opened():
            try:
                os.close(os.open(self.path + ".wait", os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True
        wait_until(opened)


@pytest.fixture
def run(tmp_path):
    one = Run(tmp_path)
    yield one
    for process in one.processes:
        process.kill()
    for line in one.said():
        if line.startswith("pid "):
            try:
                os.kill(int(line.split()[1]), signal.SIGKILL)
            except ProcessLookupError:
                pass
    for process in one.processes:
        process.stdout.close()
        process.stderr.close()
        process.wait()


def inode(path):
    return os.stat(path).st_ino


# -- from the terminal


def test_the_command_ends_with_0_when_the_daemon_is_ready_and_the_daemon_goes_on(run):
    process = run.start("""
        ready = detach.detach()
        say("pid", os.getpid())
        wait()
        ready.ready()
        wait()
        say("ended", 1)
    """)
    pid = int(run.wait_for("pid")[0])
    assert process.poll() is None            # it waits as long as the daemon has not spoken
    run.let_go()
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 0
    assert not has_ended(pid)
    run.let_go()
    run.wait_for("ended")
    wait_until(lambda: has_ended(pid))


def test_the_daemon_has_no_terminal_no_directory_and_no_streams_of_ours(run):
    status, _, _ = run.run("""
        ready = detach.detach()
        say("pid", os.getpid())
        say("ids", os.getpgrp(), os.getsid(0), os.getpid())
        say("cwd", os.getcwd())
        say("streams", *(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)))
        try:
            os.open("/dev/tty", os.O_RDWR)
        except OSError as error:
            say("tty", error.errno)
        print("nobody reads this")
        print("nor this", file=sys.stderr, flush=True)
        ready.ready()
        say("open", *(fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2))
        wait()
    """)
    assert status == 0
    group, session, pid = map(int, run.wait_for("ids"))
    assert session == group != pid           # it leads no session, so no terminal can become its own
    assert session != os.getsid(0)
    wait_until(lambda: state_of(pid)[1] != session)       # who made it has ended, or is about to
    assert run.wait_for("cwd") == ["/"]
    assert run.wait_for("streams") == ["/dev/null"] * 3
    assert run.wait_for("tty") == ["6"]      # ENXIO
    assert len(run.wait_for("open")) == 1    # the directory that was listed
    run.let_go()


def test_what_went_wrong_is_shown_where_it_was_started(run):
    assert run.run("""
        print("on the way")
        ready = detach.detach()
        ready.failed("popper: cannot listen on *:110: Address already in use\\nand \\u00e9", 69)
    """) == (69, "on the way\n", "popper: cannot listen on *:110: Address already in use\nand \u00e9\n")


def test_a_long_complaint_arrives_whole(run):
    status, _, err = run.run("detach.detach().failed('x' * 200000, 78)")
    assert (status, err) == (78, "x" * 200000 + "\n")


def test_a_daemon_that_dies_without_a_word_is_no_success(run):
    for end in ("os._exit(0)", "os.kill(os.getpid(), 9)", "sys.exit(0)"):
        status, out, err = run.run(f"ready = detach.detach()\n{end}")
        assert (status, out) == (70, "")
        assert err == "popper: the daemon ended before it was ready\n"


def test_the_first_word_counts_and_the_others_hurt_nobody(run):
    assert run.run("""
        ready = detach.detach()
        ready.ready()
        ready.failed("too late", 70)
        ready.ready()
        say("lived", 1)
    """) == (0, "", "")
    run.wait_for("lived")


def test_children_that_were_forked_before_do_not_keep_the_command_waiting(run):
    assert run.run("""
        ready = detach.detach()
        if not os.fork():
            say("pid", os.getpid())
            wait()
            os._exit(0)
        ready.ready()
    """)[0] == 0
    assert not has_ended(int(run.wait_for("pid")[0]))
    run.let_go()


def test_closed_standard_streams_are_no_trap(run):
    process = run.start("""
        ready = detach.detach()
        say("streams", *(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)))
        ready.failed("unheard", 66)
    """, shell='exec "$@" <&- >&- 2>&-')
    process.communicate(timeout=60)
    assert process.returncode == 66
    assert run.wait_for("streams") == ["/dev/null"] * 3


def test_a_daemon_outlives_a_command_that_was_interrupted(run):
    process = run.start("""
        ready = detach.detach()
        say("pid", os.getpid())
        say("between", os.getsid(0))
        wait()
        ready.ready()
        say("lived", 1)
    """)
    between = run.wait_for("between")[0]
    wait_until(lambda: not os.path.exists(f"/proc/{between}"))     # then it waits for the daemon's word
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    run.let_go()
    run.wait_for("lived")


def test_no_process_to_be_had_is_a_complaint(monkeypatch):
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    monkeypatch.setattr(detach.os, "fork", fork)
    with pytest.raises(ConfigError, match="cannot become a daemon: Resource temporarily unavailable"):
        detach.detach()


def test_a_second_fork_that_fails_is_told(run):
    status, _, err = run.run("""
        fork, tries = os.fork, []
        def failing():
            tries.append(1)
            if len(tries) == 2:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return fork()
        os.fork = failing
        detach.detach()
        say("never", 1)
    """)
    assert (status, err) == (71, "popper: cannot become a daemon: Resource temporarily unavailable\n")
    assert run.said() == []


# -- pid files

DAEMON = """
try:
    file = detach.write_pid_file(path)
except ConfigError as complaint:
    sys.exit(str(complaint))
say("pid", os.getpid())
wait()
"""


def started(run, source=DAEMON):
    before = len(run.said())
    process = run.start(source)
    wait_until(lambda: len(run.said()) > before)
    return process


def test_the_number_is_in_the_file_and_the_file_goes_with_its_daemon(run):
    process = started(run, DAEMON + "file.remove()\nfile.remove()\n")
    with open(run.path) as file:
        assert file.read() == f"{process.pid}\n"
    assert os.stat(run.path).st_mode & 0o777 == 0o600
    run.let_go()
    assert process.wait(60) == 0
    assert not os.path.exists(run.path)


def test_a_second_daemon_finds_the_first_alive_and_leaves_its_file(run):
    first = started(run)
    before = inode(run.path)
    status, _, err = run.run(DAEMON)
    assert (status, err) == (1, f"{run.path}: already running as process {first.pid}\n")
    with open(run.path) as file:
        assert file.read() == f"{first.pid}\n" and inode(run.path) == before


def test_the_file_of_a_daemon_that_was_killed_is_stale_though_its_children_live(run):
    first = started(run, """
        file = detach.write_pid_file(path)
        child = os.fork()
        if not child:
            wait()
            os._exit(0)
        say("pid", os.getpid())
        say("pid", child)
        wait()
    """)
    wait_until(lambda: len(run.said()) == 2)
    first.kill()
    first.wait()
    assert not has_ended(int(run.said()[1].split()[1]))
    second = started(run)
    with open(run.path) as file:
        assert file.read() == f"{second.pid}\n"


@pytest.mark.parametrize("left", ["1\n", "99999999999\n", "", "rubbish " * 1000, "{}\n"])
def test_what_is_left_in_a_file_is_not_believed(run, left):
    with open(run.path, "w") as file:
        file.write(left.format(os.getpid()))         # a process that lives, and is no popper
    os.chmod(run.path, 0o644)
    second = started(run)
    with open(run.path) as file:
        assert file.read() == f"{second.pid}\n"
    assert os.stat(run.path).st_mode & 0o777 == 0o600


def test_the_lock_stays_when_the_daemon_becomes_another_program(run):
    first = started(run, """
        file = detach.write_pid_file(path)
        os.set_inheritable(file._descriptor, True)
        os.execv(sys.executable, [sys.executable, "-IS", "-c", "import sys\\n"
                                  "open(sys.argv[1] + '.said', 'a').write('exec 0')\\n"
                                  "open(sys.argv[1] + '.wait').read()", path])
    """)
    assert run.run(DAEMON)[2].endswith(f"already running as process {first.pid}\n")
    run.let_go()
    first.wait(60)


def test_one_that_became_another_program_takes_its_own_file_again(run):
    process = started(run, """
        detach.write_pid_file(path)
        say("pid", os.getpid())
        wait()
        detach.write_pid_file(path)
        say("again", os.getpid())
        wait()
    """)
    before = inode(run.path)
    run.let_go()
    run.wait_for("again")
    assert inode(run.path) == before
    run.let_go()
    assert process.wait(60) == 0


def test_a_file_that_is_anothers_by_now_is_not_removed(run):
    process = started(run, DAEMON + "file.remove()\n")
    os.rename(run.path, run.path + ".moved")
    second = started(run, DAEMON.replace("wait()", "say('done', 1)"))
    second.wait(60)
    run.let_go()
    assert process.wait(60) == 0
    with open(run.path) as file:
        assert file.read() == f"{second.pid}\n"


def test_a_child_does_not_remove_it(run):
    started(run, """
        file = detach.write_pid_file(path)
        if not os.fork():
            file.remove()
            os._exit(0)
        os.wait()
        say("pid", os.getpid())
        wait()
    """)
    assert os.path.exists(run.path)
    assert run.run(DAEMON)[0] == 1           # nor is its lock gone


def test_one_of_many_that_start_at_once_wins(run):
    processes = [run.start(DAEMON + "file.remove()\n") for _ in range(6)]
    wait_until(lambda: sum(process.poll() is not None for process in processes) == 5)
    winner = next(process for process in processes if process.poll() is None)
    wait_until(run.said)
    assert run.said() == [f"pid {winner.pid}"]
    for process in processes:
        if process is not winner:
            assert "already running" in process.communicate()[1] and process.returncode == 1
    run.let_go()
    assert winner.wait(60) == 0
    assert not os.path.exists(run.path)


@pytest.mark.parametrize("times", [1, 4, 5])
def test_a_file_that_its_owner_removes_just_now_is_made_again(tmp_path, monkeypatch, times):
    path = str(tmp_path / "pid")
    left, lock = [times], detach.fcntl.lockf

    def lockf(descriptor, how):
        if left[0]:
            left[0] -= 1
            os.unlink(path)
        lock(descriptor, how)
    monkeypatch.setattr(detach.fcntl, "lockf", lockf)
    if times == 5:
        with pytest.raises(ConfigError, match="again and again"):
            detach.write_pid_file(path)
        return
    file = detach.write_pid_file(path)
    with open(path, "rb") as ours:
        assert ours.read() == b"%d\n" % os.getpid()
    file.remove()
    assert not os.path.exists(path)


def trap(path, kind):
    if kind == "symlink":
        open(path + ".target", "w").close()
        os.symlink(path + ".target", path)
    elif kind == "dangling":
        os.symlink(path + ".nowhere", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path)
    else:
        open(path, "w").close()
        os.link(path, path + ".other")


@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "directory", "socket", "hard link"])
def test_a_trap_is_not_written_to(tmp_path, kind):
    path = str(tmp_path / "pid")
    trap(path, kind)
    before = sorted(os.listdir(tmp_path))
    open_before = os.listdir("/proc/self/fd")
    with pytest.raises(ConfigError) as caught:
        detach.write_pid_file(path)
    assert str(caught.value).startswith(path + ": ")
    assert sorted(os.listdir(tmp_path)) == before
    assert os.listdir("/proc/self/fd") == open_before
    for name in before:
        assert not os.path.isfile(tmp_path / name) or os.path.getsize(tmp_path / name) == 0


@pytest.mark.root
def test_a_file_of_somebody_else_is_not_written_to(tmp_path):
    path = str(tmp_path / "pid")
    open(path, "w").close()
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        detach.write_pid_file(path)
    assert os.path.getsize(path) == 0


def test_a_directory_that_alone_is_missing_is_made(tmp_path):
    umask = os.umask(0o077)
    try:
        file = detach.write_pid_file(str(tmp_path / "run" / "pid"))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(umask)
    assert os.stat(tmp_path / "run").st_mode & 0o777 == 0o755 and os.listdir(tmp_path / "run") == ["pid"]
    file.remove()


def test_directories_that_are_not_there_are_told(tmp_path):
    with pytest.raises(ConfigError, match="none/at/pid: cannot be opened: No such file or directory"):
        detach.write_pid_file(str(tmp_path / "none" / "at" / "pid"))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(descriptor, octets, at):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(detach.os, "pwrite", full)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
        detach.write_pid_file(str(tmp_path / "pid"))
    assert os.listdir("/proc/self/fd") == before
