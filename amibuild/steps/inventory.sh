#!/usr/bin/env bash
# What is on the machine, as JSON for the manifest: packages, units, users, the root disk's use, and
# how long the source image took to boot on it.
set -euo pipefail

python3 - "$AMIBUILD_RESULT" <<'PYTHON'
import json
import os
import pwd
import shutil
import subprocess
import sys


def lines(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


packages = lines("dpkg-query", "--show", "--showformat", "${binary:Package}\t${Version}\t${db:Status-Status}\n")
units = subprocess.run(
    ["systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--plain"],
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
try:
    with open("/usr/share/amibuild-platform/agent") as file:
        platform = file.read().split()
except FileNotFoundError:
    platform = []
def put_off(what):
    try:
        with open(f"/var/lib/amibuild/at-shutdown/{what}") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


# Over SSH some go when the machine shuts down, and with them what they brought.
going, users_going = put_off("packages"), put_off("users")
theirs = {os.path.basename(path[0]) for path in lines("dpkg", "--listfiles", *going)} if going else set()
shown = subprocess.run(
    ["systemctl", "show", "--property=UserspaceTimestampMonotonic,FinishTimestampMonotonic,Virtualization"],
    capture_output=True,
    text=True,
    check=True,
).stdout
about = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
began, ended = (int(about.get(f"{name}TimestampMonotonic") or 0) for name in ("Userspace", "Finish"))
boot = {"seconds": round((ended - began) / 1e6, 2), "machine": about.get("Virtualization") or "none"}
found = {
    "packages": {name: version for name, version, status in packages if status == "installed" and name.split(":")[0] not in going},
    "platform_packages": platform,
    "units_enabled": sorted(line.split()[0] for line in units if line.split() and line.split()[0] not in theirs),
    "users": sorted({user.pw_name for user in pwd.getpwall()} - set(users_going)),
    "root_used_bytes": shutil.disk_usage("/").used,
    "boot": boot if 0 < began < ended else None,
}
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
PYTHON
