#!/usr/bin/env bash
# Build the documentation strictly into site/, or into the folder $1. The extra `docs` is installed without the package,
# in an environment of its own (.docs-venv): pages of the API are read from the source, which imports nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${DOCS_VENV:-.docs-venv}
if [ ! "$venv/.ready" -nt pyproject.toml ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" - >"$venv/packages.txt" <<'PYTHON'
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["docs"], sep="\n")
PYTHON
    "$venv/bin/python" -m pip --disable-pip-version-check install -q -r "$venv/packages.txt"
    touch "$venv/.ready"
fi
export NO_MKDOCS_2_WARNING=1 # the theme's word on a version that the extra does not take
"$venv/bin/mkdocs" build --strict --quiet --site-dir "${1:-site}"
# The component "source" of the theme asks GitHub for stars.
asked=$(grep -rhoE '<(script|link|img|iframe)[^>]+(src|href)="https?://[^"]+"|data-md-component="source"' \
    "${1:-site}" --include='*.html' | grep -vE 'rel="(canonical|next|prev|edit)"' | sort -u || true)
if [ -n "$asked" ]; then
    printf 'pages ask other machines for:\n%s\n' "$asked" >&2
    exit 1
fi
echo "${1:-site}: $(find "${1:-site}" -name '*.html' | wc -l) pages, and none asks another machine for anything"
