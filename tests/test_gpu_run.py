"""benchmarks/gpu.py on tiny networks on a CPU: what it measures, what it leaves out, and what the page says of it."""

import json
import time
from pathlib import Path

import gpu
import pytest
import torch
from gpu_run import page, stages
from speed import gpu_cases, sizes

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks/results/gpu.json"


def run(tmp_path, *words: str) -> tuple[dict, str]:
    output, markdown = tmp_path / "gpu.json", tmp_path / "gpu.md"
    gpu.main(["--device", "cpu", "--tiny", "--output", str(output), "--markdown", str(markdown), *words])
    return json.loads(output.read_text()), markdown.read_text()


@pytest.mark.parametrize("name", sizes.SIZES)
def test_the_networks_are_those_that_were_published(name):
    """By their weights; and tiny ones have all the parts that a real one has but fewer layers."""
    network = sizes.network_of(name, "meta")
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(sizes.SIZES[name].weights, abs=0.1)
    kinds = {type(module).__name__ for module in network.modules()}
    tiny = {type(module).__name__ for module in sizes.network_of(name, "cpu", tiny=True).modules()}
    assert len(tiny ^ kinds) <= 2, tiny ^ kinds


def test_a_run_within_its_time(tmp_path):
    """A stage that fits is measured, and written at once; one that does not is named with what it needs."""
    found, text = run(tmp_path, "--budget", "90", "--only", "DiT-XL/2, LoRA", "torch", "compiled")
    assert found["tiny"] and found["budget"] == 90 and "torch" in found["stamp"]
    done = found["stages"]["DiT-XL/2, LoRA, bf16"]["result"]
    assert 0 < done["trained"] < done["parameters"] and done["batch"] == 16
    assert done["seconds"] > 0 and done["work_seconds"] > 0 and done["megabytes"] > 0
    compiled = found["stages"]["SD 1.5, LoRA, bf16, compiled"]
    assert compiled["skipped"].startswith("it needs about 90 s, and ")
    ratio = done["seconds"] / done["work_seconds"]
    assert "| DiT-XL/2, LoRA, bf16 " in text and f"{ratio:.3f}" in text
    assert "a test of the code, no measurement" in text and f"compiled: {compiled['skipped']}" in text
    again, _ = run(tmp_path, "--resume", "--only", "DiT-XL/2, LoRA")
    assert again["stages"] == found["stages"]


@pytest.mark.long
@pytest.mark.parametrize("case", gpu_cases.CASES, ids=lambda case: case.name)
def test_every_case(case):
    found = gpu_cases.measured(case, "cpu", True)
    assert found["seconds"] > 0 and ("work_seconds" in found) == case.work
    assert found["trained"] == found["parameters"] or case.mode != "all weights"


@pytest.mark.long
def test_the_programs_of_their_own(tmp_path):
    """The tests that need a GPU are skipped here; the emoji model is trained for a step and measured."""
    found, text = run(tmp_path, "--only", stages.TESTS, stages.RESULT, "Fisher pass, SDXL")
    done = {name: stage["result"] for name, stage in found["stages"].items()}
    assert "skipped" in done[stages.TESTS]["said"] and done["Fisher pass, SDXL"]["fisher_seconds"] > 0
    assert "concept_share_latents" in done[stages.RESULT]["after"] and done[stages.RESULT]["outcome"] in text


def test_stages_that_end_otherwise():
    """Out of time, out of memory or broken: a line each, and nothing is raised."""

    def ended(run, seconds: float = 0, left: float = 5, needs=lambda: 0) -> dict:
        return stages.outcome_of(stages.Stage("x", seconds, run, needs), left, "cpu")

    assert ended(lambda left: {"a": 1}) == {"result": {"a": 1}}
    assert ended(lambda left: {"a": 1}, seconds=9)["skipped"] == "it needs about 9 s, and 5 s are left"
    assert "GiB, and" in ended(lambda left: {}, needs=lambda: 2**60)["skipped"]
    assert ended(lambda left: time.sleep(9), left=1)["skipped"].startswith("it was stopped after 1 s")

    def breaks(left: float):
        raise RuntimeError("no kernel\nand more")

    def fills(left: float):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")

    assert ended(breaks)["failed"] == "RuntimeError: no kernel"
    assert ended(fills)["skipped"] == "out of memory: CUDA out of memory. Tried"


