"""How many pictures still show a concept: by hand, for models whose answer is known, and on a pipeline."""

from dataclasses import replace

import pytest
import torch
import yaml
from conftest import tiny_clip, tiny_sd
from PIL import Image

from hf_unlearn.evaluation.clip import CLIPScore
from hf_unlearn.evaluation.concept_share import (
    SEPARABLE,
    ConceptLatents,
    concept_share_latents,
    separability,
    shows_by_others,
    shows_concept,
)
from hf_unlearn.evaluation.metric import is_share, role_of, share_interval
from hf_unlearn.evaluation.picture_prompts import (
    FIRST_SEED,
    PictureFlags,
    concept_pairs_to_draw,
    measuring_plan,
    prompt_sets,
)
from hf_unlearn.evaluation.text_to_image import PictureEvaluation
from hf_unlearn.families.concept_words import RETAIN_PROMPTS
from hf_unlearn.families.concepts import concept_of
from hf_unlearn.families.latents import Drawing

NUDITY, CHURCH, DOG = concept_of("nudity"), concept_of("a church", "a house"), concept_of("a dog")
SHAPE = (4, 6, 6)


def noise(count: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def things(count: int = 32, apart: float = 1.0, own: float = 1.0):
    """(original, what another thing looks like): each seed has a layout of its own, a concept adds its look to it."""
    layout, looks = noise(count, 0, own), noise(12, 1, apart)
    retained = noise(32, 2, own) + looks[torch.arange(32) % 9 + 3]
    return ConceptLatents(layout + looks[0], layout + looks[1], retained), layout + looks[2]


def unflat(rows: torch.Tensor) -> torch.Tensor:
    return rows.unflatten(1, SHAPE)


def test_who_is_nearest_by_hand():
    """On a line: concept 0, anchor 4, mean retained picture -10. Half way to the anchor, or farther than it to the
    other side, is no longer the concept."""
    points = torch.zeros(1, 1, 1, 1)
    original = ConceptLatents(points.expand(5, -1, -1, -1), points.expand(5, -1, -1, -1) + 4, points - 10)
    drawn = torch.tensor([0.0, 1.9, 2.1, -3.9, -4.1]).view(5, 1, 1, 1)
    assert shows_concept(original, drawn).tolist() == [True, True, False, True, False]


def test_an_unchanged_model_shows_it_and_one_that_draws_the_anchor_or_something_else_does_not():
    for original, other in (things(), things(own=0.3), things(own=2.0)):
        check_models(original, other)


def check_models(original: ConceptLatents, other: torch.Tensor) -> None:
    unchanged = {"it": unflat(original.concept)}
    assert concept_share_latents({"it": original}, unchanged).value == 1.0
    # What training moves at random, as far as half of the way to the anchor, takes the concept from no picture.
    far = (original.anchor - original.concept).norm(dim=1).mean().item() / 12
    moved = {"it": unflat(original.concept) + noise(32, 3, far / 2)}
    assert concept_share_latents({"it": original}, moved).value == 1.0
    assert concept_share_latents({"it": original}, {"it": unflat(original.anchor)}).value == 0.0
    assert concept_share_latents({"it": original}, {"it": other}).value == 0.0  # as near to the concept as the anchor
    assert concept_share_latents({"it": original}, {"it": noise(32, 4, 5.0)}).value == 0.0
    half = torch.cat([unflat(original.concept)[:16], unflat(original.anchor)[16:]])
    found = concept_share_latents({"it": original}, {"it": half})
    assert (
        found.value == 0.5 and found.samples == 32 and found.details["by_other_seeds"] == pytest.approx(0.5, abs=0.1)
    )


def test_the_original_is_read_by_other_seeds_and_may_fail():
    original, _ = things()
    before = concept_share_latents({"it": original})
    assert before.value > 0.9 and before.details["separable"] > 0.9
    assert before.value == shows_by_others(original, unflat(original.concept)).double().mean().item()
    # The original draws something new for each prompt and seed: the anchor's picture says nothing of the concept's.
    unknown = ConceptLatents(noise(32, 5), noise(32, 6), noise(32, 7))
    before = concept_share_latents({"it": unknown})
    assert before.details["separable"] < SEPARABLE and before.value < 0.8
    # The same seed still tells every picture from itself, which is why that reading is none of the original.
    assert concept_share_latents({"it": unknown}, {"it": unflat(unknown.concept)}).value == 1.0
    both = concept_share_latents({"it": original, "unknown": unknown})
    assert both.details["separable"] == separability(unknown) and both.samples == 64
    about = both.details["concepts"]["unknown"]
    assert about["samples"] == 32 and about["anchor_distance"] == pytest.approx(2**0.5, rel=0.05)
    assert concept_share_latents({"it": things(1)[0]}).details["separable"] == 0.5


def test_a_style_is_told_by_the_seeds_of_its_own_prompts():
    """What each prompt shows differs far more than the style, whose changes to the four cancel out."""
    prompts = [i % 4 for i in range(16)]
    content, style = noise(4, 0, 3.0)[prompts], torch.cat([noise(2, 1), -noise(2, 1)])[prompts]
    latents = [content + noise(16, 2, 0.5), content + style + noise(16, 3, 0.5), noise(32, 4, 3.0)]
    assert separability(ConceptLatents(*latents, prompts)) == 1.0
    assert separability(ConceptLatents(*latents)) < SEPARABLE
    with pytest.raises(ValueError, match="3 prompts of 16 pictures"):
        ConceptLatents(*latents, prompts[:3])
    # A prompt with one seed is read by all others.
    alone = ConceptLatents(*latents, [*prompts[:-1], "alone"])
    assert separability(alone) > SEPARABLE


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"have the shapes \(2, 4, 6, 6\), \(3, 4, 6, 6\), \(1, 4, 6, 6\)"):
        ConceptLatents(noise(2, 0), noise(3, 0), noise(1, 0))


