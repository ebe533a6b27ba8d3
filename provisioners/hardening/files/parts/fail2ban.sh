#!/usr/bin/env bash
# reason: With `ssh = true` an address that guesses is shut out; without sshd there is no login to guess.
# controls: CIS 5.1.17; Lynis DEB-0880, TOOL-5102, TOOL-5104; ANSSI R79
# proven: fresh boot
set -euo pipefail

[ "$PARAM_SSH" = true ] || exit 0

# It reads the journal by python3-systemd, which it only recommends.
bash files/install.sh fail2ban python3-systemd
install -D -m 0644 files/fail2ban/jail.local /etc/fail2ban/jail.local
systemctl enable fail2ban.service
