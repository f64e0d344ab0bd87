#!/bin/bash
# Builds the lab's guest: kernel (uncompressed, PVH), initrd.cpio, system.qcow2, and guest.json with their
# digests, into ~/.cache/zhengyun/guest/HASH, where HASH covers every input. Prints that folder on
# standard output, progress on standard error. With a warm cache it only hashes (well under 1 s).
#
# Needs: cargo, apt-get (to download the kernel package, which is unpacked and never installed),
# busybox-static, cpio, lz4, e2fsprogs, qemu-utils. Override the cache with ZHENGYUN_CACHE.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
cache=${ZHENGYUN_CACHE:-$HOME/.cache/zhengyun}/guest
target=x86_64-unknown-linux-gnu
modules=(virtio/virtio_ring virtio/virtio virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev
    virtio/virtio_pci net/net_failover net/virtio_net block/virtio_blk acpi/button input/evdev
    scsi/scsi_common scsi/scsi_mod scsi/virtio_scsi cdrom/cdrom scsi/sr_mod)
# Under software emulation each of these saves boot time (measured: 1.1 s of 3.6 together): waits for
# grace periods, self-tests of cryptography, security modules that this guest does not use.
command_line="console=ttyS0 quiet tsc=reliable no_timer_check nokaslr mitigations=off panic=1 \
rcupdate.rcu_expedited=1 cryptomgr.notests lsm= audit=0"

say() { echo "guest image: $*" >&2; }
die() { say "$*"; exit 1; }

for tool in cargo apt-get apt-cache dpkg-deb cpio lz4 mke2fs qemu-img flock; do
    command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null ||
        die "$tool is missing; run scripts/setup.sh"
done
PATH=$PATH:/usr/sbin
busybox=$(command -v busybox) || die "busybox is missing; run scripts/setup.sh (package busybox-static)"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

# Debian's kernel package moves with each security fix, and old ones leave the mirror. Once built, a
# guest stays on its kernel until somebody removes the file that remembers it.
remembered=$cache/kernel-package
if [ ! -s "$remembered" ]; then
    found=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -1)
    if [ -z "$found" ]; then
        say "package lists are empty; apt-get update"
        apt-get update -qq >&2
        found=$(apt-cache depends linux-image-cloud-amd64 |
            sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -1)
    fi
    [ -n "$found" ] || die "apt-cache knows no linux-image-cloud-amd64; are Debian 12's package sources configured?"
    echo "$found" >"$remembered"
fi
kernel_package=$(<"$remembered")

inputs() {
    cd "$here"
    find Cargo.toml build.sh init src www -type f -print0 | sort -z | xargs -0 sha256sum
    sha256sum "$busybox" | cut -d' ' -f1
    echo "$kernel_package"
    rustc --version
}
hash=$(inputs | sha256sum | cut -c1-16)
result=$cache/$hash
if [ -s "$result/guest.json" ]; then
    echo "$result"
    exit 0
fi

started=$SECONDS
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

