"""The card says what the record says, is valid for the Hub, loads what it promises, and keeps what others wrote."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from conftest import config, latents, random_images, tiny_dit, tiny_pipeline, tiny_sd, tiny_sdxl, tiny_unet, tiny_vit
from diffusers import DDIMScheduler, DDPMPipeline
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries
from scipy.stats import binomtest

from hf_unlearn import DiTPrediction, GradientAscent, TextToImage, UnlearnTrainer, encode_prompts, split_by_label
from hf_unlearn.common.names import is_hub_id
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation.metric import Metric, share_interval
from hf_unlearn.families import Classification
from hf_unlearn.hub import origin as origin_module
from hf_unlearn.hub.origin import describe_base
from hf_unlearn.report.card_text import card_table, failures
from hf_unlearn.report.cards import BEGIN, END, model_card, write_card
from hf_unlearn.report.eval_results import ENTRIES_FILE
from hf_unlearn.report.reading import record_from_json
from hf_unlearn.report.record import RunRecord
from hf_unlearn.report.recording import record_run


def share(value: float, samples: int = 100) -> Metric:
    return Metric(value, "share of samples read as asked", samples, "torch 2.13")


FIGURES = {
    "before": {"forget_accuracy": share(1.0), "retain_accuracy": share(0.99, 900), "frechet_distance": share(0.5)},
    "after": {"forget_accuracy": share(0.05), "retain_accuracy": share(0.98, 900), "frechet_distance": share(0.5)},
    "retrained": {"forget_accuracy": share(0.02), "retain_accuracy": share(0.99, 900)},
}
HUB = {"name": "google/ddpm-cifar10-32", "revision": None, "on_hub": True, "licence": {"license": "apache-2.0"}}
PAST = {"method": "sfron", "outer_steps": 5, "date": "2026-01-01", "hf_unlearn": "0.1.0", "base_model": "first"}


def a_record(**changes) -> RunRecord:
    """The record of a file with these fields, with FIGURES."""
    values = dict(
        family="NoisePrediction",
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        forgotten="class 1",
        base_model=HUB,
        method={"name": "sfron", "paper": "2409.19732", "options": {"retain_steps": 2}},
        training={"outer_steps": 5, "seed": 0},
        data={
            "forget": {"samples": 5, "fingerprint": "ab", "source": "uoft-cs/cifar10"},
            "retain": {"samples": 15, "fingerprint": "cd", "source": "uoft-cs/cifar10"},
        },
        figures={},
        mask={"density": 0.25, "drift": 0.0, "layers": []},
        cost={"seconds": 1.0, "device": "x86_64 CPU, 1 threads"},
        history=[{"forgotten": "class 1", **PAST}],
        environment={"hf_unlearn": "0.1.0", "packages": "torch 2.13", "python": "3.11"},
        loads_with=["ClassConditionalDDPMPipeline"],
        created="2026-01-01",
    )
    return record_from_json({**values, **changes}).measured(FIGURES)


# ---- the figures -----------------------------------------------------------------------------
@pytest.mark.parametrize(("hits", "samples"), [(0, 100), (2, 100), (50, 100), (100, 100), (1, 3)])
def test_the_interval_is_scipys(hits, samples):
    theirs = binomtest(hits, samples).proportion_ci(method="wilson")
    assert share_interval(hits / samples, samples) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    with pytest.raises(ValueError, match="no samples"):
        share_interval(0.5, 0)


def test_table_and_failures():
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in card_table(a_record()).splitlines()]
    assert rows[0] == ["metric", "before", "after", "retrained"]
    assert rows[2] == ["forget accuracy", "100.0% [96.3, 100.0]", "5.0% [2.2, 11.2]", "2.0% [0.6, 7.0]"]
    assert rows[4] == ["Frechet distance", "0.5", "0.5", "-"]
    assert failures(a_record()) == ["Forget accuracy is 5.0%, above a retrained model's 2.0%."]
    worse = {**FIGURES["after"], "retain_accuracy": share(0.96, 900), "frechet_distance": share(0.53)}
    assert failures(a_record().measured({**FIGURES, "after": worse}))[1:] == [
        "Retain accuracy fell from 99.0% to 96.0% (retrained: 99.0%).",
        "Frechet distance rose from 0.5 to 0.53.",
    ]


def test_failures_name_the_worst_class_and_what_tells_from_retrained():
    names = {"mia_confidence": (0.2, 0.6), "mia_entropy": (0.55, 0.6)}
    figures = {
        "before": {"js_to_retrained": Metric(0.1, "nats", 5), "average_gap": Metric(2.0, "points", 5)},
        "after": {
            **{name: share(values[0]) for name, values in names.items()},
            **{name: Metric(value, "", 5) for name, value in (("js_to_retrained", 0.2), ("average_gap", 1.0))},
        },
        "retrained": {name: share(values[1]) for name, values in names.items()},
    }
    rows = [
        {"name": name, "forget": name == "3", "before": 1.0, "after": after, "retrained": 1.0}
        for name, after in (("3", 0.0), ("8", 0.9), ("9", 0.97))
    ]
    assert failures(a_record(per_class=rows).measured(figures)) == [
        "Not tested: nothing was measured that says whether it is still generated.",
        "MIA confidence tells the model from a retrained one: 20.0% against 60.0%.",
        "JS to retrained rose from 0.1 to 0.2, farther from a retrained model.",
        "Of the retained classes, 8 lost most: 100.0% to 90.0%.",
    ]
    same = {model: {"forget_loss": Metric(0.12341, "loss", 5)} for model in ("before", "after")}
    assert failures(a_record().measured(same)) == [
        "Not tested: only losses were measured, which do not say whether it is still generated."
    ]


# ---- front matter ----------------------------------------------------------------------------
def test_front_matter_round_trip(tmp_path):
    path = write_card(tmp_path, a_record(), "someone/without-1")
    data = metadata_load(path)
    assert ModelCard.load(path).data.to_dict() == data
    assert str(ModelCard.load(path)) == path.read_text()
    tags = ["hf-unlearn", "machine-unlearning", "method:sfron"]
    index = data.pop("model-index")
    assert data == {
        "license": "apache-2.0",
        "base_model": "google/ddpm-cifar10-32",
        "base_model_relation": "finetune",
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": tags,
        "datasets": ["uoft-cs/cifar10"],
    }
    assert index[0]["name"] == "without-1" and not (tmp_path / "README.partial").exists()
    results = {r.metric_name: r for r in ModelCard.load(path).data.eval_results}
    assert {name: r.metric_value for name, r in results.items()} == {
        "forget accuracy": 0.05,
        "retain accuracy": 0.98,
        "frechet distance": 0.5,
    }
    forget = results["forget accuracy"]
    assert (forget.metric_type, forget.dataset_type, forget.dataset_split) == ("accuracy", "uoft-cs/cifar10", "forget")
    assert forget.metric_args == {"samples": 100}


def test_entries_are_for_data_of_the_hub_only(tmp_path):
    write_card(tmp_path, a_record())
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / ENTRIES_FILE).read_text()))
    assert [(e.dataset_id, e.task_id, e.value, e.date) for e in entries] == [
        ("uoft-cs/cifar10", name, value, "2026-01-01")
        for name, value in (("forget_accuracy", 0.05), ("retain_accuracy", 0.98), ("frechet_distance", 0.5))
    ]
    local = {"forget": {"samples": 5, "fingerprint": "ab", "source": "My photos"}}
    path = write_card(tmp_path, a_record(data=local))
    assert not (tmp_path / ENTRIES_FILE).exists()  # that of the earlier run is gone
    (result,) = metadata_load(path.parent / "README.md")["model-index"][-1]["results"]
    assert result["dataset"] == {"name": "My photos (forget)", "type": "my-photos", "split": "forget"}


def test_figures_of_held_out_data_name_its_source():
    data = {part: {"samples": 1, "fingerprint": "", "source": f"{part} data"} for part in ("forget", "retain", "test")}
    after = {"test_accuracy": share(0.9), "forgotten_class_test_accuracy": share(0.0), "mia_entropy": share(0.5)}
    record = a_record(data=data).measured({"after": after})
    card = ModelCard(model_card(record, "x"))
    assert [(r.metric_name, r.dataset_type) for r in card.data.eval_results] == [
        ("test accuracy", "test-data"),
        ("forgotten class test accuracy", "test-data"),
    ]


def test_the_licence_is_the_bases_or_unknown(tmp_path, monkeypatch):
    base = tmp_path / "base"
    base.mkdir()
    expected = {"license": "other", "license_name": "creativeml", "license_link": "LICENSE"}
    (base / "README.md").write_text(f"---\n{yaml.safe_dump(expected)}---\n# Base")
    local = describe_base(str(base))
    assert local == {"name": "base", "revision": None, "on_hub": False, "licence": expected}
    text = model_card(a_record(base_model=local), "x")
    assert "[`creativeml`](LICENSE), inherited from the base model" in text
    assert ModelCard(text).data.license == "other" and "base_model:" not in text

    asked = []
    monkeypatch.setattr(
        origin_module, "hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(base / "README.md")
    )
    assert describe_base("google/ddpm", "abc")["licence"] == expected
    assert asked == [(("google/ddpm", "README.md"), {"revision": "abc"})]


@pytest.mark.parametrize("card", [None, "no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n"])
def test_an_unknown_licence_is_not_made_up(tmp_path, card):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    base = describe_base(str(tmp_path))
    assert base["licence"] == {}
    text = model_card(a_record(base_model=base), "x")
    assert "license" not in ModelCard(text).data.to_dict() and "Unknown: see the base model" in text


def test_offline_a_hub_model_has_no_licence():
    assert describe_base("google/not-cached") == {
        "name": "google/not-cached",
        "revision": None,
        "on_hub": True,
        "licence": {},
    }
    assert describe_base(None)["licence"] == {} and not describe_base(None)["on_hub"]
    assert is_hub_id("a/b") and is_hub_id("vit")
    assert not any(is_hub_id(name) for name in ("a/b/c", "/gone/folder", "./here", "x y"))


# ---- what others wrote -----------------------------------------------------------------------
THEIRS = """---
license: mit
language: en
tags:
- art
widget:
- text: hello
co2_eq_emissions:
  emissions: 3
