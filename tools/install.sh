#!/usr/bin/env bash
# install.sh GROUP...: installs the Debian packages of these groups of tools/packages.txt ("all": of every group), only those
# that are missing. A group stands for itself: name build and test to get both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  printf 'install: %s\n' "$*" >&2
  exit 1
}

command -v dpkg-query >/dev/null || die "this is not Debian; install by hand what tools/packages.txt names"
packages=$(awk -v groups=" $* " '!/^#/ && NF == 2 && (groups ~ / all / || index(groups, " " $1 " ")) {print $2}' \
  tools/packages.txt | sort -u)
[[ -n $packages ]] || die "no package is in the group '$*' of tools/packages.txt"

missing=()
for package in $packages; do
  # A Node.js from elsewhere brings its own npm, and conflicts with Debian's package of it.
  [[ $package == npm ]] && command -v npm >/dev/null && continue
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || die "${missing[*]} are missing: run './dev install $*' as root, or install sudo"
  as_root=(sudo)
fi
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
printf '\n== installing %s\n' "${missing[*]}"
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null
