"""Files to a machine and back: amibuild beside `tar | ssh`, `rsync` and Debian's Packer.

    python -m benchmarks.upload [RUNS]

All in one run, with one nspawn machine, many small files through a proxy that makes the round trip
30 ms, one large one without it. All of it is noise, which no way can press. A job of amibuild's is
more than its upload: it ends when its script has, that counts the files. Needs root.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from amibuild import proc
from amibuild.communicator.base import RemoteJob, check
from amibuild.communicator.ssh import SshCommunicator
from amibuild.communicator.ssh_keys import Identity, new_identity, public_line
from amibuild.communicator.ssh_link import Link, Place
from amibuild.communicator.trees import fetch_tree, send_tree
from amibuild.endpoint import LocalEndpoint, open_endpoint
from amibuild.library.bootstrap import with_ssh
from amibuild.library.step import StepFile
from amibuild.recipe.ssh import Ssh
from amibuild.wait import Look, SystemClock, silent, until
from benchmarks.instances import BASE, client
from tests.local.tcp_proxy import Proxy

ROUND_TRIP_S = 0.030
FILES, FILE_BYTES = 2000, 4096
LARGE_BYTES = 200_000_000
PATIENCE_S = 300.0
HEAD = (
    "| what | how | median | from - to | time beside `tar \\| ssh` | MB sent |\n"
    "|---|---|---|---|---|---|"
)
PLAIN, BACK = "`tar \\| ssh`", "`ssh tar \\| tar`"
# rsync is none of what a machine has.
USER_DATA = b"""\
#!/bin/sh
apt-get update -q && apt-get install -q -y --no-install-recommends rsync
"""


@dataclass(frozen=True)
class Machine:
    address: str
    identity: Identity
    key: Path
    """The private key, as the other clients take it."""

    def ssh(self, port: int) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        chosen = [word for option in options for word in ("-o", option)]
        return ["ssh", *chosen, "-i", str(self.key), "-p", str(port)]

    def runs(self, port: int, script: str) -> bool:
        words = [*self.ssh(port), "admin@127.0.0.1", script]
        return proc.run(words, check=False, timeout_s=PATIENCE_S).exit_code == 0


def launched(endpoint: LocalEndpoint, folder: Path) -> tuple[str, Machine]:
    identity = new_identity()
    user_data = with_ssh(
        USER_DATA,
        host_key=identity.host_key,
        host_public=public_line(identity.host),
        admitted=[public_line(identity.user)],
        root=False,
    )
    ec2 = client("ec2", endpoint)
    made = ec2.run_instances(
        ImageId=BASE,
        InstanceType="c7i.large",
        MinCount=1,
        MaxCount=1,
        UserData=user_data.decode(),
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "amibuild:purpose", "Value": "build"}]}
        ],
    )
    instance = str(made["Instances"][0]["InstanceId"])
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance])
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(identity.user_key)
    return instance, Machine(str(found["PrivateIpAddress"]), identity, key)


def by_job(machine: Machine, port: int, source: Path, *, link: Link, name: str = "") -> None:
    """A whole job on the connection of a bake: from reading the files to its exit code.

    What was sent under the same name before is not sent again.
    """
    files = tuple(StepFile(f"files/{path.name}", path.read_bytes()) for path in source.iterdir())
    script = f"[ $(ls files | wc -l) = {len(files)} ]"
    job = RemoteJob(name or f"upload-{time.monotonic_ns()}", script, 300, files)
    check("the upload", SshCommunicator(link).run(job, silent))


def by_tree(machine: Machine, port: int, source: Path, *, link: Link) -> None:
    send_tree(SshCommunicator(link), source, "/tmp/tree")


def back_by_tree(machine: Machine, port: int, source: Path, *, link: Link) -> None:
    fetch_tree(SshCommunicator(link), "/tmp/up", machine.key.with_name("back"))


def by_tar(machine: Machine, port: int, source: Path, *, pressed: str = "") -> None:
    far = shlex.quote(f"rm -rf /tmp/up; mkdir /tmp/up; tar -x{pressed}f - -C /tmp/up")
    ssh = shlex.join([*machine.ssh(port), "admin@127.0.0.1"])
    near = f"tar -c{pressed}f - -C {shlex.quote(str(source))} ."
    proc.run(["sh", "-c", f"{near} | {ssh} {far}"], timeout_s=PATIENCE_S)


def back_by_tar(machine: Machine, port: int, source: Path) -> None:
    to = machine.key.with_name("back")
    to.mkdir(exist_ok=True)
    ssh = shlex.join([*machine.ssh(port), "admin@127.0.0.1"])
    near = f"tar -xf - -C {shlex.quote(str(to))}"
    proc.run(["sh", "-c", f"{ssh} 'tar -cf - -C /tmp up' | {near}"], timeout_s=PATIENCE_S)


def by_rsync(machine: Machine, port: int, source: Path) -> None:
    machine.runs(port, "rm -rf /tmp/up")
    ssh = shlex.join(machine.ssh(port))
    words = ["rsync", "-a", "-e", ssh, f"{source}/", "admin@127.0.0.1:/tmp/up"]
    proc.run(words, timeout_s=PATIENCE_S)


def by_packer(machine: Machine, port: int, source: Path) -> None:
    """Its communicator alone, by the builder `null`."""
    machine.runs(port, "rm -rf /tmp/up; mkdir /tmp/up")
    template = {
        "builders": [
            {
                "type": "null",
                "ssh_host": "127.0.0.1",
                "ssh_port": port,
                "ssh_username": "admin",
                "ssh_private_key_file": str(machine.key),
            }
        ],
        "provisioners": [{"type": "file", "source": f"{source}/", "destination": "/tmp/up"}],
    }
    file = machine.key.with_name("packer.json")
    file.write_text(json.dumps(template))
    proc.run(["packer", "build", file], timeout_s=PATIENCE_S)


Way = Callable[[Machine, int, Path], None]


def ways(machine: Machine, port: int, link: Link) -> tuple[dict[str, Way], dict[str, str]]:
    """Those that run, in an order in which what is fetched was sent; and why others don't."""
    SshCommunicator(link).boot_id()
    found: dict[str, Way] = {
        "amibuild, a job": functools.partial(by_job, link=link),
        "amibuild, the same job again": functools.partial(by_job, link=link, name="upload"),
        "amibuild, a tree": functools.partial(by_tree, link=link),
        "`tar -z \\| ssh`": functools.partial(by_tar, pressed="z"),
    }
    missing = {}
    if not proc.which("rsync"):
        missing["rsync"] = "it is not installed here"
    elif not machine.runs(port, "command -v rsync"):
        missing["rsync"] = "the machine could not install it"
    else:
        found["rsync"] = by_rsync
    if proc.which("packer"):
        found["Packer"] = by_packer
    else:
        missing["Packer"] = "it is not installed here"
    # Last, so that it lies there whole for those that fetch it.
    found[PLAIN] = by_tar
    found[BACK] = back_by_tar
    found["amibuild, a tree back"] = functools.partial(back_by_tree, link=link)
    return found, missing