def test_how_much_a_case_needs():
    """Two copies of fp32 weights, gradients and two Adams of 860M weights; of an adapter far less."""
    cases = {case.name: case for case in gpu_cases.CASES}
    whole = gpu_cases.needed_bytes(cases["SD 1.5, all weights, fp32"], tiny=False)
    assert whole == pytest.approx(28 * 859.5e6, rel=1e-3)
    assert gpu_cases.needed_bytes(cases["SD 1.5, LoRA, bf16"], tiny=False) < 0.25 * whole
    assert gpu_cases.needed_bytes(cases["SD 1.5, all weights, bf16, offload"], False) == pytest.approx(
        24 * 859.5e6, rel=1e-3
    )


def test_a_machine_that_cannot_run_it_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    places = ["--output", str(tmp_path / "gpu.json"), "--markdown", str(tmp_path / "gpu.md")]
    for words, said in (
        ([], "this needs a CUDA GPU, and torch finds none"),
        (["--device", "cpu"], "add --tiny"),
        (["--wheels", str(tmp_path)], "has no wheels"),
    ):
        with pytest.raises(SystemExit) as ended:
            gpu.main([*words, *places])
        assert said in str(ended.value) and "\n" not in str(ended.value)
    assert not (tmp_path / "gpu.json").exists() and not (tmp_path / "gpu.md").exists()


def test_the_page_is_made_from_the_kept_figures():
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else None
    text = (ROOT / "docs/gpu.md").read_text()
    assert text == page.rendered(kept)
    assert kept is not None or "was not run on a GPU yet" in text and "make gpu" in text


def test_the_page_says_what_was_missed():
    step = {"parameters": 2e6, "trained": 1e6, "batch": 4, "seconds": 0.5, "megabytes": 2048.0}
    fisher = {
        "batch": 4,
        "fisher_seconds": 1.5,
        "plain_seconds": 1.0,
        "fisher_megabytes": 1024.0,
        "plain_megabytes": 512.0,
    }
    result = {
        "seconds": 99.0,
        "outcome": "It forgot.",
        "verdict": "Forgotten: 0 of 32.",
        "after": {"share": 0.25},
    }
    found = {
        "A": {"result": {**step, "work_seconds": 0.4, "work_megabytes": 1024.0}},
        "B": {"result": step},
        "Fisher pass, A": {"result": fisher},
        "tests": {"result": {"said": "3 passed"}},
        "emoji": {"result": result},
        "C": {"skipped": "it needs about 9 s, and 1 s are left"},
        "D": {"failed": "RuntimeError: no kernel"},
    }
    text = page.rendered({"stamp": "today", "device": "H200", "tiny": False, "stages": found})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["outer step over its work: A", "1.250", "1.03", "missed"] in rows
    assert ["A", "2M", "1.0M", "4", "0.500 s", "1.250", "2.00 GiB", "1.00 GiB"] in rows
    assert ["B", "2M", "1.0M", "4", "0.500 s", "-", "2.00 GiB", "-"] in rows
    assert ["A", "4", "1.500", "1.00 GiB", "0.50 GiB"] in rows and ["share", "0.250"] in rows
    assert "It forgot. Forgotten: 0 of 32. From the command to the end 99 s." in text and "`3 passed`" in text
    assert (
        "- C: it needs about 9 s" in text
        and "- D: RuntimeError: no kernel" in text
        and "a test" not in text.split("## Results")[1]
    )
