"""What the administrator asked for: the short flags of the original, and popper.conf.

Plain short flags are read here, bundled or apart as getopt took them; whatever else stands on the command line is
docopt's (`cli`), which costs twelve milliseconds that a connection should not pay. A file of `directive value` lines
says the same and more; a flag wins over the file. A mistake names file, line, directive and what was expected.
"""

import posix

from popper.errors import ConfigError

CONFIG = "/etc/popper.conf"    # read when it is there and -C names no other
LONGEST_CONFIG = 1048576


def _yes(text):
    return {"yes": True, "on": True, "no": False, "off": False}[text.lower()]


def _whole(least, most):
    def read(text):
        if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
            raise ValueError
        return int(text)
    return read


def _path(text):
    if not text.startswith("/"):
        raise ValueError
    return text


def _template(text):
    """A mailbox path: absolute or under ~, with %u, %1 to %9 and %% as the only codes."""
    rest = text.replace("%%", "")
    if not text.startswith(("/", "~/")) or any(code[:1] not in tuple("u123456789") for code in rest.split("%")[1:]):
        raise ValueError
    return text


def _word(*words):
    def read(text):
        if text not in words:
            raise ValueError
        return text
    return read


def _address(text):
    """[ADDRESS][:PORT] -> (address, port); an IPv6 address with a port stands in brackets."""
    if text.startswith("["):
        host, closing, port = text[1:].partition("]")
        if not closing or port[:1] not in ("", ":"):
            raise ValueError
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, _whole(0, 65535)(port) if port else 110


def _addresses(text):
    return tuple(map(_address, text.split()))


def _networks(text):
    from popper.access import networks_of
    return networks_of(text.split())


MODULES = ("file", "getpw", "pam")            # of popper.auth


def _modules(text):
    words = tuple(text.split())
    if not words or any("." not in word and word not in MODULES for word in words):
        raise ValueError
    return words


def _locks(text):
    words = tuple(text.split())
    if not words or len(set(words)) < len(words) or not set(words) <= {"dotlock", "fcntl", "flock"}:
        raise ValueError
    return words


def _names(text):
    """User names and addresses."""
    if not all(word.isascii() and word.isprintable() for word in text.split()):
        raise ValueError
    return tuple(text.split())


def _name(text):
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _service(text):
    if "/" in _name(text):
        raise ValueError
    return text


FACILITIES = ("auth", "authpriv", "daemon", "mail", "user") + tuple(f"local{n}" for n in range(8))

# directive: (reader of its value, default, what is expected)
DIRECTIVES = {
    "accepts": (_whole(0, 100000), 0, "connections a second, 0 to 100000 (0: any number)"),
    "allow_deny": (_path, "", "the absolute path of a file"),
    "auth": (_modules, ("file", "getpw"), "names out of file, getpw, pam, or modules of one's own as PACKAGE.MODULE"),
    "autoclose": (_whole(0, 86400), 0, "seconds, 0 to 86400 (0: never)"),
    "bindto": (_addresses, (("", 110),), "[ADDRESS][:PORT], IPv6 in brackets; several with spaces between them"),
    "bulletin_max": (_whole(1, 16777216), 1048576, "octets, 1 to 16777216"),
    "bulletins": (_path, "", "the absolute path of a directory"),
    "check_shell": (_yes, True, "yes or no"),
    "control": (_path, "/run/popper/control", "the absolute path of a socket"),
    "control_group": (_name, "", "the name of a group"),
    "debug": (_yes, False, "yes or no"),
    "dns_timeout": (_whole(1, 60), 5, "seconds, 1 to 60"),
    "facility": (_word(*FACILITIES), "local0", "a syslog facility: " + " ".join(FACILITIES)),
    "fail_delay": (_whole(0, 60), 2, "seconds, 0 to 60"),
    "fsync": (_yes, True, "yes or no"),
    "group_bulletins": (_yes, False, "yes or no"),
    "guess_delay_max": (_whole(0, 3600), 30, "seconds, 0 to 3600 (0: none)"),
    "guessers": (_path, "/run/popper/guessers", "the absolute path of a file"),
    "hostname": (_name, "", "a host name"),
    "hosts_access": (_yes, False, "yes or no"),
    "ipv6_prefix": (_whole(32, 128), 64, "bits, 32 to 128"),
    "lock_timeout": (_whole(0, 300), 10, "seconds, 0 to 300"),
    "locks": (_locks, ("dotlock", "fcntl"), "one or more of dotlock, fcntl, flock, each once, in the order of taking"),
    "log": (_word("syslog", "stderr"), "syslog", "syslog or stderr"),
    "login_timeout": (_whole(1, 3600), 120, "seconds, 1 to 3600"),
    "lookup": (_yes, True, "yes or no"),
    "mailbox": (_template, "/var/mail/%u", "an absolute path or one under ~/, with %u, %1 to %9, %%"),
    "mailbox_format": (_word("bsd", "sysv"), "bsd", "bsd or sysv"),
    "maxsessions": (_whole(1, 10000), 200, "a number, 1 to 10000"),
    "maxstrangers": (_whole(10, 100000), 2000, "a number, 10 to 100000"),
    "min_uid": (_whole(1, 2**31), 11, "a user number, 1 or more"),
    "new_user_bulletins": (_whole(0, 1000), 0, "a number, 0 to 1000"),
    "pam_service": (_service, "popper", "the name of a file in /etc/pam.d"),
    "password_file": (_path, "", "the absolute path of a file"),
    "pid_file": (_path, "", "the absolute path of a file"),
    "popbull_dir": (_path, "", "the absolute path of a directory"),
    "proxy_from": (_networks, None, "addresses and networks"),
    "sameaddrmax": (_whole(0, 100000), 100, "a number, 0 to 100000 (0: any number)"),
    "sendmail": (_path, "/usr/sbin/sendmail", "the absolute path of a program"),
    "statistics": (_yes, False, "yes or no"),
    "timeout": (_whole(0, 86400), 120, "seconds, 0 to 86400 (0: none)"),
    "trace": (_path, "", "the absolute path of a file"),
    "trace_bodies": (_yes, False, "yes or no"),
    "trace_dir": (_path, "/run/popper/trace", "the absolute path of a directory"),
    "trace_file": (_path, "/var/log/popper.trace", "the absolute path of a file"),
    "trace_user": (_names, (), "names of users, and addresses"),
    "trusted": (_path, "", "the absolute path of a file"),
    "unprivileged_user": (_name, "", "the name of an account"),
    "update_on_abort": (_yes, False, "yes or no"),
    "update_status": (_yes, False, "yes or no"),
    "xmit_max": (_whole(0, 2**31), 52428800, "octets, 0 to 2147483648 (0: XTND XMIT is refused)"),
}

