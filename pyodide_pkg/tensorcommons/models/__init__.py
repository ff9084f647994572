"""Models: a short file an architecture, and the loading that fills them with shared weights."""
