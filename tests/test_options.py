"""Directives and flags: what is taken, what is not, and what a complaint says."""

import os

import pytest

from popper import options as module
from popper.errors import ConfigError
from popper.options import DIRECTIVES, FLAGS, Options, plain_flags, settle

YES_NO = [("yes", True), ("no", False), ("on", True), ("off", False), ("YES", True), ("Off", False)]
NOT_YES_NO = ["1", "0", "true", "y", "yes no", "ja"]
NOT_A_PATH = ["relative/path", "~/x", "./x", "x", "file:///x"]
NO_NUMBERS = ["-1", "+1", "1.5", "1_0", "0x10", "ten", "٣", "1 0", "1s", "9" * 5000]


def whole(least, most):
    return [(str(least), least), (str(most), most), ("0" + str(most), most)]


def not_whole(least, most):
    return [*NO_NUMBERS, str(least - 1), str(most + 1)]


def words(*good):
    return [(word, word) for word in good]


# directive: (good values with what they mean, bad values)
VALUES = {
    "accepts": (whole(0, 100000), not_whole(0, 100000)),
    "allow_deny": (words("/etc/popper.allow"), NOT_A_PATH),
    "autoclose": (whole(0, 86400), not_whole(0, 86400)),
    "auth": ([("getpw", ("getpw",)), ("pam", ("pam",)), ("file  getpw", ("file", "getpw")),
              ("site.ldap", ("site.ldap",))], []),
    "bindto": ([("127.0.0.1", (("127.0.0.1", 110),)), ("127.0.0.1:1110", (("127.0.0.1", 1110),)),
                (":1110", (("", 1110),)), ("::1", (("::1", 110),)), ("[::1]", (("::1", 110),)),
                ("[::1]:1110", (("::1", 1110),)), ("[::]:0", (("::", 0),)),
                ("192.0.2.1  [::1]:1110 :0", (("192.0.2.1", 110), ("::1", 1110), ("", 0)))],
               ["[::1", "[::1]1110", "127.0.0.1:pop3", "127.0.0.1:65536", "127.0.0.1:-1", "[::1]:x", ":+110",
                "127.0.0.1 [::1", "[::1]:1110 127.0.0.1:pop3"]),
    "bulletin_max": (whole(1, 16777216), not_whole(1, 16777216)),
    "bulletins": (words("/var/spool/bulls"), NOT_A_PATH),
    "check_shell": (YES_NO, NOT_YES_NO),
    "control": (words("/run/popper/control"), NOT_A_PATH),
    "control_group": (words("adm", "mail-admins"), ["two words", "gr\u00fc\u00dfe", "a\tb"]),
    "debug": (YES_NO, NOT_YES_NO),
    "dns_timeout": (whole(1, 60), not_whole(1, 60)),
    "facility": (words("local0", "local7", "mail", "auth", "authpriv", "daemon", "user"),
                 ["local8", "LOCAL0", "kern", "LOG_MAIL", "mail news", "openlog"]),
    "fail_delay": (whole(0, 60), not_whole(0, 60)),
    "fsync": (YES_NO, NOT_YES_NO),
    "group_bulletins": (YES_NO, NOT_YES_NO),
    "guess_delay_max": (whole(0, 3600), not_whole(0, 3600)),
    "guessers": (words("/run/popper/guessers"), NOT_A_PATH),
    "hostname": (words("mail.example.org", "localhost"), ["two words", "h\u00f6st", "a\tb", "\x1b[2J"]),
    "hosts_access": (YES_NO, NOT_YES_NO),
    "ipv6_prefix": (whole(32, 128), not_whole(32, 128)),
    "lock_timeout": (whole(0, 300), not_whole(0, 300)),
    "locks": ([("dotlock", ("dotlock",)), ("fcntl  dotlock", ("fcntl", "dotlock")),
               ("flock fcntl dotlock", ("flock", "fcntl", "dotlock"))],
              ["none", "lockf", "Dotlock", "dotlock,fcntl", "dotlock fcntl dotlock", "fcntl fcntl"]),
    "log": (words("syslog", "stderr"), ["Syslog", "file", "/var/log/mail", "syslog stderr"]),
    "login_timeout": (whole(1, 3600), not_whole(1, 3600)),
    "lookup": (YES_NO, NOT_YES_NO),
    "mailbox": (words("/var/mail/%u", "/var/mail/%1/%2/%u", "~/mbox", "~/Mail/100%%/%u", "/var/mail/%%u", "/x/%9"),
                ["var/mail/%u", "~joe/mbox", "/var/mail/%h", "/var/mail/%", "/var/mail/%0", "/var/mail/%U", "~",
                 "/var/mail/%{u}", "/var/mail/% u", "/m/%%%"]),
    "mailbox_format": (words("bsd", "sysv"), ["BSD", "mbox", "maildir", "bsd sysv"]),
    "maxsessions": (whole(1, 10000), not_whole(1, 10000)),
    "maxstrangers": (whole(10, 100000), not_whole(10, 100000)),
    "min_uid": (whole(1, 2**31), not_whole(1, 2**31)),
    "new_user_bulletins": (whole(0, 1000), not_whole(0, 1000)),
    "pam_service": (words("popper", "pop3"), ["a b", "/etc/pam.d/popper", "p\u00f6p"]),
    "password_file": (words("/etc/popper.users", "/with space/users"), NOT_A_PATH),
    "pid_file": (words("/run/popper.pid"), NOT_A_PATH),
    "popbull_dir": (words("/var/lib/popper", "/with space/popper"), NOT_A_PATH),
    "sameaddrmax": (whole(0, 100000), not_whole(0, 100000)),
    "sendmail": (words("/usr/lib/sendmail"), [*NOT_A_PATH, "sendmail"]),
    "statistics": (YES_NO, NOT_YES_NO),
    "timeout": (whole(0, 86400), not_whole(0, 86400)),
    "trace": (words("/var/log/popper.trace"), NOT_A_PATH),
    "trace_bodies": (YES_NO, NOT_YES_NO),
    "trace_dir": (words("/run/popper/trace"), NOT_A_PATH),
    "trace_file": (words("/var/log/popper.trace"), NOT_A_PATH),
    "trace_user": ([("joe", ("joe",)), ("joe  192.0.2.1 ::1", ("joe", "192.0.2.1", "::1"))], ["j\u00f6", "joe \x7f"]),
    "trusted": (words("/etc/popper.trusted"), NOT_A_PATH),
    "unprivileged_user": (words("popper", "nobody"), ["two words", "j\u00f6", "a\tb"]),
    "update_on_abort": (YES_NO, NOT_YES_NO),
    "update_status": (YES_NO, NOT_YES_NO),
    "xmit_max": (whole(0, 2**31), not_whole(0, 2**31)),
}
GOOD = [(directive, text, value) for directive, (good, _) in VALUES.items() for text, value in good]
BAD = [(directive, text) for directive, (_, bad) in VALUES.items() for text in bad]


