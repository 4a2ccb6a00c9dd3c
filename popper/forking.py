"""Forks of a process that hears signals through a pipe: a child must not speak into its parent's."""

import _signal
import os

HEARD = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGCHLD, _signal.SIGHUP, _signal.SIGUSR2)


def fork() -> int:
    """os.fork. In the child signals do again what they do to any process, but for SIGUSR2, which does nothing; what
    comes meanwhile waits. Raises OSError."""
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, HEARD)
    try:
        pid = os.fork()
        if not pid:
            _signal.set_wakeup_fd(-1)
            for number in HEARD:
                _signal.signal(number, _signal.SIG_IGN if number == _signal.SIGUSR2 else _signal.SIG_DFL)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    return pid
