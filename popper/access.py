"""Who may come: rules by address, network, verified name and user; the first that matches decides.

Two languages are read into the same Rules: the `allow_deny` file of popper, here, and the tables of tcp_wrappers, in
`wrappers`. A name decides only when DNS held in both directions (`peer`); what is not known, or not known yet, is
neither a match nor none: NO, HARDLY (as it looks no, but that is not sure), LIKELY and YES, where "or" is the greater
of two, "and" the lesser, and "not" is 3 - x.
"""

import _socket
import posix

from popper.account import plain_name
from popper.errors import ConfigError

ALLOW, DENY, LATER_ON, TRY_AGAIN = "allow", "deny", "not known yet", "try again"
NO, HARDLY, LIKELY, YES = range(4)
# What `peer` finds out about a name.
VERIFIED, UNKNOWN, LATER, FORGED = "verified", "unknown", "try later", "forged"
FINDINGS = {"forged": FORGED, "unresolved": LATER, "unnamed": UNKNOWN}

LONGEST_FILE = 1048576
LONGEST_SHOWN = 200            # letters of a rule in the log
REGULAR, KIND = 0o100000, 0o170000
IPV4 = 1 << 128                # set in the number of an IPv4 address, so that no network of IPv6 holds it
EXPECTED = ("expected all, local, an address, a network like 192.0.2.0/24, host.example.org, .example.org, forged,"
            " unresolved or unnamed")
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Missing(ConfigError):
    """There is no such file."""


def contents(path: str) -> str:
    """The text of a list, or ConfigError: it cannot be read, is no regular file, too long, or not UTF-8."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
        try:
            if posix.fstat(descriptor).st_mode & KIND != REGULAR:
                raise ConfigError("is not a regular file", path)
            octets = b""
            while len(octets) <= LONGEST_FILE and (piece := posix.read(descriptor, LONGEST_FILE + 1)):
                octets += piece
        finally:
            posix.close(descriptor)
    except OSError as error:
        kind = Missing if isinstance(error, FileNotFoundError) else ConfigError
        raise kind(f"cannot be read: {error.strerror}", path) from None
    if len(octets) > LONGEST_FILE:
        raise ConfigError(f"is longer than {LONGEST_FILE} octets", path)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", path) from None


# -- addresses and networks ------------------------------------------------------------------------------------------

def number_of(address: str) -> int:
    """An address as a number; IPv4 in IPv6's clothes is IPv4, and a zone does not count. ValueError: it is none."""
    try:
        if ":" not in address:
            return IPV4 | int.from_bytes(_socket.inet_pton(_socket.AF_INET, address), "big")
        number = int.from_bytes(_socket.inet_pton(_socket.AF_INET6, address.partition("%")[0]), "big")
    except OSError:
        raise ValueError(f'"{address}" is not an address') from None
    return IPV4 | number & 0xffffffff if number >> 32 == 0xffff else number


def shown(number: int) -> str:
    if number & IPV4:
        return _socket.inet_ntop(_socket.AF_INET, (number ^ IPV4).to_bytes(4, "big"))
    return _socket.inet_ntop(_socket.AF_INET6, number.to_bytes(16, "big"))


def network_of(word: str, strict: bool = True) -> "tuple[int, int]":
    """(mask, number) of an address or ADDRESS/LENGTH, IPv6 with or without brackets; else ValueError.

    strict: bits behind the length are a mistake, and not left out.
    """
    text = word
    if word.startswith("[") and ":" in word and word.count("]") == 1:
        text, _, rest = word[1:].partition("]")
        text += rest if rest.startswith("/") else rest and " "
    address, slash, length = text.partition("/")
    if "%" in address:
        raise ValueError(f'"{word}": a zone has no place in a list')
    number = number_of(address)
    bits = 32 if number & IPV4 else 128
    if slash:
        most = 128 if ":" in address else 32
        if not (length.isascii() and length.isdigit() and len(length) < 4 and int(length) <= most):
            raise ValueError(f'"{word}": expected a length of 0 to {most} behind the slash')
        behind = most - int(length)
        if behind > bits:
            raise ValueError(f'"{word}": IPv4 in IPv6 has lengths of 96 to 128')
    else:
        behind = 0
    mask = IPV4 | ((1 << bits) - 1) >> behind << behind
    if strict and number & ~mask:
        raise ValueError(f'"{word}" has bits behind its length; expected {shown(number & mask)}/{bits - behind}')
    return mask, number & mask


