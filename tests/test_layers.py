"""A module imports only from levels below its own: the table, and the check that the sources keep to it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "popper"
LEVELS = (
    "popper errors account tally library",
    "access slots handover limits loop forking listeners sessions proxy started notify detach",
    "wrappers guessers wire maildrop options peer journal channel privilege submit"
    " storage storage.scan storage.identity storage.locks storage.plan storage.record auth"
    " auth.crypt auth.file auth.getpw auth.pam",
    "storage.redo storage.held storage.keeper storage.vacant popbull xtnd",
    "storage.mbox storage.memory bulletins session",
    "login conversation",
    "serve stranger looker control",
    "separate house crew",
    "inetd",
    "logins reception",
    "takeover",
    "daemon admin admin.usage admin.table admin.compose admin.logline",
    "cli launch __main__ admin.console admin.kept admin.logs admin.logins admin.page",
    # what groups of popperctl have beside their commands
    "admin.sums admin.plots admin.editor admin.shelf admin.readers admin.times admin.tracelines admin.control admin.gauges"
    " admin.ledger",
    "admin.inspection admin.audience admin.owner admin.exports admin.report admin.traces admin.watches admin.server",
    "admin.facts admin.traceview admin.dummies admin.rounds admin.ports",
    "admin.explain admin.following admin.replay admin.looks admin.findings",
    "admin.places",
    "admin.trial",
    # the groups of popperctl
    "admin.bulletin admin.mailbox admin.stats admin.trace"
    " admin.start admin.stop admin.restart admin.reload admin.status admin.config admin.checkup",
    "admin.main",
    "admin.__main__",
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names.split()}
SIDEWAYS = {"launch": ("cli",), "__main__": ("cli", "launch"), "auth": ("auth",)}
ANY_NAME = ("library", "auth", "admin.main")      # may import by a name that is known at run time only

# who: all of popper that it may import; whoever is not named here may import all that is below
MAY = {
    "access": "errors account",
    "wrappers": "access",
    "guessers": "account slots",
    "storage": "errors maildrop storage",
    "auth": "errors account library auth",
    "xtnd": "errors account wire maildrop",
    "session": "popper errors account wire maildrop xtnd",
    "popbull": "errors account storage.locks",
    "bulletins": "errors account popbull storage.scan",
    "login": "popper errors account access wrappers guessers tally auth storage bulletins privilege options maildrop",
    "serve": "popper errors account session channel conversation wire journal tally",
    "conversation": "popper errors account session wire journal",
}
# who: what it must not import besides, of popper or of Python
MUST_NOT = {
    "session": "os posix time socket _socket",
    "xtnd": "os posix time socket _socket",
    "inetd": "session storage",
    **dict.fromkeys(("daemon", "logins", "reception", "crew", "house", "control"), "session storage"),
}
LOWEST = ("sys", "site")                     # all that level 0 may import


def within(name, packages):
    """Whether a module is one of these or inside one of them."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def words(table, name):
    """What a table says of a module or of the package around it."""
    return (table.get(name) or table.get(name.partition(".")[0], "")).split()


