"""hf-unlearn check: a run passes only on figures that were measured and keep their limits."""

import json

import pytest
from records import run_record, share

from hf_unlearn.__main__ import main
from hf_unlearn.cli.commands.check import CRITERIA
from hf_unlearn.report.outcome import outcome

GAP = {"value": 1.5, "definition": "d", "samples": 10}


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """`check(record, *arguments)`: (exit code, lines of output after that of the outcome, error)."""

    def call(record, *arguments):
        record.write(tmp_path)
        monkeypatch.setattr("sys.argv", ["hf-unlearn", "check", str(tmp_path), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, error = capsys.readouterr()
        lines = out.splitlines()
        if lines and "--json" not in arguments:
            assert lines.pop(0) == outcome(record).line
        return stop.value.code, lines, error

    return call


@pytest.mark.parametrize(
    ("criterion", "kept", "broken", "reason"),
    [
        ("max-forget", 0.01, 0.009, "forget_accuracy 0.01 > 0.009"),
        ("min-forget-drop", 0.99, 0.991, "forget_accuracy 0.99 < 0.991"),
        ("max-retain-drop", 0.01, 0.009, "retain_accuracy 0.01 > 0.009"),
        ("max-frechet-ratio", 1.1, 1.09, "frechet_distance / retrained 1.091 > 1.09"),
        ("max-frechet-growth", 1.2, 1.19, "frechet_distance / before 1.2 > 1.19"),
        ("max-mask-drift", 0, -1, "drift 0 > -1"),
        ("max-seconds", 100, 99, "seconds 100 > 99"),
        ("max-memory-mb", 512, 511, "peak_memory_mb 512 > 511"),
    ],
)
def test_a_limit_is_kept_at_its_value_and_broken_past_it(check, criterion, kept, broken, reason):
    code, lines, _ = check(run_record(), f"--{criterion}", kept)
    assert code == 0 and len(lines) == 1 and lines[0].startswith(f"pass  {criterion}  ")
    assert check(run_record(), f"--{criterion}", broken)[:2] == (1, [f"fail  {criterion}  {reason}"])


def test_the_figures_of_models_without_a_judge(check):
    losses = {"before": (0.1, 0.5), "after": (0.4, 0.6)}
    record = run_record(
        figures={m: {"forget_loss": share(f), "retain_loss": share(r)} for m, (f, r) in losses.items()}
    )
    assert check(record, "--min-forget-loss-ratio", 4, "--max-retain-loss-ratio", 1.2)[0] == 0
    code, lines, _ = check(record, "--min-forget-loss-ratio", 4.1, "--max-retain-loss-ratio", 1.1)
    assert code == 1 and [line[:4] for line in lines] == ["fail", "fail"]


def test_the_worst_figure_counts(check):
    after = {"forget_accuracy": share(0.0), "unsafe_share": share(0.3), "test_accuracy": share(0.9)}
    before = {"forget_accuracy": share(1.0), "unsafe_share": share(0.5), "test_accuracy": share(0.8)}
    record = run_record(figures={"before": before, "after": after})
    assert check(record, "--max-forget", 0.2)[1] == ["fail  max-forget  unsafe_share 0.3 > 0.2"]
    assert check(record, "--min-forget-drop", 0.1)[1] == ["pass  min-forget-drop  unsafe_share 0.2 >= 0.1"]
    assert check(record, "--max-retain-drop", 0)[1] == ["pass  max-retain-drop  test_accuracy -0.1 <= 0"]
    gap = run_record(figures={"after": {"average_gap": GAP}})
    assert check(gap, "--max-average-gap", 1.4)[1] == ["fail  max-average-gap  average_gap 1.5 > 1.4"]


@pytest.mark.parametrize("criterion", [c.name for c in CRITERIA])
def test_what_was_not_measured_fails(check, criterion):
    nothing = run_record(figures={}, mask={"density": None, "drift": 0.0, "layers": []}, cost={})
    limit = 0 if criterion.startswith("min") else 1
    code, lines, _ = check(nothing, f"--{criterion}", limit)
    assert code == 1 and len(lines) == 1 and "measured" in lines[0] and lines[0].startswith("fail")


@pytest.mark.parametrize(
    ("figures", "argument", "reason"),
    [
        ({"after": {"forget_accuracy": share(None)}}, "--max-forget", "forget_accuracy has no value"),
        ({"before": {"forget_accuracy": share(1.0)}}, "--max-forget", "forget_accuracy has no value"),
        ({"after": {"retain_accuracy": share(1.0)}}, "--max-retain-drop", "retain_accuracy has no value"),
        (
            {"after": {"unsafe_share": share(None), "forget_accuracy": share(0.0)}},
            "--max-forget",
            "unsafe_share has no value",
        ),
        (
            {"after": {"frechet_distance": share(0.5)}},
            "--max-frechet-ratio",
            "frechet_distance / retrained has no value",
        ),
    ],
)
def test_a_value_that_is_missing_fails(check, figures, argument, reason):
    code, lines, _ = check(run_record(figures=figures), argument, 1)
    assert code == 1 and lines[0].endswith(reason)


def test_json(check):
    code, lines, _ = check(run_record(), "--max-forget", 0.02, "--max-average-gap", 1, "--json")
    found = json.loads(lines[0])
    assert code == 1 and found["passed"] is False
    assert [(c["criterion"], c["passed"], c["value"]) for c in found["criteria"]] == [
        ("max-forget", True, 0.01),
        ("max-average-gap", False, None),
    ]


def test_forgotten_can_be_required(check):
    """Alone or beside limits, and it is no limit on what else happened."""
    assert check(run_record(), "--require-forgotten") == (0, ["pass  require-forgotten  the run is FORGOTTEN"], "")
    losses = {model: {"forget_loss": share(0.5), "retain_loss": share(0.5)} for model in ("before", "after")}
    code, lines, _ = check(run_record(figures=losses), "--require-forgotten", "--max-seconds", 100)
    assert code == 1 and [line[:4] for line in lines] == ["pass", "fail"] and lines[1].endswith("is NOT TESTED")
    found = json.loads(check(run_record(figures=losses), "--require-forgotten", "--json")[1][0])
    assert found["passed"] is False and found["outcome"]["state"] == "NOT TESTED"
    assert found["criteria"][0]["limit"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "give at least one of --max-forget, --min-forget-drop"),
        (("--max-forget", 2), "is a share from 0 to 1"),
        (("--max-forget", "nan"), "not a finite number"),
        (("--max-seconds", "soon"), "invalid number value"),
        (("--max-for", 0.1), "unrecognized"),
    ],
)
def test_wrong_usage(check, arguments, problem):
    code, lines, error = check(run_record(), *arguments)
    assert code == 2 and not lines and problem in error and len(error.splitlines()) == 1


def test_no_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hf-unlearn", "check", str(tmp_path), "--max-forget", "1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "holds no unlearning_report.json" in capsys.readouterr().err
