"""What `make install` turns into the program `popper`: a first line with the interpreter, and LIBRARY filled in.

Under inetd standard error is the client, so the first act is to move it away; and whatever keeps popper from
starting becomes one log line and one -ERR, never a traceback in somebody's mail program.
"""

import posix
import sys

LIBRARY = None


def run() -> None:
    connected = _is_connection(0)
    if connected and _is_connection(2) and posix.fstat(2).st_ino == posix.fstat(0).st_ino:
        posix.dup2(posix.open("/dev/null", posix.O_WRONLY), 2)
    if LIBRARY:
        sys.path.insert(0, LIBRARY)
    status = 70
    try:
        from popper.cli import main
        status = main(sys.argv[1:], connected)
    except BaseException as trouble:
        if not connected:
            raise
        import syslog
        syslog.openlog(sys.argv[0].rpartition("/")[2], syslog.LOG_PID, syslog.LOG_LOCAL0)
        syslog.syslog(syslog.LOG_CRIT, f"cannot start: {type(trouble).__name__}: {trouble}")
        posix.write(0, b"-ERR [SYS/TEMP] This server cannot start.\r\n")
    if connected:
        posix._exit(status)                  # no buffer to write, no thread to wait for: that saves 3 ms
    sys.exit(status)


def _is_connection(fd: int) -> bool:
    """Whether a descriptor is a socket: then a client is at the other end of it, and of standard error."""
    try:
        return posix.fstat(fd).st_mode & 0o170000 == 0o140000
    except OSError:
        return False


if __name__ == "__main__":
    run()