def complaint(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


def test_every_directive_is_tried_here():
    assert {*VALUES, "proxy_from"} == set(DIRECTIVES)


def test_networks():
    options = Options()
    options.set("proxy_from", "192.0.2.1 198.51.100.0/24  2001:db8::/32")
    told = {address: options.proxy_from.has(address) for address in (
        "192.0.2.1", "192.0.2.2", "198.51.100.255", "2001:db8:1::1", "2001:db9::1")}
    assert told == {"192.0.2.1": True, "192.0.2.2": False, "198.51.100.255": True, "2001:db8:1::1": True,
                    "2001:db9::1": False}
    for wrong in ("client.example.org", "192.0.2.1/33", "192.0.2.1, 192.0.2.2", "all"):
        options = Options()
        assert "addresses and networks" in complaint(options.set, "proxy_from", wrong)
        assert options.proxy_from is None


@pytest.mark.parametrize("directive, text, value", GOOD)
def test_good_values(directive, text, value):
    options = Options()
    options.read("popper.conf", f"{directive} {text}\n")
    found = getattr(options, directive)
    assert found == value and type(found) is type(value)
    for other, (_, default, _) in DIRECTIVES.items():
        assert other == directive or getattr(options, other) == default


@pytest.mark.parametrize("directive, text", BAD)
def test_bad_values_are_answered_with_file_line_directive_and_what_was_expected(directive, text):
    expected = DIRECTIVES[directive][2]
    assert complaint(Options().read, "/etc/popper.conf", f"# site\n\n{directive} {text}\n") == \
        f'/etc/popper.conf:3: {directive}: "{text}" is not what is expected: {expected}'


@pytest.mark.parametrize("directive, text", BAD)
def test_a_bad_value_changes_nothing(directive, text):
    options = Options()
    complaint(options.set, directive, text)
    assert getattr(options, directive) == DIRECTIVES[directive][1]


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_a_directive_without_value(directive):
    for line in (directive, directive + "   "):
        expected = DIRECTIVES[directive][2]
        assert complaint(Options().read, "f", line) == f"f:1: {directive}: no value; expected {expected}"


def test_every_default_is_a_value_that_could_be_given():
    for directive, (read, default, _) in DIRECTIVES.items():
        text = {True: "yes", False: "no"}.get(default) if isinstance(default, bool) else \
            " ".join(default) if directive in ("auth", "locks") else \
            " ".join(f"{address}:{port}" for address, port in default) if directive == "bindto" else str(default)
        if default not in ("", (), None):
            assert read(text) == default, directive


def test_unknown_directives_are_named_with_the_known_ones():
    said = complaint(Options().read, "f", "timeout 60\nTimeout 60\n")
    assert said.startswith('f:2: unknown directive "Timeout"; expected one of accepts allow_deny ')
    assert "timeout" in said.split()
    assert complaint(Options().read, "f", "nonsense\n") == "f:1: nonsense: no value; expected a directive and a value"


def test_a_directive_given_twice():
    assert complaint(Options().read, "f", "timeout 60\n\ntimeout 60\n") == \
        "f:3: timeout: given already on line 1; expected once"


def test_blanks_comments_and_line_ends():
    options = Options()
    options.read("f", "\n   \n# timeout 1\n  #debug yes\n\ttimeout\t 60  \r\nmailbox ~/My Mail\r\nstatistics yes")
    assert (options.timeout, options.mailbox, options.statistics, options.debug) == (60, "~/My Mail", True, False)


def test_a_comment_behind_a_value_is_no_comment():
    assert "timeout" in complaint(Options().read, "f", "timeout 60 # seconds\n")
    assert complaint(Options().read, "f", "\npassword_file /etc/pop.users   # joe\n") == \
        "f:2: password_file: expected a value alone; a comment has a line of its own"


# -- flags -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, found", [
    ([], []),
    (["-d"], [("debug", "yes")]),
    (["-ds"], [("debug", "yes"), ("statistics", "yes")]),
    (["-sT30"], [("statistics", "yes"), ("timeout", "30")]),
    (["-T", "30"], [("timeout", "30")]),
    (["-sT", "30", "-d"], [("statistics", "yes"), ("timeout", "30"), ("debug", "yes")]),
    (["-T30s"], [("timeout", "30s")]),
    (["-t", "-d"], [("trace", "-d")]),               # as getopt has it: the word behind is the value
    (["-b/bulls", "-t/trace"], [("bulletins", "/bulls"), ("trace", "/trace")]),
    (["-R", "-C", "/conf"], [("lookup", "no"), ("config", "/conf")]),
    (["--stdio", "-d", "--check"], [("stdio", "yes"), ("debug", "yes"), ("check", "yes")]),
    (["-T", "1", "-T", "2"], [("timeout", "1"), ("timeout", "2")]),
    (["-T", ""], [("timeout", "")]),
])
def test_plain_flags(arguments, found):
    assert plain_flags(arguments) == found


