"""The ways out of root, and that none leads back."""

import ast
import ctypes
import errno
import os
import pickle
import resource
import socket
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from dialogue import GID, ROOT, UID
from popper import privilege
from popper.errors import ConfigError, Refused
from popper.privilege import NOBODY, become, become_nobody, close_all_but, confine, shed_group, unprivileged

PACKAGE = Path(privilege.__file__).parent
SPOOL_GROUP = 54400


def in_child(work):
    """-> (exit status, what `work` returned or raised) of a forked child."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            close_all_but(0, 1, 2, writer)   # a run of all tests has more open than `confine` is told to allow
            try:
                result = work()
            except Exception as error:
                result = error
            os.write(writer, pickle.dumps(result))
            os._exit(0)
        finally:
            os._exit(99)
    os.close(writer)
    with open(reader, "rb") as pipe:
        octets = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), pickle.loads(octets) if octets else None


def identity(empty=False):
    """empty: there is no /proc to ask."""
    if empty:
        return {"uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups()}
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"uids": status["Uid"].split(), "gids": status["Gid"].split(), "groups": sorted(os.getgroups()),
            "caps": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]}


WAYS_BACK = {
    "setuid": lambda: os.setuid(0), "seteuid": lambda: os.seteuid(0), "setreuid": lambda: os.setreuid(0, 0),
    "real uid": lambda: os.setresuid(0, -1, -1), "saved uid": lambda: os.setresuid(-1, -1, 0),
    "setgid": lambda: os.setgid(0), "setegid": lambda: os.setegid(0), "setregid": lambda: os.setregid(0, 0),
    "saved gid": lambda: os.setresgid(-1, -1, 0), "a spool's group": lambda: os.setegid(SPOOL_GROUP),
    "setgroups": lambda: os.setgroups([0]), "initgroups": lambda: os.initgroups("root", 0),
    "chroot": lambda: os.chroot("/"), "root's file": lambda: os.open("/etc/shadow", 0),
    "signal to init": lambda: os.kill(1, 0), "better priority": lambda: os.nice(-5),
    "low port": lambda: socket.socket().bind(("127.0.0.1", 1023)),
}


def tried():
    """Which of the ways back to root are open."""
    open_ways = []
    for name, way in WAYS_BACK.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                way()
            open_ways.append(name)
        except (PermissionError, FileNotFoundError):     # not there, in an empty root directory
            pass
    return open_ways


@pytest.mark.root
def test_become():
    """All four uids and gids are the user's, no capability is left, and no way leads back."""
    def work():
        become("nobody-there", UID, GID)
        return identity(), tried()
    status, (who, open_ways) = in_child(work)
    assert status == 0
    assert who == {"uids": [str(UID)] * 4, "gids": [str(GID)] * 4, "groups": [GID], "caps": [0, 0, 0, 0]}
    assert open_ways == []


@pytest.mark.root
def test_become_an_account(account):
    """An account of the system gets the groups that the system gives it."""
    name, uid, gid = account.name, account.entry.pw_uid, account.entry.pw_gid
    subprocess.run(["usermod", "-aG", "games", name], check=True)
    expected = sorted(os.getgrouplist(name, gid))
    assert len(expected) == 2
    status, who = in_child(lambda: (become(name, uid, gid), identity())[1])
    subprocess.run(["gpasswd", "-d", name, "games"], check=True, capture_output=True)
    assert status == 0
    assert (who["uids"], who["gids"], who["groups"]) == ([str(uid)] * 4, [str(gid)] * 4, expected)


@pytest.mark.root
def test_a_virtual_user_of_the_same_name_gets_no_groups(account):
    """A user of the password file may share an account's name, never its groups."""
    status, who = in_child(lambda: (become("root", UID, GID), identity())[1])
    assert status == 0 and who["groups"] == [GID]


@pytest.mark.root
def test_the_spools_group_is_shed():
    """Until shed_group the spool's group is the effective one; afterwards there is no way to it."""
    def work():
        become("nobody-there", UID, GID, SPOOL_GROUP)
        before = identity()
        shed_group()
        return before, identity(), tried()
    status, (before, after, open_ways) = in_child(work)
    assert status == 0
    assert before["uids"] == [str(UID)] * 4
    assert before["gids"] == [str(gid) for gid in (GID, SPOOL_GROUP, GID, SPOOL_GROUP)]
    assert after == {"uids": [str(UID)] * 4, "gids": [str(GID)] * 4, "groups": [GID], "caps": [0, 0, 0, 0]}
    assert open_ways == []


@pytest.mark.root
def test_become_nobody():
    """The child that asks DNS has nobody's uid and gid, no groups, and no way back."""
    status, (who, open_ways) = in_child(lambda: (become_nobody(), (identity(), tried()))[1])
    assert status == 0
    assert who == {"uids": [str(NOBODY)] * 4, "gids": [str(NOBODY)] * 4, "groups": [], "caps": [0, 0, 0, 0]}
    assert open_ways == []


