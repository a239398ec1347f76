"""Turnstone's server: see app.py for how the parts are wired together."""
