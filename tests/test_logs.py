"""What reads our log: logwatch, fail2ban, logcheck, each the real one, on lines of real sessions under a real inetd.

The last part holds popper(8), LOGGING, against those lines: an administrator's script is written from there.
"""

import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from conftest import TREE, SuperServer, Syslog, free_port, wait_until, with_syslog
from popper import peer

pytestmark = pytest.mark.root

IDENTS = ["popper", "in.popper", "qpopper", "in.qpopper"]
DEBUG, INFO, NOTICE, WARNING = 7, 6, 5, 4
LOCAL0 = 16
ISO_STAMP = "2026-11-21T18:22:48.123456+01:00"

# What somebody may send as a user name, and what the log makes of it.
HOSTILE = [
    (b"nosuch", "nosuch"),
    (b"9.9.9.9", "9.9.9.9"),
    (b"x)from\xa0host\xa0(y)\xa09.9.9.9", r"x\x29from\xa0host\xa0\x28y\x29\xa09.9.9.9"),
    (b'"joe"at(host)9.9.9.9', r"\x22joe\x22at\x28host\x299.9.9.9"),
    (b"it's", r"it\x27s"),
    (b"\x1b[31mjoe\x07\x00\x7f\x9b", r"\x1b\x5b31mjoe\x07\x00\x7f\x9b"),
    (b"j\xe2\x80\xa8oe", r"j\xe2\x80\xa8oe"),
    (b"[AUTH]", r"\x5bAUTH\x5d"),
    (b"Stats:", r"Stats\x3a"),
    (b"%s%n{0}<F-USER>", r"\x25s\x25n\x7b0\x7d\x3cF-USER\x3e"),
    (b"n" * 60, "n" * 60),
    (b"N" * 64, "N" * 64),
]
SPACED = b"USER x)from host (y) 9.9.9.9\r\nPASS x\r\nQUIT\r\n"      # blanks end a name, so this is no login at all


def message(subject, octets):
    return b"From a@example.org Thu Nov 24 18:22:48 1996\nSubject: %s\n\n%s\n\n" % (subject, b"x" * octets)


class Log:
    """Lines of one popper: (facility, severity, text), text without the stamp and the name in front."""

    def __init__(self, ident, lines):
        self.ident = ident
        self.stamped = [text for _, text in lines]
        self.lines = [(priority >> 3, priority & 7, text.partition("]: ")[2]) for priority, text in lines]
        self.texts = [text for _, _, text in self.lines]

    def file(self, path, stamp=None):
        """The lines as syslogd writes them into a file. stamp: another than the traditional one."""
        path.write_text("".join(f"{stamp or line[:15]} mail {line[16:]}\n" for line in self.stamped))
        return path


@pytest.fixture(scope="module")
def syslog(syslog, tmp_path_factory):
    """A collector for this file alone, where that can be had: what others' poppers say is counted nowhere here."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        yield syslog
        return
    own = Syslog(tmp_path_factory.mktemp("own") / "log")
    yield own
    own.socket.close()


@pytest.fixture
def sessions(installed, start_inetd, syslog, tmp_path):
    """sessions(ident, *octets, flags=, config=) -> the Log of sessions held one after the other."""
    def hold(ident, *sent, flags=("-s",), config="fail_delay 0\n", until=""):
        conf = tmp_path / "popper.conf"
        conf.write_text(f"guess_delay_max 0\n{config}")        # else the failures here would wait
        since = len(syslog.lines)
        server = start_inetd(installed / "sbin" / ident, "-C", str(conf), *flags)
        for octets in sent:
            with socket.create_connection(("127.0.0.1", server.port)) as client, client.makefile("rb") as replies:
                if callable(octets):
                    octets(client, replies)
                else:
                    client.sendall(octets)
                    client.shutdown(socket.SHUT_WR)
                    assert replies.read().startswith(b"+OK ")
        if until:                            # a line that follows the end of the connection
            syslog.wait_for(until, since)
        return Log(ident, ours(syslog, ident, since))
    return hold


def ours(syslog, ident, since):
    """What a popper of that name has logged, all of it: a line of our own comes in behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.sendto(f"<134>Nov 24 18:22:48 test[1]: read so far {since}".encode(), syslog.path)
    syslog.wait_for(f"read so far {since}", since)
    # The fixture knocks once to see whether the super-server answers, and does not wait to be greeted.
    return [(priority, text) for priority, text in syslog.lines[since:]
            if text[16:].startswith(f"{ident}[") and "Unable to obtain socket" not in text]


