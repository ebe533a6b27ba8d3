#!/usr/bin/env bash
# reason: A program or setting that was changed behind the administrator's back is told each day.
# controls: CIS 6.3.1, 6.3.2, 6.3.3; Lynis FINT-4350, FINT-4402; ANSSI R76
# proven: fresh boot
# packages: aide
#
# The record is made on the machine, some time after its first boot: the image is not finished here,
# and hashing all of it at boot would hold up the services.
set -euo pipefail

install -D -m 0600 files/aide/aide.conf /etc/aide/aide.conf
install -d -m 0700 /var/lib/aide
install -D -m 0755 files/aide/aide-check /usr/lib/amibuild/aide-check
install -m 0644 -t /etc/systemd/system files/aide/aide-check.service files/aide/aide-check.timer
systemctl enable aide-check.timer
