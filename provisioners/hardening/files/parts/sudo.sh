#!/usr/bin/env bash
# reason: What runs as root by sudo has a terminal of its own and keeps nothing of who called it.
# controls: CIS 5.2.2, 5.2.5, 5.2.6; Lynis AUTH-9250, AUTH-9252; ANSSI R39
# proven: fresh boot
# packages: sudo
set -euo pipefail

install -D -m 0440 files/sudo/amibuild /etc/sudoers.d/amibuild
chmod 0750 /etc/sudoers.d
visudo --check --quiet
