#!/usr/bin/env bash
# reason: The kernel tells less of itself, believes no stranger's routing, and lets nobody trace others.
# controls: CIS 1.5.1-1.5.9, 3.3.1, 3.3.2; Lynis KRNL-6000; ANSSI R9, R11, R12, R14
# proven: own kernel
set -euo pipefail

# Behind Debian's own, so that these have the last word; systemd-sysctl reads them at boot.
install -D -m 0644 files/sysctl/amibuild.conf /etc/sysctl.d/90-amibuild.conf
