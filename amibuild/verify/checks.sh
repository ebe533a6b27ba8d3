#!/usr/bin/env bash
# Runs the checks once the boot is over; their result is JSON.
set -euo pipefail

# A machine that powers itself off when nobody is connected must not do so under its checks, which
# take longer under emulation than some wait.
touch /run/amibuild/keep-awake
bash first-boot.sh
# Not `degraded` either: which unit failed is a check's own business to say. A service that waits for
# a volume or a secret keeps the boot from ending; some boots under emulation take minutes.
timeout 300 systemctl is-system-running --wait || true
# Without the site's packages: the archive has all it needs, and the search costs time.
python3 -I -S checks.pyz --json "$AMIBUILD_RESULT"
