#!/usr/bin/env bash
# Install the wheel $1 alone in a fresh environment, as `pip install hf-unlearn` would, and run three steps of the
# digits, the README's way in: what only the extras bring must not be needed.
set -euo pipefail
wheel=$(realpath "$1")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The same rules for torch as in `make env`: one that is there stays, else a CPU build is looked for.
INSTALL="$wheel" PYTHON="$python" bash "$(dirname "$0")/setup_env.sh" "$work/env"
cd "$work"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_WAIT_POLICY=PASSIVE
for extra in sklearn scipy pytest; do
    if "$work/env/bin/python" -c "import $extra" 2>/dev/null; then
        echo "note: $extra is in the environment, so this is no bare install"
    fi
done
"$work/env/bin/hf-unlearn" ddpm --max_train_steps 3 --train_batch_size 16 --eval_samples_per_class 10 --output_dir without-3
"$work/env/bin/hf-unlearn" report without-3
"$work/env/bin/hf-unlearn" saliency --output masks.safetensors --top 3
"$work/env/bin/hf-unlearn" env
