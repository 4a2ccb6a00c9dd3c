"""The docopt text of a group, read without docopt: for help, for complaints, for the tests.

A group's text begins with `Usage:` and one line for each command; a line that is indented further goes on with the one
before. Options stand behind `Options:`, the short form first.
"""

import itertools
import re

PROGRAM = "popperctl"


def forms(text: str) -> "list[str]":
    """The lines of the usage, each in one: `popperctl mailbox repair [-C FILE] FILE...`."""
    found: "list[str]" = []
    for line in text.partition("Usage:\n")[2].partition("\n\n")[0].splitlines():
        words = line.split()
        if words and words[0] == PROGRAM:
            found.append(" ".join(words))
        elif words:
            found[-1] += " " + " ".join(words)
    return found


def commands(text: str) -> "list[str]":
    """The second words: `repair` of `popperctl mailbox repair`; nothing for a group that is a command itself."""
    return list(dict.fromkeys(filter(None, map(command, forms(text)))))


def command(form: str) -> str:
    """The command in one form of the usage; "": it is its group itself that is called."""
    words = form.split()[2:3]
    return words[0] if words and words[0].islower() and words[0].replace("-", "").isalnum() else ""


def options(form: str) -> "list[str]":
    """The options in one form of the usage."""
    return [word for word in form.translate(str.maketrans("[]()|=", "      ")).split() if word.startswith("-")]


def clash(forms: "list[str]", given: "list[str]") -> str:
    """What keeps options apart that were given together, as a sentence; "": nothing does. forms: of one command."""
    for one, other in itertools.combinations(given, 2):
        if not any(_together(form, one, other) for form in forms):
            return f"{one} and {other} do not go together"
    for one in given:
        wanted = [_required(form) for form in forms if one in options(form)]
        lacking = [option for option in wanted[0] if option not in given] if wanted else []
        if lacking and all(set(each) - set(given) for each in wanted):
            return f"{one} goes with {lacking[0]} only"
    return ""


def _together(form: str, one: str, other: str) -> bool:
    """Whether a form takes both, and not one in the place of the other."""
    choices = [set(options(choice)) for choice in re.findall(r"\[([^][]*\|[^][]*)\]", form)]
    return {one, other} <= set(options(form)) and not any({one, other} <= choice for choice in choices)


def _required(form: str) -> "list[str]":
    """The options that stand in no brackets."""
    return options(re.sub(r"\[[^][]*\]", "", form))


def synonyms(text: str) -> "dict[str, str]":
    """{either form of an option: the other one} for those that have two."""
    found = {}
    for line in text.splitlines():
        names = [word for word in line[2:].partition("  ")[0].replace(",", " ").split() if word.startswith("-")]
        if line.startswith("  -") and len(names) == 2:
            found.update({names[0]: names[1], names[1]: names[0]})
    return found
