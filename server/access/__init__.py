"""Who may do what: tenants, keys, scopes, limits."""
