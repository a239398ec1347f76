"""Contexts: the stored fold of each conversation, held hot, and what a model is shown of it."""
