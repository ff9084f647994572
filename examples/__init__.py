"""Short programs to copy from. Await ``main`` of each, in Pyodide or in a notebook.

A model is a repository ("org/name"), a URL, or a folder; "./models/name" is relative to the page.
"""
