"""No file of the project has a call that could run what a file holds."""

from pathlib import Path

import pytest
from rules import unsafe

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("src", "scripts", "benchmarks", "tools") for path in (ROOT / folder).rglob("*.py")]


RUNS_NOTEBOOKS = "tools/notebooks.py"  # those of this checkout: to run them is what it is for


def test_no_source_runs_what_it_reads():
    assert len(FILES) > 100
    found = {path.relative_to(ROOT).as_posix(): unsafe(path.read_text(encoding="utf-8")) for path in FILES}
    assert found.pop(RUNS_NOTEBOOKS)
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(f)",
        "dill.loads(b)",
        "from pickle import loads",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=safe)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "yaml.load(t, Loader=yaml.Loader)",
        "yaml.unsafe_load(t)",
        "eval(t)",
        "exec(t)",
        "os.system(t)",
        "subprocess.run(t, shell=True)",
        "subprocess.run(t, shell=yes)",
        "AutoConfig.from_pretrained(n)",
        "AutoModel.from_pretrained(n, use_safetensors=True, trust_remote_code=True)",
        "DiffusionPipeline.from_pretrained(n, use_safetensors=True, trust_remote_code=True)",
        "AutoModel.from_config(c)",
        "UNet2DModel.from_pretrained(n)",
        "UNet2DModel.from_pretrained(n, use_safetensors=None)",
        "pipe.load_lora_weights(n)",
        "archive.extractall(p)",
    ],
)
def test_the_rules_see(line):
    assert len(unsafe(line)) == 1, unsafe(line)


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "torch.load(p, weights_only=True)",
        "np.load(p, allow_pickle=False)",
        "yaml.safe_load(t)",
        "except pickle.UnpicklingError",
        "AutoConfig.from_pretrained(n, trust_remote_code=False)",
        "CLIPTokenizer.from_pretrained(n)",
        "subprocess.run(['npm', 'pack'])",
        "re.compile(t)",
    ],
)
def test_the_rules_leave_alone(line):
    assert unsafe(f"try: pass\n{line}: pass" if line.startswith("except") else line) == []
