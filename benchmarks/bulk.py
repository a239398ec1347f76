"""Fills a database with millions of events in minutes: COPY as the superuser, whom row-level security lets."""

from __future__ import annotations

import random
from uuid import UUID

from psycopg import Connection, sql

from server.database.ids import ConversationId, user_key, uuid7

CONVERSATION = "COPY conversation (user_key, id, tenant_id, user_id, head, recorded_at, created_at) FROM STDIN"
EVENT = "COPY event (user_key, conversation, seq, recorded_at, occurred_at, tenant_id, type, role, content) FROM STDIN"
# Loaded events count as embedded: a backlog of millions would be worked off beside what is measured.
PROGRESS = "COPY embedding_progress (user_key, conversation, version, tenant_id, seq) FROM STDIN"
_WORDS = """
    the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not
    what all were we when your can said there use an each which she do how their if will up other about out many then
    them these so some her would make like him into time has look two more write go see number no way could people
""".split()  # noqa: SIM905 - a list of words reads better as text


def contents(generator: random.Random, count: int) -> list[str]:
    """Return contents as JSON text: chat messages, mostly short, some long."""
    lengths = [min(800, max(1, round(generator.lognormvariate(2.8, 0.9)))) for _ in range(count)]
    return ['"' + " ".join(generator.choices(_WORDS, k=length)) + '"' for length in lengths]


def load(
    connection: Connection,
    *,
    salt: bytes,
    events: int,
    tenant: int = 1,
) -> list[ConversationId]:
    """Copy ``events`` events in, spread over conversations of some 10 to 2,000; return some of the conversations."""
    generator = random.Random(1)
    texts = contents(generator, 2000)
    tails = [f"\t2026-01-01\t2026-01-01\t{tenant}\tmessage\t{role}\t{text}\n" for text in texts for role in _ROLES]
    versions = [row[0] for row in connection.execute("SELECT unnest(written) FROM embedding_routing").fetchall()]
    done, sample = 0, []
    while done < events:
        # Whole conversations in blocks, so that neither list grows with the number of events.
        block: list[tuple[ConversationId, int]] = []
        size = 0
        while size < min(200_000, events - done):
            length = min(2000, max(10, round(generator.lognormvariate(4.2, 1.0))), events - done - size)
            name = f"loaded user {generator.getrandbits(48)}"
            block.append((ConversationId(user_key(salt, "user", name), uuid7()), length))
            size += length
        with connection.cursor() as cursor:
            with cursor.copy(CONVERSATION) as copy:
                for (key, uuid), length in block:
                    copy.write(f"{key}\t{uuid}\t{tenant}\tuser\t{length}\t2026-01-01\t2026-01-01\n")
            with cursor.copy(EVENT) as copy:
                for at, length in block:
                    copy.write("".join(_rows(at, length, tails, generator)))
            with cursor.copy(PROGRESS) as copy:
                for (key, uuid), length in block:
                    copy.write("".join(f"{key}\t{uuid}\t{version}\t{tenant}\t{length}\n" for version in versions))
        connection.commit()
        sample += [at for at, length in block if length >= 50][:64]
        done += size
    connection.autocommit = True
    # What a database of this size that has been running has behind it, so that none of it falls into a measurement.
    for statement in ("VACUUM (ANALYZE, FREEZE) event", "VACUUM (ANALYZE, FREEZE) conversation", "CHECKPOINT"):
        connection.execute(sql.SQL(statement))
    generator.shuffle(sample)
    return sample


_ROLES = ("user", "assistant")


def _rows(at: ConversationId, length: int, tails: list[str], generator: random.Random) -> list[str]:
    head = f"{at.user_key}\t{at.uuid}\t"
    start = generator.randrange(len(tails))
    return [f"{head}{seq}{tails[(start + seq) % len(tails)]}" for seq in range(1, length + 1)]


def fixed(connection: Connection, *, uuid: UUID, keys: int, length: int, text: str, tenant: int = 1) -> None:
    """Copy in conversations ``uuid`` under the user keys 0 to ``keys - 1``, which scripts can name."""
    with connection.cursor() as cursor:
        with cursor.copy(CONVERSATION) as copy:
            for key in range(keys):
                copy.write(f"{key}\t{uuid}\t{tenant}\tbench\t{length}\t2026-01-01\t2026-01-01\n")
        with cursor.copy(EVENT) as copy:
            for key in range(keys):
                for seq in range(1, length + 1):
                    copy.write(f"{key}\t{uuid}\t{seq}\t2026-01-01\t2026-01-01\t{tenant}\tmessage\tuser\t{text}\n")
    connection.commit()
