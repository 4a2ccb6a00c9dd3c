"""The manual says what the program does: flags, directives, commands and samples are compared with the code."""

import itertools
import os
import re
import shutil
import socket
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TREE, SuperServer, free_port, with_syslog
from popper import VERSION, cli, options, session, xtnd
from popper.errors import ConfigError
from popper.options import DIRECTIVES, FACILITIES, FLAGS, LONG, Options, plain_flags, settle

PAGES = [TREE / "man" / "popper.8", TREE / "man" / "popper.conf.5", TREE / "man" / "popperctl.8",
         TREE / "man" / "popper-bulletin.5"]
SAMPLES = TREE / "etc"


def section(page, name):
    """The lines of one section of a manual page."""
    text = page.read_text()
    return re.search(rf"^\.Sh {name}\n(.*?)(?=^\.Sh |\Z)", text, re.M | re.S)[1].splitlines()


def program(name):
    """A program that `make check` installs for root, and that anybody else may have to do without."""
    found = shutil.which(name)
    if not found and os.geteuid() != 0:
        pytest.skip(f"needs root to install {name}")
    assert found, f"{name} is missing"
    return found


# -- the pages ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_finds_nothing_to_say(page):
    found = subprocess.run([program("mandoc"), "-Tlint", str(page)], capture_output=True, text=True).stdout
    # Which other pages are installed is said of the machine, not of this page.
    assert [line for line in found.splitlines() if "referenced manual not found" not in line] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_formats_without_a_warning(page):
    done = subprocess.run([program("man"), "--warnings", "-l", str(page)], capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "AUTHORS" in done.stdout


def test_the_pages_have_the_sections_of_a_daemons_manual_in_order():
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "STARTING POPPER", "LOGGING", "TRACE FILE",
              "MAILBOX", "DIFFERENCES FROM THE ORIGINAL", "FILES", "SIGNALS", "EXIT STATUS", "EXAMPLES", "SEE ALSO",
              "STANDARDS", "HISTORY", "AUTHORS", "BUGS"]
    assert re.findall(r"^\.Sh (.*)$", PAGES[0].read_text(), re.M) == wanted


def test_the_manual_is_of_this_version():
    assert f"This is version {VERSION}." in section(PAGES[0], "BUGS")


def test_references_between_our_pages_lead_somewhere():
    ours = {(page.stem, page.suffix[1:]) for page in PAGES}
    named = {found for page in PAGES for found in re.findall(r"^\.Xr (popper\S*) (\d)", page.read_text(), re.M)}
    assert named == ours


# -- flags: manual, usage text, fast path ------------------------------------------------------------------------------

def flags_of_manual():
    """{flag: takes an argument} out of the synopsis of popper(8)."""
    found = {}
    for line in section(PAGES[0], "SYNOPSIS"):
        flag = re.fullmatch(r"\.(?:Op )?Fl (\S+)( Ar \S+)?", line)
        if flag:
            letters = [flag[1]] if flag[1].startswith("-") else flag[1]
            found.update({"-" + letter: bool(flag[2]) for letter in letters})
    return found


def flags_of_usage():
    """The same out of docopt's usage text."""
    usage = re.search(r"Usage:\n(.*?)\n\n", cli.__doc__, re.S)[1]
    alone = [one or other for one, other in re.findall(r"\[-(\w+)\]|^  popper -(\w)$", usage, re.M)]
    found = {"-" + letter: False for letter in "".join(alone)}
    found |= {"-" + letter: True for letter in re.findall(r"\[-(\w) [A-Z]+\]", usage)}
    return found | {long: False for long in re.findall(r"\[(--\w+)\]", usage)}


def test_manual_usage_and_fast_path_know_the_same_flags():
    fast = {"-" + letter: takes for letter, (_, takes, _) in FLAGS.items()} | dict.fromkeys(LONG, False)
    asks = {"-h": False, "-V": False}        # these want an answer and are docopt's alone
    assert flags_of_manual() == flags_of_usage() == fast | asks


def test_every_flag_is_described_once_in_manual_and_usage():
    described = [line.split()[2:] for line in section(PAGES[0], "OPTIONS") if line.startswith(".It Fl ")]
    assert {"-" + words[0]: "Ar" in words for words in described} == flags_of_manual()
    assert len(described) == len(flags_of_manual())
    listed = re.findall(r"^  (-\S+)( [A-Z]+)?  ", cli.__doc__, re.M)
    assert {flag: bool(argument) for flag, argument in listed} == flags_of_usage()


