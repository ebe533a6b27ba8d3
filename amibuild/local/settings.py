"""What an endpoint is started with, as both sides have it: who starts it, and the endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amibuild.errors import UsageError
from amibuild.local.faults import PLACES, Fault

AUTO = "auto"
NONE = "none"
# Places in the driver `none`, where `--fault` hits no call of the API.
INSIDE = frozenset(PLACES)


@dataclass(frozen=True)
class Settings:
    """A default stands for "not asked for": any endpoint will do then.

    `latency`, `faults` and `script` are written as `local up --help` says; `script` and `call_log`
    are absolute.
    """

    machine: str = AUTO
    port: int = 0
    latency: str = ""
    faults: tuple[str, ...] = ()
    script: Path | None = None
    call_log: Path | None = None

    def check(self) -> None:
        """Raises: UsageError for what can't be read, or means nothing to real machines.

        The endpoint that runs already is not started again, and so does not look.
        """
        if self.machine != NONE:
            self._check_real()
        from amibuild.local.machines.none import Latencies
        from amibuild.local.machines.script import read_script

        Latencies.parse(self.latency)
        for fault in self.faults:
            Fault.parse(fault)
        if self.script:
            read_script(self.script)
        if self.call_log and (self.call_log.is_dir() or not self.call_log.parent.is_dir()):
            raise UsageError(f"--call-log {self.call_log}: no file can be written there")

    def _check_real(self) -> None:
        scripted = [f"--latency {self.latency}"] if self.latency else []
        scripted += [f"--script {self.script}"] if self.script else []
        scripted += [f"--fault {f}" for f in self.faults if f.partition(":")[0] in INSIDE]
        if scripted:
            also = "; calls of the API fail on order with every machine"
            raise UsageError(
                f"{scripted[0]} is for machines that are scripted",
                hint="add --machine none" + (also if "--fault" in scripted[0] else ""),
            )

    def argv(self) -> list[str]:
        """The words that tell it to `python -m amibuild.local.endpoint`."""
        words = ["--machine", self.machine, "--port", str(self.port), "--latency", self.latency]
        for fault in self.faults:
            words += ["--fault", fault]
        words += ["--script", str(self.script)] if self.script else []
        words += ["--call-log", str(self.call_log)] if self.call_log else []
        return words

    def facts(self) -> dict[str, Any]:
        """For `endpoint.json` and the status page: each by its option, as a user writes it."""
        found: dict[str, Any] = {"--machine": self.machine, "--port": str(self.port or "")}
        found["--latency"] = ",".join(sorted(filter(None, self.latency.split(","))))
        found["--fault"] = " --fault ".join(self.faults)
        found["--script"] = _with_digest(self.script) if self.script else ""
        found["--call-log"] = str(self.call_log or "")
        return found

    def told(self) -> str:
        """What was asked for, as the words of the command line."""
        return told(self.facts())

    def differences(self, running: Mapping[str, Any]) -> list[str]:
        """How the endpoint with these `facts` is not what is asked for; empty when it is."""
        default, found = Settings().facts(), []
        for option, asked in self.facts().items():
            there = str(running.get(option, ""))
            if asked in {default[option], there}:
                continue
            found.append(f"{option} {there}, not {asked}" if there else f"no {option} {asked}")
        return found


def folder_of(machine: str) -> str:
    """Where its store is, below the local target's: images that no machine can boot stay apart from
    the real ones.
    """
    return NONE if machine == NONE else ""


def told(facts: Mapping[str, Any]) -> str:
    """`facts` as the words of the command line, without those that are not set."""
    return " ".join(f"{option} {value}" for option, value in facts.items() if value)


def _with_digest(script: Path) -> str:
    """With what is in it: an endpoint that read an older version of the file is another one."""
    try:
        digest = hashlib.sha256(script.read_bytes()).hexdigest()
    except OSError:  # who reads it next tells what is wrong with it
        return str(script)
    return f"{script} (sha256 {digest[:12]})"
