#!/usr/bin/env bash
# Packer's amazon-ebs as it comes: its waits, its temporary key pair and group, SSH on port 22.
set -euo pipefail
export CHECKPOINT_DISABLE=1 PS4='$ '
set -x
packer validate packer.json
packer build -color=false packer.json
