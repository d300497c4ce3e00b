# shellcheck shell=bash
# What ./run and ./check share: enters the repository, installs missing packages, builds the release preset.

set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }
trap 'say "interrupted; the same command goes on from here"; exit 130' INT

# A half-installed package counts as missing; the same name may stand there for several architectures.
installed() {
  dpkg-query --show --showformat='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

can_be_root() { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=300 \
    -o Acquire::Retries=3 "$@" >/dev/null
}

install_packages() {
  local kind name loss hint
  local -a needed=() wanted=() losses=()
  if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system: nothing is installed; third_party/packages.txt lists what the build needs"
    return
  fi
  while read -r kind name _ loss; do
    case $kind in need | want) ;; *) continue ;; esac
    if installed "$name"; then continue; fi
    if [ "$kind" = need ]; then
      needed+=("$name")
    else
      wanted+=("$name")
      losses+=("$loss")
    fi
  done <third_party/packages.txt
  if [ ${#needed[@]} -eq 0 ] && [ ${#wanted[@]} -eq 0 ]; then return; fi

  hint="as root: apt-get install ${needed[*]}"
  if can_be_root; then
    say "installing Debian packages: ${needed[*]} ${wanted[*]}"
    as_root dpkg --configure -a >/dev/null || true # ends what an interrupted run left half done
    apt update || say "apt-get update failed; going on with the package lists that are here"
  elif [ ${#needed[@]} -gt 0 ]; then
    die "packages are missing, and this user is not root and has no sudo. Have them installed, $hint"
  fi
  if [ ${#needed[@]} -gt 0 ]; then
    apt install --no-install-recommends "${needed[@]}" || die "could not install packages. Try $hint"
  fi
  for i in "${!wanted[@]}"; do
    if can_be_root && apt install --no-install-recommends "${wanted[i]}"; then continue; fi
    say "${wanted[i]} could not be installed: ${losses[i]}"
  done
}

# build TARGET...: with the release preset. A build folder that moved with its checkout starts afresh.
build() {
  local -a fresh=()
  local cache=build/release/CMakeCache.txt
  if [ -f "$cache" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$(pwd -P)" "$cache"; then
    fresh=(--fresh)
  fi
  cmake --preset release "${fresh[@]}"
  cmake --build --preset release --target "$@"
}
