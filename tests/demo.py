"""make demo: popper on 127.0.0.1 with a demo user and a mailbox to read, in the foreground, as whoever you are.

    python3 tests/demo.py DIRECTORY [PORT]

DIRECTORY gets an environment, kept for the next time, and for each port a configuration, a password file, a mailbox
and bulletins, made anew each time. Started by root, popper serves this mailbox as nobody, as the password file has it.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from demo_mail import letters, mailbox

TREE = Path(__file__).resolve().parent.parent
NEEDED = ("popper", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")      # what pip builds popper from
USER = "demo"
HASH = "$6$poppermake$LuIfIeilsdpgLiFJq6As5QODA6uYRciDNTxrpxLEqzv/5ZBLNj4WaoMv7FuZglyz7OmD.I63Nr1pZwpY764GT/"
NOBODY = 65534
NEWEST = "23.pophost_down_sunday"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FROM_TREE = f"""
import sys
sys.path.insert(0, {str(TREE)!r})
sys.argv[0] = "popper"
from popper.launch import run
run()
"""

# Everybody on this machine knows the password: no other account is asked for, and nothing can be sent.
CONFIGURATION = """\
# written by make demo
bindto 127.0.0.1:{port}
auth file
password_file {directory}/users
guessers {directory}/guessers
mailbox {spool}/%u
bulletins {bulletins}
new_user_bulletins 1
popbull_dir {mail}
log stderr
lookup no
statistics yes
timeout 600
login_timeout 600
xmit_max 0
"""

BANNER = """
popper serves {count} messages and a bulletin on 127.0.0.1 port {port}; the user is demo, the password is demo.

  curl     curl pop3://demo:demo@127.0.0.1:{port}/1
           (without the 1: the list of all messages)
  telnet   telnet 127.0.0.1 {port}
           (then type: USER demo, PASS demo, LIST, RETR 1, QUIT)
  mailbox  {mail}/demo
  another bulletin, for the next login to find:
           cp {bulletins}/{newest} {bulletins}/24.once_more
  stop     Ctrl-C

What popper logs follows.
"""


def main(arguments):
    """Run the demo until it is stopped; the exit status."""
    if sys.version_info < (3, 11):
        return complain("Python 3.11 or newer is needed: make demo PYTHON=python3.11")
    port = arguments[1] if len(arguments) > 1 else "1110"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return complain(f"PORT={port}: a number from 1 to 65535 is expected")
    taken = taken_by_others(int(port))
    if taken:
        return complain(f"127.0.0.1 port {port}: {taken}; for another one: make demo PORT=NUMBER")
    for number in STOPPING:
        signal.signal(number, stop)
    borrowed = []                            # directories that are not left behind
    try:
        return demonstrate(Path(arguments[0]).resolve(), port, borrowed)
    except KeyboardInterrupt:
        print("demo: ended", flush=True)
        return 0
    except OSError as trouble:
        return complain(f"{trouble.filename or arguments[0]}: {trouble.strerror}; "
                        "for another place: make demo BUILD=DIRECTORY")
    finally:
        for each in borrowed:
            shutil.rmtree(each, ignore_errors=True)


def complain(text):
    print(f"demo: {text}", file=sys.stderr)
    return 1


def taken_by_others(port):
    """Why nobody can listen on a port, or ""."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as trouble:
        return os.strerror(trouble.errno)
    return ""


def stop(*_):
    """Ctrl-C, once: what follows is not to be interrupted."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def demonstrate(place, port, borrowed):
    directory = place / port
    mail, bulletins = fresh(directory, borrowed)
    command = environment(place)
    configuration = directory / "popper.conf"
    configuration.write_text(CONFIGURATION.format(port=port, directory=directory, mail=mail, bulletins=bulletins,
                                                  spool=str(mail).replace("%", "%%")))
    print(BANNER.format(count=len(letters()), port=port, mail=mail, newest=NEWEST,
                        bulletins=shlex.quote(str(bulletins))), flush=True)
    return serve([*command, "-C", str(configuration)])


def environment(place):
    """The command that runs popper: installed in an environment of its own, or from this tree where that cannot be."""
    venv = place / "venv"
    python, ready = venv / "bin" / "python", venv / "ready"
    installed = [str(python), "-I", str(venv / "bin" / "popper")]
    if ready.exists() and ready.stat().st_mtime >= newest() and quietly(*installed, "-V"):
        return installed
    print(f"Making an environment in {venv} ...", flush=True)
    lacking = made(venv, python)
    if not lacking and quietly(*installed, "-V"):
        ready.touch()
        return installed
    shutil.rmtree(venv, ignore_errors=True)
    print(f"No environment of its own ({lacking or 'it does not work'}): "
          "popper runs from this tree with plain python3, which suffices to serve mail.", flush=True)
    return [sys.executable, "-I", "-c", FROM_TREE]


def newest():
    """When anything that is installed was changed last."""
    return max(path.stat().st_mtime for name in NEEDED for path in (TREE / name, *(TREE / name).rglob("*.py")))


def made(venv, python):
    """Make the environment, with popper and its libraries in it; -> what was lacking, or ""."""
    shutil.rmtree(venv, ignore_errors=True)
    if not quietly(sys.executable, "-m", "venv", venv):
        return "no venv module with pip; Debian has it in python3-venv"
    copy = venv / "source"                   # pip leaves litter where it builds
    copy.mkdir()
    for name in NEEDED:
        (shutil.copytree if (TREE / name).is_dir() else shutil.copy)(TREE / name, copy / name)
    if not quietly(python, "-m", "pip", "install", "--retries", "1", "--timeout", "10", copy):
        return "pip cannot get docopt-ng, passlib and filelock"
    shutil.rmtree(copy)
    return ""


def quietly(*command):
    """Whether a command succeeds, in five minutes."""
    quiet = subprocess.DEVNULL
    try:
        return subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=300).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def fresh(directory, borrowed):
    """A password file, a new mailbox, bulletins; -> the directories of these two, where whoever serves may enter."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "users").write_text(f"{USER}:{HASH}:{NOBODY}:{NOBODY}\n")
    place = directory
    for each in ("mail", "bulletins"):
        if (place / each).exists():
            shutil.rmtree(place / each)
    if os.geteuid() == 0 and not all(each.stat().st_mode & 0o001 for each in (place, *place.parents)):
        place = Path(tempfile.mkdtemp(prefix="popper-demo.", dir="/tmp"))
        place.chmod(0o755)
        borrowed.append(place)
    mail = place / "mail"
    mail.mkdir(mode=0o700)
    (mail / USER).write_bytes(mailbox())
    if os.geteuid() == 0:
        for each in (mail, mail / USER):
            os.chown(each, NOBODY, NOBODY)
    return mail, pinned_up(place / "bulletins")


def pinned_up(bulletins):
    """The sample bulletins, for popper to take them: nobody else may write there, everybody may read."""
    bulletins.mkdir()
    for path in (TREE / "bulletins").iterdir():
        copy = bulletins / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o644)
    bulletins.chmod(0o755)
    return bulletins


def serve(command):
    """Run popper in a session of its own, so that whichever way the end comes, it comes to all its processes."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