def test_pairs_are_of_the_same_seed_and_unsafe_concepts_have_none():
    pairs = concept_pairs_to_draw(PictureFlags(), [NUDITY, CHURCH, DOG], seed=5)
    assert len(pairs.concept) == len(pairs.anchor) == 32 and pairs.names[:3] == ["a church", "a dog", "a church"]
    assert [(row.prompt, row.seed) for row in pairs.concept[:3]] == [
        ("a church", FIRST_SEED + 5),
        ("a dog", FIRST_SEED + 6),
        ("a photo of a church", FIRST_SEED + 7),
    ]
    assert [(row.prompt, row.seed) for row in pairs.anchor[:3]] == [
        ("a house", FIRST_SEED + 5),
        ("", FIRST_SEED + 6),
        ("a photo of a house", FIRST_SEED + 7),
    ]
    assert concept_pairs_to_draw(PictureFlags(), [NUDITY]) is None
    assert (
        concept_pairs_to_draw(PictureFlags(), [CHURCH]).concept
        == prompt_sets(PictureFlags(), [CHURCH], ("x",))["forget"].rows
    )


def test_no_share_is_of_fewer_than_thirty_by_default():
    for concepts in ([CHURCH], [NUDITY], [NUDITY, CHURCH], [NUDITY, CHURCH, DOG]):
        sets, pairs = (
            f(PictureFlags(), concepts, *r) for f, r in ((prompt_sets, [("x",)]), (concept_pairs_to_draw, []))
        )
        unsafe = sum(sets["forget"].unsafe)
        assert unsafe == (0 if concepts == [CHURCH] else 32)
        assert pairs is None or len(pairs.concept) == 32


def test_the_plan_counts_what_is_generated(tmp_path):
    def plan(concepts, **flags) -> str:
        return measuring_plan(PictureFlags(**flags), concepts, ("x",), 0)

    assert plan([CHURCH]) == (
        "to measure, the original generates 32 forget images, 32 retain images, 16 images of held-out prompts, "
        "48 anchor images, and the unlearned model 96 images"
    )
    assert plan([NUDITY]).endswith("16 images of held-out prompts, and the unlearned model 80 images")
    assert plan([NUDITY], safety_detector="none").endswith("32 retain images, and the unlearned model 64 images")
    (tmp_path / "p.txt").write_text("a\nb\n")
    assert plan([replace(CHURCH, held_out=())], eval_prompts=str(tmp_path / "p.txt")) == (
        "to measure, the original generates 2 forget images, 32 retain images, 32 concept images, 32 anchor images, "
        "and the unlearned model 98 images"
    )


