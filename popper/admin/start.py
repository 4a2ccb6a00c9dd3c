"""Usage:
  popperctl start [-C FILE]

Starts the server as a daemon, unless it runs already: `popper --daemon`. Comes
back when it listens, or with what keeps it from that. What systemd, inetd or
another supervisor is to start is started there.

Options:
  -C FILE  configuration, /etc/popper.conf if not given

Examples:
  popperctl start
  popperctl start -C /etc/popper.test.conf
"""

from popper.admin import server
from popper.admin.control import control


def run(arguments: dict, console) -> int:
    return server.start(arguments["-C"], control(arguments), console)
