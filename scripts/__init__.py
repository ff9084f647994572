"""Set-up, build and serve commands of the checkout, which are not part of the wheel.

Modules that run before the virtual environment exists (setup and its imports) use the standard library only.
"""

import sys

# Before modules with newer syntax are imported, and in old syntax, so that an old Python prints a clear error.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "error: tensorcommons needs Python 3.11 or newer, this is %d.%d: "  # noqa: UP031
        "name another with 'make PYTHON=/path/to/python3'." % sys.version_info[:2]
    )
