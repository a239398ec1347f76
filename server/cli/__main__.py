"""``python -m server.cli`` is ``turnstone``."""

from __future__ import annotations

from server.cli import main

main(prog_name="turnstone")
