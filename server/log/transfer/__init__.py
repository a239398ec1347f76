"""A tenant's whole log out and in again, as the very same rows."""
