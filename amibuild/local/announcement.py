"""`endpoint.json`, by which others find the endpoint of a data folder: who may write it, and when
it goes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from amibuild.errors import HostError
from amibuild.local.folder import alone, write_private
from amibuild.proc import began, has_ended

FILE = "endpoint.json"


def announce(local: Path, facts: dict[str, Any]) -> None:
    """Raises: HostError while another endpoint is announced: one with other machines has a store
    of its own, whose lock does not keep it out.
    """
    with alone(local):
        found = _process(local / FILE)
        if found is not None and not has_ended(*found):
            raise HostError(
                f"another endpoint serves {local} (process {found[0]})", hint="amibuild local down"
            )
        write_private(local / FILE, json.dumps(facts) + "\n")


def withdraw(local: Path) -> None:
    """Only one's own: by now it may be the next one's."""
    if local.is_dir():
        with alone(local):
            if _process(local / FILE) == (os.getpid(), began(os.getpid())):
                (local / FILE).unlink()


def forget_dead(local: Path) -> None:
    """Removes what an endpoint that was killed had announced."""
    if not (local / FILE).exists():
        return
    with alone(local):
        found = _process(local / FILE)
        if found is not None and has_ended(*found):
            (local / FILE).unlink()


def _process(file: Path) -> tuple[int, int | None] | None:
    """Its number, and when it began (proc.py)."""
    try:
        facts = json.loads(file.read_text())
        return int(facts["pid"]), facts.get("began")
    except (OSError, ValueError, KeyError, TypeError):
        return None
