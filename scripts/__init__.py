"""Set-up, build and serve commands of the checkout. Nothing here travels in the wheel.

What runs before the virtual environment exists (setup and what it imports) uses the standard library only.
"""

import sys

# Before anything with newer syntax is imported, and itself in old syntax, so that an old Python says so in words.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "error: tensorcommons needs Python 3.11 or newer, this is %d.%d: "  # noqa: UP031
        "name another with 'make PYTHON=/path/to/python3'." % sys.version_info[:2]
    )
