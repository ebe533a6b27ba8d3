"""What a service could do that has fallen into wrong hands: each attempt must fail to get through.

attack/ makes the attempts in a copy of the unit as it is on the machine, drop-ins included, that
differs in its program alone. As root without a sandbox it makes the same ones: what can't get
through there proves nothing here. On a virtual machine or EC2 there is no such attempt.
"""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]
# Attack -> {"by": what refuses it, "how": attempt -> its error, or `through`}.
Found = dict[str, dict[str, Any]]

THROUGH = "through"
# What the copy has in place of the service's own.
REPLACED = (
    *("Type", "WorkingDirectory", "ExecStart", "ExecStartPre", "ExecStop", "KillSignal"),
    *("TimeoutStopSec", "SuccessExitStatus", "Restart", "RestartSec", "RestartSteps"),
    *("RestartMaxDelaySec", "Sockets", "StandardInput", "StandardOutput", "StandardError"),
    *("After", "Requires", "WantedBy"),
)
PROGRAM = "/usr/bin/python3 -S -s -B -m attack"
UNITS, WORK = Path("/run/systemd/system"), Path("/run/amibuild-attack")
UNBOUND = Path("/run/amibuild-attack-unbound.json")
SHARED = [Path(folder, "amibuild-left-here") for folder in ("/tmp", "/var/tmp", "/dev/shm")]
# What an image with one service has no other of: in a folder that everybody may enter, a folder and
# a file that only their modes close to everybody but their owner, who is in every Debian.
DECOY = Path("/run/amibuild-attack-decoy")
DECOYS = DECOY / "folder", DECOY / "file"
DECOY_OWNER = "daemon"
# The kernel of an nspawn machine is the host's, and lets nobody there do these. They are proven
# where the image boots by itself.
NOT_IN_A_CONTAINER = {
    "change a setting of the kernel",
    "load a kernel module",
    "load a program into the kernel",
    "read the kernel's log",
}
METADATA = "reach the metadata address"
RUN = "run a program of its own"
# Of what `allowed` names, an attack of which only these attempts may get through.
OPEN_IN_PART = {RUN: {"its state", "its state, by the loader"}}
NOTHING = "nothing to try here"
NOT_SHOWN = "not shown here: the kernel is the host's"


def test_nothing_gets_out_of_its_sandbox(
    host: Host, facts: Facts, record_property: Callable[[str, object], None]
) -> None:
    services = services_of(host)
    others = [one for one in services if one["name"] != facts["name"]]
    free = unbound(host, facts, services)
    order = order_of(host, facts, others)
    bound = attacked(host, f"{facts['name']}-attack", copy_of(host, facts), order)
    open_here = allowed(host, facts)
    closed = closed_to_everybody(host)
    blunt = {
        name: refused
        for name, one in free.items()
        if (refused := {k: v for k, v in refused_in(one).items() if (name, k) not in closed})
    }
    if in_container(host):
        assert set(blunt) <= NOT_IN_A_CONTAINER, blunt
    else:
        assert blunt == {}, f"these prove nothing: {blunt}"
    for name, one in bound.items():
        assert set(one["how"]) <= set(free[name]["how"]), "not tried without a sandbox"
        record_property(f"attack.{name}", told(name, one, blunt.get(name, {}), open_here))
    through = {name: got_through(name, one, open_here) for name, one in bound.items()}
    assert {name: what for name, what in through.items() if what} == {}


def refused_in(one: dict[str, Any]) -> dict[str, str]:
    return {what: how for what, how in one["how"].items() if how != THROUGH}


def told(name: str, one: dict[str, Any], blunt: dict[str, str], open_here: dict[str, str]) -> str:
    """What the manifest says of an attack. `blunt` are its attempts that prove nothing here."""
    refused = refused_in(one)
    proven = sorted({how for what, how in refused.items() if what not in blunt})
    by = f"{one['by']} ({', '.join(proven)})"
    if name in open_here:
        in_part = name in OPEN_IN_PART and proven
        return f"{open_here[name]}, elsewhere {by}" if in_part else open_here[name]
    if not one["how"]:
        return NOTHING
    if proven:
        return by
    return NOT_SHOWN if refused else THROUGH


def got_through(name: str, one: dict[str, Any], open_here: dict[str, str]) -> list[str]:
    """The attempts that did and should not have."""
    may = OPEN_IN_PART.get(name, set(one["how"])) if name in open_here else set()
    return sorted(set(one["how"]) - set(refused_in(one)) - may)


def in_container(host: Host) -> bool:
    return bool(host.run("systemd-detect-virt --container").rc == 0)


def closed_to_everybody(host: Host) -> set[tuple[str, str]]:
    """Attempts that the machine itself refuses, to root too: programs where a mount is noexec."""
    found = set()
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        options = host.check_output("findmnt --noheadings --output OPTIONS --target %s", folder)
        if "noexec" in options.strip().split(","):
            found |= {(RUN, folder), (RUN, f"{folder}, by the loader")}
    return found


