"""The database half of an embedding migration: its ledger, its facts, its commands, and what they are judged by."""