datasets: someone/data
pipeline_tag: other
model-index:
- name: base
  results:
  - task:
      type: unconditional-image-generation
      name: kept
    dataset:
      name: CIFAR
      type: uoft-cs/cifar10
      split: test
    metrics:
    - type: fid
      value: 3.2
---

# The base model

Its own words.
"""


def test_updates_drop_nothing(tmp_path):
    (tmp_path / "README.md").write_text(THEIRS)
    path = write_card(tmp_path, a_record())
    data, text = metadata_load(path), path.read_text()
    assert (data["license"], data["language"], data["widget"]) == ("mit", "en", [{"text": "hello"}])
    assert data["co2_eq_emissions"] == {"emissions": 3}
    assert data["tags"][0] == "art" and "hf-unlearn" in data["tags"]
    assert data["datasets"] == ["someone/data", "uoft-cs/cifar10"]
    assert data["pipeline_tag"] == "unconditional-image-generation"
    assert [model["name"] for model in data["model-index"]] == ["base", tmp_path.name]
    assert data["model-index"][0] == yaml.safe_load(THEIRS.split("---")[1])["model-index"][0]
    assert text.index(END) < text.index("# The base model\n\nIts own words.\n")

    assert "`mit`." in text  # not the base model's
    edited = text.replace("license: mit", "license: gpl-3.0").replace("`mit`", "`gpl-3.0`") + "A user's note.\n"
    path.write_text(edited)
    write_card(tmp_path, a_record())
    assert path.read_text() == edited  # nothing new to say
    other = a_record().measured({"after": {"forget_accuracy": share(0.5)}})
    write_card(tmp_path, other, "someone/renamed")
    data, text = metadata_load(path), path.read_text()
    found = [(e["name"], m["value"]) for e in data["model-index"] for r in e["results"] for m in r["metrics"]]
    assert ("renamed", 0.5) in found and (tmp_path.name, 0.05) not in found and ("base", 3.2) in found
    assert data["license"] == "gpl-3.0" and text.endswith("A user's note.\n") and text.count(BEGIN) == 1


def test_foreign_line_ends_and_bom_are_kept(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\nTheir\r\nwords\r\n")
    path = write_card(tmp_path, a_record())
    assert path.read_bytes().endswith(b"Their\r\nwords\r\n") and metadata_load(path)["license"] == "mit"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("---\na: [\n---\n", "not YAML"),
        ("---\n- a\n---\n", "not a mapping"),
        (f"{BEGIN}\nhalf", "mend the marks"),
        (f"{END}\n{BEGIN}", "mend the marks"),
        ("---\nmodel-index: 3\n---\n", "model_index"),
    ],
)
def test_what_cannot_be_updated_stays(tmp_path, content, problem):
    path = tmp_path / "README.md"
    path.write_text(content)
    with pytest.raises(ValueError, match=problem) as error:
        write_card(tmp_path, a_record())
    assert str(path) in str(error.value) and path.read_text() == content


# ---- the text --------------------------------------------------------------------------------
def test_history_provenance_and_risk_are_in_the_text():
    history = [{"forgotten": "class 7", **PAST}, {"forgotten": "class 1", **PAST}]
    text = model_card(a_record(history=history), "x")
    history[0]["method"] = "esd"
    assert ModelCard(model_card(a_record(history=history), "x", text)).data.tags[2:] == ["method:esd", "method:sfron"]
    assert "1. class 7: `sfron`" in text and "2. class 1: `sfron`" in text and "(see below)" in text
    assert "| forget | uoft-cs/cifar10 | 5 | `ab` |" in text
    assert (
        "25.0 % of the trained weights were in the mask." in text
        and "outside the mask in a forget step was 0." in text
    )
    folded = re.search(
        r"<details>\n<summary>The recipe as flags</summary>\n\n```bash\n(.*?)```\n\n</details>", text, re.S
    )
    assert "--retain_steps 2" in folded[1].splitlines() and "--method sfron" in folded[1].splitlines()
    assert "huang2024unified" in text and "weak attack" not in text
    losses = {"after": {"forget_loss": Metric(1.0, "loss", 5)}}
    assert "no sample was judged" in model_card(a_record().measured(losses), "x")
    assert "no sample was judged" not in text
    classifier = a_record(pipeline_tag="image-classification", library_name="transformers", loads_with=["AutoModel"])
    assert "a probe on them" in model_card(classifier, "x") and "a probe on them" not in text
    salun = a_record(method={"name": "salun", "paper": "2310.12508", "options": {}})
    assert "eprint = {2310.12508}" in model_card(salun, "x") and "huang2024unified" not in model_card(salun, "x")
    unmasked = a_record(mask={"density": None, "drift": 0.0, "layers": []})
    assert "every trained weight was free" in model_card(unmasked, "x")


ADAPTERS = {
    "text-to-image": ("StableDiffusionPipeline", 'pipe.load_lora_weights("me/adapter")'),
    "image-classification": ("AutoModelForImageClassification", 'PeftModel.from_pretrained(model, "me/adapter")'),
    "unconditional-image-generation": ("DiTPipeline", 'PeftModel.from_pretrained(transformer, "me/adapter")'),
}


@pytest.mark.parametrize("tag", ADAPTERS)
def test_an_adapter_is_loaded_onto_its_base(tag):
    loader, line = ADAPTERS[tag]
    text = model_card(a_record(library_name="peft", pipeline_tag=tag, loads_with=[loader]), "me/adapter")
    assert line in text and 'from_pretrained("google/ddpm-cifar10-32"' in text
    assert ModelCard(text).data.to_dict()["base_model_relation"] == "adapter"
    compile(code_of(text), "snippet", "exec")


def code_of(text: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))


def text_to_image_objective(pipeline) -> tuple[TextToImage, ArrayDataset]:
    objective = TextToImage(pipeline, encode_prompts(pipeline, ["a church", "a house"]), {"a church": "a house"})
    return objective, latents(objective.prompts)


def dit() -> tuple[DiTPrediction, ArrayDataset]:
    data = latents(type("", (), {"texts": range(5)}))
    return DiTPrediction(tiny_dit()), ArrayDataset(data.pixel_values[:, :, :4, :4], data.label_tensor - 1)


def classifier() -> tuple[Classification, ArrayDataset]:
    from transformers import ViTImageProcessorPil

    return Classification(tiny_vit(), ViTImageProcessorPil(size={"height": 8, "width": 8})), random_images()


# family -> (what is trained and its data, what the snippet must have made, the name it gets there)
FAMILIES = {
    "class-conditional": (lambda: (tiny_pipeline(), random_images()), {"unet": "UNet2DModel", "images": "list"}),
    "unconditional": (
        lambda: (DDPMPipeline(tiny_unet(None), DDIMScheduler(1000)), random_images()),
        {"pipe": "DDPMPipeline"},
    ),
    "classifier": (classifier, {"model": "ViTForImageClassification", "processor": "ViTImageProcessorPil"}),
    "without processor": (lambda: (tiny_vit(), random_images()), {"model": "ViTForImageClassification"}),
    "dit": (dit, {"pipe": "DiTPipeline"}),
    "sd": (lambda: text_to_image_objective(tiny_sd()), {"pipe": "StableDiffusionPipeline"}),
    "sdxl": (lambda: text_to_image_objective(tiny_sdxl()), {"pipe": "StableDiffusionXLPipeline"}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_snippet_of_a_finished_run_loads_it(family, tmp_path, monkeypatch):
    build, expected = FAMILIES[family]
    model, data = build()
    args = config(tmp_path / "result", max_steps=1)
    forget, retain = split_by_label(data, 1)
    trainer = UnlearnTrainer(model, args, GradientAscent(), forget, retain, forgotten="class 1")
    trainer.train()
    trainer.save_model()
    record = record_run(trainer, "class 1", FIGURES, sources={"forget": str(tmp_path), "retain": "me/data"})
    text = write_card(tmp_path / "result", record).read_text()
    assert str(Path(tmp_path)) not in text and [asdict(entry) for entry in record.history] == trainer.history
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code_of(text), names)
    made = {name: type(names[name]).__name__ for name in expected}
    assert made == expected


# ---- foreign text
EVIL = [
    "a <script>alert(1)</script> & co",
    "**bold** _it_ `code` [x](http://y) ![z](q) | cell",
    "two\nlines\n\n# heading\n---\nlicense: mit",
    "a cat <!-- hf_unlearn:end --> dog",
    "<!-- hf_unlearn:begin -->",
    "# heading",
    "- item",
    "1. item",
    "---",
    "</b><img src=x onerror=alert(1)>",
    "C:\\path\\*",
]


def rendered(text: str) -> tuple[list, str]:
    """(tokens, HTML) of the card's body, by markdown-it's CommonMark with tables, raw HTML let through."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    return reader.parse(text), reader.render(text)


