#!/usr/bin/env bash
# The table is loaded by nftables.service, before the network is up. Each service adds its public
# ports by a file in /etc/nftables.d, which is read when the table is loaded.
set -euo pipefail

if ! command -v nft >/dev/null; then
    # -cmin: apt gives its lists the server's date as modification time.
    fresh=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -360 -print -quit)
    [ -n "$fresh" ] || apt-get -o DPkg::Lock::Timeout=300 update
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends nftables
fi

install -D -m 0644 files/firewall/nftables.conf /etc/nftables.conf
install -d -m 0755 /etc/nftables.d
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
