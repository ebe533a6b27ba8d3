#!/usr/bin/env bash
# Brings a dedicated server of Steam into FOLDER: bash steamcmd.sh FOLDER
#   STEAM_APP     number of the app
#   STEAM_BRANCH  such as public or experimental
#   STEAM_USER    the user that steamcmd runs as: it needs no root, and gets none
# steamcmd ends with 0 when it failed and with others when it did not, so it is judged by the
# manifest that it writes: StateFlags 4 is "fully installed", and nothing else is.
set -euo pipefail

folder=$1
tries=5
pause_s=${STEAM_PAUSE_S:-10}
source=/etc/apt/sources.list.d/amibuild-steam.sources
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
manifest="$folder/steamapps/appmanifest_$STEAM_APP.acf"

value_of() {
    [ -f "$manifest" ] || return 0
    sed -n "s/^[[:space:]]*\"$1\"[[:space:]]*\"\([^\"]*\)\".*/\1/p" "$manifest" | head -n 1
}

find_steamcmd() {
    PATH="$PATH:/usr/games" command -v steamcmd
}

# Where this machine has its packages from: its own sources say it, a mirror of the user's included.
mirror_of() {
    # shellcheck disable=SC2016  # apt fills it in
    apt-get indextargets --format '$(REPO_URI)' \
        "Identifier: Packages" "Component: main" "Release: $1" | sed -n 1p
}

# Debian's package, which apt checks by signature: Valve's own archive has no checksum to pin. It is
# for i386, and goes again with all that came along: the titles themselves are not.
install_steamcmd() {
    local suite mirror
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    mirror=$(mirror_of "$suite")
    if [ -z "$mirror" ]; then
        # apt tells of its sources once it has their lists.
        apt-get -o DPkg::Lock::Timeout=300 update || true
        mirror=$(mirror_of "$suite")
    fi
    if [ -z "$mirror" ]; then
        echo "apt has no source of Debian's $suite, where steamcmd could be had" >&2
        exit 1
    fi
    dpkg --add-architecture i386
    printf '%s\n' \
        "Types: deb" "URIs: $mirror" "Suites: $suite" \
        "Components: non-free" "Architectures: i386" \
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" >"$source"
    printf 'steam steam/question select I AGREE\nsteam steam/license note\n' | debconf-set-selections
    # A list that did not come is told by the installation, if it was needed.
    apt-get -o DPkg::Lock::Timeout=300 update || true
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends ca-certificates steamcmd
}

# shellcheck disable=SC2329  # a trap invokes it
remove_steamcmd() {
    local packages
    mapfile -t packages < <(dpkg-query --show --showformat='${Package}:${Architecture}\n' |
        grep ':i386$' || true)
    if [ "${#packages[@]}" -gt 0 ]; then
        # libgcc-s1 and libc6 are essential to a machine of that architecture, which this is not.
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
            purge --yes --allow-remove-essential "${packages[@]}"
    fi
    dpkg --remove-architecture i386
    rm -f "$source"
    # So that the next one who wants packages gets lists of what is left.
    find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -delete
}

if ! find_steamcmd >/dev/null; then
    trap 'rm -rf "$home"; remove_steamcmd' EXIT
    install_steamcmd
fi
steamcmd=$(find_steamcmd) || {
    echo "steamcmd can't be had here: it is in Debian's component non-free, for i386" >&2
    exit 1
}

chown "$STEAM_USER" "$folder" "$home"
for try in $(seq "$tries"); do
    code=0
    # The folder is named before the login, as steamcmd wants it.
    runuser -u "$STEAM_USER" -- env HOME="$home" "$steamcmd" \
        +@ShutdownOnFailedCommand 1 +@NoPromptForPassword 1 \
        +force_install_dir "$folder" +login anonymous \
        +app_update "$STEAM_APP" -beta "$STEAM_BRANCH" validate +quit </dev/null || code=$?
    flags=$(value_of StateFlags)
    if [ "$flags" = 4 ]; then
        echo "app $STEAM_APP, branch $STEAM_BRANCH: build $(value_of buildid)"
        # What it downloaded and logged on the way is none of the title.
        rm -rf "$folder/steamapps/downloading" "$folder/steamapps/temp"
        exit 0
    fi
    echo "try $try of $tries: steamcmd ended with $code; StateFlags ${flags:-missing}, not 4" >&2
    [ "$try" = "$tries" ] || sleep "$pause_s"
done
echo "app $STEAM_APP, branch $STEAM_BRANCH, is not fully installed" >&2
exit 1
