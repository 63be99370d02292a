"""hf-unlearn check RUN_DIR --max-forget 0.02 ...: whether a run kept its limits, for someone's CI."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..terminal import CommandParser

if TYPE_CHECKING:
    from ...report.record import RunRecord

REQUIRED = "require-forgotten"
Found = dict[str, float | None]  # metric -> value, None where it was not measured


@dataclass
class Result:
    """One criterion: the worst of the metrics that it is about, or why there is none."""

    criterion: str
    limit: float | None
    passed: bool
    figure: str | None
    value: float | None
    reason: str


@dataclass
class Criterion:
    """A limit that a person can set: with `least` the value may not be lower, else it may not be higher."""

    name: str
    help: str
    found: Callable[["RunRecord"], Found]
    lacks: str  # what is missing where nothing is found
    share: bool = False
    least: bool = False

    def judge(self, record: "RunRecord", limit: float) -> Result:
        """Compare with the limit; fail where a metric breaks it, has no value, or was not measured at all."""
        found = self.found(record)
        missing = [name for name, value in found.items() if value is None]
        if missing or not found:
            reason = f"{missing[0]} has no value" if missing else self.lacks
            return Result(self.name, limit, False, missing[0] if missing else None, None, reason)
        values = {name: value for name, value in found.items() if value is not None}
        figure, value = (min if self.least else max)(values.items(), key=lambda pair: pair[1])
        equal = math.isclose(value, limit, rel_tol=1e-9)  # 1 - 0.98 is 0.020000000000000018
        passed = equal or (value > limit if self.least else value < limit)
        sign = (">=" if passed else "<") if self.least else ("<=" if passed else ">")
        return Result(self.name, limit, passed, figure, value, f"{figure} {value:.4g} {sign} {limit:g}")


def _shares(record: "RunRecord", part: str) -> list[str]:
    """Names of shares, of the original or the unlearned model, that should be low ("forget") or high ("retain")."""
    from ...evaluation.metric import is_attack, is_share

    names = dict.fromkeys(n for model in ("after", "before") for n in record.figures.get(model, {}))
    return [n for n in names if is_share(n) and not is_attack(n) and record.role(n) == (part, part == "forget")]


def _drop(record: "RunRecord", part: str) -> Found:
    pairs = {n: (record.value("before", n), record.value("after", n)) for n in _shares(record, part)}
    return {n: None if old is None or new is None else old - new for n, (old, new) in pairs.items()}


def _ratio(record: "RunRecord", start: str, reference: str) -> Found:
    names = [n for n in record.figures.get("after", {}) if n.startswith(start)]
    found: Found = {}
    for name in names:
        ours, theirs = record.value("after", name), record.value(reference, name)
        found[f"{name} / {reference}"] = None if ours is None or not theirs else ours / theirs
    return found


def _recovered(record: "RunRecord") -> Found:
    from ...report.recovery import recovered_shares

    return recovered_shares(record)


def _measured(name: str, value: float | None) -> Found:
    return {} if value is None else {name: value}


CRITERIA = [
    Criterion(
        "max-forget",
        "largest share of the forgotten that the unlearned model still knows or generates",
        lambda r: {n: r.value("after", n) for n in _shares(r, "forget")},
        "no share of the forgotten was measured",
        share=True,
    ),
    Criterion(
        "min-forget-drop",
        "smallest drop (before - after) of those shares",
        lambda r: _drop(r, "forget"),
        "no share of the forgotten was measured",
        share=True,
        least=True,
    ),
    Criterion(
        "max-recovered",
        "largest share that an attack may bring back, apart from those that borrow the original",
        _recovered,
        "no attack was measured: run hf-unlearn attack",
        share=True,
    ),
    Criterion(
        "max-retain-drop",
        "largest drop (before - after) of a share of what is retained",
        lambda r: _drop(r, "retain"),
        "no share of the retained was measured",
        share=True,
    ),
    Criterion(
        "max-frechet-ratio",
        "largest ratio of the Frechet distance to the retrained model's",
        lambda r: _ratio(r, "frechet_distance", "retrained"),
        "no Frechet distance was measured",
    ),
    Criterion(
        "max-frechet-growth",
        "largest ratio of the Frechet distance to the original model's",
        lambda r: _ratio(r, "frechet_distance", "before"),
        "no Frechet distance was measured",
    ),
    Criterion(
        "min-forget-loss-ratio",
        "smallest ratio of the forget loss to the original model's, where no classifier reads samples",
        lambda r: _ratio(r, "forget_loss", "before"),
        "no forget loss was measured",
        least=True,
    ),
    Criterion(
        "max-retain-loss-ratio",
        "largest ratio of the retain loss to the original model's",
        lambda r: _ratio(r, "retain_loss", "before"),
        "no retain loss was measured",
    ),
    Criterion(
        "max-average-gap",
        "largest average gap to the retrained model, in percentage points",
        lambda r: _measured("average_gap", r.value("after", "average_gap")),
        "no average gap was measured: it needs a retrained model",
    ),
    Criterion(
        "max-mask-drift",
        "largest drift of a weight outside the mask in a forget step",
        lambda r: _measured("drift", r.mask.drift if r.mask.density is not None else None),
        "no drift outside a mask was measured: the run had none, or verify_mask_steps was 0",
    ),
    Criterion(
        "max-seconds",
        "longest training, in seconds",
        lambda r: _measured("seconds", r.cost.seconds),
        "no time was measured",
    ),
    Criterion(
        "max-memory-mb",
        "largest peak memory, in MB",
        lambda r: _measured("peak_memory_mb", r.cost.peak_memory_mb),
        "no memory was measured",
    ),
]


def check_command(argv: list[str]) -> None:
    """hf-unlearn check RUN_DIR --max-forget 0.02 ..."""
    parser = CommandParser(
        prog="hf-unlearn check",
        allow_abbrev=False,
        description="Say what a run came to and compare it with limits: exit code 0 if it keeps all of them, 1 if "
        "not, 2 for wrong usage. A metric that was not measured fails.",
    )
    parser.add_argument("run_dir", help="Output folder of a run, with its unlearning_report.json.")
    for criterion in CRITERIA:
        unit = ", a share from 0 to 1" if criterion.share else ""
        parser.add_argument(f"--{criterion.name}", type=number, metavar="LIMIT", help=f"{criterion.help}{unit}")
    parser.add_argument(f"--{REQUIRED}", action="store_true", help="Fail unless the run is FORGOTTEN.")
    parser.add_argument("--json", action="store_true", help="Print the results as JSON.")
    options = parser.parse_args(argv)
    limits = {c.name: getattr(options, c.name.replace("-", "_")) for c in CRITERIA}
    given = [c for c in CRITERIA if limits[c.name] is not None]
    if not given and not options.require_forgotten:
        names = ", ".join(f"--{name}" for name in (*(c.name for c in CRITERIA), REQUIRED))
        parser.error(f"no limit: give at least one of {names}")
    for c in given:
        if c.share and not 0 <= limits[c.name] <= 1:
            parser.error(f"--{c.name} is a share from 0 to 1, got {limits[c.name]:g}")
    from ...report.outcome import outcome
    from ...report.reading import read_record
    from ...report.record import FORGOTTEN

    record = read_record(options.run_dir)
    found = outcome(record)
    results = [c.judge(record, limits[c.name]) for c in given]
    if options.require_forgotten:
        results.append(Result(REQUIRED, None, found.state == FORGOTTEN, None, None, f"the run is {found.state}"))
    passed = all(result.passed for result in results)
    if options.json:
        said = {"passed": passed, "outcome": asdict(found), "criteria": [asdict(result) for result in results]}
        print(json.dumps(said))
    else:
        print(found.line)
        width = max(len(result.criterion) for result in results)
        for r in results:
            print(f"{'pass' if r.passed else 'fail'}  {r.criterion:{width}}  {r.reason}")
    sys.exit(0 if passed else 1)


def number(text: str) -> float:
    """A finite number, for argparse."""
    if not math.isfinite(value := float(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value