def login(account, *commands):
    lines = [b"USER " + account.name.encode(), b"PASS " + account.password.encode(), *commands]
    return b"\r\n".join(lines) + b"\r\n"


def failures():
    return [b"USER %s\r\nPASS wrong\r\n" % name for name, _ in HOSTILE]


@pytest.fixture
def mailbox(spool):
    spool.deliver(message(b"one", 3000) + message(b"two", 5000) + message(b"three", 9000))
    return spool


# -- severities and facilities -----------------------------------------------------------------------------------------

def test_severities(sessions, mailbox):
    log = sessions("popper", login(mailbox, b"DELE 1", b"QUIT"), b"USER nosuch\r\nPASS x\r\n", b"USER joe\r\nQUIT\r\n",
                   SPACED, until="Too many arguments")
    assert [(facility, severity) for facility, severity, _ in log.lines] == [
        (LOCAL0, NOTICE), (LOCAL0, NOTICE), (LOCAL0, WARNING), (LOCAL0, NOTICE), (LOCAL0, WARNING), (LOCAL0, NOTICE)]
    assert [re.sub(r"v[\d.]+", "vX", text) for text in log.texts] == [
        '(vX) POP login by user "popjoe" at (localhost) 127.0.0.1',
        "Stats: popjoe 1 3018 2 14038 localhost 127.0.0.1",
        "[AUTH] Failed attempted login to nosuch from host (localhost) 127.0.0.1",
        'nosuch at localhost (127.0.0.1): -ERR [AUTH] Password supplied for "nosuch" is incorrect.',
        "Possible probe of account joe from host localhost (127.0.0.1)",
        "(null) at localhost (127.0.0.1): -ERR Too many arguments for the user command. (and 1 more)"]


def test_without_s_there_is_no_stats_line(sessions, mailbox):
    log = sessions("popper", login(mailbox, b"QUIT"), flags=())
    assert len(log.texts) == 1 and "POP login" in log.texts[0]


@pytest.mark.parametrize("name, number", [("mail", 2), ("daemon", 3), ("auth", 4), ("authpriv", 10), ("local7", 23)])
def test_the_facility_is_the_configurations(sessions, name, number):
    log = sessions("popper", b"USER nosuch\r\nPASS x\r\n", config=f"fail_delay 0\nfacility {name}\n")
    assert [(facility, severity) for facility, severity, _ in log.lines] == [(number, WARNING), (number, NOTICE)]


def test_debugging_adds_lines_of_its_own_severity_only(sessions, mailbox):
    log = sessions("popper", login(mailbox, b"NOOP", b"QUIT"), flags=("-s", "-d"), until="Ending request")
    told = [text for _, severity, text in log.lines if severity != DEBUG]
    assert told[0] == "Debugging turned on" and "POP login" in told[1] and told[2].startswith("Stats: ")
    assert len(told) == 3 and 'Received: "NOOP"' in log.texts
    assert not any(mailbox.password in text for text in log.texts)


# -- logwatch ----------------------------------------------------------------------------------------------------------

