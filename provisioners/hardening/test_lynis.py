"""Lynis' opinion of the machine: all of its tests, with its own profile.

It is fetched, unpacked, run and removed: neither it nor what it writes stays. On a machine with a
kernel of its own that is the fresh boot. On one that is emulated it takes many minutes, so there
only where the recipe says `lynis = "always"`. In a container the builder is judged, before it is
sealed: its figure is lower, for a part of what Lynis asks is the host's.
"""

from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

Facts = dict[str, Any]
Record = Callable[[str, object], None]

FLOORS = {"container": 76, "virtual machine": 85}
# What they ask is the kernel's, or of what a container has no own of: settings that can't be
# written, the audit, the profiles, the kernel's package.
THE_KERNELS = {"ACCT-9628", "KRNL-5830", "KRNL-6000", "MACF-6208"}
AUDIT = """
set -euo pipefail
at=$(mktemp -d /var/tmp/lynis.XXXXXX)
trap 'rm -rf "$at"' EXIT
cd "$at"
fresh=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -360 -print -quit)
[ -n "$fresh" ] || apt-get -qq -o DPkg::Lock::Timeout=300 update
apt-get -qq download lynis 2>/dev/null
dpkg --extract lynis_*.deb .
mkdir here
ln -s ../usr/share/lynis/{include,db} ../etc/lynis/{plugins,default.prf} ../usr/sbin/lynis here
cd here
./lynis audit system --quick --no-colors --logfile ../log --report-file ../report >../said 2>&1 ||
    { tail -n 20 ../said >&2; exit 1; }
cat ../report
"""
# As the next boot would; a container's sysctl are its network's.
LIKE_BOOTED = "systemctl daemon-reload; systemctl restart systemd-sysctl; systemctl start nftables"
# What the machine does by itself half an hour after its boot.
RECORD = "systemctl start aide-check.service"


# What others look at is of a machine that has just booted, which it no longer is afterwards.
@pytest.mark.last
def test_its_index_is_not_below_the_floor(
    host: Host, facts: Facts, record_property: Record
) -> None:
    machine = host.run("systemd-detect-virt").stdout.strip()
    contained = host.run("systemd-detect-virt --container").rc == 0
    asked = facts["parameters"]["lynis"]
    if asked == "never":
        pytest.skip("the recipe says so")
    if facts.get("on_builder"):
        if not contained:
            pytest.skip(
                f"{machine}: it has a kernel of its own, and is judged once that has booted"
            )
        host.check_output(LIKE_BOOTED)
    elif contained:
        pytest.skip(f"{machine}: a container's kernel is its host's; the builder was judged")
    elif machine == "qemu" and asked != "always":
        pytest.skip("qemu: emulated, where it takes many minutes; lynis is not `always`")
    else:
        host.check_output(RECORD)
    environment = "container" if contained else "virtual machine"
    audit = host.run("bash -c %s", AUDIT)
    assert audit.rc == 0, audit.stderr
    said = audit.stdout.splitlines()
    told = dict(line.split("=", 1) for line in said if "=" in line and "[]=" not in line)
    still_open = {
        line.partition("=")[2].partition("|")[0]
        for line in said
        if line.startswith(("suggestion[]=", "warning[]="))
    }
    index = int(told["hardening_index"])
    record_property("lynis.environment", environment)
    record_property("lynis.machine", machine)
    record_property("lynis.version", told["lynis_version"])
    record_property("lynis.index", index)
    record_property("lynis.floor", FLOORS[environment])
    record_property("lynis.tests", int(told["lynis_tests_done"]))
    record_property("lynis.open", " ".join(sorted(still_open)))
    lost = still_open & THE_KERNELS if contained else set()
    record_property("lynis.lost", " ".join(sorted(lost)))
    # Of what it was told to leave out: nothing.
    assert "test_skipped" not in told
    assert index >= FLOORS[environment], f"{index}; open: {' '.join(sorted(still_open))}"
