#!/usr/bin/env bash
# Runs the checks of steps that have just run on this very machine, once all runs there that would
# after a boot; their result is JSON.
#   RESTARTED  units that have been given another program or configuration, separated by spaces
set -euo pipefail

# A machine that powers itself off when nobody is connected must not do so while somebody works on it.
touch /run/amibuild/keep-awake
systemctl daemon-reload
read -ra units <<<"$RESTARTED"
for unit in "${units[@]}"; do
    # One that does not start is for the checks to tell.
    timeout 60 systemctl restart "$unit" || true
done
# What was enabled since the boot; what runs goes on.
timeout 60 systemctl start default.target || true
# Without the site's packages: what is brought is all it needs.
python3 -I -S rerun.py /run/amibuild/checks --json "$AMIBUILD_RESULT"