def logwatch(log, directory):
    """The report of logwatch's own service, out of a mail.log with these lines in it."""
    log.file(directory / "mail.log")
    done = subprocess.run(["logwatch", "--service", "in.qpopper", "--logdir", str(directory), "--range", "all",
                           "--detail", "10", "--output", "stdout", "--format", "text"],
                          capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return re.sub(r"^ ", "", done.stdout, flags=re.M)      # it indents what a service says


@pytest.mark.parametrize("ident", ["qpopper", "in.qpopper"])
def test_logwatch_knows_all_lines_of_logins(ident, sessions, mailbox, tmp_path):
    log = sessions(ident, login(mailbox, b"DELE 1", b"QUIT"), login(mailbox, b"STAT", b"DELE 2", b"QUIT"),
                   login(mailbox, b"RETR 1"), *failures(), until="POP EOF")
    report = logwatch(log, tmp_path)
    assert "Unmatched" not in report
    assert re.search(r"Plaintext Connections:\n   3 from 127\.0\.0\.1\n", report)
    # 3018 and 9018 octets went, 5018 are left, as scan counts them: text, CRLF, one header line, one empty line
    assert re.search(r"^popjoe +2 +\| +2 +11 +\| +1 +4 +\|$", report, re.M)
    assert re.search(r"^TOTALS +2 +\| +2 +11 +\| +1 +4 +\|$", report, re.M)
    failed = dict(re.findall(r"^  (\S+): (\d+) time\(s\)\.$", report, re.M))
    assert failed == {shown: "1" for _, shown in HOSTILE}


def test_logwatch_shows_whole_what_it_does_not_know(sessions, mailbox, tmp_path):
    """Probes, timeouts and bad commands are lines of Qpopper's too, and logwatch never knew them."""
    log = sessions("qpopper", b"USER popjoe\r\nQUIT\r\n", SPACED, until="Too many arguments")
    unmatched = re.findall(r"^   (.*): 1 Time\(s\)$", logwatch(log, tmp_path), re.M)
    assert sorted(unmatched) == sorted(log.texts)


# -- fail2ban ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def fail2ban(tmp_path):
    """A copy of fail2ban's configuration with our filter and jail put in, as an administrator would."""
    directory = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", directory)
    shutil.copytree(TREE / "etc" / "fail2ban", directory, dirs_exist_ok=True)
    return directory


def matched(fail2ban, log):
    """What the filter finds in a file: [(address, user)]."""
    done = subprocess.run(["fail2ban-regex", "-o", "<ip> <F-USER>", str(log), str(fail2ban / "filter.d/popper.conf")],
                          capture_output=True, text=True, check=True)
    return [tuple(line.split(" ", 1)) for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("ident", IDENTS)
def test_fail2ban_finds_every_failed_login_and_the_true_address(ident, sessions, mailbox, fail2ban, tmp_path):
    log = sessions(ident, login(mailbox, b"DELE 1", b"QUIT"), *failures(), login(mailbox, b"RETR 1"),
                   b"USER popjoe\r\nQUIT\r\n", SPACED, b"USER popjoe\r\nPASS wrong\r\n", flags=("-s", "-d"),
                   until="Too many arguments")
    wanted = [("127.0.0.1", shown) for _, shown in HOSTILE] + [("127.0.0.1", "popjoe")]
    assert matched(fail2ban, log.file(tmp_path / "traditional.log")) == wanted
    assert matched(fail2ban, log.file(tmp_path / "iso.log", ISO_STAMP)) == wanted


def test_fail2ban_finds_what_is_denied_for_another_reason_than_the_password(sessions, mailbox, fail2ban, tmp_path):
    log = sessions("popper", login(mailbox), config="fail_delay 0\nmin_uid 2147483648\n")
    assert "Access is blocked for UIDs below" in log.texts[-1]
    assert matched(fail2ban, log.file(tmp_path / "log")) == [("127.0.0.1", "popjoe")]


def test_fail2ban_takes_addresses_of_version_six_and_lines_of_popper_only(fail2ban, tmp_path):
    """Lines made up here: our servers listen on 127.0.0.1 alone."""
    text = "[AUTH] Failed attempted login to joe from host (%s) %s"
    stamp = "Nov 24 18:22:48 mail"
    log = tmp_path / "log"
    log.write_text("\n".join((
        f"{stamp} popper[1]: " + text % ("2001:db8::7", "2001:db8::7"),
        f"{stamp} popper[1]: " + text % ("pc.example.org", "192.0.2.7"),
        f"{stamp} popper[1]: " + text % ("pc.example.org", "192.0.2.8 "),
        f"{stamp} popper[1]: " + text % ("pc.example.org", "example.org"),
        f"{stamp} popper[1]: joe at pc.example.org (192.0.2.9): -ERR " + text % ("x", "9.9.9.9"),
        f"{stamp} sshd[1]: " + text % ("pc.example.org", "192.0.2.10"),
        f"{stamp} popperd[1]: " + text % ("pc.example.org", "192.0.2.11"))) + "\n")
    assert matched(fail2ban, log) == [("2001:db8::7", "joe"), ("192.0.2.7", "joe")]


def test_the_jail_is_one_that_fail2ban_starts(fail2ban, tmp_path):
    jail = fail2ban / "jail.d" / "popper.conf"
    (tmp_path / "syslog").write_text("")
    jail.write_text(jail.read_text().replace("/var/log/syslog", str(tmp_path / "syslog")))
    for other in (fail2ban / "jail.d").iterdir():
        if other != jail:
            other.unlink()                   # the distribution's own jail wants a log that may not be here
    done = subprocess.run(["fail2ban-client", "-c", str(fail2ban), "-d"], capture_output=True, text=True, check=True)
    assert "['start', 'popper']" in done.stdout
    assert f"['set', 'popper', 'addlogpath', '{tmp_path / 'syslog'}'" in done.stdout
    for ident in IDENTS:
        assert f"'SYSLOG_IDENTIFIER={ident}'" in done.stdout


# -- logcheck ----------------------------------------------------------------------------------------------------------

def reported(log):
    """What logcheck would mail: it runs egrep -v with the rules that are to be ignored."""
    rules = TREE / "etc" / "logcheck" / "ignore.d.server" / "popper"
    return subprocess.run(["grep", "-E", "-v", "-f", str(rules), str(log)], capture_output=True, text=True).stdout


@pytest.mark.parametrize("ident", ["popper", "in.qpopper"])
def test_logcheck_reports_failed_logins_and_probes_and_nothing_else(ident, sessions, mailbox, tmp_path):
    log = sessions(ident, login(mailbox, b"DELE 1", b"QUIT"), *failures(), login(mailbox, b"RETR 1"),
                   b"USER popjoe\r\nQUIT\r\n", b"capa\r\nxsender\r\nQUIT\r\n", login(mailbox, b"RETR 99", b"QUIT"),
                   until="Message 99")
    warnings = [text for _, severity, text in log.lines if severity == WARNING]
    assert len(warnings) == len(HOSTILE) + 1
    for stamp in None, ISO_STAMP:
        left = reported(log.file(tmp_path / "log", stamp)).splitlines()
        assert [line.partition("]: ")[2] for line in left] == warnings


# -- popper(8), LOGGING ------------------------------------------------------------------------------------------------

PARTS = {"VERSION": r"[\d.]+", "USER": r"(?:[\w.@+\\-]+|\(null\))", "HOST": r"[\w.:-]+", "ADDRESS": r"[\da-f.:]+",
         "N": r"-?\d+", "NDEL": r"\d+", "BDEL": r"\d+", "NLEFT": r"\d+", "BLEFT": r"\d+",
         "NAME": r"(?:[\w.-]+|\(not a name\))", "CODE": r"[A-Z/-]+", "FILE": r"/\S+", "DIR": r"/\S+", "MAILBOX": r"/\S+",
         "S": r"\d+\.\d{3}", "ID": r"[!-~]+",
         "PLACE": r"\w+\.py:\d+", "LINE": r"[ -~]*", "TEXT": r"[ -~]*", "REASON": r"[ -~]+"}


def shapes():
    """{severity: the shapes of lines} out of the manual; a line that ends in a backslash goes on."""
    text = re.search(r"^\.Sh LOGGING\n(.*?)^\.Sh ", (TREE / "man/popper.8").read_text(), re.M | re.S)[1]
    found = {}
    for severity, part in re.findall(r"^\.Ss Severity LOG_(\w+)\n(.*?)(?=^\.Ss |\Z)", text, re.M | re.S):
        lines = "".join(re.findall(r"^\.Bd -literal\n(.*?)^\.Ed", part, re.M | re.S))
        found[severity] = lines.replace(" \\e\n\t", " ").replace("\\-", "-").splitlines()
    return found


def expression(shape):
    words = re.split(rf"((?<=\(v)VERSION|\b(?:{'|'.join(PARTS)})\b)", shape)
    return "".join(PARTS.get(word) or re.escape(word) for word in words)


SHAPES = shapes()
NAMES = {2: "CRIT", WARNING: "WARNING", NOTICE: "NOTICE", INFO: "INFO", DEBUG: "DEBUG"}


def shapes_of(severity, text):
    return {shape for shape in SHAPES[NAMES[severity]] if re.fullmatch(expression(shape), text)}


def daemon_lines(installed, syslog, tmp_path, account):
    """What a popper on its own says: of two connections one is turned away and one logs in, it reads its configuration,
    one that is right and one that is not, and is told to end."""
    port, since = free_port(), len(syslog.lines)
    conf = tmp_path / "daemon.conf"
    conf.write_text(f"bindto 127.0.0.1:{port}\nsameaddrmax 1\ncontrol {tmp_path}/control\n"
                    f"guessers {tmp_path}/guessers\n")
    server = SuperServer(with_syslog(syslog, [str(installed / "sbin/popper"), "-d", "-C", str(conf)]), port)
    try:
        with wait_until(lambda: greeted(port)) as first:
            with socket.create_connection(("127.0.0.1", port)) as second:
                assert second.recv(512).startswith(b"-ERR [SYS/TEMP] Too many connections from your address")
            first.sendall(login(account, b"QUIT"))
            while first.recv(512):
                pass
        os.kill(server.process.pid, signal.SIGHUP)
        syslog.wait_for("]: reloaded", since)
        conf.write_text("nonsense\n")
        os.kill(server.process.pid, signal.SIGHUP)
        syslog.wait_for("]: not reloaded", since)
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(10) == 0
    finally:
        if server.process.poll() is None:
            server.stop()
    return ours(syslog, "popper", since)


def greeted(port):
    """A connection that is served, or None while the fixture's knock is still being dealt with."""
    connection = socket.create_connection(("127.0.0.1", port))
    if connection.recv(512).startswith(b"+OK"):
        return connection
    connection.close()


def fall_silent(client, replies):
    """Wait in the middle of a session until the server has had enough."""
    client.sendall(b"USER joe\r\n")
    assert replies.read().endswith(b"+OK Password required for joe.\r\n")


def test_every_line_has_a_shape_that_the_manual_shows(sessions, mailbox, installed, syslog, tmp_path):
    def be_hung_up(client, replies):
        since = len(syslog.lines)
        client.sendall(login(mailbox))
        process = re.search(r"popper\[(\d+)\]", syslog.wait_for("POP login", since))[1]
        assert [replies.readline()[:3] for _ in range(3)] == [b"+OK"] * 3
        os.kill(int(process), signal.SIGHUP)
        assert replies.read() == b""

    logs = [
        sessions("popper", login(mailbox, b"XTND XMIT", b"Subject: x", b"", b"x", b".", b"RETR 1"), *failures(), SPACED,
                 b"foo\r\n", b"USER joe\r\nQUIT\r\n", b"foo\r\n" * 30, b"x" * 70000, be_hung_up, fall_silent,
                 flags=("-s", "-d", "-T", "1", "-b", "/var/spool/bulletins"), until="Timeout"),
        sessions("popper", login(mailbox, b"DELE 1"), config="fail_delay 0\nupdate_on_abort yes\n", until="Stats"),
        sessions("popper", login(mailbox, b"DELE 1", b"QUIT"), flags=("-d",), until="Ended by"),
    ]
    (mailbox.mailbox.parent / f".{mailbox.name}.pop").write_text("mail of old\n")
    shutil.chown(mailbox.mailbox.parent / f".{mailbox.name}.pop", mailbox.name)
    logs.append(sessions("popper", login(mailbox, b"QUIT")))
    mailbox.mailbox.write_text("this is no mailbox\n")
    logs.append(sessions("popper", login(mailbox, b"QUIT")))
    mailbox.mailbox.write_text("")
    (mailbox.mailbox.parent / f".{mailbox.name}.pop").unlink()
    logs.append(Log("popper", daemon_lines(installed, syslog, tmp_path, mailbox)))
    met = {}
    for _, severity, text in (line for log in logs for line in log.lines):
        assert shapes_of(severity, text), f"{NAMES[severity]} {text}"
        met.setdefault(NAMES[severity], set()).update(shapes_of(severity, text))
    for finding in findings():
        assert shapes_of(NOTICE, finding), finding
        met["NOTICE"].update(shapes_of(NOTICE, finding))
    rest = {shape for name in NAMES.values() for shape in SHAPES[name]} - set().union(*met.values())
    assert sorted(rest) == sorted(HARD_TO_MEET)


# Shapes for which something of the system has to break, or which come and go with the clock.
HARD_TO_MEET = {
    "accept: TEXT", "fork: TEXT", "cannot start: TEXT", "privileges cannot be given up: TEXT",
    "process N of this server has ended; another takes its place", "process N said what it should not: TEXT",
    "process N does not listen", "process N: TEXT", "control: TEXT",
    "a session could not begin: TEXT", "The process that spoke to ADDRESS has ended without a word",
    "USER at HOST (ADDRESS): internal error before login: TEXT", "not upgraded: TEXT", "becoming FILE",
    "nobody came for N seconds", "ending now, and N sessions with it",
    "maxstrangers: a connection from ADDRESS is refused", "maxsessions: a connection from ADDRESS is refused",
    "guess_delay_max: a connection from ADDRESS is refused", "process N, session of USER, was killed by signal N",
    "accepts: a connection from ADDRESS is refused", "Refused connection from ADDRESS by FILE:N: TEXT", "FILE: TEXT",
    "FILE:N: TEXT", "control: no socket can be made at FILE: TEXT", "control_group: there is no group TEXT",
    "FILE had the wrong size; what is lost of it is forgotten.", "FILE TEXT; guessers are not slowed down.",
    "FILE was damaged, or of another version, and is begun anew.", 'Unable to open trace file "FILE": TEXT',
    "Too many logins failed: this one waits for N.N s",
    "USER at HOST (ADDRESS): internal error at PLACE: TEXT",
    "Unable to obtain socket and address of client: TEXT (N)", "setsockopt(N, N): TEXT",
    "USER at HOST (ADDRESS): -ERR POP mailbox update failed. (TEXT)",
    "(vVERSION) Timeout (N secs) during nw write from USER at HOST (ADDRESS)",
    'Tracing session and debugging information in file "FILE"',      # in the trace, see below
    'Tracing session of "USER" in file "FILE"', "The texts of messages are written to the trace (trace_bodies)",
    'Sending line "LINE"', "Client ADDRESS has no name to go by, after S s", "Update of MAILBOX: failed, in S s",
    "Locks of MAILBOX after S s; TEXT",
    "MAILBOX: N octets of mail that an older popper left in FILE were put in front",
    "FILE cannot be merged now: TEXT",
    "MAILBOX: messages could not be marked as read: TEXT",
    "MAILBOX: the record of an interrupted update does not fit it: TEXT. The mailbox was left alone, the record is FILE",
}


def findings():
    """The complaints of a look-up, made by a resolver without a network."""
    names = {"192.0.2.1": "a.example.org", "192.0.2.2": "b.example.org", "192.0.2.4": "192.0.2.9"}

    class Resolver:
        def reverse(self, address):
            if address not in names:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return names[address]

        def forward(self, name):
            if name != "b.example.org":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return ["192.0.2.9"]

    return [peer.verify(f"192.0.2.{n}", Resolver()).complaint for n in range(1, 5)]


def test_a_missing_name_is_no_news_but_a_false_one_is(tmp_path):
    """logcheck is to be silent about clients without a name in DNS; one that claims another's is told."""
    (tmp_path / "log").write_text("".join(f"Nov 24 18:22:48 mail popper[1]: {line}\n" for line in findings()))
    assert [line.partition("]: ")[2] for line in reported(tmp_path / "log").splitlines()] == [
        'Client at "192.0.2.1" resolves to an unknown host name "a.example.org"',
        'Client address "192.0.2.2" not listed for its host name "b.example.org"',
        'Client at "192.0.2.4" resolves to an unknown host name "(not a name)"']


def test_the_trace_has_the_same_lines_and_no_secret(sessions, mailbox, tmp_path):
    trace = tmp_path / "trace"
    log = sessions("popper", login(mailbox, b"RETR 1", b"DELE 1", b"QUIT"), b"USER nosuch\r\nPASS guessed it\r\n",
                   b"APOP joe c4c9334bac560ecc979e58001b3e22fb\r\nAUTH PLAIN AGpvZQBndWVzc2Vk\r\nQUIT\r\n",
                   login(mailbox, b"XTND XMIT", b"Subject: secret", b"", b"secret", b".", b"QUIT"),
                   flags=("-st", str(trace)))
    assert log.lines == []                   # none in syslog
    assert trace.stat().st_mode & 0o7777 == 0o600
    text = wait_until(lambda: trace.read_text().count("Ending request") == 4 and trace.read_text())
    for line in text.splitlines():
        stamped = re.fullmatch(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{3} \d{4} \[\d+\] (.*)", line)
        assert stamped and any(shapes_of(severity, stamped[1]) for severity in NAMES), line
    for secret in (mailbox.password, "guessed", "c4c9334bac", "AGpvZQ", "secret", "xxxxxxxxxx"):
        assert secret not in text
    for told in ('Received: "PASS xxxxxxxxx"', 'Received: "APOP joe xxxxxxxxx"', 'Received: "AUTH PLAIN xxxxxxxxx"',
                 'Received: "RETR 1"', "+OK 3018 octets", "Sent 3018 octets", "Stats: popjoe 1 3018 2 14038"):
        assert told in text
