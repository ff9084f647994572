"""Short programs to copy from: each has one ``main`` to await, in Pyodide, in a notebook, or in the page's Python."""
