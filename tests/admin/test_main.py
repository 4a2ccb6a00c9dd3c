"""The frame of popperctl: words to groups, complaints, exit statuses; and that every group keeps to the forms."""

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import docopt
import pytest

import test_layers
from conftest import TREE
from ctl import popperctl                    # noqa: F401, a fixture
from popper import VERSION
from popper.admin import console, main, usage
from popper.admin.console import Failed, ReaderGone
from popper.errors import IN_USE, PERMANENT, TEMPORARY, Refused

FRUIT = """Usage:
  popperctl fruit list [-C FILE] [--json] [NAME]...
  popperctl fruit eat [-C FILE] [-n] [--salt GRAINS] FRUIT

Fruit.

Options:
  -C FILE        configuration, /etc/popper.conf if not given
  --json         one JSON document
  -n, --dry-run  only say
  --salt GRAINS  so much
"""
MANUAL = TREE / "man" / "popperctl.8"
COMPLETION = TREE / "etc" / "bash-completion" / "popperctl"


@pytest.fixture
def fruit(monkeypatch):
    """A group of commands; `fruit.run` is what it does."""
    module = types.ModuleType("popper.admin.fruit", FRUIT)
    module.run = lambda arguments, console: 0
    monkeypatch.setitem(sys.modules, "popper.admin.fruit", module)
    monkeypatch.setitem(main.GROUPS, "fruit", ("fruit", "what grows on trees"))
    return module


# -- the frame ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words", [["-h"], ["--help"], ["help"], ["-h", "--version"], ["--json", "-h"]], ids=" ".join)
def test_help_lists_the_groups(popperctl, fruit, words):
    done = popperctl(*words)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Usage:\n  popperctl GROUP ")
    for word, (_, about) in main.GROUPS.items():
        assert re.search(rf"^  {word} +{re.escape(about)}$", done.out, re.M)


@pytest.mark.parametrize("words", [[], ["--json"], ["-C", "/dev/null"], ["-C"], ["--"]], ids=" ".join)
def test_no_group_is_the_same_on_standard_error(popperctl, fruit, words):
    done = popperctl(*words)
    assert (done.status, done.out) == (os.EX_USAGE, "")
    assert done.err == popperctl("--help").out


@pytest.mark.parametrize("words", [
    ["fruit", "--help"], ["fruit", "-h"], ["help", "fruit"], ["fruit", "list", "x", "-h"], ["-h", "fruit"],
    ["fruit", "nonsense", "--help"]], ids=" ".join)
def test_help_of_a_group_is_its_text(popperctl, fruit, words):
    done = popperctl(*words)
    assert (done.status, done.out, done.err) == (0, FRUIT, "")


def test_help_needs_no_docopt(popperctl, fruit, monkeypatch):
    monkeypatch.setattr(main, "library", None)
    assert popperctl("fruit", "--help").out == FRUIT


def test_behind_two_dashes_nothing_is_help(popperctl, fruit):
    assert popperctl("fruit", "list", "--", "-h").status == 0


def test_version(popperctl):
    done = popperctl("--version")
    assert (done.status, done.out, done.err) == (0, f"popperctl {VERSION}\n", "")


