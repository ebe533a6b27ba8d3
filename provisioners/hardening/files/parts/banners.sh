#!/usr/bin/env bash
# reason: Who logs in is told that it is recorded, and not which system and version this is.
# controls: CIS 1.6.1, 1.6.2, 1.6.3, 1.6.4, 1.6.5, 1.6.6; Lynis BANN-7126, BANN-7130
# proven: fresh boot
set -euo pipefail

for file in issue issue.net; do
    install -m 0644 files/banners/issue "/etc/$file"
done
install -m 0644 /dev/null /etc/motd
