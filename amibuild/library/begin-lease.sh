#!/usr/bin/env bash
# Begins the machine's lease, or sets it back: the first boot does so by itself, and so does the first
# job. LEASE_S: how long the machine stays without a job from the one who launched it.
set -euo pipefail

# Whoever launched it may die, and nobody else would end it. A transient timer is in /run: no image
# has it. Each job sets it back, however many come in a second (five in ten would end it by systemd's
# own limit); where it is there already, so does this.
begin() {
    systemd-run --quiet --unit=amibuild-lease --on-active="$LEASE_S" \
        --timer-property=AccuracySec=1s --timer-property=StartLimitIntervalSec=0 systemctl poweroff
}
if ! said=$(begin 2>&1) && ! systemctl restart amibuild-lease.timer; then
    echo "this machine can't be told to end by itself: $said" >&2
    exit 1
fi
