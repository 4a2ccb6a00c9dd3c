"""Usage:
  popperctl reload [-C FILE]

Has the server read its configuration and open its logs anew. A configuration
with a mistake is refused, the mistake is told, and the one before it stays in
force. Sessions that are open go on as they began.

Options:
  -C FILE  configuration, /etc/popper.conf if not given

Examples:
  popperctl reload
  popperctl reload -C /etc/popper.test.conf
"""

import os

from popper.admin import server
from popper.admin.control import control


def run(arguments: dict, console) -> int:
    asked = control(arguments)
    now = asked.status()
    server.check_file(arguments["-C"], now)
    asked.ask("reload", os.EX_CONFIG)
    console.say(f"popper, process {now['pid']}, has read {now['configuration'] or 'its configuration'}; it is in force")
    return os.EX_OK
