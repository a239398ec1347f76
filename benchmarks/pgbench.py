"""The yardsticks that PostgreSQL's own ``pgbench`` measures, as the server's own role on the server's own database."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import psutil
from psycopg.conninfo import conninfo_to_dict

from benchmarks.load import Figures, percentile
from server.database.embedded import EmbeddedPostgres, binary

# Its own rows under user keys that no conversation has; the same columns as the server fills.
BARE_INSERT = """
\\set seq :seq + 1
INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, content)
VALUES (:client_id, '{uuid}', :seq, clock_timestamp(), clock_timestamp(), 1, 'message', 'user', {content});
"""

# What an append must do at the least: draw the seq under the conversation's row lock, and insert.
FULL_APPEND = """
WITH bumped AS (
    UPDATE conversation c SET head = c.head + 1, recorded_at = greatest(c.recorded_at, clock_timestamp())
    WHERE c.user_key = :client_id AND c.id = '{uuid}' AND c.tenant_id = 1 AND c.deleted_at IS NULL
    RETURNING c.head, c.recorded_at
)
INSERT INTO event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, content)
SELECT :client_id, '{uuid}', b.head, b.recorded_at, b.recorded_at, 1, 'message', 'user', {content} FROM bumped b
RETURNING seq;
"""

LAST_50 = """
\\set n random(0, {count} - 1)
SELECT e.conversation, e.seq, e.type, e.role, e.client_id, e.name, e.call_id, e.session, e.run_id, e.content,
       e.metadata, e.occurred_at, e.recorded_at, e.erased_at
FROM event e WHERE e.user_key = :n AND e.conversation = '{uuid}' AND e.tenant_id = 1
ORDER BY e.seq DESC LIMIT 50;
"""


def quoted(text: str) -> str:
    """Return an SQL string that pgbench takes as it is: a colon before a letter would be a variable."""
    return "'" + text.replace("'", "''").replace(":", " ") + "'"


def run(
    postgres: EmbeddedPostgres, script: str, *, clients: int, seconds: float, directory: Path, tenant: int = 1
) -> Figures:
    """Run a script and return its figures; ``script`` may name ``{uuid}``, filled with a new conversation."""
    parts = conninfo_to_dict(postgres.conninfo("turnstone_runtime"))
    file = directory / "pgbench.sql"
    file.write_text(script)
    for old in directory.glob("transactions*"):
        old.unlink()
    environment = {
        **os.environ,
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGUSER": str(parts["user"]),
        "PGDATABASE": str(parts["dbname"]),
        "PGOPTIONS": f"-c turnstone.tenant={tenant} -c timezone=UTC -c enable_seqscan=off",
    }
    command = [
        *(str(binary("pgbench")), "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=1"),
        *(f"--time={max(1, round(seconds))}", "--define=seq=0", f"--file={file}"),
        *("--log", f"--log-prefix={directory / 'transactions'}"),
    ]
    process = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    began, cpu = time.perf_counter(), 0.0
    while process.poll() is None:
        try:
            times = process.cpu_times()
            cpu = times.user + times.system
        except psutil.Error:
            pass
        time.sleep(0.05)
    wall = time.perf_counter() - began
    output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"pgbench failed: {output[-2000:]}")
    latencies: list[float] = []
    first = last = 0.0
    for log in directory.glob("transactions*"):
        for line in log.read_text().splitlines():
            fields = line.split()
            latencies.append(int(fields[2]) / 1000)
            at = int(fields[4]) + int(fields[5]) / 1e6
            first, last = min(first or at, at), max(last, at)
    latencies.sort()
    return Figures(
        rate=len(latencies) / (last - first),
        p50=percentile(latencies, 0.50),
        p99=percentile(latencies, 0.99),
        longest=latencies[-1],
        answers=len(latencies),
        total=len(latencies),
        errors=0,
        cpu=cpu / wall,
    )


def fill(script: str, **values: object) -> str:
    """Fill a script's names; ``uuid`` is a new one unless given."""
    return script.format(**({"uuid": str(uuid4())} | values))
