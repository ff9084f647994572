"""Set-up, build and serve commands of the checkout. Nothing here travels in the wheel.

What runs before the virtual environment exists (setup and what it imports) uses the standard library only.
"""

import sys

# Before anything with newer syntax is imported, so that an old Python says so in words.
if sys.version_info < (3, 11):
    sys.exit(
        "error: tensorcommons needs Python 3.11 or newer, this is %d.%d: name another with 'make PYTHON=/path/to/python3'."  # noqa: UP031 (an old Python must parse this)
        % sys.version_info[:2]
    )
