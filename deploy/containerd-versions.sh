#!/bin/bash
# Fetches the other containerd lines that ecsd must work with, for the tests: 1.7 from Debian trixie and
# 2.x from sid, unpacked below target/containerd/<version>/ and used from there. The system's own apt
# state and packages are not touched; nothing is installed. The machine's runc serves all of them.
#
#   deploy/containerd-versions.sh           both
#   target/containerd/versions              what there is: <suite> <package version> <directory from here>
#
# Where a line can't be had the tests do without, and this says so loudly; that is not an error.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
OUT=$PWD/target/containerd
# The mirror that this machine uses for its own packages.
MIRROR=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -1)}
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
# suite, and the version that was there when this was written: sid moves on.
LINES=("trixie 1.7.24" "sid 2.1.9")

say() { echo "containerd-versions: $*"; }
skip() { echo "containerd-versions: *** SKIPPED $1: $2. The tests run without this version. ***" >&2; }

fetch() {
    local suite=$1 expected=$2 apt package version directory
    apt=$OUT/.apt-$suite
    mkdir -p "$apt"/{etc/apt.conf.d,etc/preferences.d,etc/trusted.gpg.d,state/lists/partial,cache/archives/partial}
    echo "deb [signed-by=$KEYS] $MIRROR $suite main" >"$apt/etc/sources.list"
    touch "$apt/state/status"
    # The dates of a mirror say nothing about a pinned test input; its signature does.
    local private=(-o Dir::Etc="$apt/etc" -o Dir::State="$apt/state" -o Dir::State::status="$apt/state/status"
        -o Dir::Cache="$apt/cache" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o APT::Sandbox::User=root -o APT::Update::Post-Invoke-Success::= -o Acquire::Languages=none
        -o Acquire::Check-Date=false -o Acquire::Check-Valid-Until=false -o Acquire::Retries=2
        -o Acquire::http::Timeout=30)
    apt-get "${private[@]}" update -qq 2>"$apt/log" || { skip "$suite" "its package list can't be fetched ($(tail -1 "$apt/log"))"; return; }
    (cd "$apt/cache" && rm -f containerd_*.deb && apt-get "${private[@]}" download -qq containerd 2>>"$apt/log") ||
        { skip "$suite" "containerd can't be downloaded ($(tail -1 "$apt/log"))"; return; }
    package=$(ls "$apt"/cache/containerd_*.deb)
    version=$(dpkg-deb -f "$package" Version)
    directory=$OUT/${version%%[~+]*}
    [ "$(basename "$directory")" = "$expected" ] || say "$suite has $version by now (it was $expected)"
    rm -rf "$directory.part"
    dpkg-deb -x "$package" "$directory.part" || { skip "$suite" "the package does not unpack"; return; }
    # Points at a runc that is not in this package; found first, it would hide the machine's.
    rm -f "$directory.part/usr/bin/runc"
    "$directory.part/usr/bin/containerd" --version >/dev/null 2>>"$apt/log" ||
        { skip "$suite" "containerd $version does not start here ($(tail -1 "$apt/log"))"; return; }
    rm -rf "$directory" && mv "$directory.part" "$directory"
    rm -rf "$apt"
    echo "$suite $version ${directory#"$PWD/"}" >>"$OUT/versions"
    say "$suite: $version in $directory"
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { skip "all" "this is not a Debian machine"; exit 0; }
[ -e "$KEYS" ] || { skip "all" "$KEYS is missing (package debian-archive-keyring)"; exit 0; }
[ -n "$MIRROR" ] || { skip "all" "this machine has no package lists (run apt-get update, or set DEBIAN_MIRROR)"; exit 0; }
mkdir -p "$OUT" && touch "$OUT/versions"
for line in "${LINES[@]}"; do
    read -r suite expected <<<"$line"
    have=$(awk -v s="$suite" '$1 == s {print $3}' "$OUT/versions")
    if [ -n "$have" ] && [ -x "$have/usr/bin/containerd" ]; then
        say "$suite: $(basename "$have") is there"
        continue
    fi
    sed -i "/^$suite /d" "$OUT/versions"
    fetch "$suite" "$expected"
done
