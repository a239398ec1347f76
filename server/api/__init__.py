"""The edge: one file per resource, wire structs, errors to HTTP."""
