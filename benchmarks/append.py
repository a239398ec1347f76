"""Appends and reads over HTTP against pgbench and bare psycopg, on the same database with the same durability.

Each ratio compares two runs of the same round, moments apart, and the tables show medians over the rounds: on a shared
machine absolute rates come and go, ratios much less.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from benchmarks import bulk, pgbench, report
from benchmarks.bare import Orders as BareOrders
from benchmarks.generators import BY_NAME, Generator, bare
from benchmarks.load import Figures, Orders
from benchmarks.serving import Cpu, Memory, Serving, scratch
