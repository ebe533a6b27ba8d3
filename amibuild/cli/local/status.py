"""`amibuild local status`: whether the endpoint runs, with which machines, and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session
from amibuild.names import Tag


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say whether it runs, with which machines, and what they and its images take."""
    with session(context, as_json=as_json) as run:
        from amibuild import endpoint

        data = endpoint.data_dir()
        facts = endpoint.status()
        found: dict[str, Any] = {"running": facts is not None, "data": str(data)}
        found["removed"] = []
        if facts is None:
            found["removed"] = list(endpoint.tidy(progress=run.story.say))
            found["store"] = stored(data / "local" / "store")
        else:
            found |= facts
            found["totals"] = totals(facts["instances"])
        run.result(status_text(found), found)


def stored(store: Path) -> dict[str, Any] | None:
    """What is kept while no endpoint runs; None when there is nothing, or another one has it."""
    from amibuild.local.garbage import kept
    from amibuild.local.store import Store, StoreBusy

    if not store.exists():
        return None
    try:
        with Store.open(store) as opened:
            return kept(opened)
    except StoreBusy:
        return None


def totals(instances: list[dict[str, Any]]) -> dict[str, int]:
    keys = ("disk_bytes", "disk_allocated_bytes", "memory_bytes")
    return {"instances": len(instances), **{k: sum(one[k] for one in instances) for k in keys}}


def status_text(facts: dict[str, Any]) -> str:
    from amibuild.cli.table import columns
    from amibuild.local.settings import told

    if not facts["running"]:
        return columns([("running", "no"), ("data", facts["data"]), *_store_rows(facts["store"])])
    rows = [
        ("running", f"yes, process {facts['pid']}, since {facts['started']}"),
        ("url", f"http://127.0.0.1:{facts['port']}"),
        ("options", told(facts["settings"])),
        ("data", facts["data"]),
        ("log", facts["log"]),
        *_store_rows(facts["store"]),
    ]
    instances, total = facts["instances"], facts["totals"]
    if not instances:
        return columns(rows)
    machines: list[tuple[str, ...]] = [
        ("instance", "state", "purpose", "driver", "agent", "address", "disk", "memory", "pids")
    ]
    machines += [_machine_row(one) for one in instances]
    last = (f"{total['instances']} in all", "", "", "", "", "", _disk(total))
    machines.append((*last, size_text(total["memory_bytes"]), ""))
    return f"{columns(rows)}\n\n{columns(machines)}"


def _machine_row(one: dict[str, Any]) -> tuple[str, ...]:
    pids = one["pids"]
    return (
        one["id"],
        one["state"],
        one["tags"].get(Tag.PURPOSE, "-"),
        one["driver"],
        "ready" if one["agent"] else "not yet",
        f"{one['address']}:{one['ssh_port']}" if one["address"] else "-",
        _disk(one),
        size_text(one["memory_bytes"]),
        f"{pids[0]} +{len(pids) - 1}" if pids else "-",
    )


def _disk(facts: dict[str, Any]) -> str:
    return f"{size_text(facts['disk_allocated_bytes'])} of {size_text(facts['disk_bytes'])}"


def _store_rows(store: dict[str, Any] | None) -> list[tuple[str, str]]:
    if store is None:
        return []
    counts = ", ".join(f"{k} {store[k]}" for k in ("images", "snapshots", "parameters"))
    rows = [("store", store["path"]), ("", f"{counts}; {size_text(store['block_bytes'])}")]
    return rows + [("damaged", problem) for problem in store["damaged"]]


def size_text(size: int) -> str:
    """`512 B`, `38 MiB`, `7.9 GiB`."""
    value, units = float(size), ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if value < 1000 or unit == units[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
