"""The tables of tcp_wrappers as rules about who may come: /etc/hosts.allow, then /etc/hosts.deny.

Source: hosts_access(5), hosts_options(5). No program is run, and what is not understood lets nobody in.
"""

from popper.access import (FORGED, HARDLY, LATER, LIKELY, NO, UNKNOWN, YES, Caller, Missing, Rule, Rules, Who, contents,
                           everybody, is_name, network_of, number_of, rule_shown, shown)

BLANKS = " \t\r\n"
# option of hosts_options(5): whether it has a value
OPTIONS = {"aclexec": "must", "allow": "no", "banners": "must", "deny": "no", "group": "must", "keepalive": "no",
           "linger": "must", "nice": "may", "rfc931": "may", "setenv": "must", "severity": "must", "spawn": "must",
           "twist": "must", "umask": "must", "user": "must"}
NESTED_MOST = 8                # a file of patterns that names a file of patterns that names ...


def hosts_access(daemon: "tuple[str, ...]" = ("popper",), allow: str = "/etc/hosts.allow",
                 deny: str = "/etc/hosts.deny", read=contents) -> Rules:
    """The tables of hosts_access(5), as far as they concern a program of these names; a missing one is empty.

    read: gives the text of a file, Missing, or ConfigError. What is not understood, or not done, is in the notes.
    """
    notes: "list[str]" = []
    rules: "list[Rule]" = []
    for path, allows in ((allow, True), (deny, False)):
        try:
            text = read(path)
        except Missing:
            continue
        rules += _Table(path, allows, tuple(name.lower() for name in daemon), read, notes).rules(text)
    return Rules(rules, notes)


class _Table:
    """One of the two tables, while it is read."""

    def __init__(self, path: str, allows: bool, daemons: "tuple[str, ...]", read, notes: "list[str]") -> None:
        self.path = path
        self.allows = allows
        self.daemons = daemons
        self.read = read
        self.notes = notes
        self.line = 0

    def note(self, text: str) -> None:
        note = f"{self.path}:{self.line}: {text}"
        if note not in self.notes:
            self.notes.append(note)

    def rules(self, text: str) -> "list[Rule]":
        found = []
        for self.line, line in _joined(text):
            if line.startswith("#") or not line.strip(BLANKS):
                continue
            daemons, rest = _cut(line)
            if rest is None:
                self.note("no colon: left out")
                continue
            if "#" in daemons:
                self.note("a comment begins with the line: this is a rule")
            clients, options = _cut(rest)
            ours = _listed(_words(daemons), self._daemons).judge(_NO_CALLER)
            allows = self.allows
            if ours and options is not None:
                allows = self._verdict(options)
            # A rule for one address of this host: that is not known here, so it may only keep out.
            if NO < ours < YES:
                self.note("is for one address of this host: " + ("left out" if allows else "taken as for all"))
            if ours == YES or (ours and not allows):
                who = _listed(_words(clients), self._clients)
                found.append(Rule(allows, who, None, rule_shown(self.path, self.line, line.split())))
        return found

    def _verdict(self, options: str) -> bool:
        """What a rule with options does; a mistake in them refuses, as hosts_options(5) has it."""
        allows = self.allows
        every = [each.replace("\0", ":").strip(BLANKS) for each in options.replace("\\:", "\0").split(":")]
        for place, option in enumerate(every, 1):
            words = option.replace("=", " ", 1).split(None, 1) or [""]
            name = words[0].lower()
            value = OPTIONS.get(name)
            if value is None or value == ("must", "no")[len(words) - 1] \
                    or (name in ("allow", "deny", "twist") and place < len(every)):
                self.note(f'option "{option}" is not understood: whom the rule matches is refused')
                return False
            if name in ("allow", "deny"):
                allows = name == "allow"
            elif name in ("twist", "aclexec"):
                self.note(f"{name} is not run: whom the rule matches is refused")
                return False
            else:
                self.note(f"{name} is not done")
        return allows

    def _daemons(self, who: Who, word: str) -> None:
        name, at, server = word.partition("@")
        if any(_text_matches(name.lower(), daemon) for daemon in self.daemons):
            who.add(everybody if not at or server.lower() == "all" else _hardly)

    def _clients(self, who: Who, word: str, files: "tuple[str, ...]" = ()) -> None:
        user, at, host = word[1:].partition("@")
        if at:                               # nobody asks for the user at the other end: he is unknown
            if not _text_matches((word[0] + user).lower(), "unknown"):
                self.note(f"{word}: who the user there is, is not asked: matches nobody")
                return
            word = host
        low = word.lower()
        if low == "all":
            who.add(everybody)
        elif low in _WILDCARDS:
            who.add(_WILDCARDS[low], True)
        elif word.startswith("/"):
            self._file(who, word, files)
        elif "*" in word or "?" in word:
            by_name = low.strip("0123456789.*?") != ""      # else a name like 10.evil.example could pass for it
            who.add(_wild(low, by_name), by_name)
        elif is_name(low.removeprefix(".")):
            who.add_name(low)
        else:
            self._network(who, word)

    def _network(self, who: Who, word: str) -> None:
        try:
            address, _, mask = word.partition("/")
            if word.endswith("."):           # 192.0. is 192.0.0.0/16
                fields = word.count(".")
                who.networks.add(*network_of(f"{word}{'.'.join('0' * (4 - fields))}/{8 * fields}"))
            elif "." in mask and mask != "255.255.255.255":
                number, mask = number_of(address), number_of(mask)
                if number & ~mask:
                    raise ValueError(f'"{word}" has bits that its mask has not')
                who.networks.add(mask, number)
            else:                            # bits behind the length: nobody in IPv4, not looked at in IPv6
                who.networks.add(*network_of(word, ":" not in word))
        except ValueError as error:
            self.note(f"{word} matches nobody: {error}")
            who.add(_hardly)

    def _file(self, who: Who, path: str, files: "tuple[str, ...]") -> None:
        if path in files or len(files) == NESTED_MOST:
            self.note(f"{path}: files of patterns that go round, or too deep: left out")
            who.add(_hardly)
            return
        try:
            text = self.read(path)
        except Missing:
            self.note(f"{path} is not there: taken as empty")
            return
        for word in text.split():
            self._clients(who, word, (*files, path))


