#!/usr/bin/env bash
# Begins the machine's lease, then waits for cloud-init: packages must not be touched while it works.
# LEASE_S: how long the machine stays without a job from the one who launched it.
set -euo pipefail

# Whoever launched it may die, and nobody else would end it. A transient timer is in /run: no image
# has it. Each job sets it back, however many come in a second (five in ten would end it by systemd's
# own limit); where it is there already, so does this one.
begin() {
    systemd-run --quiet --unit=amibuild-lease --on-active="$LEASE_S" \
        --timer-property=AccuracySec=1s --timer-property=StartLimitIntervalSec=0 systemctl poweroff
}
if ! said=$(begin 2>&1) && ! systemctl restart amibuild-lease.timer; then
    echo "this machine can't be told to end by itself: $said" >&2
    exit 1
fi

if ! command -v cloud-init >/dev/null; then
    echo "no cloud-init here"
    exit 0
fi
# 0: done; 2: done, with errors that it got over (cloud-init status, since 23.4).
code=0
cloud-init status --wait --long || code=$?
case $code in
    0 | 2) ;;
    *)
        tail -n 40 /var/log/cloud-init-output.log || true
        exit "$code"
        ;;
esac