@pytest.mark.parametrize("words, hint", [
    (["friut"], '"friut" is not a group of commands; did you mean "fruit"?'),
    (["hlep"], '"hlep" is not a group of commands; did you mean "help"?'),
    (["lits"], '"lits" is not a group of commands; did you mean "fruit list"?'),
    (["-C", "/dev/null", "friut", "eat"], '"friut" is not a group of commands; did you mean "fruit"?'),
    (["fruit"], "fruit: which command? there is list, eat"),
    (["fruit", "lsit"], '"fruit lsit" is not a command; did you mean "fruit list"?'),
    (["fruit", "qqq"], '"fruit qqq" is not a command; there is list, eat'),
    (["fruit", "list", "--jsno"], '--jsno is not an option of "fruit list"; did you mean --json?'),
    (["fruit", "list", "--salt", "1"], '--salt is not an option of "fruit list"; there is --json, -C'),
    (["fruit", "eat", "--dry", "--zzz=1", "x"],
     '--zzz is not an option of "fruit eat"; there is --dry-run, --salt, -C, -n'),
    (["fruit", "eat"], "expected: popperctl fruit eat [-C FILE] [-n] [--salt GRAINS] FRUIT"),
    (["fruit", "eat", "--dry-run", "--salt", "1"], "expected: popperctl fruit eat [-C FILE] [-n] "),
    (["fruit", "eat", "--dry", "--dry-run", "--sa=1"], "expected: popperctl fruit eat "),
    (["fruit", "eat", "-z", "x"], "expected: popperctl fruit eat [-C FILE] [-n] [--salt GRAINS] FRUIT"),
    (["fruit", "list", "-C"], "expected: popperctl fruit list [-C FILE] [--json] [NAME]..."),
    (["\x1b[2J"], '"\\x1b[2J" is not a group of commands; there is '),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_is_not_understood_is_one_line_with_a_hint(popperctl, fruit, words, hint):
    done = popperctl(*words)
    assert (done.status, done.out) == (os.EX_USAGE, "")
    assert done.err.startswith(f"popperctl: {hint}") and done.err.count("\n") == 1


def test_a_group_gets_what_docopt_read(popperctl, fruit):
    seen = {}
    fruit.run = lambda arguments, console: seen.update(arguments, asked=console.json) or 17
    assert popperctl("-C", "/x", "fruit", "list", "--json", "a", "b").status == 17
    assert seen == {"fruit": True, "list": True, "eat": False, "-C": "/x", "--json": True, "NAME": ["a", "b"],
                    "--dry-run": False, "--salt": None, "FRUIT": None, "asked": True}


def test_without_docopt_it_says_what_to_install(popperctl, fruit, monkeypatch):
    def missing(name):
        raise ImportError(name)
    monkeypatch.setattr(main, "library", missing)
    done = popperctl("fruit", "list")
    assert (done.status, done.out) == (os.EX_UNAVAILABLE, "")
    assert done.err == (f"popperctl: docopt is missing for {sys.executable}: apt install python3-docopt, or "
                        f"{sys.executable} -m pip install docopt-ng\n")


def raising(error):
    def run(arguments, console):
        raise error
    return run


@pytest.mark.parametrize("error, status, line", [
    (Failed("no, and do that", os.EX_DATAERR), 65, "no, and do that"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), 66, "/x: No such file or directory"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), 66, "/x: Not a directory"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 77, "/x: Permission denied"),
    (OSError(errno.EROFS, "Read-only file system", "/x"), 73, "/x: Read-only file system"),
    (OSError(errno.ENOSPC, "No space left on device", "/x"), 74, "/x: No space left on device"),
    (OSError(errno.EIO, "Input/output error"), 74, "Input/output error"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 74, "Broken pipe"),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), 75, "Resource temporarily unavailable"),
    (OSError("odd"), 74, "odd"),
    (Refused("lock busy!", IN_USE), 75, "lock busy!"),
    (Refused("Later.", TEMPORARY, "disk"), 75, "Later. (disk)"),
    (Refused("Never.", PERMANENT), 69, "Never."),
    (KeyboardInterrupt(), 130, None),
    (ReaderGone(), 141, None),
], ids=lambda value: repr(value) if isinstance(value, BaseException) else "")
def test_whatever_stops_a_command_is_one_line_and_a_status(popperctl, fruit, monkeypatch, error, status, line):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    fruit.run = raising(error)
    done = popperctl("fruit", "list")
    assert (done.status, done.out) == (status, "")
    assert done.err == (f"popperctl: {line}\n" if line else "")