def _joined(text: str):
    """(number of the first, text) of lines, a backslash at the end of one joining the next to it."""
    line, first = "", 0
    for number, piece in enumerate(text.split("\n"), 1):
        first = first or number
        if piece.endswith("\\"):
            line += piece[:-1]
        else:
            yield first, line + piece
            line, first = "", 0
    if line:
        yield first, line


def _cut(text: str) -> "tuple[str, str | None]":
    """A line up to its first colon, and what is behind that, None without one; in brackets it does not count."""
    inside = False
    for place, letter in enumerate(text):
        if letter == ":" and not inside:
            return text[:place], text[place + 1:]
        inside = letter == "[" or (inside and letter != "]")
    return text, None


def _words(text: str) -> "list[str]":
    return text.replace(",", " ").split()


def _listed(words: "list[str]", add) -> Who:
    """A list with its EXCEPTs: `a EXCEPT b EXCEPT c` is a without (b without c). add(who, word) knows the words."""
    who = Who()
    for place, word in enumerate(words):
        if word.lower() == "except":
            but = _listed(words[place + 1:], add)
            without = Who()
            without.add(lambda caller: min(who.judge(caller), YES - but.judge(caller)), who.by_name or but.by_name)
            return without
        add(who, word)
    return who


def _text_matches(pattern: str, text: str) -> bool:
    """A pattern for a daemon or a user, against a name in small letters."""
    if "*" in pattern or "?" in pattern:
        return wild_matches(pattern, text)
    return (pattern in ("all", text) or (pattern == "known" and text != "unknown")
            or (pattern.startswith(".") and text.endswith(pattern) and text != pattern)
            or (pattern.endswith(".") and text.startswith(pattern)))


def wild_matches(pattern: str, text: str) -> bool:
    """Whether a text is what `*` (any letters) and `?` (any one) stand for; at most len * len steps."""
    at = of = 0
    star, mark = -1, 0                       # the last star, and the text that it takes so far
    while at < len(text):
        if of < len(pattern) and pattern[of] == "*":
            star, mark = of, at
            of += 1
        elif of < len(pattern) and pattern[of] in ("?", text[at]):
            at, of = at + 1, of + 1
        elif star >= 0:
            mark += 1
            at, of = mark, star + 1
        else:
            return False
    return not pattern[of:].strip("*")


def _wild(pattern: str, by_name: bool):
    def judge(caller: Caller) -> int:
        if wild_matches(pattern, "" if caller.number is None else shown(caller.number)):
            return YES
        if not by_name:
            return NO
        if caller.status in (None, LATER):
            return HARDLY
        return YES if caller.name and wild_matches(pattern, caller.name) else NO
    return judge


def _hardly(caller: Caller) -> int:
    """What is not understood never lets in, and what it is an exception to keeps out all the same."""
    return HARDLY


def _known(caller: Caller) -> int:
    return HARDLY if caller.status in (None, LATER) else YES if caller.name else NO


def _unknown(caller: Caller) -> int:
    if caller.status == LATER:               # in hosts_access(5) a name server that is down leaves names unknown
        return LIKELY
    return HARDLY if caller.status is None else YES if caller.status in (UNKNOWN, "") else NO


def _paranoid(caller: Caller) -> int:
    return HARDLY if caller.status in (None, LATER) else YES if caller.status == FORGED else NO


def _local(caller: Caller) -> int:
    return HARDLY if caller.status in (None, LATER) else YES if caller.name and "." not in caller.name else NO


_NO_CALLER = Caller("", None, "")
_WILDCARDS = {"known": _known, "unknown": _unknown, "paranoid": _paranoid, "local": _local}