def seconds(way: Way, machine: Machine, port: int, source: Path) -> float:
    began = time.perf_counter()
    way(machine, port, source)
    return time.perf_counter() - began


def rows(machine: Machine, source: Path, what: str, delay_s: float, runs: int) -> list[str]:
    """The ways take turns, so that a busy moment of the host is nobody's alone."""
    with Proxy(machine.address, 22, delay_s=delay_s) as proxy, ExitStack() as ending:
        link = Link(Place("127.0.0.1", proxy.port, Ssh()), machine.identity, SystemClock())
        ending.enter_context(closing(link))
        tried, missing = ways(machine, proxy.port, link)
        tried["amibuild, the same job again"](machine, proxy.port, source)
        times: dict[str, list[float]] = {name: [] for name in tried}
        sent = dict.fromkeys(tried, 0)
        for _ in range(runs):
            for name, way in tried.items():
                before = proxy.passed
                times[name].append(seconds(way, machine, proxy.port, source))
                sent[name] = proxy.passed - before
                sys.stderr.write(f"{what}: {name}: {times[name][-1]:.2f} s\n")
            machine.runs(proxy.port, "sudo rm -rf /run/amibuild/upload-*")
            shutil.rmtree(machine.key.with_name("back"))
    found = []
    for name, took in times.items():
        beside = times[BACK if "back" in name or name == BACK else PLAIN]
        median, spread = statistics.median(took), f"{min(took):.2f} - {max(took):.2f}"
        ratio, megabytes = median / statistics.median(beside), sent[name] / 1e6
        row = f"| {what} | {name} | {median:.2f} s | {spread} | {ratio:.2f} | {megabytes:.1f} |"
        found.append(row)
    found += [f"| {what} | {name} | NOT RUN: {why} | | | |" for name, why in missing.items()]
    return found


def main(runs: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="amibuild-upload-") as name,
        open_endpoint() as endpoint,
    ):
        folder = Path(name)
        small, large = folder / "small", folder / "large"
        small.mkdir()
        large.mkdir()
        for number in range(FILES):
            (small / f"{number}").write_bytes(os.urandom(FILE_BYTES))
        (large / "one").write_bytes(os.urandom(LARGE_BYTES))
        instance, machine = launched(endpoint, folder)
        with Proxy(machine.address, 22) as proxy:
            until(
                lambda: Look("booting", machine.runs(proxy.port, "true") or None),
                what="its sshd",
                timeout_s=PATIENCE_S,
            )
            machine.runs(proxy.port, "cloud-init status --wait")  # until rsync is there
        found = rows(machine, small, "2,000 files of 4 KiB at 30 ms", ROUND_TRIP_S / 2, runs)
        found += rows(machine, large, "200 MB", 0.0, runs)
        client("ec2", endpoint).terminate_instances(InstanceIds=[instance])
    sys.stdout.write("\n".join([HEAD, *found, ""]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
