"""Reading the text that docopt reads."""

import pytest

from popper.admin.usage import clash, command, commands, forms, options, synonyms

TEXT = """Usage:
  popperctl fruit list [-C FILE] [--json] [NAME]...
  popperctl fruit eat-up [-C FILE] [-n]
                         [--salt=GRAINS | --sugar] FRUIT
  popperctl fruit list --all

Options:
  -C FILE        configuration
  -n, --dry-run  only say
  --salt GRAINS  so much
  --sugar  -n is not a synonym
"""


def test_forms():
    assert forms(TEXT) == ["popperctl fruit list [-C FILE] [--json] [NAME]...",
                           "popperctl fruit eat-up [-C FILE] [-n] [--salt=GRAINS | --sugar] FRUIT",
                           "popperctl fruit list --all"]


def test_commands():
    assert commands(TEXT) == ["list", "eat-up"]
    assert commands("Usage:\n  popperctl status [-C FILE]\n") == []
    assert commands("Usage:\n  popperctl status\n") == []


def test_the_command_of_a_form():
    assert [command(form) for form in forms(TEXT)] == ["list", "eat-up", "list"]
    assert command("popperctl status [-C FILE]") == command("popperctl status FILE...") == command("popperctl") == ""


def test_options():
    assert options(forms(TEXT)[1]) == ["-C", "-n", "--salt", "--sugar"]


@pytest.mark.parametrize("given, said", [
    ("", ""), ("--salt", ""), ("--json", ""), ("--salt --sugar", "--salt and --sugar do not go together"),
    ("--json --salt", "--json and --salt do not go together"), ("--wet", "--wet goes with --all only"),
    ("--wet --all", ""), ("--all --json", "--all and --json do not go together")])
def test_what_does_not_go_together(given, said):
    text = forms(TEXT.replace("list --all", "list --all [--wet]"))
    assert clash(text, given.split()) == said


def test_synonyms():
    assert synonyms(TEXT) == {"-n": "--dry-run", "--dry-run": "-n"}
