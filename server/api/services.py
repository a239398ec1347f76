"""The parts that routes work with, composed in server/app.py."""

from __future__ import annotations

from dataclasses import dataclass

from server.access.authenticate import Authenticator
from server.database.connections import Database
from server.log.append import Appender
from server.log.follow import Follower
from server.settings import Settings


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    authenticator: Authenticator
    appender: Appender
    follower: Follower
