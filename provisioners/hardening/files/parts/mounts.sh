#!/usr/bin/env bash
# reason: What anybody may write to holds no programs, devices or setuid bits; services see no others' processes.
# controls: CIS 1.1.2.1, 1.1.2.2; Lynis FILE-6374, FILE-6344; ANSSI R28, R54
# proven: own kernel
#
# /proc as a whole stays as it is: systemd supports no hidepid there, for its own logind and user
# managers look at others' processes. So each service has a /proc of its own, by ProtectProc=.
set -euo pipefail

install -D -m 0644 files/mounts/tmp.conf /etc/systemd/system/tmp.mount.d/amibuild.conf
install -m 0644 files/mounts/apt.conf /etc/apt/apt.conf.d/90amibuild-tmp
# systemd mounts these before it reads fstab, and mounts them again by what is there.
for line in "devtmpfs /dev devtmpfs nosuid,noexec 0 0" "tmpfs /dev/shm tmpfs nosuid,nodev,noexec 0 0"; do
    grep -qxF "$line" /etc/fstab || echo "$line" >>/etc/fstab
done