@pytest.mark.parametrize("arguments", [
    ["-h"], ["-V"], ["--help"], ["--std"], ["-x"], ["-dx"], ["-T"], ["-sT"], ["-"], ["--"], ["word"], ["-d", "word"],
    [""]])
def test_what_is_not_plain_is_left_to_docopt(arguments):
    assert plain_flags(arguments) is None


def test_plain_flags_leave_the_arguments_alone():
    arguments = ["-T", "30", "-d"]
    plain_flags(arguments)
    assert arguments == ["-T", "30", "-d"]


def test_every_flag_can_be_said_in_a_file():
    assert {name for name, _, _ in FLAGS.values()} - {"config"} <= set(DIRECTIVES)


# -- file and flags --------------------------------------------------------------------------------------------------

@pytest.fixture
def conf(tmp_path):
    """conf(text) -> the path of a file with it."""
    def write(text):
        path = tmp_path / "popper.conf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)
    return write


@pytest.fixture(autouse=True)
def usual_file(tmp_path, monkeypatch):
    """Where the file is looked for that nobody named."""
    path = tmp_path / "usual.conf"
    monkeypatch.setattr(module, "CONFIG", str(path))
    return path


def test_without_file_and_flags_all_is_default():
    options = settle([])
    assert all(getattr(options, name) == default for name, (_, default, _) in DIRECTIVES.items())
    assert (options.config, options.stdio, options.check) == ("", False, False)


