"""Logs on standard error: one JSON object a line, or columns on a terminal; every library's too.

Lines carry the id of the request in whose course they were written. Content and keys are never logged: of a database
error only its kind is, since PostgreSQL's own text quotes rows.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextvars import ContextVar
from typing import Any

import psycopg
import sqlalchemy.exc
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
_CHATTY = ("alembic", "uvicorn", "sqlalchemy", "httpx", "httpcore", "asyncio")


def configure(level: str, format: str) -> None:  # noqa: A002 - as the setting is called
    """Send every logger of this process to standard error. ``format`` is ``json``, ``console`` or ``auto``."""
    pretty = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=not pretty),
        _add_request_id,
        _render_exception,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if pretty
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if request_id := REQUEST_ID.get():
        event["request_id"] = request_id
    return event


def _render_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    given: Any = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["exception"] = describe(error)
    return event


def describe(error: BaseException) -> str:
    """Return a traceback without what a database error quotes (rows, statements, parameters)."""
    parts: list[str] = []
    seen: set[int] = set()
    link = ""
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{frames}{_headline(current)}{link}")
        if current.__cause__ is not None:
            current, link = current.__cause__, "\nwhich led to:"
        else:
            current, link = (None if current.__suppress_context__ else current.__context__), "\nduring which came:"
    return "\n".join(reversed(parts))


def _headline(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return f"{name} ({_headline(error.orig)})" if error.orig is not None else name
    if isinstance(error, psycopg.Error):
        about = [part for part in (error.sqlstate, error.diag.table_name, error.diag.constraint_name) if part]
        # Without a SQLSTATE it is libpq's own: it could not connect, which quotes nothing.
        return f"{name}: {' '.join(about) if about else error}"
    if isinstance(error, sqlalchemy.exc.SQLAlchemyError):
        return f"{name}: {error.args[0] if error.args else ''}"
    return f"{name}: {error}"
