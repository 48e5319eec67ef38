#!/usr/bin/env bash
# clang-tidy over the sources that changed (for a header, the .cc beside it), or over all with --all.
# LINT_LIMIT=N checks only the N largest of them and says so: CI has a time limit, `./dev lint` has none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cmake --preset tidy >/dev/null
mapfile -t files < <(
  tools/changed_files.sh "${1:-}" | grep -E '^(src|apps)/' | sed 's/\.h$/.cc/' | sort -u |
    while read -r file; do if [[ -f $file ]]; then echo "$file"; fi; done
)
limit=${LINT_LIMIT:-0}
if ((limit > 0 && ${#files[@]} > limit)); then
  echo "checking the $limit largest of ${#files[@]} changed files; './dev lint' checks every one"
  mapfile -t files < <(ls -S "${files[@]}" | head -n "$limit")
fi
if ((${#files[@]} == 0)); then
  echo "no source changed"
  exit 0
fi
# clang-tidy counts suppressed warnings on stderr even when quiet; only findings matter here.
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" clang-tidy-19 -p build-tidy --quiet 2>&1 |
  { grep -vE '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter' || true; }
echo "checked ${#files[@]} files"
