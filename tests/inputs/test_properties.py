"""Files of any content: each is read, or refused by one line; no other error leaves a reader."""

import copy
import json
import os
import string
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import run_record
from safetensors.torch import save

from hf_unlearn.cli import parsing as cli
from hf_unlearn.cli.classifier_flags import read_indices
from hf_unlearn.cli.commands.check import CRITERIA
from hf_unlearn.cli.flags import ImageDataFlags, LoraFlags, TrainingFlags
from hf_unlearn.compare.recipe import Recipe, load_recipe
from hf_unlearn.evaluation.prompt_files import PromptRow, read_prompts
from hf_unlearn.report.cards import model_card, split_card
from hf_unlearn.report.page import page
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import RECORD_FILE, RunRecord
from hf_unlearn.report.verdict import verdict
from hf_unlearn.saliency.masks import Masks

RUN = run_record(
    loads_with=["DDPMPipeline"], environment={"hf_unlearn": "0.1.0", "packages": "torch 2.13", "python": "3.11.7"}
)
FLAGS = (ImageDataFlags, LoraFlags, TrainingFlags)
RECIPE = dict(name="r", data="digits", model="digits_vit", forget={"fraction": 0.1}, methods=["finetune"], seeds=[0])
quick = settings(
    max_examples=int(os.environ.get("HF_UNLEARN_EXAMPLES", 20)),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    ["seed", "forget_class", "learning_rate", "use_lora", "rank", "method", "preset", "resolution"]
)


def one_line(error: BaseException) -> None:
    assert isinstance(error, ValueError) and str(error).strip(), repr(error)


def parsed(path: Path, capsys) -> list | None:
    """What --config gives, or None for a refusal, of which the one line and the exit code are checked."""
    try:
        return cli.parse(FLAGS, ["--config", str(path)])
    except SystemExit as stop:
        error = capsys.readouterr().err
        assert stop.code == 2 and len(error.splitlines()) == 1 and "error:" in error
    except ValueError as error:
        one_line(error)
    return None


@quick
@given(st.dictionaries(names | st.text(max_size=6), values, max_size=3))
def test_a_config_of_any_values(tmp_path, capsys, content):
    (tmp_path / "c.yaml").write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8")
    made = parsed(tmp_path / "c.yaml", capsys)
    if made is not None:
        assert (
            isinstance(made[2].seed, int) and isinstance(made[1].rank, int) and made[1].use_lora in (None, True, False)
        )
        assert made[0].forget_class is None or all(isinstance(c, str) for c in made[0].forget_class)
        assert made[2].learning_rate is None or 0 <= made[2].learning_rate < float("inf")


@quick
@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_a_config_of_any_bytes(tmp_path, capsys, content):
    (tmp_path / "c.yaml").write_bytes(content)
    parsed(tmp_path / "c.yaml", capsys)


@quick
@given(st.dictionaries(st.sampled_from([*RECIPE, "train", "budget", "trials", "shadows"]), values, max_size=2))
def test_a_recipe_of_any_values(tmp_path, content):
    (tmp_path / "r.yaml").write_text(yaml.dump({**RECIPE, **content}, allow_unicode=True), encoding="utf-8")
    try:
        recipe = load_recipe(str(tmp_path / "r.yaml"))
    except ValueError as error:
        return one_line(error)
    assert isinstance(recipe, Recipe) and set(recipe.name) <= set(string.printable + recipe.name) - set("/\\")


def places(value, path: tuple = ()) -> list[tuple]:
    """Paths of all values in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))][bool(not path) :]


RECORD = json.loads(json.dumps(asdict(RUN)))


def record_with(folder: Path, place: tuple, value) -> RunRecord | None:
    """The record with `value` in that place (... takes it away), or None if it is refused."""
    changed = copy.deepcopy(RECORD)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    (folder / RECORD_FILE).write_text(json.dumps(changed))
    try:
        return read_record(folder)
    except ValueError as error:
        one_line(error)
    return None


@quick
@given(st.sampled_from(places(RECORD)), plain | st.just(...))
def test_a_record_with_any_value_in_any_place(tmp_path, place, value):
    record = record_with(tmp_path, place, value)
    if record is not None:
        assert verdict(record)
        assert {criterion.judge(record, 0.5).passed for criterion in CRITERIA} <= {True, False}


@pytest.mark.long
@settings(quick, max_examples=100)
@given(st.sampled_from(places(RECORD)), plain | st.just(...))
def test_page_and_card_of_a_record_with_any_value_in_any_place(tmp_path, place, value):
    record = record_with(tmp_path, place, value)
    for read in (lambda: page(record, tmp_path), lambda: model_card(record, "user/x")) if record else ():
        try:
            assert "<" in read()
        except ValueError as error:
            one_line(error)


@quick
@given(st.binary(max_size=300))
def test_a_record_of_any_bytes(tmp_path, content):
    (tmp_path / RECORD_FILE).write_bytes(content)
    with pytest.raises(ValueError):
        read_record(tmp_path)


@quick
@given(st.text(max_size=120) | values.map(lambda v: yaml.dump(v, allow_unicode=True)))
def test_a_card_with_any_front_matter(content):
    card = f"---\n{content}\n---\ntext\n"
    try:
        data, _ = split_card(card)
        text = model_card(RUN, "user/x", card)
    except ValueError as error:
        return one_line(error)
    kept = split_card(text)[0]
    assert isinstance(data, dict) and set(data) <= set(kept)


@quick
@given(st.integers(0, 400), st.binary(min_size=1, max_size=12), st.booleans())
def test_a_mask_file_with_any_bytes_in_any_place(tmp_path, place, content, cut):
    import torch

    whole = save({"conv.weight": torch.ones(3, 2) > 0, "conv.bias": torch.zeros(3) > 0}, {"gamma": "1"})
    place %= len(whole)
    spoiled = whole[:place] if cut else whole[:place] + content + whole[place + len(content) :]
    (tmp_path / "m.safetensors").write_bytes(spoiled)
    try:
        masks = Masks.load(tmp_path / "m.safetensors")
    except ValueError as error:
        return one_line(error)
    assert 0 <= masks.density <= 1 and len(masks.table()) == len(masks.tensors)


@quick
@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda t: f"prompt,evaluation_seed\n{t}".encode()))
def test_a_prompt_file_of_any_bytes(tmp_path, content):
    import torch

    for name in ("p.csv", "p.txt"):
        (tmp_path / name).write_bytes(content)
        try:
            rows = read_prompts(tmp_path / name)
        except ValueError as error:
            one_line(error)
            continue
        assert rows and all(isinstance(row, PromptRow) and row.prompt for row in rows)
        for row in rows:
            torch.Generator().manual_seed(row.seed)


@quick
@given(st.binary(max_size=60) | st.text(alphabet="0123456789\n ²٣-", max_size=40).map(str.encode))
def test_an_indices_file_of_any_bytes(tmp_path, content):
    (tmp_path / "i.txt").write_bytes(content)
    try:
        positions = read_indices(str(tmp_path / "i.txt"))
    except ValueError as error:
        return one_line(error)
    assert positions and all(0 <= position < 10**18 for position in positions)
