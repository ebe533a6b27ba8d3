#!/usr/bin/env bash
# reason: SSM is the way in, without an open port; with `ssh = true` keys alone let anybody in.
# controls: CIS 5.1.1, 5.1.5, 5.1.7, 5.1.8, 5.1.9, 5.1.17, 5.1.20, 5.1.21; Lynis SSH-7408; ANSSI R62, R67, R79
# proven: fresh boot
set -euo pipefail

if [ "$PARAM_SSH" = true ]; then
    bash files/install.sh openssh-server
    # The first value that sshd reads counts, so no file of a name behind this one undoes it.
    install -D -m 0600 files/sshd/amibuild.conf /etc/ssh/sshd_config.d/00-amibuild.conf
    systemctl enable ssh.service
    rm -f /etc/cloud/cloud.cfg.d/99_amibuild_no_ssh.cfg
else
    if [ -z "${AMIBUILD_SSH_USER:-}" ]; then
        bash files/sshd/remove.sh
    else
        # The bake itself comes by it: so it goes at shutdown, and until then it is a hardened one.
        install -D -m 0600 files/sshd/amibuild.conf /etc/ssh/sshd_config.d/00-amibuild.conf
        install -D -m 0700 files/sshd/remove.sh /var/lib/amibuild/at-shutdown/sshd.sh
        # The inventory of the image is taken before.
        dpkg-query --show --showformat='${Package}\n' openssh-server openssh-sftp-server \
            2>/dev/null | xargs apt-get --simulate purge --auto-remove |
            awk '$1 == "Purg" { print $2 }' >/var/lib/amibuild/at-shutdown/packages
        echo sshd >/var/lib/amibuild/at-shutdown/users
        install -d -m 0755 /etc/nftables.d
        echo "add element inet amibuild tcp_open { 22 }" >/etc/nftables.d/bake.nft
    fi
    install -D -m 0644 files/sshd/no-host-keys.cfg /etc/cloud/cloud.cfg.d/99_amibuild_no_ssh.cfg
fi