@pytest.fixture
def no_file(monkeypatch, tmp_path):
    """No configuration of the machine the test runs on."""
    monkeypatch.setattr(options, "CONFIG", str(tmp_path / "none.conf"))


def settled(found):
    return vars(settle(found))


@pytest.mark.parametrize("arguments", [
    [], ["-d"], ["-s"], ["-R"], ["-dsR"], ["-Rsd"], ["-s", "-d"], ["-dd"], ["-d", "-s", "-d"],
    ["-T30"], ["-T", "30"], ["-sT30"], ["-sT", "30"], ["-dsRT0"], ["-T", "30", "-T", "60"],
    ["-T30", "-sT60", "-T", "5"],
    ["-b", "/var/spool/bulls"], ["-b/a", "-b", "/b"], ["-b", "/with a blank"], ["-b", "/-d"],
    ["-t", "/var/log/trace"], ["-st/trace"], ["-t/a", "-st", "/b"], ["-t", "/s"],
    ["--stdio"], ["--check"], ["--daemon"], ["--stdio", "--check"], ["--check", "--check", "--stdio"],
    ["-C", "/dev/null"], ["-sC/dev/null"], ["-C", "/nonexistent", "-C", "/dev/null"],
    ["-b", "/b", "-d", "-s", "-T", "1", "-t", "/t", "-R", "-C", "/dev/null", "--stdio", "--check"],
    ["--check", "-dT9", "--stdio", "-C", "/dev/null", "-Rb", "/b"],
], ids=" ".join)
def test_fast_path_and_docopt_settle_the_same(arguments, no_file):
    quick, slow = plain_flags(arguments), cli._ask_docopt(arguments)
    assert quick is not None and isinstance(slow, list)
    assert settled(quick) == settled(slow)


PIECES = st.one_of(
    st.text("dsR", min_size=1, max_size=4).map(lambda letters: ["-" + letters]),
    st.sampled_from([["--stdio"], ["--check"], ["--daemon"]]),
    st.tuples(st.text("dsR", max_size=2), st.integers(0, 86400), st.booleans()).map(
        lambda piece: [f"-{piece[0]}T", str(piece[1])] if piece[2] else [f"-{piece[0]}T{piece[1]}"]),
    st.tuples(st.text("dsR", max_size=2), st.sampled_from("bt"), st.text("/aT-= d", max_size=6)).map(
        lambda piece: [f"-{piece[0]}{piece[1]}", "/" + piece[2]]))


@given(st.lists(PIECES, max_size=6))
@settings(deadline=None, max_examples=150)
def test_fast_path_and_docopt_settle_the_same_whatever_the_order(pieces):
    arguments = ["-C", "/dev/null", *itertools.chain(*pieces)]
    assert settled(plain_flags(arguments)) == settled(cli._ask_docopt(arguments))


@pytest.mark.parametrize("arguments, complaint", [
    (["-T", "x"], 'timeout: "x" is not what is expected: seconds, 0 to 86400 (0: none)'),
    (["-T", "-5"], 'timeout: "-5" is not what is expected: seconds, 0 to 86400 (0: none)'),
    (["-sT", "-d"], 'timeout: "-d" is not what is expected: seconds, 0 to 86400 (0: none)'),
    (["-t", "trace"], 'trace: "trace" is not what is expected: the absolute path of a file'),
    (["-b", ""], 'bulletins: "" is not what is expected: the absolute path of a directory'),
    (["-C", "/nonexistent"], "/nonexistent: cannot be read: No such file or directory"),
], ids=lambda words: " ".join(words) if isinstance(words, list) else "")
def test_fast_path_and_docopt_find_the_same_mistake(arguments, complaint, no_file):
    for found in plain_flags(arguments), cli._ask_docopt(arguments):
        with pytest.raises(ConfigError) as mistake:
            settle(found)
        assert str(mistake.value) == complaint


@pytest.mark.parametrize("arguments", [
    ["-x"], ["-sx"], ["-T"], ["-sT"], ["-C"], ["file"], ["-d", "file"], ["--"], ["-"], ["--nosuch"], ["--check=1"],
    ["-sh"], ["-h", "-d"], ["-V", "--stdio"],
], ids=" ".join)
def test_what_is_no_command_line_is_left_to_docopt_and_refused_by_it(arguments):
    assert plain_flags(arguments) is None
    assert "Usage:" in cli._ask_docopt(arguments)


