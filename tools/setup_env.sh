#!/usr/bin/env bash
# Build the virtual environment $1 with hf_unlearn and what its demo and tests need, or with $INSTALL alone (a wheel).
#
# Which torch: the one that $PYTHON already has (a GPU build stays); else, on a machine without an NVIDIA GPU, a CPU
# build, so that a demo does not fetch gigabytes of CUDA: first one that pip's own indexes list ("+cpu"), then
# PyTorch's CPU index (TORCH_CPU_INDEX overrides it); else what pip chooses.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}
index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

site=
if "$python" -c "import torch" 2>/dev/null; then
    echo "keeping the torch of $python"
    site=--system-site-packages
fi
"$python" -m venv $site "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install -q --upgrade pip setuptools wheel

if ! "$venv/bin/python" -c "import torch" 2>/dev/null && ! command -v nvidia-smi >/dev/null; then
    cpu=$(pip index versions torch 2>/dev/null | grep -o '[0-9][0-9.]*+cpu' | sort -rV | head -n 1 || true)
    if [ -n "$cpu" ]; then
        pip install -q "torch==$cpu"
    elif [ "$(uname -s)" = Linux ]; then
        pip install -q --retries 0 --timeout 15 --index-url "$index" torch ||
            echo "no CPU build of torch found: pip's default follows (set TORCH_CPU_INDEX to name an index)"
    fi
fi
if [ -n "${INSTALL:-}" ]; then
    pip install -q "$INSTALL"
else
    pip install -q -e ".[test,dev]"
fi
