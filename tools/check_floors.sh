#!/usr/bin/env bash
# Install the wheel $1 with the oldest versions that pyproject.toml declares, and run the core tests with them.
#
# uv chooses the lowest version of every direct requirement. FLOOR_PYTHON names the interpreter; without it a Python 3.10
# is looked for, and $PYTHON, whatever its version, is taken where there is none. The floor of torch brings gigabytes of
# CUDA on x86_64: PyPI has no CPU build of it.
set -euo pipefail
wheel=$(realpath "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
floor=${FLOOR_PYTHON:-}
for candidate in python3.10 "$HOME"/.pyenv/versions/3.10.*/bin/python "$python"; do
    [ -z "$floor" ] && "$candidate" -c "import ssl" 2>/dev/null && floor=$candidate
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$floor" -m venv "$work/env"
"$floor" --version
cd "$root"
printf 'pytest>=8\nhypothesis>=6.100\ntensorboard>=2.16.2\n' >"$work/tests.in"
"$python" -m uv pip compile -q --python "$work/env/bin/python" --resolution lowest-direct --extra eval \
    pyproject.toml "$work/tests.in" -o "$work/floors.txt"
"$python" -m uv pip install -q --python "$work/env/bin/python" -r "$work/floors.txt"
"$python" -m uv pip install -q --python "$work/env/bin/python" --no-deps "$wheel"
"$work/env/bin/python" -m pip list 2>/dev/null | grep -iE '^(torch|diffusers|transformers|accelerate|peft|datasets|huggingface|numpy|scikit|safetensors)'
# Without "size_check": DeiT's older code rounds sizes down that the newer one, and so we, refuse.
core=(test_public_names test_data test_stock test_losses test_objectives test_saliency test_pipelines test_lora
    test_trainer test_config test_dit test_text_to_image test_text_encoder test_classifiers test_clip
    test_vision_features test_versions test_package)
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
"$work/env/bin/python" -m pytest -q -p no:cacheprovider -m "not long and not gpu" -k "not size_check" $(printf "tests/%s.py " "${core[@]}")