def test_flags_win_over_the_file_and_the_last_flag_over_the_others(conf):
    file = conf("timeout 1\nstatistics no\nlookup yes\nfail_delay 9\n")
    options = settle(plain_flags(["-T2", "-C", file, "-sR", "-T3"]))
    assert (options.timeout, options.statistics, options.lookup, options.fail_delay) == (3, True, False, 9)
    assert options.config == file


def test_the_last_file_wins_and_the_others_are_not_read(conf):
    options = settle([("config", "/nonexistent"), ("config", conf("timeout 7\n"))])
    assert options.timeout == 7


def test_the_usual_file_is_read_when_it_is_there(usual_file):
    usual_file.write_text("timeout 8\n")
    assert settle([]).timeout == 8


def test_the_usual_file_is_not_read_when_another_is_named(usual_file, conf):
    usual_file.write_text("timeout 8\nnonsense\n")
    assert settle([("config", conf("debug yes\n"))]).timeout == 120


def test_long_flags(conf):
    options = settle(plain_flags(["--stdio", "--check"]))
    assert options.stdio is True and options.check is True


def test_a_bad_flag_is_named_by_its_directive():
    assert complaint(settle, [("timeout", "x")]) == 'timeout: "x" is not what is expected: ' + DIRECTIVES["timeout"][2]
    assert complaint(settle, [("trace", "relative")]).startswith('trace: "relative" is not what is expected: ')


def test_a_mistake_in_the_file_is_told_though_a_flag_says_the_same_thing_right(conf):
    file = conf("timeout soon\n")
    assert complaint(settle, [("config", file), ("timeout", "1")]).startswith(f"{file}:1: timeout: ")


# -- files that are none ---------------------------------------------------------------------------------------------

def test_a_missing_file(tmp_path):
    path = str(tmp_path / "none")
    assert complaint(settle, [("config", path)]) == f"{path}: cannot be read: No such file or directory"


def test_a_directory(tmp_path):
    assert complaint(settle, [("config", str(tmp_path))]) == f"{tmp_path}: cannot be read: Is a directory"


def test_an_unreadable_file(tmp_path, conf):
    if os.geteuid() == 0:
        path = "/proc/self/mem"              # opens, but has nothing at 0, for root too
        assert complaint(settle, [("config", path)]) == f"{path}: cannot be read: Input/output error"
    else:
        path = conf("debug yes\n")
        os.chmod(path, 0)
        assert complaint(settle, [("config", path)]) == f"{path}: cannot be read: Permission denied"


def test_the_usual_file_must_be_readable_when_it_is_there(usual_file):
    usual_file.mkdir()
    assert complaint(settle, []) == f"{usual_file}: cannot be read: Is a directory"


@pytest.mark.parametrize("octets", [b"hostname h\xf6st\n", b"\xff\xfet\0i\0", b"# caf\xe9\n"])
def test_a_file_that_is_not_utf8(conf, octets):
    path = conf(octets)
    assert complaint(settle, [("config", path)]) == f"{path}: is not UTF-8 text"


def test_a_fifo_does_not_block_the_start(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    try:
        settle([("config", str(path))])
    except ConfigError as mistake:
        assert str(path) in str(mistake)


def test_no_descriptor_is_left_open(conf, tmp_path):
    before = os.listdir("/proc/self/fd")
    settle([("config", conf("debug yes\n"))])
    complaint(settle, [("config", str(tmp_path))])
    complaint(settle, [("config", conf(b"\xff"))])
    assert os.listdir("/proc/self/fd") == before
