#!/usr/bin/env bash
# reason: A protocol or file system that nobody uses can't be loaded to reach the holes in it.
# controls: CIS 1.1.1, 3.2; Lynis NETW-3200, USB-1000, STRG-1846; ANSSI R10
# proven: own kernel
set -euo pipefail

install -D -m 0644 files/modules/amibuild.conf /etc/modprobe.d/amibuild.conf
