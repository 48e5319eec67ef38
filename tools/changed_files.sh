#!/usr/bin/env bash
# Prints the C++ files that the work at hand touched, one a line: what differs from where origin/main left off (or, on main
# itself, from the commit before), and what is not committed yet. With --all: every one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

is_ours() { grep -E '^(src|apps|tests|bench)/.*\.(cc|h)$' || true; }

# Without a repository (an unpacked archive) there is no "changed": every file is looked at.
if ! head=$(git rev-parse HEAD 2>/dev/null); then
  find src apps tests bench -type f 2>/dev/null | is_ours | sort
  exit
fi
if [[ ${1:-} == --all ]]; then
  { git ls-files; git ls-files --others --exclude-standard; } | is_ours | sort -u
  exit
fi
base=$(git merge-base origin/main HEAD 2>/dev/null || true)
if [[ -z $base || $base == "$head" ]]; then
  # The empty tree stands in where there is no commit before.
  base=$(git rev-parse --verify -q HEAD~1 || git hash-object -t tree /dev/null)
fi
{
  git diff --name-only --diff-filter=d "$base"
  git ls-files --others --exclude-standard
} | is_ours | sort -u
