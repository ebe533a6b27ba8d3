#!/usr/bin/env bash
# reason: The memory of a program that crashed holds its secrets; none is written to the disk.
# controls: CIS 1.5.11, 1.5.12, 1.5.13; Lynis KRNL-5820; ANSSI R14
# proven: fresh boot
set -euo pipefail

install -D -m 0644 files/coredumps/limits.conf /etc/security/limits.d/amibuild.conf
install -D -m 0644 files/coredumps/system.conf /etc/systemd/system.conf.d/amibuild-coredumps.conf
install -D -m 0644 files/coredumps/coredump.conf /etc/systemd/coredump.conf.d/amibuild.conf