def test_long_options_may_be_cut_short_as_docopt_has_it(no_file):
    assert plain_flags(["--std", "-s"]) is None
    assert settled(cli._ask_docopt(["--std", "-s"])) == settled(plain_flags(["--stdio", "-s"]))


@pytest.mark.parametrize("flag, answer", [("-h", cli.__doc__.rstrip() + "\n"), ("-V", f"popper {VERSION}\n")])
def test_help_and_version_are_docopts(flag, answer, capsys):
    assert plain_flags([flag]) is None
    assert cli._ask_docopt([flag]) is None
    assert capsys.readouterr().out == answer


# -- directives: popper.conf(5), the sample ----------------------------------------------------------------------------

def directives_of_manual():
    """{directive: (its argument, its description)} out of popper.conf(5)."""
    items = re.split(r"^\.It Ic ", "\n".join(section(PAGES[1], "DIRECTIVES")), flags=re.M)[1:]
    found = {}
    for item in items:
        head, _, text = re.split(r"^\.El", item, flags=re.M)[0].partition("\n")
        name, _, argument = head.partition(" Ar ")
        assert name not in found
        found[name] = argument, text
    return found


MANUAL = directives_of_manual()


def test_the_manual_describes_the_directives_there_are():
    assert set(MANUAL) == set(DIRECTIVES)


@pytest.mark.parametrize("name", DIRECTIVES)
def test_the_manual_has_the_right_default(name):
    default = DIRECTIVES[name][1]
    stated = re.findall(r"^The default is\n\.Li (.*) \.$", MANUAL[name][1], re.M)
    if default in ("", (), None):
        assert stated == [] and "There is no default" in MANUAL[name][1]
    else:
        assert len(stated) == 1 and "There is no default" not in MANUAL[name][1]
        chosen = Options()
        setattr(chosen, name, None)
        chosen.set(name, stated[0])
        assert getattr(chosen, name) == default


def accepts(name, value):
    try:
        Options().set(name, value)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("name, least, most", [
    (name, int(found[1]), int(found[2])) for name, (_, text) in MANUAL.items()
    for found in [re.search(r"\b(\d+) to (\d+)\b", text)] if found])
def test_a_number_may_be_what_the_manual_says(name, least, most):
    assert accepts(name, str(least)) and accepts(name, str(most))
    assert not accepts(name, str(least - 1)) and not accepts(name, str(most + 1))


def test_numbers_with_one_bound():
    assert accepts("min_uid", "1") and not accepts("min_uid", "0") and "1 or more" in MANUAL["min_uid"][1]
    assert accepts("xmit_max", "2147483648") and not accepts("xmit_max", "2147483649")
    assert "at most 2147483648" in MANUAL["xmit_max"][1]


@pytest.mark.parametrize("name", [name for name, (argument, _) in MANUAL.items() if "|" in argument])
def test_a_word_may_be_what_the_manual_says(name):
    for word in MANUAL[name][0].split(" | "):
        assert accepts(name, word)
    assert not accepts(name, "nonsense")


def test_the_manual_names_the_facilities():
    named = re.findall(r"^\.Li (\w+)", MANUAL["facility"][1], re.M)
    assert set(named) == {word for word in FACILITIES if not word.startswith("local")} | {"local0", "local7"}


def test_the_examples_of_the_manual_are_accepted():
    text = "\n".join(section(PAGES[1], "EXAMPLES"))
    examples = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", text, re.M | re.S)
    assert len(examples) == 2
    for example in examples:
        chosen = Options()
        chosen.read("popper.conf(5)", example)
        assert vars(chosen) != vars(Options())


def sample_lines():
    """The directive lines of the sample, without the mark that makes them comments."""
    return re.findall(r"^#([a-z].*)$", (SAMPLES / "popper.conf").read_text(), re.M)


def test_the_sample_has_every_directive_once_and_changes_nothing():
    assert sorted(line.split()[0] for line in sample_lines()) == sorted(DIRECTIVES)
    as_shipped = Options()
    as_shipped.read("popper.conf", (SAMPLES / "popper.conf").read_text())
    assert vars(as_shipped) == vars(Options())


