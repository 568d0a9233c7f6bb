# shellcheck shell=bash disable=SC2154
# A Debian 13 for tests, with the packages or without; and how to boot its systemd in namespaces instead of a machine. Sourced.
# The caller sets $work, a directory of its own, and $root in it, and calls power_off before it ends.

top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
target=$(realpath -m "${CARGO_TARGET_DIR:-$top/target}")
binaries=${AMPHORA_BINARIES:-$target/debug}

skip() { printf 'SKIPPED: %s\n' "$*" >&2; exit 0; }

can_be_root() { [ "$(id -u)" -eq 0 ] && command -v mmdebstrap >/dev/null; }

# The root of a Debian as $root_tar, without having to be root.
make_root_tar() {
    root_tar=${AMPHORA_ROOT_TAR:-$target/debian-root.tar}
    [ ! -e "$root_tar" ] || return 0
    mmdebstrap --quiet --format=tar --variant=essential --include=systemd,systemd-sysv,rsyslog,iproute2 trixie "$root_tar.new" >&2 || skip "no Debian to be had"
    mv "$root_tar.new" "$root_tar"
}

# The same in $root.
unpack_root() {
    make_root_tar
    mkdir "$root"
    tar -C "$root" --exclude='./dev/*' -xf "$root_tar"
    mknod -m 0666 "$root/dev/null" c 1 3
}

# make_packages DIR: of the programs that are there.
make_packages() {
    local program
    for program in agent proxy vrrp controller; do
        [ -x "$binaries/amphora-$program" ] || skip "no $binaries/amphora-$program"
    done
    "$top/images/debian/build" --binaries "$binaries" --output "$1" >/dev/null
}

version_of() { dpkg-deb --field "$(find "$1" -name 'amphora-agent_*.deb')" Version; }

# next_version OLD NEW: the packages of OLD, as a later version.
next_version() {
    local deb tree old
    old=$(version_of "$1")
    mkdir "$2"
    for deb in "$1"/*.deb; do
        tree=$2/tree
        dpkg-deb --raw-extract "$deb" "$tree"
        sed -i "s/^Version: .*/Version: $old+next/; s/(= $old)/(= $old+next)/g" "$tree/DEBIAN/control"
        dpkg-deb --root-owner-group -Zgzip -z1 --build "$tree" "$2/$(basename "${deb/_$old/_$old+next}")" >/dev/null
        rm -r "$tree"
    done
}

machine=
group=

# Without devices and networks, which are not the tests', and where nobody logs in.
prepare_boot() {
    hierarchy=$(findmnt --noheadings --types cgroup2 --output TARGET --first-only) || skip "no control groups of version 2"
    group=$hierarchy/amphora-$(basename "$work")
    mkdir "$group" 2>/dev/null || skip "no control group can be made"
    chroot "$root" systemctl --quiet mask systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service \
        console-getty.service getty.target systemd-resolved.service
    : >"$root/etc/fstab"
    write_boot
}

write_boot() {
    cat >"$work/boot" <<'BOOT'
set -e
root=$1 group=$2
echo $$ >"$group/cgroup.procs"
exec unshare --cgroup bash "$root/../boot-inside" "$root"
BOOT
cat >"$work/boot-inside" <<'BOOT'
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# Settings of the whole machine are not this test's; those of its network are in a namespace.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/outside"
mount -t devpts -o ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ip link set lo up
ip link add port0 address 52:54:00:12:34:56 type veth peer name client0
ip address add 10.77.0.9/24 dev client0
ip link set client0 up
ip link add port1 address 52:54:00:12:34:57 type veth peer name client1
ip address add 10.78.0.9/24 dev client1
ip address add fd78::9/64 dev client1 nodad
ip link set client1 up
cd "$root"
pivot_root . run/outside
umount -l /run/outside
exec env -i container=namespaces PATH=/usr/sbin:/usr/bin /usr/lib/systemd/systemd --system --log-target=journal --show-status=0
BOOT
}

# The namespaces of the machine; the second is for what only its network is wanted of.
inside() { [ -n "$machine" ] && nsenter --target "$machine" --all -- "$@"; }
beside() { nsenter --target "$machine" --net -- "$@"; }

boot() {
    unshare --mount --pid --fork --kill-child --net --uts --ipc bash "$work/boot" "$root" "$group" </dev/null >"$work/console" 2>&1 &
    unshared=$!
    eventually "systemd starts" first_process
    eventually "units are started" inside systemctl is-active --quiet multi-user.target
}
first_process() {
    machine=$(tr -d ' ' <"/proc/$unshared/task/$unshared/children") 2>/dev/null
    [ -n "$machine" ] && [ "$(cat "/proc/$machine/comm" 2>/dev/null)" = systemd ] && inside systemctl --quiet list-jobs >/dev/null 2>&1
}
power_off() {
    [ -n "$machine" ] || return 0
    kill -KILL "$machine" 2>/dev/null || true
    wait "$unshared" 2>/dev/null || true
    machine=
    # Units that are gone, or the next boot would find them.
    find "$group" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# eventually WHAT COMMAND...: within a minute
eventually() {
    local what=$1 until=$((SECONDS + ${PATIENCE:-60}))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "not within a minute: $what"
        sleep 0.1
    done
}
