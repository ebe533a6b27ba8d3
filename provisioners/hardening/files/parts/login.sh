#!/usr/bin/env bash
# reason: A forgotten login shell ends, new files are nobody else's, and passwords set later are strong.
# controls: CIS 5.3.2.2, 5.3.2.3, 5.3.3.1, 5.3.3.2, 5.4.1.2, 5.4.3.2, 5.4.3.3; Lynis AUTH-9230, AUTH-9262, AUTH-9328; ANSSI R31, R32, R36
# proven: fresh boot
# packages: libpam-pwquality
#
# No maximum age of passwords: nobody has one, and PAM would shut keys and sudo out with it. A
# minimum only keeps one that was set from being set back the same day.
set -euo pipefail

set_to() {
    sed -i -E "/^#?[[:space:]]*$1[[:space:]]/d" /etc/login.defs
    printf '%s\t%s\n' "$1" "$2" >>/etc/login.defs
}
set_to UMASK 027
set_to LOGIN_RETRIES 3
set_to PASS_MIN_DAYS 1
set_to LOG_OK_LOGINS yes
set_to ENCRYPT_METHOD YESCRYPT
set_to YESCRYPT_COST_FACTOR 7
# Where a program asks for SHA-512 by its name.
set_to SHA_CRYPT_MIN_ROUNDS 65536
set_to SHA_CRYPT_MAX_ROUNDS 131072
install -m 0644 files/login/session.sh /etc/profile.d/amibuild.sh
install -D -m 0644 files/login/faillock.conf /etc/security/faillock.conf
install -D -m 0644 files/login/pwquality.conf /etc/security/pwquality.conf
install -m 0644 -t /usr/share/pam-configs files/login/amibuild-faillock files/login/amibuild-faillock-ask
DEBIAN_FRONTEND=noninteractive pam-auth-update --enable amibuild-faillock amibuild-faillock-ask
