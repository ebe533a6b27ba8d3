"""Many instances at once on this machine: how long until all are Online, and what they take.

They are made from the base image by the calls of any EC2 client, in nspawn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from amibuild.endpoint import LocalEndpoint, open_endpoint, status
from amibuild.wait import Look, until

BASE = "resolve:ssm:/aws/service/debian/release/13/latest/amd64"
DOCUMENT = "AWS-RunShellScript"
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Answer:
    """What one instance said of itself, asked over Run Command, and where the API has it."""

    instance_id: str
    address: str
    said: str


@dataclass(frozen=True)
class Figures:
    """Seconds, and MiB of all the machines' processes together: what they share counts once."""

    count: int
    online_s: float
    command_s: float
    memory_mib: float
    terminate_s: float


def client(service: str, endpoint: LocalEndpoint) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=endpoint.url,
        aws_access_key_id=endpoint.access_key_id,
        aws_secret_access_key=endpoint.secret_access_key,
    )


def launch(
    endpoint: LocalEndpoint, count: int, *, image: str = BASE, purpose: str = "builder"
) -> list[str]:
    """Their ids, once every one of them is Online in SSM. The purpose chooses nspawn or QEMU."""
    tags = [{"Key": "amibuild:purpose", "Value": purpose}]
    reservation = client("ec2", endpoint).run_instances(
        ImageId=image,
        InstanceType="t3.micro",
        MinCount=count,
        MaxCount=count,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    ids = [str(one["InstanceId"]) for one in reservation["Instances"]]
    ssm = client("ssm", endpoint)

    def look() -> Look[bool]:
        known = ssm.describe_instance_information(MaxResults=50)["InstanceInformationList"]
        online = {one["InstanceId"] for one in known if one["PingStatus"] == "Online"}
        return Look(f"{len(online)} of {count} online", online >= set(ids) or None)

    until(look, what=f"{count} instances", timeout_s=PATIENCE_S)
    return ids


def ask(endpoint: LocalEndpoint, ids: Sequence[str], script: str) -> list[Answer]:
    """One command on all of them at once, and what each of them answered."""
    ec2, ssm = client("ec2", endpoint), client("ssm", endpoint)
    sent = ssm.send_command(
        InstanceIds=list(ids), DocumentName=DOCUMENT, Parameters={"commands": [script]}
    )
    command = sent["Command"]["CommandId"]

    def look() -> Look[list[dict[str, Any]]]:
        found = ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"]
        done = [one for one in found if one["Status"] not in {"Pending", "InProgress", "Delayed"}]
        return Look(f"{len(done)} of {len(ids)} done", done if len(done) == len(ids) else None)

    invocations = until(look, what="the command", timeout_s=PATIENCE_S)
    said = {one["InstanceId"]: one["CommandPlugins"][0]["Output"].strip() for one in invocations}
    described = ec2.describe_instances(InstanceIds=list(ids))["Reservations"]
    address = {
        one["InstanceId"]: str(one["PrivateIpAddress"])
        for reservation in described
        for one in reservation["Instances"]
    }
    return [Answer(id_, address[id_], said[id_]) for id_ in ids]


def memory_mib(data: Path | None = None) -> float:
    """What the machines' processes take together: proportional set size, from /proc."""
    facts = status(data)
    pids = [pid for one in facts["instances"] for pid in one["pids"]] if facts else []
    return sum(_pss_kib(pid) for pid in pids) / 1024


def _pss_kib(pid: int) -> int:
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    except OSError:  # it ended while we looked
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def terminate(endpoint: LocalEndpoint, ids: Sequence[str], data: Path | None = None) -> None:
    """Returns once none of them has a process left."""
    client("ec2", endpoint).terminate_instances(InstanceIds=list(ids))

    def look() -> Look[bool]:
        facts = status(data)
        left = len(facts["instances"]) if facts else 0
        return Look(f"{left} left", True if left == 0 else None)

    until(look, what="their end", timeout_s=PATIENCE_S)


def measure(count: int) -> Figures:
    with open_endpoint(machine="nspawn") as endpoint:
        began = time.perf_counter()
        ids = launch(endpoint, count)
        online = time.perf_counter()
        ask(endpoint, ids, "hostname; cat /proc/sys/kernel/random/boot_id")
        answered = time.perf_counter()
        memory = memory_mib()
        ending = time.perf_counter()
        terminate(endpoint, ids)
        ended = time.perf_counter()
    return Figures(count, online - began, answered - online, memory, ended - ending)


def table(count: int) -> str:
    figures = measure(count)
    rows = [
        (f"{count} instances, until all are Online in SSM", f"{figures.online_s:.1f} s"),
        ("one command on all of them", f"{figures.command_s:.1f} s"),
        ("their memory, shared pages counted once", f"{figures.memory_mib:.0f} MiB"),
        ("terminated, until nothing of them is left", f"{figures.terminate_s:.1f} s"),
    ]
    head = f"| {count} instances at once in nspawn | measured |\n|---|---|\n"
    return head + "".join(f"| {what} | {value} |\n" for what, value in rows)


def main() -> None:
    sys.stdout.write(table(int(sys.argv[1]) if len(sys.argv) > 1 else 10))


if __name__ == "__main__":
    main()
