"""Sharing: storages by content, holders, the budget, and the report that the page draws."""
