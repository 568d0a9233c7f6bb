# shellcheck shell=bash disable=SC2034,SC2154
# Packages of Debian, unpacked, and kept for as long as the mirror has the same. Sourced, after scripts/needs.sh.
# The caller sets $suite, $keyring, $mode (of mmdebstrap), $work (a directory of its own) and $cache, and may set $mirror and $security.

hash_of() { sha256sum | cut -d' ' -f1; }

# Where this machine's apt gets a suite of its own Debian from, which has the others beside it.
configured_mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(CREATED_BY)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)' |
        awk -F'|' -v suite="$1" '$1 == "Packages" && $2 == suite && $3 == "main" && !found { found = $4 } END { print found }'
}

# $sources, of what is given; else those of this machine's apt.
find_mirrors() {
    local codename
    if [ -z "$mirror" ]; then
        # shellcheck disable=SC1091
        codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || true
        [ -z "$codename" ] || mirror=$(configured_mirror "$codename")
        [ -z "$codename" ] || [ -n "$security" ] || security=$(configured_mirror "$codename-security")
        [ -n "$mirror" ] || { say "this machine's apt has no mirror of Debian: say --mirror URL (and --security-mirror URL)"; exit 1; }
    fi
    mirror=${mirror%/} security=${security%/}
    sources=("deb $mirror $suite main" "deb $mirror $suite-updates main")
    if [ -n "$security" ]; then
        sources+=("deb $security $suite-security main")
    else
        say "without security updates: --security-mirror is not given"
    fi
    # mmdebstrap's apt does not read this machine's configuration.
    local proxies
    proxies=$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)
    if [ -n "$proxies" ]; then
        eval "export $(tr '\n' ' ' <<<"$proxies")"
    fi
}

# What the mirrors have now: the hashes of their indices, and the date of the release.
read_releases() {
    local source base name
    indices=
    for source in "${sources[@]}"; do
        read -r _ base name _ <<<"$source"
        /usr/lib/apt/apt-helper download-file "$base/dists/$name/InRelease" "$work/$name" >"$work/log" 2>&1 ||
            { cat "$work/log" >&2; exit 1; }
        indices+=$(grep -E '^ [0-9a-f]{64} .* main/binary-(amd64|all)/Packages$' "$work/$name")
    done
    release_date=$(date -u -d "$(sed -n 's/^Date: //p' "$work/$suite")" +%s)
}

# bootstrap TAR MMDEBSTRAP-ARGUMENT...: a root by mmdebstrap. Without device nodes, which a plain user cannot make; the kernel does.
bootstrap() {
    mmdebstrap --mode="$mode" --architectures=amd64 --keyring="$keyring" --format=tar --aptopt='Acquire::Languages "none"' \
        "${@:2}" "$suite" - "${sources[@]}" >"$work/tar" 2>"$work/log" || { tail -n 30 "$work/log" >&2; exit 1; }
    mmtarfilter --path-exclude='/dev/*' <"$work/tar" >"$1.new"
    rm "$work/tar"
    mv "$1.new" "$1"
}

# debian NAME KEY MMDEBSTRAP-ARGUMENT...: a root of Debian's packages as $cache/NAME-HASH.tar, whose path is in $made.
debian() {
    local name=$1 key
    key="$2 ${*:3} $indices $release_date"
    key=$(hash_of <<<"${key//"$work"/}")
    made=$cache/$name-${key:0:16}.tar
    if [ -e "$made" ]; then
        say "  kept: $made"
        return
    fi
    SOURCE_DATE_EPOCH=$release_date bootstrap "$made" "${@:3}"
}
