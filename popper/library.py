"""The door to installed libraries.

The launcher runs the interpreter without `site`, which no session needs and every connection would pay 2 ms for. Who
does need a library imports it through here.
"""

import sys


def library(name: str):
    """The module of that name, site-packages included, or ImportError."""
    if sys.flags.no_site and "site" not in sys.modules:
        import site
        site.main()
    return __import__(name, fromlist=["*"])
