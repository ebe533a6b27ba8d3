#!/usr/bin/env bash
# Waits for cloud-init: packages must not be touched while it works.
set -euo pipefail

if ! command -v cloud-init >/dev/null; then
    echo "no cloud-init here"
    exit 0
fi
# 0: done; 2: done, with errors that it got over (cloud-init status, since 23.4).
code=0
cloud-init status --wait --long || code=$?
case $code in
    0 | 2) ;;
    *)
        tail -n 40 /var/log/cloud-init-output.log || true
        exit "$code"
        ;;
esac