def test_who_is_not_root_is_told_to_try_it_as_root(popperctl, fruit, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    fruit.run = raising(PermissionError(errno.EACCES, "Permission denied", "/x"))
    assert popperctl("fruit", "list").err == "popperctl: /x: Permission denied; try as root\n"


def test_a_mistake_in_the_configuration_names_its_place(popperctl, fruit, tmp_path):
    conf = tmp_path / "popper.conf"
    conf.write_text("# ours\ntimeout soon\n")
    fruit.run = lambda arguments, _: console.settled(arguments) and 0
    done = popperctl("fruit", "list", "-C", conf)
    assert (done.status, done.out) == (os.EX_CONFIG, "")
    assert done.err.startswith(f'popperctl: {conf}:2: timeout: "soon" is not what is expected')


def test_a_bug_is_not_hidden(popperctl, fruit):
    fruit.run = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        popperctl("fruit", "list")


# -- the program -------------------------------------------------------------------------------------------------------

def program(*words, **how):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run([sys.executable, "-m", "popper.admin", *words], cwd=TREE, text=True, env=buffered, **how)


def test_a_reader_who_has_enough_ends_it_in_silence():
    reader, writer = os.pipe()
    os.close(reader)
    done = program("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_told():
    with open("/dev/full", "w") as full:
        done = program("--help", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (74, "popperctl: standard output: No space left on device\n")


def test_ctrl_c_ends_it_in_silence():
    script = ("import sys, types, time; from popper.admin import main; group = types.ModuleType('popper.admin.wait', "
              "'Usage:\\n  popperctl wait\\n'); sys.modules[group.__name__] = group\n"
              "def run(arguments, console):\n  console.say('here'); console.flush(); time.sleep(60)\n"
              "group.run = run; main.GROUPS['wait'] = ('wait', ''); sys.exit(main.run())")
    process = subprocess.Popen([sys.executable, "-c", script, "wait"], cwd=TREE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def test_the_installed_program(installed, tmp_path):
    (tmp_path / "docopt.py").write_text("raise RuntimeError('not this one')")
    path = installed / "sbin" / "popperctl"
    assert path.read_text().splitlines()[0] == f"#!{sys.executable} -I"
    done = subprocess.run([path, "--version"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"popperctl {VERSION}\n", "")
    done = subprocess.run([path, "mailbox", "repair"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("popperctl: expected: popperctl mailbox repair ")


def test_what_make_install_puts_where(installed):
    assert (installed / "share/man/man8/popperctl.8").is_file()
    for place in "share/popper/etc/bash-completion/popperctl", "share/bash-completion/completions/popperctl":
        assert (installed / place).read_text() == COMPLETION.read_text()


def test_pip_makes_the_program():
    lines = (TREE / "setup.cfg").read_text()
    assert re.search(r"^    popperctl = popper\.admin\.main:run$", lines, re.M) and "popper.admin," in lines


# -- the groups --------------------------------------------------------------------------------------------------------

SHARED = {"__init__", "__main__", "console", "main", "table", "usage"}


def text_of(word):
    return main.group(word).__doc__


def test_the_table_names_modules_that_are_there():
    files = {path.stem for path in (TREE / "popper" / "admin").glob("*.py")}
    assert {module for module, _ in main.GROUPS.values()} <= files - SHARED


@pytest.mark.parametrize("word", main.GROUPS)
def test_a_group_says_how_it_is_called(word):
    forms = usage.forms(text_of(word))
    assert forms and all(form.split()[:2] == ["popperctl", word] for form in forms)
    assert all(" [-C FILE]" in form for form in forms)
    described = re.findall(r"^  (-\S+?)(?:, (--\S+))?(?: ([A-Z]+))?  +\S", text_of(word).partition("Options:")[2], re.M)
    named = {option for option, _, _ in described} | {option for _, option, _ in described if option}
    taken = {option for form in forms for option in usage.options(form)}
    assert taken <= named
    assert {option for option, other, _ in described if not {option, other} & taken} == set()
    for option, _, value in described:
        for form in forms:
            if re.search(rf"{option}\b(?!-)", form):
                assert bool(value) == bool(re.search(rf"{option}[ =]{value or '[A-Z]'}", form)), form


@pytest.mark.parametrize("word", main.GROUPS)
def test_the_examples_of_a_group_are_understood(word):
    examples = [shlex.split(line, comments=True) for line in text_of(word).partition("Examples:\n")[2].splitlines()
                if line.startswith("  popperctl ")]
    assert len(examples) >= 2
    for example in examples:
        words = example[1:example.index("|")] if "|" in example else example[1:]
        assert docopt.docopt(text_of(word), words, False)[word]


def test_only_the_group_that_is_asked_for_is_imported():
    script = ("import sys; from popper.admin import main, console; main.main(['--version'], "
              "console.Console(sys.stdout, sys.stderr)); print(*[name for name in sys.modules if name.startswith('popper.')])")
    done = subprocess.run([sys.executable, "-c", script], cwd=TREE, capture_output=True, text=True, check=True)
    assert not {f"popper.admin.{module}" for module, _ in main.GROUPS.values()} & set(done.stdout.split())
    assert "popper.admin.console" in done.stdout.split()


def test_nothing_of_it_is_on_the_way_of_a_session():
    package = Path(main.__file__).parent.parent
    ours = {f"popper.{name}" for name in test_layers.LEVEL}
    arrows = {}
    for path in package.rglob("*.py"):
        targets = test_layers.imports(path.read_text(), ours)
        arrows[test_layers.name_of(path)] = {target.removeprefix("popper.") for target in targets if target}
    on_the_way = {name for start in ("launch", "cli", "__main__") for name in test_layers.reached(start, arrows)}
    assert "storage.mbox" in on_the_way
    assert not {name for name in on_the_way if name.startswith("admin")}


# -- manual ------------------------------------------------------------------------------------------------------------

def forms_of_manual():
    """The forms of the SYNOPSIS of popperctl(8), in the words of a usage text."""
    text = MANUAL.read_text().partition(".Sh SYNOPSIS\n")[2].partition(".Sh ")[0]
    found = []
    for block in re.split(r"^\.Nm\n", text, flags=re.M)[1:]:
        found.append("popperctl " + " ".join(_plain(line) for line in block.splitlines()))
    return found


def _plain(line):
    """One macro line: `.Op Fl C Ar file` -> [-C FILE], `.Ar file ...` -> FILE..., `.Cm mailbox repair`."""
    macro, *rest = line.split()
    if macro == ".Op":
        return f"[{_plain('.' + ' '.join(rest))}]"
    words, fixed = [], {".Cm": str, ".Fl": lambda word: "-" + word, ".Ar": str.upper}
    for word in rest:
        if "." + word in fixed:
            macro = "." + word
        elif word in ("|", "..."):
            words.append(word)
        else:
            words.append(fixed[macro](word))
    return " ".join(words).replace(" ...", "...")


def test_the_manual_has_the_forms_of_the_groups():
    forms = [form for form in forms_of_manual() if re.match(r"popperctl [a-z]+\b", form)]
    wanted = [form.replace("]...", "...]") for word in main.GROUPS for form in usage.forms(text_of(word))]
    assert [form for form in forms if form not in wanted] == []
    assert sorted(forms) == sorted(wanted)


@pytest.mark.parametrize("word", main.GROUPS)
def test_the_manual_has_a_part_for_every_command_and_option(word):
    commands = MANUAL.read_text().partition(".Sh COMMANDS\n")[2].partition(".Sh ")[0]
    for form in usage.forms(text_of(word)):
        title = f"{word} {usage.command(form)}".rstrip()
        parts = re.findall(rf"^\.Ss (?:{title}|{word})\n(.*?)(?=^\.Ss |\Z)", commands, re.M | re.S)
        assert parts, title
        for option in set(usage.options(form)) - {"-C", "--json"}:
            assert re.search(rf"\bFl {option[1:]}\b", "".join(parts)), (title, option)


# -- completion --------------------------------------------------------------------------------------------------------

def completed(path, *words):
    """What bash offers for the last of these words."""
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _popperctl; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script, "bash", COMPLETION, path, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(filter(None, done.stdout.splitlines()))


@pytest.fixture
def installed_program(installed):
    assert shutil.which("bash")
    return installed / "sbin" / "popperctl"


def test_completion_of_groups(installed_program):
    assert completed(installed_program, "") == sorted([*main.GROUPS, "help", "-C", "--help", "--version"])
    assert completed(installed_program, "-C", "/x", "he") == ["help"]
    assert completed(installed_program, "help", "") == sorted(main.GROUPS)


@pytest.mark.parametrize("word", main.GROUPS)
def test_completion_of_commands_and_options(installed_program, word):
    commands = usage.commands(text_of(word))
    if commands:
        assert completed(installed_program, word, "") == sorted(commands)
    for form in usage.forms(text_of(word)):
        words = f"{word} {usage.command(form)}".split()
        same = [other for other in usage.forms(text_of(word)) if other.split()[1:len(words) + 1] == words]
        options = {option for other in same for option in usage.options(other)} | {"-C", "--help"}
        assert set(completed(installed_program, *words, "-")) == options


def test_completion_of_files(installed_program, tmp_path):
    (tmp_path / "joe").touch()
    assert completed(installed_program, "mailbox", "repair", f"{tmp_path}/j") == [f"{tmp_path}/joe"]
    assert completed(installed_program, "mailbox", "repair", "-n", f"{tmp_path}/j") == [f"{tmp_path}/joe"]
    assert completed(installed_program, "mailbox", "-C", f"{tmp_path}/j") == [f"{tmp_path}/joe"]
    assert completed(installed_program, "status", "--output", f"{tmp_path}/j") == [f"{tmp_path}/joe"]
    assert completed(installed_program, "start", "-C", f"{tmp_path}/j") == [f"{tmp_path}/joe"]
    assert completed(installed_program, "start", f"{tmp_path}/j") == []      # it takes none but with an option


def test_completion_asks_once_in_a_shell(installed_program, tmp_path):
    program, calls = tmp_path / "popperctl", tmp_path / "calls"
    program.write_text(f'#!/bin/sh\necho "$*" >>{calls}\nexec {installed_program} "$@"\n')
    program.chmod(0o755)
    script = 'source "$1"; COMP_WORDS=("$2" ""); COMP_CWORD=1; _popperctl; _popperctl; echo "${#COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script, "bash", COMPLETION, program], capture_output=True, text=True)
    assert int(done.stdout) == len(main.GROUPS) + 4
    assert calls.read_text() == "--help\n"
