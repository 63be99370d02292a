#!/usr/bin/env bash
# Build the wheel into the folder $1 (default: a temporary one) and check that it holds all package data.
set -euo pipefail
python=${PYTHON:-python3}
folder=${1:-$(mktemp -d)}
root=$(cd "$(dirname "$0")/.." && pwd)
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
# From a copy: setuptools leaves build/ and *.egg-info in the folder that it builds.
cp -r "$root"/{src,setup.py,pyproject.toml,README.md,LICENSE} "$source"
rm -rf "$source"/src/*.egg-info
"$python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$folder" "$source"
wheel=$(ls "$folder"/hf_unlearn-*.whl)
listed=$("$python" -m zipfile -l "$wheel")
while read -r file; do
    case "$file" in *__pycache__*) continue ;; esac
    grep -qF "hf_unlearn/$file " <<<"$listed" || { echo "$wheel lacks $file: add it to package_data in setup.py"; exit 1; }
done < <(cd "$root/src/hf_unlearn" && find . -type f | sed 's|^\./||')
echo "$wheel holds every file of the package"
