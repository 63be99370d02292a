#!/usr/bin/env bash
# Build the sdist and the wheel into the folder $1 (default: a temporary one), and check what they hold, how large the
# wheel is, and what an index would say to them.
set -euo pipefail
python=${PYTHON:-python3}
folder=${1:-$(mktemp -d)}
root=$(cd "$(dirname "$0")/.." && pwd)
most=12000000 # bytes of a wheel
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
fail() {
    echo "$1" >&2
    exit 1
}

# From a copy of what is no build output: setuptools leaves build/ and *.egg-info in the folder that it builds.
cd "$root"
files() { # the files below the folders given
    find "$@" -type f -not -path '*/__pycache__/*' -not -path '*.egg-info/*' -not -name '*.py[cod]' | sort
}
top=(pyproject.toml setup.py MANIFEST.in README.md LICENSE NOTICE CHANGELOG.md CONTRIBUTING.md CITATION.cff SECURITY.md
    Makefile Dockerfile mkdocs.yml .dockerignore .pre-commit-config.yaml)
mapfile -t wanted < <(files .ci .github benchmarks docs model_cards notebooks scripts src tests tools)
tar -cf - "${top[@]}" "${wanted[@]}" | tar -xf - -C "$source"
"$python" -m build --no-isolation --outdir "$folder" "$source" >"$source/log" 2>&1 || fail "$(tail -n 20 "$source/log")"
wheel=$(ls "$folder"/hf_unlearn-*.whl)
sdist=$(ls "$folder"/hf_unlearn-*.tar.gz)

# The sdist holds whatever its tests may read.
tar -tzf "$sdist" | cut -d / -f 2- | sort >"$source/in_sdist"
missing=$(printf '%s\n' "${top[@]}" "${wanted[@]}" | sort | comm -23 - "$source/in_sdist")
[ -z "$missing" ] || fail "$sdist lacks $missing: name it in MANIFEST.in"

# The wheel holds every file of the package, but for the retrained digits that no default run asks for.
"$python" -m zipfile -l "$wheel" | awk 'NR > 1 {print $1}' | sort >"$source/in_wheel"
missing=$(files src/hf_unlearn | sed 's|^src/||' | grep -v 'digits_ddpm_retrained/without_[^3]' | sort | comm -23 - "$source/in_wheel")
[ -z "$missing" ] || fail "$wheel lacks $missing: add it to package-data in pyproject.toml"
for licence in LICENSE NOTICE; do
    grep -q "dist-info/licenses/$licence\$" "$source/in_wheel" || fail "$wheel lacks $licence"
done
size=$(stat -c %s "$wheel")
[ "$size" -le "$most" ] || fail "$wheel has $size bytes, more than $most"

"$python" -m twine check --strict "$wheel" "$sdist"
echo "$(basename "$wheel"): $size bytes, every file of the package; $(basename "$sdist"): every file of the tests"