class Networks:
    """A set of addresses and networks."""

    __slots__ = ("masks",)

    def __init__(self) -> None:
        self.masks: "dict[int, set[int]]" = {}

    def add(self, mask: int, number: int) -> None:
        self.masks.setdefault(mask, set()).add(number)

    def holds(self, number: int) -> bool:
        for mask, numbers in self.masks.items():
            if number & mask in numbers:
                return True
        return False

    def has(self, address: str) -> bool:
        """Whether an address is in it; no address ("") never is."""
        try:
            return self.holds(number_of(address))
        except ValueError:
            return False


def networks_of(words: "list[str]") -> Networks:
    """Networks out of words; a ValueError says which of them is none."""
    networks = Networks()
    for word in words:
        networks.add(*network_of(word))
    return networks


def read_networks(path: str, text: str) -> Networks:
    """The file of `trusted`: addresses and networks, one or more on a line."""
    networks = Networks()
    for line, words in _lines(text):
        for word in words:
            try:
                networks.add(*network_of(word))
            except ValueError as error:
                what = (f'"{word}" cannot be trusted before DNS is asked for it' if is_name(word.removeprefix("."))
                        or word in FINDINGS or word in ("all", "local") else error)
                raise ConfigError(f"{what}; expected addresses and networks like 192.0.2.0/24", path, line) from None
    return networks


# -- rules -----------------------------------------------------------------------------------------------------------

class Caller:
    """Who it is. number None: no network is between; status: what DNS said, None before, "" where it has no say."""

    __slots__ = ("number", "status", "name")

    def __init__(self, address: str, status: "str | None", name: str) -> None:
        self.number = number_of(address) if address else None
        self.status = status if address else ""
        self.name = name.lower().rstrip(".") if status == VERIFIED and address else ""


class Who:
    """Some callers: networks, hosts and domains by name, and whatever else a function knows of a Caller."""

    __slots__ = ("networks", "hosts", "domains", "others", "by_name")

    def __init__(self) -> None:
        self.networks = Networks()
        self.hosts: "set[str]" = set()
        self.domains: "set[str]" = set()       # with their leading dot
        self.others = []
        self.by_name = False

    def add_name(self, name: str) -> None:
        (self.domains if name.startswith(".") else self.hosts).add(name.lower())
        self.by_name = True

    def add(self, judge, by_name: bool = False) -> None:
        self.others.append(judge)
        self.by_name = self.by_name or by_name

    def judge(self, caller: Caller) -> int:
        if caller.number is not None and self.networks.holds(caller.number):
            return YES
        best = self._by_name(caller) if self.hosts or self.domains else NO
        for judge in self.others:
            if best == YES:
                break
            best = max(best, judge(caller))
        return best

    def _by_name(self, caller: Caller) -> int:
        if caller.status in (None, LATER):
            return HARDLY
        name = caller.name
        if not name:
            return NO
        if name in self.hosts:
            return YES
        dot = name.find(".", 1)
        while dot > 0:
            if name[dot:] in self.domains:
                return YES
            dot = name.find(".", dot + 1)
        return NO


class Rule:
    """who: a Who; users: the names for which it holds, None for all; place: file, line and text, for the log."""

    __slots__ = ("allows", "who", "users", "place")

    def __init__(self, allows: bool, who: Who, users: "frozenset[str] | None", place: str) -> None:
        self.allows = allows
        self.who = who
        self.users = users
        self.place = place


def rule_shown(path: str, line: int, words: "list[str]") -> str:
    text = " ".join(words)
    return f"{path}:{line}: {text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + '...'}"


class Rules:
    """Rules in order. needs_name: whether DNS must be asked for them; notes: what the administrator should know."""

    def __init__(self, rules: "list[Rule]", notes: "list[str] | None" = None) -> None:
        self.rules = rules
        self.notes = notes or []
        self.needs_name = any(rule.who.by_name for rule in rules)

    def decide(self, address: str, status: "str | None" = None, name: str = "",
               user: "str | None" = None) -> "tuple[str, str]":
        """(verdict, the rule that made it or "").

        address "": no network. status None: DNS has not been asked yet; VERIFIED without a name: it need not be asked,
        no rule by name concerns this caller. user None: not known yet.
        LATER_ON: a rule needs what is not known yet. TRY_AGAIN: he may not come in, but might if DNS had answered.
        What is no address may never come in.
        """
        try:
            caller = Caller(address, status, name)
        except ValueError:
            return DENY, ""
        doubt = False
        for rule in self.rules:
            match = rule.who.judge(caller)
            if match == NO:
                continue
            if rule.users is not None:
                if user is None:
                    return LATER_ON, rule.place
                if user not in rule.users:
                    continue
            unsure = match != YES and rule.who.by_name and caller.status in (None, LATER)
            if unsure and caller.status is None:
                return LATER_ON, rule.place
            if rule.allows:
                if match == YES:
                    return ALLOW, rule.place
                doubt = doubt or unsure
            elif match >= LIKELY:
                return TRY_AGAIN if doubt or unsure else DENY, rule.place
        return ALLOW, ""


