"""The parts that routes work with, composed in server/app.py."""

from __future__ import annotations

from dataclasses import dataclass

from server.access.authenticate import Authenticator
from server.context.composing import Composer
from server.context.control import Control
from server.context.hot import WorkingSets
from server.context.reach import Reach
from server.context.snapshots import Recorder
from server.database.connections import Database
from server.embeddings.embedder import Embedder
from server.embeddings.migration.control import Migration
from server.embeddings.migration.measuring import Measuring
from server.log.append import Appender
from server.log.follow import Follower
from server.log.heads import Heads
from server.log.tails import Tails
from server.log.undeleted import Deletions
from server.search.search import Searcher
from server.settings import Settings


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    authenticator: Authenticator
    appender: Appender
    follower: Follower
    heads: Heads
    tails: Tails
    deletions: Deletions
    working_sets: WorkingSets
    control: Control
    reach: Reach
    composer: Composer
    recorder: Recorder
    embedder: Embedder
    searcher: Searcher
    migration: Migration
    measuring: Measuring
