"""Search over the log: the indexes that are held in memory, what each caller may see of them, and the answer."""
