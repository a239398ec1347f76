"""What Turnstone's speed is measured with; run by `make bench-…`."""
