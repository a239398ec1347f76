"""The working set: which events of a conversation stay hot within a token budget. Pure: no SQL, no HTTP, no clock."""