def kinds_of(tokens: list) -> list[str]:
    return [kind for token in tokens for kind in (token.type, *(child.type for child in token.children or []))]


@pytest.mark.parametrize("evil", EVIL)
def test_foreign_text_is_shown_as_it_is(tmp_path, evil):
    """As the concept, the data, a class, a prompt and its anchor, the model's name and what was forgotten before."""
    from html import unescape

    data = {"forget": {"samples": 5, "fingerprint": "ab", "source": evil}}
    history = [{"forgotten": evil, **PAST, "base_model": evil}, {"forgotten": evil, **PAST}]
    rows = [{"name": name, "forget": False, "before": 1.0, "after": 0.5} for name in (evil, "8")]
    local = {"name": evil, "revision": None, "on_hub": False, "licence": {}}
    anchors = {"anchors": [[evil, evil]], "anchor_rule": "the given anchor"}
    changes = dict(data=data, history=history, per_class=rows, base_model=local, objective=anchors)
    record = a_record(forgotten=evil, **changes)
    path = write_card(tmp_path / "x", record) if (tmp_path / "x").mkdir() is None else None
    text = path.read_text()
    assert write_card(tmp_path / "x", record).read_text() == text  # the next run finds its section again
    card = ModelCard(text)
    plain = ModelCard(model_card(a_record(forgotten="class 1", **{**changes, **_tame(changes)}), "x"))
    assert card.data.to_dict().keys() == plain.data.to_dict().keys() and card.data.license is None
    tokens, shown = rendered(card.text)
    # No heading, list, rule, emphasis, link or HTML more than a tame text.
    assert kinds_of(tokens) == kinds_of(rendered(plain.text)[0])
    assert "html_inline" not in kinds_of(tokens) and "<script" not in shown and "<img src=x" not in shown
    words = " ".join(evil.split())
    assert unescape(shown).count(words) >= 4 or "`" in evil


def _tame(changes: dict) -> dict:
    """The same fields with a plain word in the place of the foreign text."""
    evil = changes["data"]["forget"]["source"]
    return json.loads(json.dumps(changes).replace(json.dumps(evil)[1:-1], "word"))


def test_a_folders_name_stays_a_string_of_the_snippet(tmp_path):
    name = 'say "hi" \\ <!-- hf_unlearn:end --> it\'s'
    text = model_card(a_record(loads_with=["DDPMPipeline"]), name)
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    (given,) = re.findall(r"from_pretrained\((.*)\)", code)
    assert eval(given) == name
    assert model_card(a_record(loads_with=["DDPMPipeline"]), name, text) == text
    with pytest.raises(ValueError, match="is no class"):
        model_card(a_record(loads_with=["X\nimport os"]), "x")


def test_marks_within_a_line_are_text(tmp_path):
    """A card of an earlier version, whose concept held the end mark, is updated too."""
    first = model_card(a_record(), "x")
    marked = first.replace("made to forget", f"made to forget {END}")
    assert model_card(a_record(), "x", marked) == first
