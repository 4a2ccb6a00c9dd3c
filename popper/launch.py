"""What `make install` turns into the program `popper`: a first line with the interpreter, and LIBRARY filled in.

Under inetd standard error is the client, so the first act is to move it away; and whatever keeps popper from
starting becomes one log line and one -ERR, never a traceback in somebody's mail program.
"""

import posix
import sys

LIBRARY = None


def run() -> None:
    connected = posix.fstat(0).st_mode & 0o170000 == 0o140000
    if connected:
        posix.dup2(posix.open("/dev/null", posix.O_WRONLY), 2)
    if LIBRARY:
        sys.path.insert(0, LIBRARY)
    status = 70
    try:
        from popper.cli import main
        status = main()
    except BaseException as trouble:
        if not connected:
            raise
        import syslog
        syslog.openlog(sys.argv[0].rpartition("/")[2], syslog.LOG_PID, syslog.LOG_LOCAL0)
        syslog.syslog(syslog.LOG_CRIT, f"cannot start: {type(trouble).__name__}: {trouble}")
        posix.write(0, b"-ERR [SYS/TEMP] This server cannot start.\r\n")
    # Nothing is left to do: no buffer to write, no thread to wait for. Skipping the interpreter's end saves 3 ms.
    posix._exit(status) if connected else sys.exit(status)


if __name__ == "__main__":
    run()
