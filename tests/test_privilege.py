"""Who runs what: the table at the head of popper.privilege against real sessions."""

import ast
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, Dialogue, mbox, tcp_pair
from popper import privilege
from popper.privilege import NOBODY

PACKAGE = Path(privilege.__file__).parent
UNPRIVILEGED = "games"         # an account that has nothing to do with mail, and is not nobody
PROXY = "127.0.0.2"

# Runs popper, and tells by datagrams of which modules functions are called, by which process and as whom. The name of
# the socket is an abstract one, which can be reached from any root directory.
OBSERVER = """
import os, sys, _socket
sys.path[:0] = [{tree!r}, *{site!r}]
seen = set()

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
    what = code.co_filename, is_module, os.geteuid(), os.getpid()
    if what not in seen:
        seen.add(what)
        line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        line.sendto(repr(what).encode(), {notes!r})
        line.close()
sys.argv = ["popper", *{arguments!r}, *sys.argv[1:]]
import popper.launch
sys.setprofile(note)
popper.launch.run()
"""


def listed(mode):
    """Who runs what in a mode, as the table at the head of popper.privilege has it: {who: modules}, the names of
    packages that end in `.*` spelled out."""
    table = privilege.__doc__.split("\n\n")[2]
    rows, found = [], {}
    for line in table.splitlines():
        modes, who, modules = line[4:12].strip(), line[12:26].strip(), line[26:].split()
        if modes:
            rows.append((modes, who, modules))
        else:
            rows[-1][2].extend(modules)
    for modes, who, modules in rows:
        if modes in ("both", mode):
            found.setdefault(who, set()).update(*map(spelled_out, modules))
    return found


def spelled_out(name):
    package = name.removesuffix(".*")
    if package == name:
        return {name}
    return {f"{package}.{path.stem}" for path in (PACKAGE / package).glob("[!_]*.py")} - {"storage.memory"}


def module_of(path):
    return ".".join(Path(path).relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


class Observed:
    """What ran as whom: who: modules, by the words of the table; and what was imported by others than root."""

    def __init__(self, lines, uid):
        seen = [ast.literal_eval(line.decode()) for line in lines]
        own = [(module_of(path) or "__init__", euid, pid) for path, is_import, euid, pid in seen
               if not is_import and path.startswith(str(PACKAGE))]
        serving = {pid for module, euid, pid in own if euid == uid and module == "serve"}
        self.who = {
            "root": {module for module, euid, pid in own if euid == 0},
            "unprivileged": {module for module, euid, pid in own if euid == pwd.getpwnam(UNPRIVILEGED).pw_uid},
            "nobody": {module for module, euid, pid in own if euid == NOBODY},
            "user": {module for module, euid, pid in own if euid == uid and pid in serving},
            "keeper": {module for module, euid, pid in own if euid == uid and pid not in serving},
        }
        self.late = {path for path, is_import, euid, pid in seen if is_import and euid != 0}


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


def through_a_proxy(pop, user, password):
    """A session whose client is told of by a proxy."""
    pop.send("PROXY TCP4 127.0.0.9 127.0.0.1 4000 110\r\n")
    converse(pop, user, password)


def find_nothing(pop, user, password):
    """A session without mail."""
    os.truncate(f"/var/mail/{user}", 0)
    pop.reply()
    pop.log_in(user, password)
    assert pop.ok("STAT").startswith("0 ")
    pop.quit()


def turned_away(pop, user, password):
    """A session that comes to nothing, at a name that nobody has: what its verification would cost is spent."""
    pop.reply()
    pop.ok(f"USER {user}-x")
    pop.err(f"PASS not-{password}")
    assert pop.end() == b""


class Notes:
    """A socket that anybody may tell something; lines: what was told so far, and `end` waits for the rest of it."""

    def __init__(self):
        self.name = b"\0popper-notes-" + os.urandom(8).hex().encode()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.name)
        self.lines = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        while line := self.socket.recv(4096):
            self.lines.append(line)

    def end(self):
        """-> all lines. Whoever would tell more has ended."""
        if self.reader.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", self.name)
            self.reader.join()
            self.socket.close()
        return self.lines


@pytest.fixture
def notes():
    one = Notes()
    yield one
    one.end()


def start(arguments, stdin, notes):
    """Start popper under observation."""
    site_packages = [path for path in sys.path if path.endswith("site-packages")]
    program = OBSERVER.format(tree=str(PACKAGE.parent), site=site_packages, notes=notes.name,
                              arguments=list(map(str, arguments)))
    return subprocess.Popen([sys.executable, "-I", "-c", program], stdin=stdin, stdout=stdin, stderr=subprocess.PIPE)


