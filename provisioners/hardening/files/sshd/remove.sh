#!/usr/bin/env bash
# Takes sshd out. Over SSH that waits until the builder shuts down, and seal runs this then.
set -euo pipefail

# Those that dpkg knows: apt, without its lists, has not heard of the others.
mapfile -t there < <(dpkg-query --show --showformat='${Package}\n' \
    openssh-server openssh-sftp-server 2>/dev/null || true)
[ "${#there[@]}" -eq 0 ] || DEBIAN_FRONTEND=noninteractive apt-get \
    -o DPkg::Lock::Timeout=300 purge --auto-remove --yes "${there[@]}"
rm -rf /etc/ssh/sshd_config.d /etc/ssh/sshd_config /etc/systemd/system/ssh*.service.d
rm -f /etc/nftables.d/bake.nft