kernel=$cache/$kernel_package
if [ ! -d "$kernel" ]; then
    say "downloading $kernel_package"
    download() { (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$kernel_package" >&2); }
    download || { say "apt-get update, then once more"; apt-get update -qq >&2; download; }
    mkdir "$work/kernel"
    dpkg-deb -x "$work"/linux-image-*.deb "$work/kernel"
    mv "$work/kernel" "$kernel"
fi

say "building the guest program"
# Own target folder: static linking needs other flags than the workspace's builds.
RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR="$cache/target" \
    cargo build --quiet --release --target "$target" --manifest-path "$repository/Cargo.toml" -p guest >&2
program=$cache/target/$target/release/guest
readelf -l "$program" 2>/dev/null | grep -q INTERP && die "$program is not linked statically"

say "unpacking the kernel"
compressed=$(echo "$kernel"/boot/vmlinuz-*)
# The kernel inside a bzImage of Debian is one LZ4 stream in the legacy format; what follows it makes lz4
# complain, so the result is checked instead: an ELF file whose section table lies within it.
offset=$(grep -aobP -m1 '\x02\x21\x4c\x18' "$compressed" | head -1 | cut -d: -f1)
[ -n "$offset" ] || die "$compressed holds no LZ4 stream; has Debian changed the kernel's compression?"
tail -c +$((offset + 1)) "$compressed" | lz4 -d -c >"$work/vmlinux" 2>/dev/null || true
number() { od -An -t u"$2" -j "$1" -N "$2" "$work/vmlinux" | tr -d ' '; }
[ "$(head -c 4 "$work/vmlinux" | od -An -t x1 | tr -d ' ')" = 7f454c46 ] || die "the unpacked kernel is no ELF file"
end=$(($(number 40 8) + $(number 58 2) * $(number 60 2)))
[ "$(stat -c %s "$work/vmlinux")" -ge "$end" ] || die "the unpacked kernel is cut short"

say "packing the initial RAM disk"
initrd=$work/initrd
version=$(basename "$kernel"/lib/modules/*)
mkdir -p "$initrd"/{bin,proc,sys,dev} "$initrd/lib/modules/$version"
cp "$busybox" "$initrd/bin/busybox"
install -m 755 "$here/init" "$initrd/init"
tree=$(echo "$kernel"/lib/modules/*/kernel)
for module in "${modules[@]}"; do cp "$tree/drivers/$module.ko" "$initrd/lib/modules/$version/"; done
cp "$tree/net/core/failover.ko" "$tree/fs/isofs/isofs.ko" "$initrd/lib/modules/$version/"
"$busybox" depmod -b "$initrd" "$version"
[ -s "$initrd/lib/modules/$version/modules.dep" ] || die "busybox depmod wrote no modules.dep"
find "$initrd" -exec touch -h -d @0 {} +
(cd "$initrd" && find . -print0 | sort -z | cpio --quiet --null --reproducible -o -H newc -R 0:0) >"$work/initrd.cpio"

say "making the system disk"
root=$work/system
mkdir -p "$root"/{sbin,www}
install -m 755 "$program" "$root/sbin/guest"
cp "$here"/www/*.html "$root/www/"
find "$root" -exec touch -h -d @0 {} +
# Fixed ids and times: the same inputs give the same digest, so images are not fetched again for nothing.
E2FSPROGS_FAKE_TIME=1 SOURCE_DATE_EPOCH=1 mke2fs -q -t ext4 -L zy-system -d "$root" -m 0 \
    -U 6d1f1b5e-5a79-4c0b-9e0e-7a7c00000001 \
    -E root_owner=0:0,hash_seed=6d1f1b5e-5a79-4c0b-9e0e-7a7c00000002,lazy_itable_init=0,nodiscard \
    "$work/system.raw" 16M >&2
# mke2fs copies the time of the files' last change of state, which nobody can set.
(cd "$root" && find . -mindepth 1 -printf '/%P\n' | sort | while read -r path; do
    for time in ctime atime mtime crtime; do echo "set_inode_field $path $time 19700101000001"; done
done) >"$work/times"
debugfs -w -f "$work/times" "$work/system.raw" >"$work/debugfs.log" 2>&1 || die "debugfs: $(tail -3 "$work/debugfs.log")"
qemu-img convert -f raw -O qcow2 "$work/system.raw" "$work/system.qcow2"

out=$work/out
mkdir "$out"
mv "$work/vmlinux" "$work/initrd.cpio" "$work/system.qcow2" "$out/"
entry() { printf '{"file": "%s", "sha256": "%s", "bytes": %s}' "$1" "$(sha256sum "$out/$1" | cut -d' ' -f1)" "$(stat -c %s "$out/$1")"; }
cat >"$out/guest.json" <<JSON
{
  "hash": "$hash",
  "kernel_package": "$kernel_package",
  "architecture": "x86_64",
  "kernel": $(entry vmlinux),
  "initrd": $(entry initrd.cpio),
  "disk": $(entry system.qcow2),
  "disk_format": "Qcow2",
  "minimum_size": "16Mi",
  "kernel_command_line": "$command_line"
}
JSON
rm -rf "$result"
mv "$out" "$result"
say "built in $((SECONDS - started)) s: $result"
echo "$result"