@pytest.fixture
def conf():
    """A configuration that uses everything."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        texts = {"passwords": "somebody:x\n", "allow": "allow 127.0.0.0/8\ndeny all\n", "trusted": "192.0.2.0/24\n"}
        for file, text in texts.items():
            (place / file).write_text(text)
        (place / "bulletins").mkdir(mode=0o755)
        (place / "bulletins" / "00001.tidings").write_text(f"From root Tue Jan  2 03:04:05 2024\n{ONE.decode()}")
        (place / "popper.conf").write_text(f"""
            hostname {HOST}\nsendmail /bin/true\ndns_timeout 1\nfail_delay 0\nlog stderr\nstatistics yes
            auth popper.auth.file pam getpw\npassword_file {place}/passwords\nunprivileged_user {UNPRIVILEGED}
            allow_deny {place}/allow\ntrusted {place}/trusted\nhosts_access yes\nguessers {place}/guessers
            bulletins {place}/bulletins\nnew_user_bulletins 1\nproxy_from {PROXY}\nmaxsessions 2\nmaxstrangers 10
            control {place}/control\npid_file {place}/pid\ntrace_user nobody-else\ntrace_file {place}/trace
            """.replace("            ", ""))
        yield place / "popper.conf"


def under_inetd(conf, notes, user, password):
    for dialogue in (turned_away, converse, through_a_proxy, find_nothing):
        ours, theirs = tcp_pair(PROXY if dialogue is through_a_proxy else "127.0.0.1")
        with theirs, start(["-C", conf], theirs, notes) as process:
            theirs.close()
            try:
                dialogue(Dialogue(ours), user, password)
            finally:
                ours.close()
                _, complaints = process.communicate(timeout=20)
        assert process.returncode == 0, complaints


def on_its_own(conf, notes, user, password):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def call(address="127.0.0.1"):
        return socket.create_connection(("127.0.0.1", port), source_address=(address, 0))

    def ask(command):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(conf.parent / "control"))
            control.sendall(b'{"command": "%s"}\n' % command)
            return control.makefile().read()

    with listener, start(["-C", conf], listener, notes) as process:
        listener.close()
        try:
            for dialogue in (turned_away, converse):
                dialogue(Dialogue(call()), user, password)
            through_a_proxy(Dialogue(call(PROXY)), user, password)
            crowd = [call() for _ in range(12)]
            assert '"ok": true' in ask(b"status") and '"ok": true' in ask(b"reload")
            before = changed(conf.parent / "control")
            assert '"ok": true' in ask(b"upgrade")
            wait_until(lambda: changed(conf.parent / "control") not in (before, None))
            for dialogue in (converse, find_nothing):
                dialogue(Dialogue(call()), user, password)
            for each in crowd:
                each.close()
        finally:
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=20)
    assert process.returncode == 0, complaints


def changed(path):
    """When a file was made or changed, or None when there is none."""
    try:
        return path.stat().st_ctime_ns
    except FileNotFoundError:
        return None


MODES = {"inetd": under_inetd, "daemon": on_its_own}


@pytest.fixture(params=MODES)
def observed(request, spool, conf, notes):
    """-> (mode, Observed): sessions of a real account in the real spool, one way and the other."""
    spool.deliver(mbox(ONE, ONE, ONE, ONE))
    MODES[request.param](conf, notes, spool.name, spool.password)
    return request.param, Observed(notes.end(), spool.entry.pw_uid)


@pytest.mark.root
def test_the_table_of_who_runs_what(observed):
    """Each runs the modules that the table names, and no other; nothing is imported by anybody but root: a user may
    not be able to read root's Python, or may have his own."""
    mode, found = observed
    table = listed(mode)
    assert {who: found.who[who] - table[who] for who in table if found.who[who] - table[who]} == {}, "not in the table"
    assert {who: table[who] - found.who[who] for who in table if table[who] - found.who[who]} == {}, "did not run"
    assert found.late == set()
    strange = {"storage.mbox", "storage.scan", "storage.identity", "maildrop", "submit", "xtnd", "bulletins"}
    assert strange <= found.who["user"] and not strange & found.who["root"], "the mailbox is the user's alone"
    assert "proxy" not in found.who["root"], "what comes from the network is not taken apart by root"


def test_the_table_names_modules_that_are_there():
    """A name in the table that has gone is a mistake of the table."""
    modules = {module_of(path) or "__init__" for path in PACKAGE.rglob("*.py")}
    for mode in MODES:
        assert set(listed(mode)) == {"root", "unprivileged", "nobody", "user", "keeper"}
        assert all(each and each <= modules for each in listed(mode).values())
