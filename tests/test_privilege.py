"""Who runs what: the list at the head of popper.privilege against a real session, and the way out of root."""

import ast
import ctypes
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import GID, HOST, ONE, ROOT, UID, Dialogue, mbox, tcp_pair
from popper import privilege
from popper.errors import Refused
from popper.privilege import NOBODY, become, become_nobody, shed_group

PACKAGE = Path(privilege.__file__).parent
SPOOL_GROUP = 54400

# Runs popper, and notes in a file of which modules functions are called, as whom, and whether in the first process.
OBSERVER = """
import os, sys
sys.path[:0] = [{tree!r}, *{site!r}]
first, seen = os.getpid(), set()

def importing(frame):
    while frame and not (frame.f_code.co_name == "<module>" and "/popper/" in frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None

def note(frame, event, argument):
    code = frame.f_code
    is_module = code.co_name == "<module>"
    ours = code.co_filename.startswith({tree!r} + "/popper/")
    if event != "call" or not is_module and (not ours or importing(frame)):
        return
    what = code.co_filename, is_module, os.geteuid(), os.getpid() == first
    if what not in seen:
        seen.add(what)
        notes = os.open({notes!r}, os.O_WRONLY | os.O_APPEND)
        os.write(notes, repr(what).encode() + b"\\n")
        os.close(notes)
sys.argv = ["popper", *{arguments!r}]
import popper.launch
sys.setprofile(note)
popper.launch.run()
"""


def listed():
    """The modules that the list at the head of popper.privilege has run as root, `auth.*` spelled out."""
    block = privilege.__doc__.split("\n\n")[2]
    columns = [re.split(r" {3,}", line[4:])[0] for line in block.splitlines()]
    names = {name for column in columns for name in re.split(r", | or ", column) if name}
    if "auth.*" in names:
        names |= {"auth"} | {f"auth.{path.stem}" for path in (PACKAGE / "auth").glob("[!_]*.py")}
    return names - {"auth.*"}


