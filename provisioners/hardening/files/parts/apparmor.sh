#!/usr/bin/env bash
# reason: The kernel itself keeps a service from the system's secrets, even if it became root.
# controls: CIS 1.3.1.1, 1.3.1.2, 1.3.1.3; Lynis MACF-6204, MACF-6208; ANSSI R37, R45
# proven: own kernel
# packages: apparmor
#
# The package `apparmor` brings a hundred profiles, nearly all for programs of a desktop, and an
# emulated machine compiled them for 17 s at each first boot. They are left out; those that come with
# their programs' own packages stay. One of ours is for all services: their units name it.
set -euo pipefail

install -m 0644 files/apparmor/amibuild-service /etc/apparmor.d/amibuild-service
kept=(amibuild-service lsb_release)
install -d -m 0755 /etc/apparmor.d/disable
mapfile -t bundled < <(dpkg-query --listfiles apparmor | grep -x '/etc/apparmor\.d/[^/]*')
for profile in "${bundled[@]}"; do
    name=$(basename "$profile")
    if [ -f "$profile" ] && [[ " ${kept[*]} " != *" $name "* ]]; then
        ln -sfn "$profile" "/etc/apparmor.d/disable/$name"
    fi
done
install -D -m 0644 files/apparmor/quick.conf /etc/systemd/system/apparmor.service.d/amibuild.conf
systemctl enable apparmor.service
