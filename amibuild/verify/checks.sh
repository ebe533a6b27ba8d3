#!/usr/bin/env bash
# Runs the checks once the boot is over; their result is JSON.
set -euo pipefail

# Not `degraded` either: which unit failed is a check's own business to say.
systemctl is-system-running --wait || true
python3 checks.pyz --json "$AMIBUILD_RESULT"
