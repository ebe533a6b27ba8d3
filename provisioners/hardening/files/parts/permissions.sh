#!/usr/bin/env bash
# reason: Settings that tell who may do what, and when, are for root's eyes.
# controls: CIS 1.4.2, 2.4.1.2-2.4.1.8, 7.1.1-7.1.9; Lynis FILE-7524; ANSSI R29, R50
# proven: fresh boot
set -euo pipefail

# By systemd-tmpfiles at each boot, so that a package's new version changes nothing.
install -D -m 0644 files/permissions/tmpfiles.conf /etc/tmpfiles.d/amibuild-permissions.conf
systemd-tmpfiles --create /etc/tmpfiles.d/amibuild-permissions.conf