def test_the_sample_without_its_comments_says_the_defaults():
    chosen = Options()
    for name in DIRECTIVES:
        setattr(chosen, name, None)
    chosen.read("popper.conf", "\n".join(sample_lines()))
    for name, (_, default, _) in DIRECTIVES.items():
        if default in ("", (), None):              # nothing to write down: an example, and it says so
            assert getattr(chosen, name)
            assert re.search(rf"^# .*none set.*\n#{name} ", (SAMPLES / "popper.conf").read_text(), re.M)
        else:
            assert getattr(chosen, name) == default


# -- commands: popper(8), the session table ----------------------------------------------------------------------------

STATES = {(session.USER, session.PASS): "login", (session.PASS,): "after USER", (session.TRANSACTION,): "mailbox"}


def commands_of_manual():
    """[(command, state, least, most)] out of the table of popper(8)."""
    rows = []
    for line in section(PAGES[0], "COMMANDS"):
        if line.startswith(".It Ic ") and " Ta " in line:
            command, state, _ = line.removeprefix(".It Ic ").split(" Ta ")
            word = re.match(r"[A-Z ]*[A-Z](?= |$)", command)[0]
            optional = len(re.findall(r"Oo Ar \w+ Oc", command))
            most = command.count("Ar ")
            rows.append((word.lower().encode(), state, most - optional, most))
    return rows


def test_the_manual_has_the_table_of_the_session():
    table = [(row.word, STATES[row.states], row.least, row.most) for row in session._ROWS if row.word != b"xtnd"]
    words = [(b"xtnd " + word, "mailbox", least, most) for word, (least, most, _) in xtnd.WORDS.items()]
    assert sorted(commands_of_manual()) == sorted(table + words)


# -- samples that can be tried -----------------------------------------------------------------------------------------

def greeting(port):
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as replies:
        line = replies.readline()
        connection.sendall(b"QUIT\r\n")
        assert replies.read().startswith(b"+OK Pop server at ")
        return line


def test_the_lines_for_inetd_have_the_fields_of_inetd():
    text = (SAMPLES / "inetd.conf.popper").read_text()
    lines = [line.split() for line in re.findall(r"^#?(pop3\t.*)$", text, re.M)]
    assert len(lines) == 5 and len(re.findall(r"^pop3", text, re.M)) == 1
    for service, kind, protocol, wait, user, path, name, *arguments in lines:
        assert (service, kind, user) == ("pop3", "stream", "root") and wait in ("nowait.400", "wait")
        assert protocol in ("tcp", "tcp6") and path.startswith("/usr/")
        assert plain_flags(arguments)


@pytest.mark.root
@pytest.mark.parametrize("number", range(3), ids=["plain", "trace", "tcpd"])     # tests/etc tries the one that waits
def test_the_lines_for_inetd_work(number, installed, syslog, tmp_path):
    """As they are shipped, but for port and place."""
    port = free_port()
    lines = re.findall(r"^#?(pop3\tstream\ttcp\tnowait.*)$", (SAMPLES / "inetd.conf.popper").read_text(), re.M)
    assert len(lines) == 3
    line = lines[number].replace("/usr/local", str(installed)).replace("/var/log", str(tmp_path))
    conf = tmp_path / "inetd.conf"
    conf.write_text(line.replace("pop3", f"127.0.0.1:{port}", 1) + "\n")
    server = SuperServer(with_syslog(syslog, ["/usr/sbin/inetd", "-d", "-i", str(conf)]), port)
    try:
        assert greeting(port).startswith(b"+OK UCB Pop server (version ")
        assert (tmp_path / "popper.trace").exists() == (number == 1)
    finally:
        server.stop()


@pytest.mark.root
def test_the_line_for_tcpserver_works(installed, syslog, tmp_path):
    port = free_port()
    text = (SAMPLES / "service/popper/run").read_text().replace("/usr/local", str(installed))
    script = tmp_path / "run"
    script.write_text(text.replace(" 0 pop3 ", f" 127.0.0.1 {port} "))
    server = SuperServer(with_syslog(syslog, ["sh", str(script)]), port)
    try:
        assert greeting(port).startswith(b"+OK UCB Pop server (version ")
    finally:
        server.stop()


def test_the_samples_start_what_is_installed_with_flags_that_are_flags():
    xinetd = dict(re.findall(r"^\t(\w+)\s*= (.*)$", (SAMPLES / "xinetd.d/popper").read_text(), re.M))
    assert (xinetd["wait"], xinetd["user"], xinetd["server"]) == ("no", "root", "/usr/local/sbin/popper")
    assert plain_flags(xinetd["server_args"].split())
    assert os.access(SAMPLES / "service/popper/run", os.X_OK)
