"""popperctl test: what is wrong with a configuration on this system."""

import os
import sys

import pytest

from conftest import free_port
from ctl import popperctl                    # noqa: F401, a fixture
from daemons import Real
from popper.admin import checkup
from popper.options import Options

ROOT = os.geteuid() == 0


@pytest.fixture
def place(tmp_path):
    """A spool and a program that takes mail, so that nothing is wrong to begin with."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o1777)
    (tmp_path / "sendmail").write_text("#!/bin/sh\n")
    (tmp_path / "sendmail").chmod(0o755)
    return tmp_path


@pytest.fixture
def look(popperctl, installed, monkeypatch, place):        # noqa: F811
    """look(*words, **directives) -> Done."""
    monkeypatch.setattr(sys, "argv", [str(installed / "sbin" / "popperctl")])

    def call(*words, **directives):
        lines = {"mailbox": place / "spool" / "%u", "sendmail": place / "sendmail", "control": place / "control",
                 "bindto": f"127.0.0.1:{free_port()}", **directives}
        (place / "popper.conf").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        return popperctl("test", "-C", place / "popper.conf", *words)
    return call


def test_nothing_is_wrong(look, place):
    done = look()
    assert (done.status, done.out, done.err) == (0, f"{place}/popper.conf: no mistake found\n", "")
    assert look("--json").json == []


def test_a_mistake_in_the_configuration_is_what_popper_says_of_it(look, place):
    done = look(timeout="soon")
    line = f'{place}/popper.conf:5: timeout: "soon" is not what is expected: seconds, 0 to 86400 (0: none)'
    assert (done.status, done.out, done.err) == (78, line + "\n", "")
    assert look("--json", timeout="soon").json == [{"directive": "", "what": line, "remedy": "", "fault": True}]
    done = look(auth="popper.no.such")
    assert done.status == 78 and done.out.startswith("auth: ")


def test_a_directive_that_is_none_and_which_was_meant(look, place):
    done = look("--json", maxsesions=90)
    (row,) = done.json
    assert done.status == 78 and 'unknown directive "maxsesions"' in row["what"]
    assert row["remedy"] == "did you mean maxsessions?"
    assert look(zzzzzzzzz=1).out.endswith(" xmit_max\n")


def test_an_address_that_cannot_be_listened_on(look, place):
    done = look(bindto=f"192.0.2.77:{free_port()}")
    assert done.status == 78 and done.out.startswith("bindto: cannot listen on 192.0.2.77:") and done.err == ""


def test_addresses_that_the_server_holds_are_its_own(look, place, installed):
    """With the control socket of another one they are somebody else's."""
    daemon = Real(place, program=installed / "sbin" / "popper")
    try:
        assert look(bindto=f"127.0.0.1:{daemon.port}").status == 0
        done = look(bindto=f"127.0.0.1:{daemon.port}", control=place / "none")
        assert done.status == 78 and done.out.startswith(f"bindto: cannot listen on 127.0.0.1:{daemon.port}: Address ")
        assert done.out.endswith(f", process {daemon.pid}, listens there\n") or not ROOT
    finally:
        daemon.close()


# directive: (value, what is said), {} the place; all of these keep popper from doing what it is to do
MISSING = {
    "password_file": ("{}/none", "{}/none: No such file or directory"),
    "bulletins": ("{}/none", "Unable to open bulletin directory '{}/none': "),
    "popbull_dir": ("{}/sendmail", "{}/sendmail is no directory"),
    "trace": ("{}/none/trace", "{}/none: No such file or directory"),
    "pid_file": ("{}/sendmail/pid", "{}/sendmail is no directory"),
    "mailbox": ("{}/none/%u", "{}/none: No such file or directory"),
    "unprivileged_user": ("nosuchuser", "nosuchuser is no account that could be used; expected one, and not root"),
    "control_group": ("nosuchgroup", "there is no group nosuchgroup"),
}


def test_a_directory_that_popper_makes_is_not_missed(place):
    options = Options()
    options.set("mailbox", f"{place}/spool/%u")
    options.set("sendmail", f"{place}/sendmail")
    options.set("pid_file", f"{place}/none/pid")
    assert list(checkup.faults(options)) == []
    options.set("pid_file", f"{place}/none/at/pid")
    (found,) = checkup.faults(options)
    assert found["what"] == f"{place}/none: No such file or directory"


