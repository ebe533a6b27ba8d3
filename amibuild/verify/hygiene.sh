#!/usr/bin/env bash
# Mounts the image's own disk, attached to this machine as a second one, read-only and without
# replaying its journal, and looks for what must not be in an image, then in every block of the disk.
# VOLUME_ID: the attached volume. hygiene.py: the rules. known.json: fingerprints of known values, among
# the secrets of the job where somebody has chosen one of them.
# KNOWN_PUBLIC: files and folders whose private keys everybody has, one on a line.
set -euo pipefail

# The names that udev gives a disk end in its serial number: on EBS and virtio the volume's id
# without its dash. An nspawn machine has no udev, and the same name.
serial=${VOLUME_ID/-/}
disk=
for _ in $(seq 400); do
    for link in /dev/disk/by-id/*"$serial"; do
        [ -b "$link" ] && disk=$link && break 2
    done
    sleep 0.3
done
[ -n "$disk" ] || {
    echo "no disk with the serial number $serial; there are:"
    lsblk --nodeps --output PATH,SERIAL,SIZE
    exit 1
}
[ ! -S /run/udev/control ] || udevadm settle --timeout=30 || true
# The root file system is the largest one on the disk.
root='' kind='' largest=0
for part in "$disk" "$disk"-part*; do
    [ -b "$part" ] || continue
    found=$(blkid --probe --output value --match-tag TYPE "$part") || continue
    size=$(blockdev --getsize64 "$part")
    case $found in
        ext4 | xfs) ((size <= largest)) || { root=$part kind=$found largest=$size; } ;;
    esac
done
case $kind in
    ext4) options=ro,noload ;;
    xfs) options=ro,norecovery,nouuid ;;
    *) echo "no root file system on $disk"; exit 1 ;;
esac
at=$(mktemp -d /run/amibuild-disk.XXXXXX)
trap 'umount "$at" && rmdir "$at"' EXIT
mount -t "$kind" -o "$options" "$root" "$at"
mapfile -t public < <(printf '%s' "$KNOWN_PUBLIC")
known=${AMIBUILD_SECRETS:-.}/known.json
python3 hygiene.py "$at" "$disk" "$root" "$known" "${public[@]}" >"$AMIBUILD_RESULT"
