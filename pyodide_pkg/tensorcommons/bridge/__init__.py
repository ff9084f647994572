"""The only folder that touches JavaScript.

``js`` and ``pyodide`` are imported inside functions, so that all of it imports under plain CPython.
"""
