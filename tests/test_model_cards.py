"""The shipped cards: each is valid, and its metrics are those that its run recorded."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, metadata_load

from hf_unlearn.evaluation import DIGITS_DDPM
from hf_unlearn.evaluation.judge import ASSETS
from hf_unlearn.report.badge import BADGE_FILE, badge
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import RECORD_FILE, RunRecord

ROOT = Path(__file__).parents[1]
CARDS = sorted(path.parent for path in (ROOT / "model_cards").glob("*/README.md"))
SHARES = r".*_(accuracy|share)(_[a-z0-9]+)?"  # the last part is another sampler


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("model_cards", ROOT / "tools" / "model_cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_card_for_every_recipe(tool):
    assert {folder.name for folder in CARDS} == set(tool.RECIPES)
    assert {path.name for path in (ROOT / "model_cards").iterdir()} == set(tool.RECIPES)


@pytest.mark.parametrize("folder", CARDS, ids=lambda path: path.name)
def test_the_table_is_the_recorded_results(folder):
    """Read back number by number, without the code that wrote it."""
    recorded = json.loads((folder / RECORD_FILE).read_text())["figures"]
    lines = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("|")]
    start = next(i for i, line in enumerate(lines) if line.startswith("| metric"))
    header, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:])
    models, names = header[1:], list(dict.fromkeys(name for row in recorded.values() for name in row))
    assert models == [model for model in ("before", "after", "retrained") if model in recorded] and len(models) > 1
    for name, row in zip(names, rows[1:]):
        assert row[0].lower() == name.replace("_", " ")
        for model, cell in zip(models, row[1:], strict=True):
            if name not in recorded[model]:
                assert cell == "-"
                continue
            value = recorded[model][name]["value"]
            number, percent, interval = re.fullmatch(r"([\d.e+-]+)(%?)( \[.*\])?", cell).groups()
            share = bool(re.fullmatch(SHARES, name)) or name.startswith("mia_")
            assert bool(percent) == bool(interval) == share
            assert float(number) == (
                pytest.approx(100 * value, abs=0.051) if share else pytest.approx(value, rel=1e-3)
            )
            if interval:
                low, high = map(float, interval.strip(" []").split(","))
                assert low - 0.051 <= 100 * value <= high + 0.051 and high > low
    assert len(names) >= 3


@pytest.mark.parametrize("folder", CARDS, ids=lambda path: path.name)
def test_the_card_is_rebuilt_from_its_record(folder, tool):
    assert (folder / "README.md").read_text() == tool.rebuilt(folder.name)
    assert '"/' not in (folder / RECORD_FILE).read_text()  # no path of a machine
    record = read_record(folder)
    assert (folder / BADGE_FILE).read_text() == badge(outcome(record)) + "\n"
    assert record.picture is None or (folder / record.picture).stat().st_size < 400_000


MODELS = [path for path in ASSETS.glob("*/README.md") if path.parent.name != "digits"]  # which are data
SHIPPED = [*(folder / "README.md" for folder in CARDS), *MODELS]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_card_is_valid(path):
    data, card = metadata_load(path), ModelCard.load(path)
    assert card.data.to_dict() == data and str(card) == path.read_text()
    # Twemoji's pictures ask for attribution, which the card of the emoji model gives.
    licence = "cc-by-4.0" if path.parent.name == "emoji_sd" else "apache-2.0"
    assert data["license"] == licence and data["library_name"] in ("diffusers", "transformers")
    assert data["pipeline_tag"] in ("unconditional-image-generation", "image-classification", "text-to-image")
    assert "hf-unlearn" in data["tags"] and all(isinstance(tag, str) for tag in data["tags"])
    for result in card.data.eval_results or []:
        recorded: RunRecord = read_record(path.parent)
        assert result.metric_value == recorded.value("after", result.metric_name.replace(" ", "_"))


def test_the_shipped_data_says_its_licence():
    assert metadata_load(ASSETS / "digits/README.md")["license"] == "cc-by-4.0"


def test_the_shipped_base_model_has_a_card():
    assert metadata_load(DIGITS_DDPM / "README.md")["license"] == "apache-2.0"
