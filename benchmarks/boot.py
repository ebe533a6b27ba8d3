"""How long a baked image boots in QEMU, with and without what `os` takes out of the boot.

    python -m benchmarks.boot IMAGE [ROUNDS]

IMAGE is an AMI id of this user's data directory. Its twin is made from it on an nspawn machine that
has those units and files as Debian brings them. Both boot in turns, so that other work on this
machine is the same for both; a first boot each, as every instance's is.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from amibuild.endpoint import LocalEndpoint, open_endpoint
from amibuild.wait import Look, until
from benchmarks.instances import PATIENCE_S, ask, client, launch, terminate

UNDO = """
set -eu
masked=$(find /etc/systemd/system -maxdepth 1 -lname /dev/null -printf '%f ')
[ -z "$masked" ] || systemctl unmask $masked 2>/dev/null
rm -rf /etc/.updated /var/.updated /etc/systemd/system/apt-daily.timer.d \\
    /etc/systemd/system/apt-daily-upgrade.timer.d \\
    /etc/systemd/system/systemd-networkd-wait-online.service.d/amibuild.conf
systemctl enable unattended-upgrades.service 2>/dev/null
cloud-init clean --logs --seed
truncate --size 0 /etc/machine-id
echo "$masked"
"""
BOOTED = """
systemctl is-system-running --wait >/dev/null
systemctl show --property=UserspaceTimestampMonotonic,FinishTimestampMonotonic
systemd-analyze blame --no-pager | head -n 12
"""


def boot(endpoint: LocalEndpoint, image: str) -> tuple[float, str]:
    """Seconds in userspace until the last unit was up, and its slowest units."""
    ids = launch(endpoint, 1, image=image, purpose="verify")
    (answer,) = ask(endpoint, ids, BOOTED)
    terminate(endpoint, ids)
    lines = answer.said.splitlines()
    shown = dict(line.split("=", 1) for line in lines[:2])
    began, ended = (int(shown[f"{name}TimestampMonotonic"]) for name in ("Userspace", "Finish"))
    return (ended - began) / 1e6, "\n".join(lines[2:])


def twin(endpoint: LocalEndpoint, image: str) -> tuple[str, str]:
    """The same image with Debian's own boot, and the units that it has again."""
    ec2: Any = client("ec2", endpoint)
    ids = launch(endpoint, 1, image=image)
    (answer,) = ask(endpoint, ids, UNDO)
    ec2.stop_instances(InstanceIds=ids)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
    made = str(ec2.create_image(InstanceId=ids[0], Name=f"boot-benchmark-{ids[0]}")["ImageId"])

    def look() -> Look[bool]:
        (found,) = ec2.describe_images(ImageIds=[made])["Images"]
        return Look(found["State"], found["State"] == "available" or None)

    until(look, what=made, timeout_s=PATIENCE_S)
    terminate(endpoint, ids)
    return made, answer.said.splitlines()[-1]


def main() -> None:
    image, rounds = sys.argv[1], int((sys.argv[2:3] or ["2"])[0])
    with open_endpoint(machine="auto") as endpoint:
        before, units = twin(endpoint, image)
        try:
            seconds: dict[str, list[float]] = {before: [], image: []}
            blamed = {}
            for _ in range(rounds):
                for one, found in seconds.items():
                    took, blamed[one] = boot(endpoint, one)
                    found.append(took)
        finally:
            client("ec2", endpoint).deregister_image(ImageId=before, DeleteAssociatedSnapshots=True)
    for one, name in ((before, f"with {units.strip()} and Debian's timers"), (image, "as baked")):
        each = ", ".join(f"{took:.1f}" for took in seconds[one])
        sys.stdout.write(f"{name}: {statistics.median(seconds[one]):.1f} s ({each})\n")
        sys.stdout.write(f"{blamed[one]}\n")


if __name__ == "__main__":
    main()
