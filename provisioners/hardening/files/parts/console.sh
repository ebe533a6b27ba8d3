#!/usr/bin/env bash
# reason: Neither a key combination at a console nor a forgotten debug shell gets past the login.
# controls: Lynis BOOT-5264; ANSSI R62, R63
# proven: fresh boot
set -euo pipefail

systemctl mask ctrl-alt-del.target debug-shell.service
