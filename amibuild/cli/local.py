"""`amibuild local`: the EC2 on this machine, kept running for other clients and for a look."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from amibuild.cli.options import JsonOption, MachineName, MachineOption
from amibuild.cli.session import session
from amibuild.names import Tag

app = typer.Typer(
    help="The EC2, SSM and S3 endpoint on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("up")
def up(
    context: typer.Context,
    machine: MachineOption = MachineName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Start the endpoint and leave it running; prints what an EC2 client needs."""
    with session(context, as_json=as_json) as run:
        from amibuild.endpoint import start_detached

        endpoint = start_detached(machine=machine.value, progress=run.story.say)
        # Any region works; this one is what the starter recipe names.
        environment = {
            "AWS_ENDPOINT_URL": endpoint.url,
            "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        exports = "\n".join(f"export {name}={value}" for name, value in environment.items())
        run.result(
            exports,
            {
                "url": endpoint.url,
                "pid": endpoint.pid,
                "machine": endpoint.machine,
                "environment": environment,
            },
        )


@app.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say whether it runs, with which machines, and where its images are."""
    with session(context, as_json=as_json) as run:
        from amibuild import endpoint

        data = endpoint.data_dir()
        facts = endpoint.status()
        removed = endpoint.tidy(progress=run.story.say) if facts is None else ()
        found = {"running": facts is not None, "data": str(data), **(facts or {})}
        found["removed"] = list(removed)
        run.result(status_text(found), found)


def status_text(facts: dict[str, Any]) -> str:
    from amibuild.cli.table import columns

    if not facts["running"]:
        return columns([("running", "no"), ("data", facts["data"])])
    rows = [("running", f"yes, process {facts['pid']}, since {facts['started']}")]
    rows += [("url", f"http://127.0.0.1:{facts['port']}"), ("data", facts["data"])]
    machines = [("instance", "state", "purpose", "driver", "agent", "address", "processes")]
    for one in facts["instances"]:
        machines.append(
            (
                one["id"],
                one["state"],
                one["tags"].get(Tag.PURPOSE, "-"),
                one["driver"],
                "ready" if one["agent"] else "not yet",
                f"{one['address']}:{one['ssh_port']}" if one["address"] else "-",
                " ".join(str(pid) for pid in one["pids"]) or "-",
            )
        )
    return columns(rows) + (f"\n\n{columns(machines)}" if facts["instances"] else "")


@app.command("down")
def down(context: typer.Context, as_json: JsonOption = False) -> None:
    """End it with all its machines; images, snapshots and parameters stay."""
    with session(context, as_json=as_json) as run:
        from amibuild import endpoint

        stopped = endpoint.stop()
        run.story.say("it has ended" if stopped else "it was not running")
        removed = endpoint.tidy(progress=run.story.say)
        run.result("", {"stopped": stopped, "removed": list(removed)})


@app.command("reset")
def reset(
    context: typer.Context,
    base: Annotated[
        bool, typer.Option("--base", help="Forget the cached base image too: it is made anew.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End it and forget its images, snapshots and parameters."""
    with session(context, as_json=as_json) as run:
        from amibuild import endpoint
        from amibuild.errors import UsageError

        folder = endpoint.data_dir() / "local"
        asked = sys.stdin.isatty() and not as_json
        if not yes and not (asked and typer.confirm(f"Remove every image in {folder}?", err=True)):
            raise UsageError("nothing was removed", hint="amibuild local reset --yes")
        endpoint.stop()
        removed = forget(folder, base=base)
        for path in removed:
            run.story.say(f"removed {path}")
        run.result("", {"removed": [str(path) for path in removed]})


def forget(folder: Path, *, base: bool) -> list[Path]:
    """Removes the stores, and the cached base image where asked for.

    A store is renamed first: what a kill leaves of it is then no half of one.
    Raises: StoreBusy while another amibuild has it open.
    """
    import shutil

    from amibuild.local.store import Store

    removed = []
    for path in (folder / "store", folder / "none" / "store"):
        doomed = path.with_name(f"{path.name}.removed")
        if doomed.exists():
            shutil.rmtree(doomed)
        if path.exists():
            with Store.open(path):
                path.rename(doomed)
            shutil.rmtree(doomed)
            removed.append(path)
    if base and (folder / "base").exists():
        shutil.rmtree(folder / "base")
        removed.append(folder / "base")
    return removed
