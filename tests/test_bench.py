"""The benchmark suite end to end on a tiny model, and that its page says what was measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import bench
import migrate
import pytest
import torch
from speed import phases, published, setting, steps, strengths
from speed.page import Goal

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks/results/bench.json"


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_section_end_to_end(tmp_path):
    """It replaces its own figures, keeps the others, and the page and the plot are made from all of them."""
    output, page, plot = tmp_path / "bench.json", tmp_path / "bench.md", tmp_path / "scale.png"
    output.write_text(KEPT.read_text())
    places = ["--output", str(output), "--markdown", str(page), "--plot", str(plot)]
    bench.main(["--profile", "tiny", "--only", "step", "--threads", "1", *places])
    before, after = json.loads(KEPT.read_text()), json.loads(output.read_text())
    assert before.keys() <= after.keys()
    assert all(after[name] == part for name, part in before.items() if name != "step")
    step = after["step"]
    assert step["profile"]["name"] == "tiny" and "torch" in step["stamp"] and step["seconds"] > 0
    assert list(step["result"]) == list(steps.MODES)
    for figures in step["result"].values():
        low, high = figures["quartiles"]
        assert low <= figures["ratio"] <= high and figures["pairs"] == setting.TINY.pairs
        assert sum(figures["phases"].values()) == pytest.approx(1)
        assert figures["phases"]["forget backward"] > 0 and figures["phases"]["retain target forward"] > 0
    assert step["result"]["masked"]["trained"] == step["result"]["masked"]["parameters"]
    assert step["result"]["LoRA"]["trained"] < step["result"]["LoRA"]["parameters"] / 2
    assert page.read_text() == bench.rendered(after)
    assert f"{step['result']['LoRA']['ratio']:.3f}" in page.read_text()
    assert plot.exists() == ("scale" in after)


def test_the_page_is_made_from_the_kept_figures():
    assert (ROOT / "docs/benchmarks.md").read_text() == bench.rendered(json.loads(KEPT.read_text()))


def test_missed_goals_are_listed_as_missed(monkeypatch):
    goals = [Goal("slow", 1.25, 1.03), Goal("quick", 1.01, 1.03)]
    part = {"stamp": "today", "profile": {"name": "tiny", "pairs": 2, "threads": 1}, "seconds": 1.0, "result": {}}
    monkeypatch.setattr(steps, "goals", lambda result: goals)
    missed = bench.rendered({"step": part}).split("### Goals missed")[1].split("##")[0]
    assert missed.strip() == "- slow: 1.250, goal 1.03"


def test_a_found_strength_and_a_rate_take_turns_in_one_run(monkeypatch):
    taken, begin = [], strengths.Turns.on_step_end

    def watched(turns, *args, **kwargs):
        taken.append((turns.step.strength is not None, turns.step.method.strength))
        begin(turns, *args, **kwargs)

    monkeypatch.setattr(strengths.Turns, "on_step_end", watched)
    found = strengths.overhead(setting.TINY, "masked")
    steps_of_each = setting.TINY.pairs + 2
    assert taken == [(True, "auto"), (False, "rate")] * steps_of_each
    assert found["pairs"] == setting.TINY.pairs and found["ratio"] > 0
    (goal,) = strengths.goals({"masked": found})
    assert goal.limit == 1.03 and f"{found['ratio']:.3f}" in strengths.text({"masked": found})


def test_ratios_are_medians_over_pairs():
    ours = [setting.Span(clock, cpu) for clock, cpu in ((2, 1), (30, 2), (4, 3))]
    theirs = [setting.Span(clock, 1) for clock in (1, 10, 4)]
    found = setting.compared(ours, theirs)
    assert (found["ratio"], found["cpu_ratio"], found["seconds"], found["pairs"]) == (2, 2, 4, 3)


def test_a_phase_does_not_count_those_inside_it(monkeypatch):
    timer = phases.Phases(SimpleNamespace(add_callback=lambda callback: None))
    readings = iter([0.0, 3.0, 5.0, 10.0])  # outer begins, inner begins, inner ends, outer ends
    monkeypatch.setattr(phases, "perf_counter", lambda: next(readings))
    timer.timed("guard", timer.timed("forward", lambda: None))()
    assert timer.seconds == {"guard": 8.0, "forget forward": 2.0}
    assert timer.shares(20.0) == {"forget forward": 0.1, "guard": 0.4, "rest": 0.5}


def test_the_published_procedure_is_restated_faithfully(tmp_path):
    """It ends in the weights of the preset `reference`, from the same batches and draws."""
    trainer, restated, call = published.runs(setting.TINY, str(tmp_path), 3)

    class After(setting.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            call()

    trainer.add_callback(After())
    start = flat(restated.network)
    trainer.train()
    ours, theirs = flat(trainer.objective.network), flat(restated.network)
    moved = (theirs - start).norm()
    assert moved > 0.01 and (ours - theirs).norm() < 0.005 * moved  # Adam makes more of rounding


def flat(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_kept_cells_are_named_by_the_code_of_today():
    """A key that no row has would be computed again without a word: `benchmarks/migrate.py` renames it."""
    today = migrate.digests()
    for name in migrate.BENCHMARKS:
        kept = json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())
        assert len(kept) > 50
        strange = [key for key in kept if today[name].get(key.partition("|")[0]) != key.rpartition("|")[2]]
        assert not strange, f"run benchmarks/migrate.py: {strange[:3]} and others in {name}.json"


def test_migrated_cells_keep_their_content():
    cells = {"a|0|old": 1, "b|0|old": 2, "a|0|other": 3}
    assert migrate.renamed(cells, {"a": "old", "b": "x"}, {"a": "new"}) == {"a|0|new": 1, "b|0|old": 2, "a|0|other": 3}
    assert migrate.renamed({"a|old": 1, "a|new": 2}, {"a": "old"}, {"a": "new"}) == {"a|new": 2}
