"""Who holds which bytes: storages by content, holders, the budget, and the report that the page draws."""
