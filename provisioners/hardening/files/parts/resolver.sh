#!/usr/bin/env bash
# reason: Names come from the network's name server, not from whoever answers first on the same link.
# controls: CIS 2.1.2, 2.1.23; Lynis NETW-3012; ANSSI R63, R80
# proven: fresh boot
set -euo pipefail

install -D -m 0644 files/resolver/amibuild.conf /etc/systemd/resolved.conf.d/amibuild.conf
