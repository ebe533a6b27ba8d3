#!/usr/bin/env bash
# The last step on the builder. What is safe to remove now goes now, where a failure is seen; what
# the running system or its agent still needs, or writes when it ends, goes at shutdown. The
# finished disk is looked through afterwards, with the rules of hygiene.py.
set -euo pipefail

if [ -d /run/systemd/system ]; then
    # In /run, so that the image knows nothing of it.
    install -D -m 0600 files/at-shutdown.sh /run/amibuild-seal/at-shutdown.sh
    install -m 0644 files/amibuild-seal.service /run/systemd/system/amibuild-seal.service
    systemctl daemon-reload
    systemctl start amibuild-seal.service
    # Nothing may fill again what is emptied here. The lease stays: it alone ends this machine if
    # whoever launched it dies now.
    systemctl list-units --type=timer --plain --no-legend --no-pager |
        awk '$1 != "amibuild-lease.timer" { print $1 }' | xargs -r -d '\n' systemctl stop || true # one may end by itself meanwhile
    systemctl stop systemd-random-seed.service # saves the seed one last time
    journalctl --relinquish-var || true        # from here on in memory
fi

# A deleted file stays in its blocks, which a snapshot keeps: so what is secret is written over first.
# -u deletes; ext4 and xfs write over a file where it is.
wipe() {
    find "$@" -type f -exec shred --iterations=1 -u {} + 2>/dev/null || true
}

if command -v cloud-init >/dev/null; then
    wipe /var/lib/cloud
    cloud-init clean --logs --seed
fi
# What it wrote for this machine: its network, and who may become root. Each boot writes it anew.
# (Debian 13's cloud-init would also do this, by --configs; Debian 12's can't.)
rm -f /etc/netplan/50-cloud-init.yaml /etc/systemd/network/10-cloud-init-*.network \
    /etc/network/interfaces.d/50-cloud-init* /etc/udev/rules.d/70-persistent-net.rules \
    /etc/ssh/sshd_config.d/50-cloud-init.conf

if [ -z "${AMIBUILD_SSH_USER:-}" ]; then
    bash files/people.sh
elif [ -d /run/systemd/system ]; then
    install -m 0600 files/people.sh /run/amibuild-seal/people.sh
fi

rm -f /usr/sbin/policy-rc.d
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

# EC2 and cloud-init name the machine at boot. "localhost" is what systemd calls unnamed.
echo localhost >/etc/hostname
sed -i '/^127\.0\.1\.1[[:space:]]/d' /etc/hosts

if [ ! -d /run/systemd/system ]; then
    bash files/at-shutdown.sh # no shutdown will follow
fi

# What is not in use need not be in the snapshot, where the disk can be told so. Blocks that were
# freed just now count as in use until that is written.
sync
fstrim / 2>/dev/null || true