@pytest.mark.root
def test_who_speaks_to_strangers_is_confined():
    """No file of the system, no place for one, no process, no core, few descriptors; and nothing is left where the
    root directory was made."""
    def work():
        warnings.simplefilter("ignore", DeprecationWarning)
        confine((UID, GID), 20)
        found, open_ways = identity(empty=True), tried()
        trouble = []
        for attempt in (os.fork, lambda: os.open("/file", os.O_CREAT | os.O_WRONLY), lambda: os.mkdir("/directory"),
                        lambda: os.stat("/etc"), lambda: os.stat("../../../etc"), lambda: os.listdir("/"),
                        lambda: [os.dup(2) for _ in range(21)]):
            try:
                attempt()
            except OSError as error:
                trouble.append(error.errno)
        limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("CORE", "NPROC", "NOFILE")}
        return found, trouble, limits, open_ways
    status, (who, trouble, limits, open_ways) = in_child(work)
    assert status == 0
    assert who == {"uids": (UID,) * 3, "gids": (GID,) * 3, "groups": []}
    assert trouble == [errno.EAGAIN, errno.EACCES, errno.EACCES, errno.EACCES, errno.EACCES, errno.EACCES, errno.EMFILE]
    assert limits == {"CORE": (0, 0), "NPROC": (0, 0), "NOFILE": (20, 20)}
    assert open_ways == []
    assert not [path for place in privilege.PLACES for path in Path(place).glob("popper.empty.*")]


def test_an_ordinary_user_is_confined_as_far_as_he_can_be():
    def work():
        if ROOT:
            os.setresgid(GID, GID, GID)
            os.setresuid(UID, UID, UID)
        confine((UID + 1, GID + 1), 20)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return os.geteuid(), status["NoNewPrivs"].strip(), resource.getrlimit(resource.RLIMIT_NPROC)
    assert in_child(work) == (0, (UID if ROOT else os.geteuid(), "1", (0, 0)))


def test_whose_account_speaks_to_strangers(monkeypatch):
    """The one that is named; popper's own where there is one; else nobody. Never root."""
    accounts = {"popper": (71, 72), "nobody": (65534, 65533), "other": (81, 82), "toor": (0, 0)}

    def getpwnam(name):
        uid, gid = accounts[name]
        return SimpleNamespace(pw_uid=uid, pw_gid=gid)
    monkeypatch.setattr(privilege.pwd, "getpwnam", getpwnam)
    assert unprivileged("") == (71, 72) and unprivileged("other") == (81, 82)
    for wrong in ("toor", "nobody-there"):
        with pytest.raises(ConfigError, match=f"unprivileged_user: {wrong} is no account that could be used"):
            unprivileged(wrong)
    del accounts["popper"]
    assert unprivileged("") == (65534, 65533)
    del accounts["nobody"]
    assert unprivileged("") == (NOBODY, NOBODY)


@pytest.mark.parametrize("kept", [(), (0, 1, 2), (0, 2, 7), (7, 5), (30,)])
def test_all_other_descriptors_are_closed(kept):
    def work(writer):
        os.dup2(writer, 40)
        for fd in range(9):
            os.dup2(40, fd)
        os.dup2(40, 30)
        close_all_but(*kept, 40)
        return sorted(fd for fd in range(100) if is_open(fd))
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            os.write(40, repr(work(writer)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        assert ast.literal_eval(pipe.read()) == sorted({*kept, 40})
    os.waitpid(child, 0)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.root
def test_becoming_root_is_no_way_out():
    """Whoever would be root afterwards ends instead."""
    assert in_child(lambda: become("root", 0, 0)) == (70, None)


PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4


@pytest.mark.root
def test_where_capabilities_would_survive_the_process_ends():
    """If the system keeps the capabilities of one that is no longer root, the way back is open: that is found out."""
    def work():
        assert ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0
        become("nobody-there", UID, GID)
    assert in_child(work) == (70, None)


@pytest.mark.root
@pytest.mark.parametrize("lacking", ["setgid", "setuid"])
def test_a_root_that_may_not_change(lacking):
    """A root without the capability to change groups or uid ends, half changed or not; it serves nobody."""
    program = textwrap.dedent(f"""
        import sys
        sys.path[:0] = [{str(PACKAGE.parent)!r}]
        from popper.privilege import become
        become("nobody-there", {UID}, {GID})
        print("served")
    """)
    done = subprocess.run(["setpriv", f"--bounding-set=-{lacking}", f"--inh-caps=-{lacking}", sys.executable, "-I",
                           "-c", program],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (70, "")


def test_an_ordinary_user_stays_himself():
    """Without root one can only become oneself; for anybody else the login is refused before anything changes."""
    def work():
        if ROOT:
            os.setresgid(GID, GID, GID)
            os.setresuid(UID, UID, UID)
        before = identity()
        become("me", os.geteuid(), os.getegid())
        become_nobody()
        assert identity() == before
        become("other", os.geteuid() + 1, os.getegid())
    status, refusal = in_child(work)
    assert status == 0 and isinstance(refusal, Refused)
    assert refusal.code == "SYS/PERM" or refusal.args == ("System error, this server cannot become you.",)
