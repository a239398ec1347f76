"""What operators look at: logs, metrics, which servers are alive, checks, backups."""
