#!/usr/bin/env bash
# Runs the checks that are of the builder, when all is installed there; their result is JSON.
set -euo pipefail

python3 -I -S checks.pyz --json "$AMIBUILD_RESULT"