def imports(source, modules):
    """What a source imports, by statement or call, wherever it stands, popper's modules as `popper.NAME`.

    "": by a relative name; None: by a name that is known at run time only.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ("" if node.level else name if name in modules else node.module for name in inner)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("__import__", "import_module", "library"):
                yield from _named(node.args[0] if node.args else None, modules)


def _named(argument, modules):
    """The modules that an argument can name: one, or all that have the beginning of an f-string."""
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    written = getattr(parts[0], "value", None)
    if not isinstance(written, str):
        return [None]
    return [written] if len(parts) == 1 else [name for name in modules if name.startswith(written)]


def complaints(sources):
    """What is wrong with the imports of {module: source}, in words; modules are named as in LEVELS."""
    arrows = {name: set() for name in sources}
    ours = {f"popper.{name}" for name in (*LEVEL, *sources)}
    for name, source in sources.items():
        if name not in LEVEL:
            yield f"{name} is in no level"
            continue
        for target in imports(source, ours):
            if not target:
                if target == "" or name not in ANY_NAME:
                    yield f"{name} imports by a name that is not written there"
                continue
            inside = within(target, ["popper"])
            target = target.removeprefix("popper.") if inside else target
            if within(target, words(MUST_NOT, name)) or (inside and not within(target, words(MAY, name) or [target])):
                yield f"{name} must not import {target}"
            if not inside:
                if LEVEL[name] == 0 and target not in LOWEST:
                    yield f"{name} is at the bottom and imports {target}"
            elif target not in LEVEL:
                yield f"{name} imports {target}, which is in no level"
            else:
                arrows[name].add(target)
                if LEVEL[target] >= LEVEL[name] and not within(target, SIDEWAYS.get(name.partition(".")[0], ())):
                    yield f"{name} imports {target}, which is not below it"
    yield from (f"{name} imports itself by way of others" for name in arrows if name in reached(name, arrows))


def reached(start, arrows):
    """All that following the arrows from a module leads to."""
    found, ahead = set(), list(arrows.get(start, ()))
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead.extend(arrows.get(name, ()))
    return found


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".") or "popper"


def test_every_module_imports_from_below_only():
    sources = {name_of(path): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert list(complaints(sources)) == []
    assert LEVEL.keys() == sources.keys()


@pytest.mark.parametrize("complaint, sources", [
    ("wire imports session, which is not below it", {"wire": "import popper.session"}),
    ("session imports login, which is not below it", {"session": "from popper import VERSION, login"}),
    ("channel imports wire, which is not below it", {"channel": "def read():\n from popper.wire import Lines"}),
    ("inetd imports daemon, which is not below it", {"inetd": "if 0:\n import popper.daemon as d"}),
    ("inetd imports cli, which is not below it", {"inetd": "__import__('popper.cli')"}),
    ("journal imports channel, which is not below it", {"journal": "importlib.import_module('popper.channel')"}),
    ("peer imports auth.getpw, which is not below it", {"peer": "__import__(f'popper.auth.{name}')"}),
    ("storage.scan imports storage.locks, which is not below it", {"storage.scan": "from popper.storage import locks"}),
    ("storage.mbox imports storage.memory, which is not below it",
     {"storage.mbox": "from popper.storage.memory import Memory"}),
    ("auth imports by a name that is not written there", {"auth": "from . import file"}),
    ("storage.mbox must not import wire", {"storage.mbox": "from popper.wire import Reply"}),
    ("storage.locks must not import channel", {"storage.locks": "from popper import channel"}),
    ("storage.memory must not import session", {"storage.memory": "library('popper.session')"}),
    ("auth.file must not import storage.scan", {"auth.file": "import popper.storage.scan"}),
    ("bulletins must not import storage.redo", {"bulletins": "from popper.storage.redo import Redo"}),
    ("bulletins must not import options", {"bulletins": "from popper.options import Options"}),
    ("login must not import wire", {"login": "from popper import wire"}),
    ("serve must not import storage.mbox", {"serve": "from popper.storage.mbox import Mbox"}),
    ("serve must not import peer", {"serve": "from popper import peer"}),
    ("session must not import options", {"session": "from popper import options"}),
    ("daemon must not import storage.mbox", {"daemon": "from popper.storage import mbox"}),
    ("inetd must not import session", {"inetd": "from popper.session import Session"}),
    ("errors is at the bottom and imports os", {"errors": "import os"}),
    ("tally imports errors, which is not below it", {"tally": "import popper.errors"}),
    ("cli imports by a name that is not written there", {"cli": "__import__(name)"}),
    ("spare is in no level", {"spare": ""}),
    ("cli imports spare, which is in no level", {"cli": "import popper.spare"}),
    ("auth.file imports itself by way of others",
     {"auth.file": "import popper.auth.crypt", "auth.crypt": "import popper.auth.file"}),
    *((f"{who} must not import {what}", {who: f"import {what}"})
      for who in ("session", "xtnd") for what in ("os", "time", "socket", "_socket")),
    *((f"{who} must not import {what}", {who: f"from popper import {what}"})
      for who in ("session", "xtnd") for what in ("storage", "auth", "channel", "journal")),
])
def test_each_rule_can_be_broken(complaint, sources):
    assert complaint in list(complaints(sources))


@pytest.mark.parametrize("sources", [
    {"session": "from popper import VERSION, wire, xtnd\nimport popper.maildrop"},
    {"daemon": "from popper import inetd", "inetd": "from popper import serve"},
    {"library": "import site, sys\n__import__(name)"},
    {"auth": "__import__(f'popper.auth.{name}')", "auth.file": "from popper.auth.crypt import verify\nimport os"},
    {"storage.mbox": "from popper.storage.scan import scan\nimport os, time"},
])
def test_what_is_right_is_not_complained_of(sources):
    assert list(complaints(sources)) == []
