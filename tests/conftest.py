"""Real PostgreSQL for every test: one embedded cluster a run, one database a test, cloned from a migrated template."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest
import uvicorn

from server.access.tenants import bootstrap
from server.app import create_app
from server.database.address import EmbeddedAddress
from server.database.connections import Database
from server.database.embedded import EmbeddedPostgres
from server.database.tenant import Tenant
from server.database.upgrade import upgrade
from server.embeddings.relations import ensure_first
from server.settings import Settings, load

_numbers = count(1)
TEMPLATE = "turnstone_template"


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedPostgres]:
    """An embedded PostgreSQL that does not wait for the disk: tests of durability start one of their own."""
    with tempfile.TemporaryDirectory(prefix="turnstone-tests-", ignore_cleanup_errors=True) as directory:
        postgres = EmbeddedPostgres(Path(directory) / "data", settings={"fsync": "off", "max_connections": "200"})
        postgres.start()
        try:
            with _superuser(postgres) as connection:
                connection.execute(f"CREATE DATABASE {TEMPLATE}")
            upgrade(EmbeddedAddress(postgres.conninfo, TEMPLATE))
            ensure_first(EmbeddedAddress(postgres.conninfo, TEMPLATE))
            yield postgres
        finally:
            postgres.stop()


@pytest.fixture
def new_database(cluster: EmbeddedPostgres) -> Iterator[Callable[[], EmbeddedAddress]]:
    """Makes migrated, empty databases, dropped when the test ends."""
    with databases_of(cluster, TEMPLATE) as make:
        yield make


@contextmanager
def databases_of(cluster: EmbeddedPostgres, template: str) -> Iterator[Callable[..., EmbeddedAddress]]:
    """Make databases of a template, with options of CREATE DATABASE, and drop them at the end."""
    made: list[str] = []

    def make(options: str = "") -> EmbeddedAddress:
        name = f"test_{next(_numbers)}"
        with _superuser(cluster) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} {options}")
        made.append(name)
        return EmbeddedAddress(cluster.conninfo, name)

    yield make
    with _superuser(cluster) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def address(new_database: Callable[[], EmbeddedAddress]) -> EmbeddedAddress:
    """One migrated, empty database."""
    return new_database()


@pytest.fixture
async def database(address: EmbeddedAddress) -> AsyncIterator[Database]:
    """The server's way into that database."""
    opened = Database(address)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def admin_key(database: Database) -> str:
    """The admin key of the default tenant, which is the operator's."""
    key = await bootstrap(database)
    assert key is not None
    return key


@pytest.fixture
async def tenant(database: Database, admin_key: str) -> Tenant:
    """The default tenant."""
    return await the_tenant(database)


async def the_tenant(database: Database, name: str = "default") -> Tenant:
    """Return a tenant by name."""
    from sqlalchemy import select

    from schema.tables import tenant as table

    async with database.transaction(None, operator=True) as connection:
        row = (await connection.execute(select(table).where(table.c.name == name))).one()
    return Tenant(row.id, row.name, bytes(row.salt), row.operator, row.retention_days)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that no environment changes."""
    return load({"data_dir": tmp_path / "data", "log_requests": "none", "retention_interval": 0}, {})


@asynccontextmanager
async def serving(settings: Settings, address: EmbeddedAddress) -> AsyncIterator[str]:
    """Serve the application over real HTTP on a free port, and give its URL."""
    app = create_app(settings, address)
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    started = asyncio.Event()
    startup = server.startup

    async def observed(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = observed  # type: ignore[method-assign]
    # With its protocol named, asyncio turns Nagle's algorithm off, which costs 40 ms for each answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server._serve([listener]))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        assert started.is_set(), "the server did not start"
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            app.state.stopping.set()
            server.should_exit = True
            await task


@pytest.fixture
async def server_url(settings: Settings, address: EmbeddedAddress, admin_key: str) -> AsyncIterator[str]:
    """A served instance on the test's database."""
    async with serving(settings, address) as url:
        yield url


@pytest.fixture
async def client(server_url: str, admin_key: str) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client with the admin key."""
    headers = {"authorization": f"Bearer {admin_key}"}
    async with httpx.AsyncClient(base_url=server_url, headers=headers, timeout=30) as opened:
        yield opened


@pytest.fixture
async def servers(
    settings: Settings, address: EmbeddedAddress, admin_key: str
) -> AsyncIterator[Callable[[], Awaitable[httpx.AsyncClient]]]:
    """Starts further servers on the same database, each with a client of its own."""
    async with AsyncExitStack() as stack:

        async def start() -> httpx.AsyncClient:
            url = await stack.enter_async_context(serving(settings, address))
            headers = {"authorization": f"Bearer {admin_key}"}
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=30))

        yield start


def _superuser(postgres: EmbeddedPostgres) -> psycopg.Connection:
    return psycopg.connect(postgres.conninfo("postgres", "postgres"), autocommit=True)
