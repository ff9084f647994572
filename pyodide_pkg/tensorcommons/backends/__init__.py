"""Devices: one contract (``base``), one implementation each, and the choice between them (``select``)."""