def module_of(path):
    return ".".join(Path(path).relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


class Observed:
    """What ran as whom in a session: sets of modules, and what was imported by others than root.

    forking: sessions are children of the process that was started.
    """

    def __init__(self, lines, uid, forking=False):
        seen = [ast.literal_eval(line) for line in lines]
        own = [(module_of(path), euid, first) for path, is_import, euid, first in seen
               if not is_import and path.startswith(str(PACKAGE))]
        self.root = {module for module, euid, first in own if euid == 0 and (first or forking)}
        self.user = {module for module, euid, first in own if euid == uid and first}
        self.keeper = {module for module, euid, first in own if euid == uid and not first}
        self.nobody = {module for module, euid, first in own if euid == NOBODY}
        self.late = {path for path, is_import, euid, _ in seen if is_import and euid != 0}


def converse(pop, user, password):
    """A session with every command in it."""
    pop.reply()
    pop.ok(f"USER {user}")
    pop.ok(f"PASS {password}")
    for command in ("LIST", "UIDL", "RETR 1", "TOP 1 1", "XTND XLST Subject", "CAPA"):
        pop.text(command)
    pop.ok("XTND XMIT")
    pop.send("To: nobody\r\n\r\nx\r\n.\r\n")
    pop.reply()
    for command in ("STAT", "LAST", "NOOP", "DELE 1", "RSET", "DELE 2"):
        pop.ok(command)
    pop.err("RETR 99")
    pop.quit()


def turned_away(pop, user, password):
    """A session that comes to nothing."""
    pop.reply()
    pop.ok(f"USER {user}")
    pop.err(f"PASS not-{password}")
    assert pop.end() == b""


@pytest.fixture
def notes():
    """A file that anybody may write into."""
    place = Path(tempfile.mkdtemp(prefix="popper-notes-"))
    place.chmod(0o755)
    (place / "notes").touch()
    (place / "notes").chmod(0o666)
    yield place / "notes"
    shutil.rmtree(place)


def start(arguments, stdin, notes):
    """Start popper under observation."""
    site_packages = [path for path in sys.path if path.endswith("site-packages")]
    program = OBSERVER.format(tree=str(PACKAGE.parent), site=site_packages, notes=str(notes),
                              arguments=list(map(str, arguments)))
    return subprocess.Popen([sys.executable, "-I", "-c", program], stdin=stdin, stdout=stdin, stderr=subprocess.PIPE)


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "popper.conf"
    path.write_text(f"hostname {HOST}\nsendmail /bin/true\ndns_timeout 1\nfail_delay 0\nlog stderr\n"
                    f"auth popper.auth.file getpw\npassword_file {tmp_path / 'passwords'}\n")
    (tmp_path / "passwords").write_text("somebody:x\n")
    return path


@pytest.fixture
def observed(spool, conf, notes):
    """A session of a real account in the real spool, as under inetd."""
    spool.deliver(mbox(ONE, ONE))
    for dialogue in (turned_away, converse):
        ours, theirs = tcp_pair()
        pop = Dialogue(ours)
        with theirs, start(["-C", conf, "-s"], theirs, notes) as process:
            theirs.close()
            try:
                dialogue(pop, spool.name, spool.password)
            finally:
                ours.close()
                _, complaints = process.communicate(timeout=20)
        assert process.returncode == 0, complaints
    return Observed(notes.read_text().splitlines(), spool.entry.pw_uid)


@pytest.mark.root
def test_the_list_of_what_root_runs(observed):
    """Under inetd root runs the modules that the list names, and no other."""
    assert observed.root - {"privilege", ""} == listed() - {"daemon"}


@pytest.mark.root
def test_what_root_does_not_run(observed):
    """Mailbox, commands of TRANSACTION and sendmail are the user's alone."""
    assert {"storage.mbox", "storage.scan", "storage.identity", "storage.locks", "maildrop", "submit",
            "xtnd"} <= observed.user
    assert not {module for module in observed.root if module.startswith(("storage", "maildrop", "submit", "xtnd"))}


@pytest.mark.root
def test_who_runs_beside(observed):
    """The fork that asks DNS is nobody and runs no more than that; the keeper has the user's uid, and runs the
    locks."""
    assert observed.nobody == {"peer", "privilege"} or observed.nobody == {"peer"}
    assert observed.keeper <= {"storage.keeper", "storage.locks", "errors"} and "storage.locks" in observed.keeper


@pytest.mark.root
def test_nothing_is_imported_by_the_user(observed):
    """All is imported before root is given up: a user may not be able to read root's Python, or may have his own."""
    assert observed.late == set()


@pytest.mark.root
def test_the_daemon_runs_nothing_else_as_root(spool, conf, notes):
    """So with popper on its own: the same list, with daemon in place of inetd's start."""
    spool.deliver(mbox(ONE, ONE))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf.write_text(conf.read_text() + f"bindto 127.0.0.1:{port}\n")
    with open(os.devnull, "rb+") as null, start(["-C", conf], null, notes) as process:
        try:
            with socket.socket() as probe:
                wait_until(lambda: probe.connect_ex(("127.0.0.1", port)) == 0)
            for dialogue in (turned_away, converse):
                dialogue(Dialogue(socket.create_connection(("127.0.0.1", port))), spool.name, spool.password)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    found = Observed(notes.read_text().splitlines(), spool.entry.pw_uid, forking=True)
    assert found.root - {"privilege", ""} == listed()
    assert found.late == set()


def test_the_list_names_modules_that_are_there():
    """A name on the list that has gone is a mistake of the list."""
    modules = {module_of(path) for path in PACKAGE.rglob("*.py")}
    assert len(listed()) > 10 and listed() <= modules


# -- the way out ---------------------------------------------------------------------------------------------------

def in_child(work):
    """-> (exit status, what `work` returned or raised) of a forked child."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            os.close(reader)
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


def identity():
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
        except PermissionError:
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
