"""The figures of a migration: of rankings, recall, scores and vectors. Each is a function of what was measured."""
