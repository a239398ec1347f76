"""The event log: append, read, fork, follow, erase, import, export."""
