"""PostgreSQL: the embedded cluster, the engine, transactions and schema upgrades."""
