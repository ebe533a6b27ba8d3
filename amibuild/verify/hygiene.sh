#!/usr/bin/env bash
# Mounts the image's own disk, attached to this machine as a second one, read-only and without
# replaying its journal, and looks for what must not be in an image.
# VOLUME_ID: the attached volume. hygiene.py: the rules.
set -euo pipefail

# EBS and virtio both show the volume's id without its dash as the disk's serial number.
serial=${VOLUME_ID/-/}
disk=
for _ in $(seq 100); do
    disk=$(lsblk --nodeps --noheadings --output PATH,SERIAL | awk -v s="$serial" '$2 == s { print $1 }')
    [ -n "$disk" ] && [ -b "$disk" ] && break
    sleep 0.3
done
[ -n "$disk" ] || {
    echo "no disk with the serial number $serial; there are:"
    lsblk --nodeps --output PATH,SERIAL,SIZE
    exit 1
}
udevadm settle --timeout=30 || true
# The root file system is the largest one on the disk.
read -r root kind < <(lsblk --bytes --noheadings --raw --output PATH,FSTYPE,SIZE "$disk" |
    awk '$2 == "ext4" || $2 == "xfs" { print $3, $1, $2 }' | sort -rn | awk 'NR == 1 { print $2, $3 }') || true
case $kind in
    ext4) options=ro,noload ;;
    xfs) options=ro,norecovery,nouuid ;;
    *) echo "no root file system on $disk"; exit 1 ;;
esac
at=$(mktemp -d /run/amibuild-disk.XXXXXX)
trap 'umount "$at" && rmdir "$at"' EXIT
mount -t "$kind" -o "$options" "$root" "$at"
python3 hygiene.py "$at" >"$AMIBUILD_RESULT"
