"""What `make install` turns into the program `popperctl`: a first line with the interpreter, and LIBRARY filled in."""

import sys

LIBRARY = None

if __name__ == "__main__":
    if LIBRARY:
        sys.path.insert(0, LIBRARY)
    try:
        from popper.admin.main import run
        sys.exit(run())
    except KeyboardInterrupt:                # before main was there to take it
        sys.exit(130)