@pytest.mark.parametrize("name", MISSING)
def test_what_is_named_and_is_not_there(place, name):
    value, what = MISSING[name]
    options = Options()
    options.set("mailbox", f"{place}/spool/%u")
    options.set("sendmail", f"{place}/sendmail")
    options.set(name, value.format(place))
    (found,) = checkup.faults(options)
    assert found["directive"] == name and found["what"].startswith(what.format(place)) and found["fault"]


def test_what_is_found_is_one_line_each_and_a_status(look, place):
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    done = look(popbull_dir=f"{place}/none", bulletins=f"{place}/open")
    assert (done.status, done.err) == (78, "")
    first, second = done.out.splitlines()
    assert first.startswith("bulletins: ") and first.endswith("; popperctl bulletin check says more")
    assert second == f"popbull_dir: {place}/none: No such file or directory"
    assert len(look("--json", popbull_dir=f"{place}/none").json) == 1


LISTS = [
    ("trusted", "list", "{}/list:2: "),
    ("trusted", "spool", "{}/spool: is not a regular file"),
    ("allow_deny", "none", "{}/none: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize("name, path, what", LISTS)
def test_a_list_that_cannot_be_used(look, place, name, path, what):
    """`popper --check` says so already, with the line of a mistake."""
    (place / "list").write_text("# ours\n300.1.2.3\n")
    done = look(**{name: f"{place}/{path}"})
    assert done.status == 78 and done.out.startswith(what.format(place))


def test_a_remark_is_no_fault(look, place):
    (place / "users").write_text("")
    (place / "users").chmod(0o644)
    done = look(sendmail=f"{place}/none", password_file=f"{place}/users")
    assert done.status == 0
    assert done.out.splitlines() == [
        f"password_file: {place}/users may be read by everybody; chmod o-r {place}/users",
        f"sendmail: {place}/none: No such file or directory; XTND XMIT will be refused",
        f"{place}/popper.conf: no mistake found"]
    (place / "users").chmod(0o640)
    assert look(sendmail=f"{place}/none", xmit_max=0, password_file=f"{place}/users").out.count("\n") == 1


def test_what_is_not_used_is_not_looked_at(look, place):
    assert look(auth="getpw", password_file=f"{place}/none").out.count("\n") == 1
    assert look(trace_file=f"{place}/none/trace").out.count("\n") == 1
    assert look(trace_file=f"{place}/none/trace", trace_user="joe").status == 78


def test_a_directory_of_bulletins_that_is_refused(look, place):
    (place / "bulletins").mkdir()
    (place / "bulletins").chmod(0o777)
    done = look(bulletins=f"{place}/bulletins")
    assert done.status == 78 and "may be written in by others than its owner" in done.out


@pytest.mark.parametrize("template, mode, said", [
    ("{}/spool/%u", 0o777, "mailbox: everybody may remove and replace the mailboxes of others in {0}/spool; "
                           "chmod +t {0}/spool"),
    ("{}/spool/%u", 0o755, "mailbox: users can make no locks in {0}/spool; chgrp mail {0}/spool; chmod 2775 {0}/spool"),
    ("{}/spool/%u", 0o2775, ""),
    ("{}/spool/%1/%u", 0o755, ""),           # it is the directories in it that count
    ("{}/spool/%u/mbox", 0o755, ""),
    ("~/mbox", 0o755, ""),
    ("{}/spool/%%/%u", 0o755, ""),
])
def test_the_spool(look, place, template, mode, said):
    if mode == 0o755 and said and not ROOT:
        pytest.skip("needs root: others can only serve themselves")
    (place / "spool").chmod(mode)
    lines = look(mailbox=template.format(place)).out.splitlines()
    assert lines[:-1] == ([said.format(place)] if said and "no locks" not in said else [])
    assert ("no locks" in said) == lines[-1].startswith("mailbox: users can make no locks")
    if "no locks" in said:
        assert lines[-1] == said.format(place)


@pytest.mark.root
@pytest.mark.parametrize("name", ["password_file", "popbull_dir"])
def test_who_cannot_look_is_told_to_try_as_root(place, name):
    """Said of what root alone may see."""
    (place / "secret").mkdir(mode=0o700)
    options = Options()
    options.set(name, f"{place}/secret/of/root")
    child = os.fork()
    if not child:
        os.setuid(4321)
        found = [row for row in checkup.faults(options) if row["directive"] == name]
        os._exit(0 if found == [{"directive": name, "what": f"{place}/secret/of/root: Permission denied",
                                 "remedy": "try as root", "fault": True}] else 1)
    assert os.waitpid(child, 0)[1] == 0