# short flag: (directive or attribute, takes a value, value without one)
FLAGS = {
    "b": ("bulletins", True, None),
    "d": ("debug", False, "yes"),
    "s": ("statistics", False, "yes"),
    "T": ("timeout", True, None),
    "t": ("trace", True, None),
    "R": ("lookup", False, "no"),
    "C": ("config", True, None),
}
LONG = {"--stdio": "stdio", "--check": "check", "--daemon": "daemon"}


class Options:
    """Every directive as an attribute of its name, and what has no directive: `config`, `stdio`, `check`, `daemon`."""

    def __init__(self) -> None:
        self.config = ""
        self.stdio = self.check = self.daemon = False
        for name, (_, default, _) in DIRECTIVES.items():
            setattr(self, name, default)

    def set(self, directive: str, value: str, file: str = "", line: int = 0) -> None:
        """Set one directive from its text, or ConfigError."""
        row = DIRECTIVES.get(directive)
        if row is None:
            raise ConfigError(f'unknown directive "{directive}"; expected one of {" ".join(DIRECTIVES)}', file, line)
        try:
            setattr(self, directive, row[0](value))
        except (ValueError, KeyError):
            raise ConfigError(f'{directive}: "{value}" is not what is expected: {row[2]}', file, line) from None

    def read(self, file: str, text: str) -> None:
        """Set what a configuration file says; `file` is its name in complaints."""
        seen: "dict[str, int]" = {}
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split(None, 1)
            if not words or words[0].startswith("#"):
                continue
            directive = words[0]
            if len(words) < 2:
                expected = DIRECTIVES.get(directive, (0, 0, "a directive and a value"))[2]
                raise ConfigError(f"{directive}: no value; expected {expected}", file, number)
            if any(word.startswith("#") for word in words[1].split()):
                raise ConfigError(f"{directive}: expected a value alone; a comment has a line of its own", file, number)
            if directive in seen:
                raise ConfigError(f"{directive}: given already on line {seen[directive]}; expected once", file, number)
            seen[directive] = number
            self.set(directive, words[1].rstrip(), file, number)


def plain_flags(arguments: "list[str]") -> "list[tuple[str, str]] | None":
    """[(attribute, value), ...] in order for a command line of plain short flags and LONG, else None.

    The value of a LONG option is "yes". None means that docopt has to look at it, be it help, a mistake or a long
    option cut short; it never means that the line is wrong.
    """
    found = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in LONG:
            found.append((LONG[word], "yes"))
            continue
        if len(word) < 2 or word[0] != "-" or word[1] == "-":
            return None
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter not in FLAGS:
                return None
            name, takes, value = FLAGS[letter]
            if takes:
                if not letters and not rest:
                    return None
                value, letters = letters or rest.pop(0), ""
            found.append((name, value))
    return found


def settle(found: "list[tuple[str, str]]") -> Options:
    """Options out of what the command line said, the configuration file under it. Raises ConfigError."""
    options = Options()
    for name, value in found:
        if name in LONG.values():
            setattr(options, name, True)
        elif name == "config":
            options.config = value
    text = _contents(options.config or CONFIG, bool(options.config))
    if text:
        options.read(options.config or CONFIG, text)
    for name, value in found:
        if name in DIRECTIVES:
            options.set(name, value)
    return options


def _contents(path: str, wanted: bool) -> str:
    """The text of a configuration file, "" where one that nobody asked for is missing, or ConfigError."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except FileNotFoundError as error:
        if not wanted:
            return ""
        raise ConfigError(f"cannot be read: {error.strerror}", path) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path) from None
    try:
        octets = posix.read(descriptor, LONGEST_CONFIG)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path) from None
    finally:
        posix.close(descriptor)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", path) from None
