"""Powers the machine off when nobody has been connected to any service for a while.

Run each minute by idle-stop.timer. Each look is one line of JSON in the journal of idle-stop:
decision, reason, players by service (null: can't be told), minutes left.

/etc/amibuild/idle-stop.toml, read at each look:
  minutes      how long nobody must have been connected; also how long it stays on after a boot
  maintenance  when it never powers off, in UTC: ["Mon..Fri 02:00-04:00", "Sat,Sun 22:00-06:00"]
  dry_run      true: only log that it would power off

/run/amibuild/keep-awake, or /etc/amibuild/keep-awake to outlive a boot, holds the machine on while
it is there and empty, or until the time in it:
  date -u -d '+3 hours' +%FT%TZ >/run/amibuild/keep-awake

A settings file or a service's facts that can't be read leave the machine on; the unit fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from idle_stop.decision import Decision, Look, Memory, Rules, decide
from idle_stop.flows import Known
from idle_stop.machine import CannotTell, Machine
from idle_stop.windows import read_window

SETTINGS = Path("/etc/amibuild/idle-stop.toml")
# In /run: the next boot knows nothing of it.
MEMORY = Path("/run/amibuild/idle-stop/memory.json")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="idle-stop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="print a decision, change nothing")
    parser.add_argument("--check", action="store_true", help="only read the settings")
    asked = parser.parse_args(words)
    machine = Machine()
    try:
        rules = read_rules(SETTINGS.read_text())
        if asked.check:
            return 0
        look = take_look(machine, change=not asked.dry_run)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}; the machine stays on\n")
        return 2
    decision, memory = decide(rules, read_memory(MEMORY), look)
    if not asked.dry_run:
        write_memory(MEMORY, memory)
    dry_run = rules.dry_run or asked.dry_run
    sys.stdout.write(log_line(decision, machine.notes, dry_run=dry_run) + "\n")
    sys.stdout.flush()
    if decision.power_off and not dry_run:
        try:
            machine.ask("systemctl", "poweroff")
        except CannotTell as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


def take_look(machine: Machine, *, change: bool) -> Look:
    """Raises: OSError, ValueError when it is not known which services there are."""
    services = machine.services()
    told = machine.told(services)
    traffic, hidden = machine.traffic(services, change=change)
    utc = datetime.now(UTC)
    return Look(
        now_s=time.monotonic(),
        booted_s=machine.booted_s(),
        utc=utc,
        told=told | hidden,
        traffic=tuple(traffic),
        kept_awake=machine.kept_awake(utc),
    )


def log_line(decision: Decision, notes: Sequence[str], *, dry_run: bool) -> str:
    """Insights of CloudWatch Logs finds the fields of JSON by itself."""
    does = "would-power-off" if dry_run else "power-off"
    return json.dumps(
        {
            "decision": does if decision.power_off else "stay",
            "reason": decision.reason,
            "players": dict(decision.players),
            "newcomers": decision.newcomers,
            "idle_minutes": round(decision.idle_s / 60, 1),
            "minutes_left": round(decision.left_s / 60, 1),
            "notes": list(notes),
        }
    )


def read_rules(text: str) -> Rules:
    """From the settings file. Raises: ValueError, with what is wrong."""
    settings = tomllib.loads(text)
    if unknown := sorted(set(settings) - {"minutes", "maintenance", "dry_run"}):
        raise ValueError(f"{SETTINGS}: there is no setting {', '.join(unknown)}")
    minutes, dry_run = settings.get("minutes", 30), settings.get("dry_run", False)
    windows = settings.get("maintenance", [])
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes > 0:
        raise ValueError(f"{SETTINGS}: minutes must be a number above 0")
    if not isinstance(dry_run, bool):
        raise ValueError(f"{SETTINGS}: dry_run must be true or false")
    if not isinstance(windows, list) or not all(isinstance(window, str) for window in windows):
        raise ValueError(f"{SETTINGS}: maintenance must be a list of strings")
    return Rules(float(minutes), tuple(read_window(window) for window in windows), dry_run)


def read_memory(path: Path) -> Memory | None:
    """None when there is none, or none that can be used: then it counts from now."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        fields = json.loads(path.read_text())
        known = {peer: Known(**values) for peer, values in fields.pop("known").items()}
        return Memory(**fields, known=known)
    return None


def write_memory(path: Path, memory: Memory) -> None:
    """Whole or not at all; it need not outlive a crash of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(memory)))
    new.replace(path)