def allowed(host: Host, facts: Facts) -> dict[str, str]:
    """What the title needs, as its service.toml says, and what this machine can't refuse."""
    found = {}
    if facts["runtime"] == "mono":
        found["talk to the system's bus"] = "open: Mono makes sockets of that kind"
    if facts["runtime"] != "native":
        found["make machine code in its memory"] = "open: its runtime does"
    if facts["runs_from_state"]:
        found[RUN] = "open: its program lies in its state directory"
    if facts["uses_role"]:
        found[METADATA] = "open: uses_role"
    # The unit's own rule is the kernel's BPF, which an nspawn machine has not.
    elif in_container(host) and host.run("nft list table inet %s", facts["user"]).rc != 0:
        found[METADATA] = "not shown here: no BPF, and no step `hardening`"
    return found


def unbound(host: Host, facts: Facts, services: list[Facts]) -> Found:
    """The attempts of all services at once, made by the first one's check for all of them."""
    if not UNBOUND.exists():
        found = attacked(host, "unbound-attack", ["[Service]"], order_of(host, facts, services))
        UNBOUND.write_text(json.dumps(found))
    known: Found = json.loads(UNBOUND.read_text())
    return known


def services_of(host: Host) -> list[Facts]:
    """The facts of all services of the machine."""
    rest = host.run("cat /etc/amibuild/services/*.json").stdout.strip()
    decoder, found = json.JSONDecoder(), []
    while rest:
        one, end = decoder.raw_decode(rest)
        rest = rest[end:].strip()
        found.append(one)
    return found


def order_of(host: Host, facts: Facts, others: list[Facts]) -> str:
    """Its folders, and what others have: services, systemd, the journal."""
    units = ["systemd-journald.service", *(other["unit"] for other in others)]
    shown = host.check_output("systemctl show --property=Id,MainPID " + " ".join(units))
    blocks = [dict(line.split("=", 1) for line in b.splitlines()) for b in shown.split("\n\n")]
    running = [f"{one['Id']} {one['MainPID']}" for one in blocks if one["MainPID"] != "0"]
    secret = [other for other in others if other["secrets"]]
    order = {
        "mine": {"state": facts["state_directory"], "config": facts["config_directory"]},
        "others": {
            "state": [other["state_directory"] for other in others],
            "config": [other["config_directory"] for other in others],
            "secrets": [f"/run/amibuild/secrets/{other['name']}" for other in secret],
            "credentials": [f"/run/credentials/{other['unit']}" for other in secret],
            "decoy": [str(path) for path in DECOYS],
            "shared": [str(path) for path in SHARED],
            "processes": ["systemd 1", *running],
        },
    }
    return base64.b64encode(json.dumps(order).encode()).decode()


def copy_of(host: Host, facts: Facts) -> list[str]:
    """The unit as systemd has read it, but for its program."""
    lines = host.check_output("systemctl cat %s", facts["unit"]).splitlines()
    kept = [line for line in lines if line.partition("=")[0] not in REPLACED]
    assert "ProtectSystem=strict" in kept
    return [*kept, "[Service]"]


def attacked(host: Host, name: str, lines: list[str], order: str) -> Found:
    """What the attempts come to in this unit, which is gone afterwards."""
    shutil.copytree(Path(__file__).with_name("attack"), WORK / "attack", dirs_exist_ok=True)
    own = [f"WorkingDirectory={WORK}", f"StandardOutput=truncate:{WORK}/found", "Type=oneshot"]
    unit = UNITS / f"{name}.service"
    unit.parent.mkdir(exist_ok=True)
    unit.write_text("\n".join([*lines, *own, f"ExecStart={PROGRAM} {order}", ""]))
    for path in SHARED:
        path.write_text("for everybody")
    plant_decoys()
    try:
        done = host.run("systemctl start %s", unit.name)
        if done.rc:
            log = host.run("journalctl --no-pager --lines=20 --unit %s", unit.name).stdout
            raise AssertionError(done.stderr + log)
        found: Found = json.loads((WORK / "found").read_text())
        return found
    finally:
        for path in (unit, *SHARED):
            path.unlink()
        shutil.rmtree(WORK)
        shutil.rmtree(DECOY)
        host.run("systemctl reset-failed %s", unit.name)


def plant_decoys() -> None:
    folder, file = DECOYS
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text("for its owner alone")
    for path in DECOYS:
        shutil.chown(path, DECOY_OWNER, DECOY_OWNER)
    # Explicitly, for a umask takes of what mkdir is told.
    DECOY.chmod(0o755)
    folder.chmod(0o700)
    file.chmod(0o600)
