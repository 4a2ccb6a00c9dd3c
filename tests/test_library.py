"""Libraries are found although the launcher runs without site-packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from popper.library import library

TREE = Path(__file__).resolve().parent.parent


def run(program, *flags):
    """What a Python with these flags prints for a program that finds popper in this tree."""
    program = f"import sys; sys.path.insert(0, {str(TREE)!r})\n" + program
    return subprocess.run([sys.executable, *flags, "-c", program], check=True, capture_output=True, text=True).stdout


def test_a_module_of_the_standard_library():
    assert library("json").dumps([1]) == "[1]"


def test_a_dotted_name_gives_the_last_module():
    assert library("xml.dom.minidom").__name__ == "xml.dom.minidom"


def test_a_missing_library():
    with pytest.raises(ImportError):
        library("popper_has_no_such_library")


def test_without_site_packages_a_library_is_found_all_the_same():
    answer = run("try:\n import docopt\n print('found')\nexcept ImportError:\n print('hidden')\n"
                 "from popper.library import library\nprint(library('docopt').__name__)", "-IS")
    assert answer.split() == ["hidden", "docopt"]


def test_without_site_packages_a_missing_library_is_missing():
    answer = run("from popper.library import library\n"
                 "for _ in range(2):\n try:\n  library('popper_has_no_such_library')\n"
                 " except ImportError:\n  print('missing')", "-IS")
    assert answer.split() == ["missing", "missing"]


def test_what_is_not_asked_for_is_not_loaded():
    assert run("import popper.library; print('site' in sys.modules)", "-IS").strip() == "False"
