"""The Python side of web/tensorcommons.mjs: pipelines for pages that are not written in Python."""
