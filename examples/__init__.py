"""Short programs to copy from: each has one ``main`` to await, in Pyodide or in a notebook.

A model is a repository ("org/name"), a URL, or a folder: "./models/name" is relative to the page.
"""
