#!/usr/bin/env bash
# Runs the checks once the boot is over; their result is JSON.
set -euo pipefail

bash first-boot.sh
# Not `degraded` either: which unit failed is a check's own business to say.
systemctl is-system-running --wait || true
# Without the site's packages: the archive has all it needs, and the search costs time.
python3 -I -S checks.pyz --json "$AMIBUILD_RESULT"
