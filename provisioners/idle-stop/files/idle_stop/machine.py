"""Reads the machine: who is connected, how much they sent, what holds it awake.

The commands are run by what is handed in, so that tests can give their answers.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from idle_stop.flows import Traffic
from idle_stop.nft import TABLE, Counted, read_table, table
from idle_stop.windows import keeps_awake

# What a title's own query may take at most; count-players gives up at 10 s.
QUERY_S = 15
COMMAND_S = 30
# The second one outlives a boot.
KEEP_AWAKE = ("run/amibuild/keep-awake", "etc/amibuild/keep-awake")
AT_WORK = {"active", "activating", "reloading", "deactivating"}
LOOPBACK = ("127.", "::1", "::ffff:127.")

Facts = Mapping[str, Any]


class CannotTell(Exception):
    """A question without a usable answer, with the reason."""


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str


Run = Callable[[Sequence[str], str, float], Answer]


def run(words: Sequence[str], stdin: str, timeout_s: float) -> Answer:
    """Raises: CannotTell when it does not run or takes too long."""
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        raise CannotTell(f"{words[0]}: {error}") from error
    return Answer(done.returncode, done.stdout, done.stderr.strip())


@dataclass
class Machine:
    """`notes` are what went wrong while it was read, for the log."""

    root: Path = Path("/")
    run: Run = run
    notes: list[str] = field(default_factory=list)

    def services(self) -> dict[str, Facts]:
        """The facts of each service, by name.

        Raises: OSError, ValueError. A service that nobody knows of may be played on.
        """
        folder = self.root / "etc/amibuild/services"
        return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}

    def booted_s(self) -> float:
        """When systemd started, on the monotonic clock. In a container that clock is the host's."""
        show = ("systemctl", "show", "--property=UserspaceTimestampMonotonic", "--value")
        try:
            return int(self.ask(*show)) / 1e6
        except (CannotTell, ValueError) as error:
            self.notes.append(f"when the machine booted: {error}")
            return 0.0

    def told(self, services: Mapping[str, Facts]) -> dict[str, int | None]:
        """Players by the services' own queries; 0 for those counted by traffic or not at work."""
        told: dict[str, int | None] = dict.fromkeys(services, 0)
        names = [name for name, facts in services.items() if not _by_traffic(facts)]
        asked = [name for name in names if self._at_work(str(services[name]["unit"]))]
        if not asked:
            return told
        program = "/usr/lib/amibuild/count-players"
        try:
            answer = self.run((program, *asked), "", QUERY_S * len(asked))
            if answer.stderr:
                self.notes.append(answer.stderr)
            counted = json.loads(answer.stdout)
            told |= {name: _number(counted.get(name)) for name in asked}
        except (CannotTell, ValueError, AttributeError) as error:
            self.notes.append(f"count-players: {error}")
            told |= dict.fromkeys(asked)
        return told

    def _at_work(self, unit: str) -> bool:
        try:
            return (
                self.ask("systemctl", "show", "--property=ActiveState", "--value", unit) in AT_WORK
            )
        except CannotTell as error:
            self.notes.append(str(error))
            return True

    def traffic(
        self, services: Mapping[str, Facts], *, change: bool
    ) -> tuple[list[Traffic], dict[str, None]]:
        """What each peer from elsewhere sent and got, and the services that may have more of them.

        UDP's packets are counted from the first look on, and anew after somebody flushed all rules;
        with `change` false they are not if they were not before.
        """
        found: list[Traffic] = []
        hidden: dict[str, None] = {}
        for protocol in ("tcp", "udp"):
            owners = ports(services, protocol)
            if not owners:
                continue
            try:
                seen, complete = (
                    self._tcp(owners) if protocol == "tcp" else self._udp(owners, change)
                )
            except CannotTell as error:
                self.notes.append(str(error))
                seen, complete = [], False
            found += seen
            if not complete:
                hidden |= dict.fromkeys(owners.values())
        return found, hidden

    def _tcp(self, owners: Mapping[int, str]) -> tuple[list[Traffic], bool]:
        listed = self.ask("ss", "-HtinO", "state", "established")
        found = (_connection(line, owners) for line in listed.splitlines())
        return [traffic for traffic in found if traffic is not None], True

    def _udp(self, owners: Mapping[int, str], change: bool) -> tuple[list[Traffic], bool]:
        counted = self._table()
        if counted is None or counted.ports != set(owners):
            if not change:
                raise CannotTell("UDP packets are not counted yet")
            self.ask("nft", "-f", "-", stdin=table(owners))
            raise CannotTell("UDP packets are counted from now on")
        if counted.full:
            self.notes.append("there are more UDP peers than can be counted")
        found = [
            Traffic(
                service=owners[packets.port],
                peer=f"{packets.address}:{packets.peer_port}>{packets.port}",
                udp=True,
                heard=packets.heard,
                said=packets.said,
            )
            for packets in counted.packets
        ]
        return found, not counted.full

    def _table(self) -> Counted | None:
        answer = self.run(("nft", "--json", "list", "table", "inet", TABLE), "", COMMAND_S)
        if answer.code != 0:
            return None
        try:
            return read_table(json.loads(answer.stdout))
        except (ValueError, KeyError, TypeError) as error:
            self.notes.append(f"nft's answer: {error!r}")
            return None

    def kept_awake(self, utc: datetime) -> bool:
        """Whether a file holds the machine on now."""
        held = False
        for name in KEEP_AWAKE:
            path = self.root / name
            with contextlib.suppress(FileNotFoundError):
                try:
                    text = path.read_text()
                except (PermissionError, IsADirectoryError, ValueError):
                    text = ""  # somebody wanted the machine on
                if keeps_awake(text, utc):
                    self.notes.append(f"held by /{name}")
                    held = True
        return held

    def ask(self, *words: str, stdin: str = "") -> str:
        """stdout of a command that must work. Raises: CannotTell."""
        answer = self.run(words, stdin, COMMAND_S)
        if answer.code != 0:
            raise CannotTell(f"{words[0]}: {answer.stderr or f'exit code {answer.code}'}")
        return answer.stdout.strip()


def ports(services: Mapping[str, Facts], protocol: str) -> dict[int, str]:
    """The service that is counted by its traffic on a port, by port."""
    return {
        int(port): name
        for name, facts in services.items()
        for port in facts["players"].get(protocol, ())
    }


def _by_traffic(facts: Facts) -> bool:
    return not {"http", "command"} & set(facts["players"])


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _connection(line: str, owners: Mapping[int, str]) -> Traffic | None:
    """From a line of `ss -HtinO`: two queues, both ends, then words as `bytes_received:5`.

    What stayed 0 has no word. Milliseconds since the peer last sent are in `lastrcv`.
    """
    words = line.split()
    if len(words) < 4:
        return None
    (here, port), (peer, _) = _end(words[2]), _end(words[3])
    if port not in owners or peer == here or peer.startswith(LOOPBACK):
        return None
    values = dict(word.split(":", 1) for word in words[4:] if word.count(":") == 1)
    return Traffic(
        service=owners[port],
        peer=f"{words[3]}>{port}",
        udp=False,
        heard=int(values.get("bytes_received", 0)),
        said=int(values.get("bytes_acked", 0)),
        silent_s=int(values.get("lastrcv", 0)) / 1000,
    )


def _end(word: str) -> tuple[str, int]:
    address, _, port = word.rpartition(":")
    return address.strip("[]"), int(port)
