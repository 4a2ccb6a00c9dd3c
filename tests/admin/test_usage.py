"""Reading the text that docopt reads."""

from popper.admin.usage import command, commands, forms, options, synonyms

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


def test_synonyms():
    assert synonyms(TEXT) == {"-n": "--dry-run", "--dry-run": "-n"}
