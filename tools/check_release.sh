#!/usr/bin/env bash
# Print what CHANGELOG.md says of the version of the tag $1 (v0.2.0). Fail unless the package, CITATION.cff and the
# heading of the change log have that version.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1#v}
fail() {
    echo "$1" >&2
    exit 1
}
grep -qx "__version__ = \"$version\"" src/hf_unlearn/__init__.py || fail "the package is not version $version: set __version__"
grep -qx "version: $version" CITATION.cff || fail "CITATION.cff is not of version $version"
notes=$(awk -v heading="## $version" 'index($0, heading) == 1 {on = 1; next} on && /^## / {exit} on' CHANGELOG.md)
[ -n "$notes" ] || fail "CHANGELOG.md has no section ## $version"
printf '%s\n' "$notes"
