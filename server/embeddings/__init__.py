"""Embedding versions: their models, their vectors, and the embedder that keeps those up with the log."""