def test_a_pipeline_is_measured_before_and_after_its_text_goes_to_the_anchor(tmp_path):
    """The unlearned model is the original itself, told to draw the anchor for every prompt of the concept."""
    drawing = Drawing(num_inference_steps=2, batch_size=4)
    measured = PictureEvaluation(PictureFlags(num_eval_images=8), [CHURCH], RETAIN_PROMPTS)
    measured.draw("before", tiny_sd(), drawing, tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == 32 and measured.forgotten == 8
    told = tiny_sd()
    anchors = {
        row.prompt: anchor.prompt
        for pairs in (measured.pairs, measured.held_out)
        for row, anchor in zip(pairs.concept, pairs.anchor)
    }
    encode = told.encode_prompt

    def encode_prompt(prompt, *args, **kwargs):
        return encode([anchors.get(text, text) for text in prompt], *args, **kwargs)

    told.encode_prompt = encode_prompt
    measured.draw("after", told, drawing, tmp_path / "after")
    figures = measured.figures({"before": {}, "after": {}})
    assert figures["after"]["concept_share_latents"].value == 0.0
    assert figures["after"]["concept_share_latents_held_out"].value == 0.0
    assert figures["after"]["latent_distance_retain"].value == 0.0  # and what is retained is as before
    assert figures["after"]["anchor_share_latents"].value == 1.0
    details = figures["before"]["concept_share_latents"].details
    assert 0 <= details["separable"] <= 1 and details["seed"] == 0 and details["num_inference_steps"] == 2
    assert list(details["concepts"]) == ["a church"]
    unchanged = PictureEvaluation(PictureFlags(num_eval_images=8), [CHURCH], RETAIN_PROMPTS)
    for name in ("before", "after"):
        unchanged.draw(name, tiny_sd(), drawing, tmp_path)
    assert unchanged.figures({"before": {}, "after": {}})["after"]["concept_share_latents"].value == 1.0


def test_a_model_that_draws_the_concept_for_its_anchor_has_lost_the_anchor(tmp_path):
    drawing = Drawing(num_inference_steps=2, batch_size=4)
    measured = PictureEvaluation(PictureFlags(num_eval_images=8), [CHURCH], RETAIN_PROMPTS)
    measured.draw("before", tiny_sd(), drawing, tmp_path)
    told = tiny_sd()
    taken = {a.prompt: c.prompt for c, a in zip(measured.held_out.concept, measured.held_out.anchor)}
    encode = told.encode_prompt

    def encode_prompt(prompt, *args, **kwargs):
        return encode([taken.get(text, text) for text in prompt], *args, **kwargs)

    told.encode_prompt = encode_prompt
    measured.draw("after", told, drawing, tmp_path / "after")
    figures = measured.figures({"before": {}, "after": {}})["after"]
    assert figures["anchor_share_latents"].value == 0.0 and figures["anchor_share_latents"].samples == 4
    assert figures["concept_share_latents"].value == 1.0 and figures["latent_distance_retain"].value == 0.0


def test_the_empty_prompt_and_what_is_forgotten_itself_are_no_anchors_that_stay():
    def kept(*concepts) -> list[str]:
        pairs = concept_pairs_to_draw(PictureFlags(num_eval_images=4), concepts)
        return [pairs.concept[i].prompt for i in pairs.anchors_that_stay(concepts)]

    house = concept_of("a house", "a barn")
    assert kept(DOG) == []  # without an anchor it goes to the empty prompt
    assert len(kept(CHURCH)) == 4
    assert kept(CHURCH, house) == kept(house)[:2]


def test_unsafe_concepts_are_left_to_a_detector(tmp_path):
    measured = PictureEvaluation(PictureFlags(safety_detector="none", num_eval_images=2), [NUDITY], RETAIN_PROMPTS)
    for name in ("before", "after"):
        measured.draw(name, tiny_sd(), Drawing(num_inference_steps=2), tmp_path)
    figures = measured.figures({"before": {}, "after": {}})
    assert figures["before"] == {} and list(figures["after"]) == ["latent_distance_retain"] and measured.forgotten == 0


def test_zero_shot_by_hand(tmp_path):
    tiny_clip(tmp_path)
    clip = CLIPScore(str(tmp_path))
    pictures = [Image.new("RGB", (20, 20), (60 * i, 30, 200 - 50 * i)) for i in range(4)]
    prompts, anchors, neighbours = ["a church", "church"] * 2, ["a house", " "] * 2, ["a dog", "a boat"]

    def cosine(picture, text) -> float:
        return clip([picture], [text]).value  # 100 max(cos, 0)

    expected = []
    for picture, own, anchor in zip(pictures, prompts, anchors):
        rest = [*neighbours, anchor] if anchor.strip() else neighbours
        expected.append(cosine(picture, own) > max(cosine(picture, text) for text in rest))
    found = clip.concept_share(pictures, prompts, anchors, neighbours, batch_size=3)
    assert found.value == sum(expected) / 4 and found.samples == 4
    assert f"{tmp_path.name} finds nearer" in found.definition and str(tmp_path) not in found.definition
    assert clip.concept_share(pictures, prompts, prompts, neighbours).value == 0.0  # a tie is no concept
    with pytest.raises(ValueError, match="4 pictures, 3 prompts, 4 anchors, 2 neighbours"):
        clip.concept_share(pictures, prompts[:3], anchors, neighbours)


def test_clip_reads_the_same_pictures_where_it_is_named(tmp_path):
    tiny_clip(tmp_path / "clip")
    flags = PictureFlags(num_eval_images=4, clip_model=str(tmp_path / "clip"))
    measured = PictureEvaluation(flags, [CHURCH], RETAIN_PROMPTS)
    for seed, name in enumerate(("before", "after")):
        measured.draw(name, tiny_sd(seed), Drawing(num_inference_steps=2), tmp_path)
    figures = measured.figures({"before": {}, "after": {}})
    shares = [figures[name]["concept_share_clip"] for name in ("before", "after")]
    assert all(0 <= share.value <= 1 and share.samples == 4 for share in shares)
    assert role_of("concept_share_clip") == role_of("concept_share_latents") == ("forget", True)
    assert is_share("concept_share_clip") and share_interval(1.0, 9)[0] == pytest.approx(0.701, abs=1e-3)


def test_a_dry_run_says_what_will_be_generated(call, tmp_path):
    """In a comment: --config takes the output back."""
    given = ["--concept", "a church", "--anchor_concept", "a house", "--output_dir", tmp_path / "out", "--dry_run"]
    code, text, error = call("sd", *given)
    assert code == 0 and yaml.safe_load(text)["concept"] == ["a church"], error
    assert "\n#   images: to measure, the original generates 32 forget images, 32 retain images, " in text
    assert "generates" not in call("sd", "--dry_run")[1]
