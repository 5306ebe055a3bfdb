#!/bin/bash
# Brings a bare Debian 12 (or later) machine to where ecsd can be built, run and tested.
#
#   deploy/setup.sh            what building and running needs
#   deploy/setup.sh --test     and what the tests need (a registry, Python for the aws CLI and the fuzz seeds, g++,
#                              crun)
#   deploy/setup.sh --bench    and what the benches compare with (dockerd)
#
# Safe to repeat: it installs what is missing, says so, and touches nothing else. Packages that it
# installs start no service, now or at the next boot, but for containerd, which ecsd needs.
set -euo pipefail

PACKAGES=(containerd runc protobuf-compiler nftables iproute2 busybox-static gcc libc6-dev make pkg-config
          ca-certificates git)
# g++ builds libFuzzer; crun is another OCI runtime than runc.
TEST=(docker-registry apache2-utils python3-venv python3-pip g++ crun)
BENCH=(docker.io)
# Services of packages that we want for their programs alone.
PROGRAMS_ONLY=(docker-registry.service docker.service docker.socket)
RUST_MIN=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$(dirname "$0")/../Cargo.toml")

say() { echo "setup: $*"; }
fail() { echo "setup: ERROR: $*" >&2; exit 1; }

want_test=
for argument in "$@"; do
    case $argument in
        --test)  want_test=1; PACKAGES+=("${TEST[@]}") ;;
        --bench) PACKAGES+=("${BENCH[@]}") ;;
        -h|--help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown argument $argument (see --help)" ;;
    esac
done

export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"
command -v cargo >/dev/null || PACKAGES+=(curl)

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# A program counts, wherever it came from: containerd.io is as good as containerd, a runc of one's own too.
provided() {
    case $1 in
        containerd|runc|git|curl|make|gcc|g++) command -v "$1" >/dev/null ;;
        docker.io) command -v dockerd >/dev/null ;;
        *) false ;;
    esac
}

missing=()
for package in "${PACKAGES[@]}"; do
    installed "$package" || provided "$package" || missing+=("$package")
done

install_missing() {
    [ "$(id -u)" = 0 ] || fail "run this as root, or install by hand: apt-get install ${missing[*]}"
    command -v apt-get >/dev/null || fail "no apt-get here; install by hand what these Debian packages hold: ${missing[*]}"
    say "installing: ${missing[*]}"
    # Debian starts a service as soon as its package is unpacked; 101 is "not allowed".
    local policy=/usr/sbin/policy-rc.d
    [ ! -e $policy ] || mv $policy $policy.before-ecsd
    trap 'rm -f '$policy'; [ ! -e '$policy'.before-ecsd ] || mv '$policy'.before-ecsd '$policy EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}"
    if command -v systemctl >/dev/null; then
        for unit in "${PROGRAMS_ONLY[@]}"; do
            for package in "${missing[@]}"; do
                if [ "${unit%%.*}" = "${package%%.*}" ]; then
                    systemctl disable --quiet "$unit" 2>/dev/null && say "$unit stays off" || true
                fi
            done
        done
    fi
}

if [ ${#missing[@]} -gt 0 ]; then
    install_missing
else
    say "all packages are there"
fi

if ! command -v cargo >/dev/null; then
    say "no Rust toolchain here, and Debian's is too old: fetching the current one from https://sh.rustup.rs into ~/.cargo"
    curl --proto '=https' --tlsv1.2 --retry 3 -sSf https://sh.rustup.rs |
        sh -s -- -y --quiet --profile minimal --component rustfmt --component clippy --no-modify-path ||
        fail "could not fetch Rust: is there a way to https://static.rust-lang.org from here?"
fi

rust=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$RUST_MIN" "${rust%%-*}" | sort -V | head -1)" != "$RUST_MIN" ]; then
    fail "rustc is $rust ($(command -v rustc)), and ecsd needs $RUST_MIN: run 'rustup update stable'; where rustc is a Debian package, remove it (apt-get remove rustc cargo) and run this again"
fi
say "rustc $rust"

if [ -n "$want_test" ]; then
    for component in fmt clippy; do
        cargo $component --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || fail "cargo $component is missing, and so is rustup to add it"
        say "adding cargo $component"
        rustup component add "$([ $component = fmt ] && echo rustfmt || echo clippy)"
    done
fi
say "done"
