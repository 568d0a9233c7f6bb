# shellcheck shell=bash
# What ./run and ./test need from the system, and how to get it. Sourced, not run.

# Debian keeps network tools and daemons out of a plain user's PATH; rustup puts cargo where only a login shell looks.
PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
export PATH

say() { printf '%s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: directly, or by sudo. Without a terminal sudo must not ask for a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && [ -t 0 ]; then
        sudo "$@"
    elif have sudo; then
        sudo -n "$@"
    else
        return 1
    fi
}

# install_packages PACKAGE...: by apt, quietly. Fails where there is no apt or no way to be root.
install_packages() {
    have apt-get || { say "  no apt-get here"; return 1; }
    as_root true 2>/dev/null || { say "  not root, and sudo is not to be had"; return 1; }
    say "  installing: $*"
    # A shell of its own, which puts away what it has made, also when it is interrupted. One at a time, as dpkg wants it.
    (
        exec 9<"${BASH_SOURCE[0]}"
        flock 9
        policy=
        log=$(mktemp)
        trap 'rm -f "$log"; [ -z "$policy" ] || as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        # The tests start what they need themselves: packages with a service (keepalived, frr, nginx) must not.
        if [ ! -e /usr/sbin/policy-rc.d ]; then
            policy=/usr/sbin/policy-rc.d
            printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy"
        fi
        if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
            tail -n 15 "$log" >&2
            exit 1
        fi
    )
}

# need COMMAND PACKAGE: notes in $wanted what has to be installed.
wanted=()
need() { have "$1" || wanted+=("$2"); }

# A Rust toolchain comes with the machine: which one is its owner's choice.
require_rust() {
    have cargo && return
    say "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer (https://rustup.rs)"
    exit 1
}

# The C compiler builds aws-lc; nothing else outside of cargo is needed to build.
require_compiler() {
    have cc && return
    say "no C compiler:"
    install_packages gcc libc6-dev || { say "install a C compiler (Debian: gcc libc6-dev) and try again"; exit 1; }
}

# run_built DIR PROGRAM ARGUMENT...: a program of this workspace, out of DIR when that is given and has it, else by cargo. That would compile it
# once more with what it depends on, for alone it wants other features of these than beside all others.
run_built() {
    if [ -n "$1" ] && [ -x "$1/$2" ]; then
        "$1/$2" "${@:3}"
    else
        cargo run --quiet --locked --package "$2" -- "${@:3}"
    fi
}

# get_prometheus TARGET: prometheus and promtool, into TARGET/tools and PATH. They are taken out of their package, because installing
# that would start a server.
get_prometheus() {
    PATH="$1/tools/usr/bin:$PATH"
    if have promtool && have prometheus; then return; fi
    say "prometheus: unpacking Debian's package into $1/tools"
    mkdir -p "$1/tools"
    (
        cd "$1/tools" &&
            { apt-get download prometheus || { as_root apt-get update && apt-get download prometheus; }; } >/dev/null 2>&1 &&
            dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb
    )
}