class Both:
    """Several Rules, each of which must let a caller in."""

    def __init__(self, *lists: Rules) -> None:
        self.lists = lists
        self.notes = [note for rules in lists for note in rules.notes]
        self.needs_name = any(rules.needs_name for rules in lists)

    def decide(self, address: str, status: "str | None" = None, name: str = "",
               user: "str | None" = None) -> "tuple[str, str]":
        """Like Rules.decide; a refusal is sure before all of them know what they need."""
        found = [rules.decide(address, status, name, user) for rules in self.lists]
        for verdict in (DENY, TRY_AGAIN, LATER_ON):
            for each in found:
                if each[0] == verdict:
                    return each
        return ALLOW, next((place for _, place in found if place), "")


# -- the file of popper ----------------------------------------------------------------------------------------------

def read_rules(path: str, text: str) -> Rules:
    """The file of `allow_deny`: lines of `allow|deny WHO... [user NAME...]`. A mistake is a ConfigError."""
    rules: "list[Rule]" = []
    notes: "list[str]" = []
    last = for_all = 0
    for line, words in _lines(text):
        rule = _read_rule(words, path, line)
        if for_all and not notes:
            notes.append(f"{path}:{line}: never looked at: line {for_all} is for everybody")
        if everybody in rule.who.others and rule.users is None:
            for_all = for_all or line
        rules.append(rule)
        last = line
    if rules and all(rule.allows for rule in rules):
        raise ConfigError("nobody is kept out, as whom no rule names may come in; expected a last line: deny all",
                          path, last)
    return Rules(rules, notes)


def _lines(text: str):
    """(number, words) of the lines that have any, without comments."""
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        for place, word in enumerate(words):
            if word.startswith("#"):
                del words[place:]
                break
        if words:
            yield number, words


def _read_rule(words: "list[str]", path: str, line: int) -> Rule:
    what, *rest = words
    if what not in ("allow", "deny"):
        raise ConfigError(f'"{what}": expected allow or deny', path, line)
    users = None
    if "user" in rest:
        place = rest.index("user")
        users = frozenset(rest[place + 1:])
        rest = rest[:place]
        if not users:
            raise ConfigError("user: expected one or more names", path, line)
        for user in users:
            if plain_name(user.encode("utf-8", "replace")) is None:
                raise ConfigError(f'user: "{user}" cannot be the name of a user', path, line)
    if not rest:
        raise ConfigError(f"{what}: whom? {EXPECTED}", path, line)
    who = Who()
    for word in rest:
        try:
            _add_who(who, word)
        except ValueError as error:
            raise ConfigError(f"{what}: {error}", path, line) from None
    return Rule(what == "allow", who, users, rule_shown(path, line, words))


def _add_who(who: Who, word: str) -> None:
    if word == "all":
        who.add(everybody)
    elif word == "local":
        who.add(_no_network)
    elif word in FINDINGS:
        who.add(_found(FINDINGS[word]), True)
    elif "." in word and is_name(word.removeprefix(".")):
        who.add_name(word)
    else:
        try:
            mask, number = network_of(word)
        except ValueError as error:
            digits = word.strip("0123456789.") == "" or ":" in word or "/" in word
            raise ValueError(error if digits else f'"{word}": {EXPECTED}') from None
        who.networks.add(mask, number)


def is_name(text: str) -> bool:
    """Whether it can be the name of a host or domain; what ends in a number is a bad address."""
    labels = text.lower().split(".")
    return len(text) < 256 and not labels[-1].isdigit() and all(each and LETTERS.issuperset(each) for each in labels)


def everybody(caller: Caller) -> int:
    return YES


def _no_network(caller: Caller) -> int:
    return YES if caller.number is None else NO


def _found(status: str):
    def judge(caller: Caller) -> int:
        return HARDLY if caller.status is None else YES if caller.status == status else NO
    return judge
