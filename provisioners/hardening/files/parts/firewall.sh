#!/usr/bin/env bash
# reason: Who scans the machine finds the services' public ports, and silence at all others.
# controls: CIS 4.1.3; Lynis FIRE-4590, FIRE-4512; ANSSI R80
# proven: fresh boot
# packages: nftables
#
# The table is loaded by nftables.service, before the network is up. Each service adds its public
# ports by a file in /etc/nftables.d, which is read when the table is loaded.
set -euo pipefail

install -D -m 0644 files/firewall/nftables.conf /etc/nftables.conf
install -d -m 0755 /etc/nftables.d
[ "$PARAM_SSH" != true ] || PARAM_OPEN_TCP="$PARAM_OPEN_TCP 22"
{
    echo "# What the recipe opens beside the services' ports."
    for protocol in tcp udp; do
        name="PARAM_OPEN_${protocol^^}"
        read -ra ports <<<"${!name}"
        for port in "${ports[@]}"; do
            [[ $port =~ ^[0-9]+$ ]] && [ "$port" -ge 1 ] && [ "$port" -le 65535 ] || {
                echo "open_$protocol: $port is no port" >&2
                exit 1
            }
            echo "add element inet amibuild ${protocol}_open { $port }"
        done
    done
} >/etc/nftables.d/recipe.nft
chmod 0644 /etc/nftables.d/recipe.nft

systemctl enable nftables.service
# Mistakes are told here where they can be: a kernel without nftables can't check rules either.
if nft list tables >/dev/null 2>&1; then
    nft --check --file /etc/nftables.conf
fi
