"""Usage:
  popperctl restart [-C FILE]

Puts a new server in the place of the one that runs: the program that is
installed now, with the configuration as it is now. It takes over the sockets,
so that no client is turned away, and the sessions go on. Where no server runs,
it is started. When the configuration is wrong the old one goes on.

Options:
  -C FILE  configuration, /etc/popper.conf if not given

Examples:
  popperctl restart
  popperctl restart -C /etc/popper.test.conf
"""

import os
import time

from popper.admin import server
from popper.admin.console import Failed
from popper.admin.control import Control, NotRunning, control

PATIENCE = 10                  # seconds until the new one must have answered
LOOK = 0.05                    # seconds between two looks whether it is there


def run(arguments: dict, console) -> int:
    asked = control(arguments)
    try:
        before = asked.status()
    except NotRunning:
        return server.start(arguments["-C"], asked, console)
    if before["state"] != "running":         # its sockets are closed already
        return server.start(arguments["-C"], asked, console)
    server.check_file(arguments["-C"], before)
    old = asked.identity()
    asked.ask("upgrade", os.EX_CONFIG)
    now = _again(asked, old)
    was = f", in the place of {before['version']}" if before["version"] != now["version"] else ""
    count = len(now["sessions"])
    console.say(f"{server.line(now)}{was}; {server.sessions(count) if count else 'no session was open'}")
    return os.EX_OK


def _again(asked: Control, old) -> dict:
    """What the new one says of itself, when it answers. old: the identity of the socket of the one before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if asked.identity() not in (None, old):
                return asked.status()
        except Failed as silence:            # it may have begun to listen, and no more
            if silence.status != os.EX_UNAVAILABLE:
                raise
        time.sleep(LOOK)                     # there is nothing to wait on: a path becomes another socket's
    try:
        now = asked.status()
    except NotRunning as silence:
        raise Failed(f"popper was to be replaced and does not answer any more ({silence.text}); its log may say why",
                     os.EX_UNAVAILABLE) from None
    held = f"; it waits for {now['waiting']} logins that are held back" if now["waiting"] else "; its log may say why"
    raise Failed(f"process {now['pid']} was told to become the new one and is the old one yet{held}", os.EX_TEMPFAIL)
