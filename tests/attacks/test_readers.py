"""Readers, and the trial that is made of a concept."""

from dataclasses import replace

import pytest
import torch
from attack_cases import Brighter, changed_sd
from conftest import tiny_clip, tiny_sd
from diffusers.utils import pt_to_pil

from hf_unlearn.attacks import run_attacks, suite_of
from hf_unlearn.attacks.completion import Completion
from hf_unlearn.attacks.readers import ClassifierReader, CLIPReader, LatentReader
from hf_unlearn.attacks.trials import Source, text_to_image_trial
from hf_unlearn.evaluation.clip import CLIPScore
from hf_unlearn.evaluation.concept_share import ConceptLatents, mean_separability, shows_by_means
from hf_unlearn.families.concepts import Concept
from hf_unlearn.families.latents import Drawing

CAT = Concept("cat", ("a photo of a cat", "cat"), ("a photo of a dog", "dog"))
VAN_GOGH = Concept("artist style:Van Gogh", ("art by Van Gogh",), ("art",))
KEPT = ("a photo of a house", "a tree", "a red car")


def images(count=4, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_classifier_says_its_class():
    def network(batch):
        means = batch.mean((2, 3))
        return means[:, :2], means

    found = ClassifierReader(network, 2, head=1)(images(300))
    assert torch.equal(found, images(300).mean((2, 3)).argmax(1) == 2)
    assert torch.equal(ClassifierReader(lambda x: network(x)[1], 2)(images(300)), found)


def test_clip_reads_the_nearest_text(tmp_path):
    tiny_clip(tmp_path)
    clip = CLIPScore(str(tmp_path))
    prompts, others = ["a cat", "cats"], ["a dog", "", "a tree"]
    found = CLIPReader(clip, prompts, others)(images(6))
    texts = [clip._texts([text]) for text in ["a cat", "cats", "a dog", "a tree"]]
    near = torch.cat([clip._images(pt_to_pil(images(6))) @ text.T for text in texts], 1).argmax(1)
    assert torch.equal(found, near < 2) and found.dtype == torch.bool
    assert CLIPReader(clip, prompts, others).name == str(tmp_path)
    with pytest.raises(ValueError, match="2 prompts and 0 others"):
        CLIPReader(clip, prompts, [""])(images(1))


def test_latents_are_read_by_the_nearest_mean():
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(5, 2, 2, 2, generator=generator)  # two of the concept, two of the anchor, the rest

    def near(k, count):
        return centres[k] + torch.randn(count, 2, 2, 2, generator=generator)

    concept, anchor = (torch.stack([near(k + i % 2, 1)[0] for i in range(8)]) for k in (0, 2))
    known = ConceptLatents(concept, anchor, near(4, 8), ["p", "q"] * 4)
    drawn = torch.cat([near(k, 20) for k in range(5)])
    means = [concept[0::2], concept[1::2], anchor[0::2], anchor[1::2]]
    means = torch.stack([part.mean(0) for part in means] + [known.retained.mean(0).view(2, 2, 2).float()])
    by_hand = torch.cdist(drawn.flatten(1).double(), means.flatten(1).double()).argmin(1) < 2
    assert torch.equal(shows_by_means(known, drawn), by_hand)
    assert by_hand[:40].double().mean() > 0.9 and by_hand[40:].double().mean() < 0.1
    assert mean_separability(known) > 0.8
    alike = ConceptLatents(torch.randn(40, 1, 4, 4), torch.randn(40, 1, 4, 4), torch.randn(4, 1, 4, 4))
    assert 0.25 < mean_separability(alike) < 0.75


def test_a_picture_is_left_out_of_its_own_mean():
    """With one picture a prompt the others stand for it: the own one would always be nearest."""
    concept, anchor = torch.eye(4).view(4, 1, 2, 2), -torch.eye(4).view(4, 1, 2, 2)
    known = ConceptLatents(concept, anchor, torch.full((1, 1, 2, 2), 9.0), list("abcd"))
    by_hand = []
    for i in range(4):
        rest = [j for j in range(4) if j != i]
        for own, other in ((concept, anchor), (anchor, concept)):
            far = [torch.stack([(own[i] - part[j]).square().sum() for j in rest]).min() for part in (own, other)]
            by_hand.append(bool(far[0] < far[1]))
    assert mean_separability(known) == sum(by_hand) / 8


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    drawing = Drawing(num_inference_steps=2, guidance_scale=2.0, batch_size=4)
    folder = tmp_path_factory.mktemp("drawn")
    return text_to_image_trial(changed_sd(), tiny_sd(), CAT, KEPT, folder, drawing, samples=3, pictures=4)


def test_the_original_draws_what_nobody_gives(trial):
    own = trial.unlearned
    assert own.target.images.shape == (4, 3, 16, 16) and own.target.captions == (*CAT.prompts, *CAT.prompts)
    assert trial.ceiling.model is own.original and trial.ceiling.target is own.target
    assert trial.positive.model is own.model and trial.positive.target.asked == (KEPT[0],)
    assert own.retained.captions == ("a photo of a house", "a tree", "a red car", "a photo of a house")
    assert isinstance(own.target.reader, LatentReader) and 0 <= own.target.reader.accuracy <= 1
    assert trial.negative is None
    decoded = own.original.vae.decode(torch.zeros(1, 4, 8, 8)).sample.clamp(-1, 1)
    torch.testing.assert_close(Source(own.original, "", Drawing()).images(torch.zeros(1, 4, 8, 8)), decoded)


def test_given_images_and_readers_are_used(tmp_path):
    options = dict(
        drawing=Drawing(2, 2.0),
        pictures=2,
        images=images(3),
        captions=("a", "b", "c"),
        never=Concept("x", ("x",), ("",)),
    )
    found = text_to_image_trial(tiny_sd(), tiny_sd(), CAT, KEPT, tmp_path, reader_of=lambda c: Brighter(), **options)
    assert Source(tiny_sd(), tmp_path, Drawing(2, 2.0)).target(VAN_GOGH, Brighter(), images(1)).name == "Van Gogh"
    assert torch.equal(found.unlearned.target.images, images(3)) and found.unlearned.target.captions == ("a", "b", "c")
    assert found.negative.target.asked == ("x",) and isinstance(found.positive.target.reader, Brighter)
    options["images"] = torch.zeros(3, 3, 8, 8)
    with pytest.raises(ValueError, match="are 3x8x8, but the model draws 3x16x16"):
        text_to_image_trial(tiny_sd(), tiny_sd(), CAT, KEPT, tmp_path, reader_of=lambda c: Brighter(), **options)
    with pytest.raises(ValueError, match="pass reader_of"):
        text_to_image_trial(tiny_sd(), tiny_sd(), CAT, KEPT, tmp_path, **options)
    with pytest.raises(ValueError, match="at least two retain_prompts"):
        text_to_image_trial(tiny_sd(), tiny_sd(), CAT, KEPT[:1], tmp_path)


def test_a_trial_runs_and_resumes(trial, tmp_path):
    first = run_attacks([Completion()], trial, tmp_path)
    assert set(first) == {"recovered_completion"} and first["recovered_completion"].samples == 6
    again = run_attacks([Completion()], replace(trial, unlearned=replace(trial.unlearned)), tmp_path)
    assert again == first and len(list(tmp_path.glob("*.json"))) == 6


def test_every_attack_has_a_name_of_its_own_and_a_budget():
    for kind in ("quick", "full"):
        attacks = suite_of("text_to_image", kind)
        assert len({attack.metric for attack in attacks}) == len(attacks)
        assert all(attack.budget and attack.name and attack.settings() is not None for attack in attacks)
    quick = [attack.metric for attack in suite_of("text_to_image", "quick")]
    assert quick == [
        *(f"recovered_{name}" for name in ("wordings", "samplers", "noise_probe", "completion", "soft_prefix")),
        "relearning_steps",
    ]
