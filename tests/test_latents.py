"""Latents: what the VAE and the pipeline give, drawn once, and no matter how the work was cut up."""

import json

import pytest
import torch
from conftest import config, tiny_sd
from safetensors.torch import load_file

from hf_unlearn import METHODS, UnlearnTrainer
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.families.concept_words import HELD_OUT, PRESETS, RETAIN_PROMPTS, TEMPLATES
from hf_unlearn.families.concepts import (
    Concept,
    about_retaining,
    concept_of,
    concept_pairs,
    fitting,
    list_concepts,
    prompts_to_retain,
)
from hf_unlearn.families.latents import Drawing, draw_latents, encode_images
from hf_unlearn.families.synthesis import concept_data

QUICK = Drawing(num_inference_steps=2, batch_size=2)
PROMPTS = ["a cat", "a dog", "a cat"]


def pictures(count: int = 5) -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    return ArrayDataset(torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1, torch.arange(count) % 2)


def files(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


def test_encoded_images_are_the_scaled_posterior_mean_of_both_flips(tmp_path):
    vae, data = tiny_sd().vae, pictures()
    made = encode_images(vae, data, tmp_path, batch_size=2)
    with torch.no_grad():
        for i, images in ((0, data.pixel_values), (1, data.pixel_values.flip(-1))):
            mean = vae.encode(images).latent_dist.mean * vae.config.scaling_factor
            assert torch.allclose(made.pixel_values[5 * i : 5 * i + 5], mean, atol=1e-4)
    assert made.labels == [0, 1, 0, 1, 0] * 2
    plain = encode_images(vae, data, tmp_path, flips=False)
    assert torch.allclose(plain.pixel_values, made.pixel_values[:5], atol=1e-4) and len(plain) == 5


def test_nothing_is_encoded_twice_and_other_content_is(tmp_path, monkeypatch):
    pipeline, data = tiny_sd(), pictures()
    first = encode_images(pipeline.vae, data, tmp_path)
    calls, encode = [], pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda x: calls.append(len(x)) or encode(x))
    assert torch.equal(encode_images(pipeline.vae, data, tmp_path).pixel_values, first.pixel_values) and not calls
    encode_images(pipeline.vae, ArrayDataset(data.pixel_values + 0.01), tmp_path)
    other = tiny_sd(seed=1).vae
    assert not torch.equal(encode_images(other, data, tmp_path).pixel_values, first.pixel_values)
    assert calls == [5, 5] and len(list(tmp_path.iterdir())) == 3


def test_drawn_latents_are_the_pipelines_own(tmp_path):
    pipeline = tiny_sd()
    made = draw_latents(pipeline, PROMPTS, QUICK, tmp_path)
    for i, prompt in enumerate(PROMPTS):
        draw = dict(num_inference_steps=2, height=16, width=16, output_type="latent")
        alone = pipeline(prompt, generator=torch.Generator().manual_seed(i), **draw).images
        assert torch.allclose(made[i], alone[0], atol=1e-4)
    rows = [json.loads(line) for line in next(tmp_path.rglob("prompts.jsonl")).read_text().splitlines()]
    assert rows == [{"prompt": prompt, "seed": i} for i, prompt in enumerate(PROMPTS)]


def test_an_interrupted_drawing_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    """Killed in its second batch, and once more while it writes: the files are those of a straight run."""
    prompts = PROMPTS * 2
    draw_latents(tiny_sd(), prompts, QUICK, tmp_path / "straight")
    pipeline, calls = tiny_sd(), []
    draw = type(pipeline).__call__

    class Killed(BaseException):
        pass

    def dies(self, *args, **kwargs):
        calls.append(kwargs["prompt"])
        if len(calls) == 2:
            raise Killed
        return draw(self, *args, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", dies)
    with pytest.raises(Killed):
        draw_latents(pipeline, prompts, QUICK, tmp_path / "killed")
    folder = next((tmp_path / "killed").iterdir())
    assert len(list(folder.glob("*.safetensors"))) == 2
    (folder / "00002.partial").write_bytes(b"torn")
    draw_latents(pipeline, prompts, QUICK, tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "straight")
    assert [len(part) for part in calls] == [2, 2, 2, 2]
    draw_latents(pipeline, prompts, QUICK, tmp_path / "killed")
    assert len(calls) == 4
    assert all(load_file(path)["latents"].shape == (4, 8, 8) for path in folder.glob("*.safetensors"))


def test_concept_data_from_words_alone(tmp_path):
    """Forget labels are the concept's prompts, anchors those of the preset; anchor images differ, labels do not."""
    pipeline, concept = tiny_sd(), concept_of("a church", "a house", ["{}", "a photo of {}", "an image of {}"])
    sizes = dict(num_forget_images=3, num_retain_images=2, drawing=QUICK)
    objective, forget, retain = concept_data(pipeline, [concept], tmp_path, **sizes)
    texts = objective.prompts.texts
    assert [texts[i] for i in forget.labels] == ["a church", "a photo of a church", "an image of a church"]
    assert [texts[i] for i in retain.labels] == list(RETAIN_PROMPTS[:2])
    objective.choose_anchors(set(forget.labels), 3, 0)
    houses = ["a house", "a photo of a house", "an image of a house"]
    assert [texts[objective.anchors[i]] for i in forget.labels] == houses
    _, other, _ = concept_data(pipeline, [concept], tmp_path, forget_images="anchor", **sizes)
    assert other.labels == forget.labels and not torch.equal(other.pixel_values, forget.pixel_values)
    drawn = draw_latents(pipeline, houses, QUICK, tmp_path)
    assert torch.equal(other.pixel_values, drawn)


def test_concept_data_from_given_images(tmp_path):
    pipeline, concept = tiny_sd(), concept_of("a church")
    given = {"forget": (pictures(3), None), "retain": (pictures(2), ["a hill", "a lake"])}
    objective, forget, retain = concept_data(pipeline, [concept], tmp_path, drawing=QUICK, **given)
    texts = objective.prompts.texts
    assert [texts[i] for i in forget.labels] == ["a church", "a photo of a church", "an image of a church"] * 2
    assert [texts[i] for i in retain.labels] == ["a hill", "a lake"] * 2
    objective.choose_anchors(set(forget.labels), 6, 0)
    assert {objective.anchors[i] for i in forget.labels} == {0}  # free text without an anchor: the empty prompt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((" ",), "the concept is empty"),
        (("a church", "A church "), "is its own anchor: choose another anchor_concept"),
        (("a church", None, ["a photo"]), "prompt template 'a photo' needs \"{}\" once"),
        (("a church", None, ["{} {x}"]), 'needs "{}" once'),
        (("a church", None, ["old {}"], ["Old  {}"]), "'Old  {}' is in prompt_templates and in held_out_templates"),
        (("a church", None, None, ["old"]), "prompt template 'old' needs"),
        (("nudity", None, None, ["a photo of {}"]), "leave prompt_templates and held_out_templates out"),
        (
            ("nudity", None, ["a photo of {}"]),
            "has prompts of its own: leave prompt_templates and held_out_templates out",
        ),
        (("artist style",), 'needs a name: "artist style:NAME"'),
        (("nudity:art",), "'nudity' takes no name"),
    ],
)
def test_bad_concepts(arguments, message):
    with pytest.raises(ValueError, match=message):
        concept_of(*arguments)


def test_what_is_held_out_is_not_trained_on():
    """Every fourth of given templates, else our own; those that are named leave all others to be trained on."""
    four = ["a {} of one", "a {} of two", "a {} of three", "a {} of four"]
    concept = concept_of("cat", "dog", [*four, "a {} of five"])
    assert concept.held_out == ("a cat of four",) and concept.held_out_anchors == ("a dog of four",)
    assert concept.prompts == ("a cat of one", "a cat of two", "a cat of three", "a cat of five")
    for templates in (None, four[:3]):
        concept = concept_of("cat", templates=templates)
        assert len(concept.held_out) == 4 and set(concept.held_out_anchors) == {""}
        assert not set(concept.held_out) & set(concept.prompts) and len(concept.prompts) == len(templates or TEMPLATES)
    concept = concept_of("cat", "dog", four, ["{}!"])
    assert (len(concept.prompts), concept.held_out, concept.held_out_anchors) == (4, ("cat!",), ("dog!",))
    assert concept_of("cat", "dog", four, held_out=()).held_out == ()
    for images, prompts in ((1, 8), (9, 9), (100, len(TEMPLATES))):  # ours are as many as there are images for them
        ours = concept_of("cat").prompts  # spread over all of them, as they differ in the words before the concept
        kept = tuple(ours[len(ours) * i // prompts] for i in range(prompts))
        assert fitting([concept_of("cat")], images)[0].prompts == kept
    assert max(len(p.partition("cat")[0].split()) for p in fitting([concept_of("cat")], 8)[0].prompts) == 5
    assert len(fitting([concept_of("nudity")], 3)[0].prompts) == 8
    two = [concept_of("cat"), concept_of("dog")]
    assert len(concept_pairs(two, 48)) == 48 and len(concept_pairs(two, 16)) == 16 == len(concept_pairs(two, 17))
    for name in PRESETS:
        concept = concept_of(f"{name}:Monet" if name == "artist style" else name)
        assert len(concept.held_out) == len(concept.held_out_anchors) == 4
        assert not set(concept.held_out) & {*concept.prompts, *concept.anchors, *concept.held_out_anchors}


def test_bad_concept_data(tmp_path):
    own = concept_of("rocket", "boat", ["a noto emoji of a {}", "two {}s"])
    assert own.prompts == ("a noto emoji of a rocket", "two rockets")
    assert own.anchors == ("a noto emoji of a boat", "two boats")
    concept = concept_of("a church")
    for options, message in (
        ({"concepts": []}, "no concept"),
        ({"num_forget_images": 0}, "at least 1"),
        ({"retain_prompts": ["a church"]}, "'a church' is to be forgotten and retained"),
        ({"forget": (pictures(3), ["one"])}, "3 images have 1 captions"),
        ({"forget": (pictures(0), None)}, "no images to encode"),
        ({"num_forget_images": 7}, "num_forget_images is 7, but each of the 8 prompts of 1 concept needs an image"),
        ({"retain_prompts": ["A  photo of a CHURCH"]}, "'A  photo of a CHURCH' is to be forgotten and retained"),
        ({"retain": (pictures(2), ["a hill", "A Church "])}, "caption 'A Church ' of the retain images is also to be"),
        (
            {"forget": (pictures(2), ["old church", "the dome"]), "retain": (pictures(2), ["a hill", "The dome"])},
            "caption 'The dome' of the retain images",
        ),
        ({"forget": (pictures(2), ["old church", " "])}, "the caption of forget image 1 is empty"),
        ({"concepts": [concept, concept_of("a dog")], "forget": (pictures(2), None)}, "no captions that say which"),
        (
            {"concepts": [concept, concept_of("a dog")], "forget": (pictures(2), ["old church", "the dome"])},
            "concept 'a dog' is in no caption",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            concept_data(tiny_sd(), **{"concepts": [concept], "cache_dir": tmp_path, "drawing": QUICK, **options})


def test_a_concept_is_asked_for_at_many_places_of_a_prompt():
    before = [len(template.partition("{}")[0].split()) for template in TEMPLATES]
    assert set(range(8)) <= set(before) and before.count(4) >= 6 and len(set(TEMPLATES)) == len(TEMPLATES)
    assert not set(TEMPLATES) & set(HELD_OUT)


def test_no_prompt_that_names_the_concept_is_retained_by_default(tmp_path):
    for name, kept in (
        ("a car", "a red car on a street"),
        ("a dog", "a photo of a dog"),
        ("cats", "a photo of a cat"),
    ):
        concept = concept_of(name, "a house")
        assert set(RETAIN_PROMPTS) - set(prompts_to_retain([concept])) == {kept}
        assert about_retaining([concept]) == [f"{kept!r} names what is forgotten and is not retained"]
        objective, _, retain = concept_data(tiny_sd(), [concept], tmp_path, None, 8, 16, QUICK)
        assert kept not in {objective.prompts.texts[label] for label in retain.labels}
    assert prompts_to_retain([concept_of("a car"), concept_of("a dog")]) == tuple(
        p for p in RETAIN_PROMPTS if p not in ("a red car on a street", "a photo of a dog")
    )
    assert (
        prompts_to_retain([concept_of("a rocket")]) == RETAIN_PROMPTS
        and about_retaining([concept_of("a rocket")]) == []
    )
    given = ["a blue car", "a hill"]
    assert prompts_to_retain([concept_of("a car")], given) == tuple(given)
    assert about_retaining([concept_of("a car")], given) == [
        "'a blue car' names what is forgotten and is retained as asked"
    ]
    assert not concept_of("a car").is_in("a carrot", in_number=True) and concept_of("a cup").is_in("two cups", True)


def twenty() -> list[Concept]:
    return fitting([concept_of(f"thing{i}", f"other{i}") for i in range(20)], 160)


def test_images_cover_every_concept_before_a_second_prompt_of_one():
    """Round by round: the first prompt of each concept, then the second; presets of another length too."""
    pairs = concept_pairs(twenty())
    assert len(pairs) == 160 and pairs[:20] == [(f"thing{i}", f"other{i}") for i in range(20)]
    assert pairs[20] == ("a close-up of thing0", "a close-up of other0")
    mixed = [prompt for prompt, _ in concept_pairs([concept_of("violence"), *fitting([concept_of("a church")], 8)])]
    assert mixed[1] == "a church" and len(mixed) == 12 + 8 and mixed[15] == "this is a photo of a church"
    with pytest.raises(
        ValueError, match="is 64, but each of the 160 prompts of 20 concepts.*set num_forget_images to 160"
    ):
        concept_pairs(twenty(), 64)
    assert len(concept_pairs(twenty(), 160)) == 160


def test_too_few_images_are_refused_before_one_is_drawn(tmp_path, monkeypatch):
    pipeline = tiny_sd()
    monkeypatch.setattr(type(pipeline), "__call__", lambda *args, **kwargs: pytest.fail("an image was drawn"))
    with pytest.raises(ValueError, match="set num_forget_images to 160"):
        concept_data(pipeline, twenty(), tmp_path)


def test_uce_edits_the_prompts_of_all_concepts_whatever_images_there_are(tmp_path):
    """The weights after one image are those after an image of each prompt."""
    edited = []
    concepts = [concept_of(word, "a tree", ["{}", "a photo of {}"]) for word in ("cat", "dog", "owl")]
    for count in (1, 6):
        pipeline = tiny_sd()
        sizes = dict(num_forget_images=count, num_retain_images=2, drawing=QUICK, image_per_prompt=False)
        objective, forget, retain = concept_data(pipeline, concepts, tmp_path / "cache", **sizes)
        UnlearnTrainer(objective, config(tmp_path), METHODS["uce"](), forget, retain).train()
        edited.append(pipeline.unet.state_dict())
    start = tiny_sd().unet.state_dict()
    assert all(torch.equal(edited[0][name], edited[1][name]) for name in start)
    assert any(not torch.equal(edited[0][name], start[name]) for name in start)


def test_a_caption_goes_where_its_concept_goes(tmp_path):
    concepts = [concept_of("a church", "a house"), concept_of("artist style:Van Gogh")]
    captions = ["The church of Auvers", "fields, van gogh 1890", "sunlight"]
    given = {"forget": (pictures(3), captions), "retain": (pictures(1), ["a lake"])}
    objective, forget, _ = concept_data(tiny_sd(), concepts, tmp_path, drawing=QUICK, **given)
    objective.choose_anchors(set(forget.labels), len(forget), 0)
    texts = objective.prompts.texts
    assert [texts[objective.anchors[i]] for i in forget.labels[:3]] == ["a house", "a painting", "a house"]


@pytest.mark.parametrize(
    ("text", "preset"),
    [("Nudity", "nudity"), (" VIOLENCE ", "violence"), ("Artist_Style: Van Gogh", "artist style")],
)
def test_a_preset_is_found_whatever_its_case(text, preset):
    concept = concept_of(text)
    pairs, _, unsafe = PRESETS[preset]
    assert concept.name.startswith(preset) and concept.unsafe == unsafe
    assert concept.anchors == tuple(anchor for _, anchor in pairs)


@pytest.mark.parametrize(
    ("text", "near"), [("nude", "nudity"), ("Nuditty", "nudity"), ("NSFW", "nudity"), ("violent", "violence")]
)
def test_a_near_miss_of_a_preset_stays_free_text_and_is_said(text, near):
    with pytest.warns(UserWarning, match=f"taken as free text.*name the preset '{near}'"):
        concept = concept_of(text)
    assert concept.prompts[1] == f"a photo of {text}" and not concept.unsafe


def test_other_words_are_free_text_without_a_word(recwarn):
    for text in ("a church", "violin", "a city", "Van Gogh", "artificial grass"):
        concept_of(text)
    assert not recwarn.list


def test_presets_pair_every_prompt_with_another_anchor():
    for name, (pairs, _, _) in PRESETS.items():
        concept = concept_of(f"{name}:Monet" if "{}" in pairs[0][0] else name)
        assert len(set(concept.prompts)) == len(concept.anchors) >= 5
        assert not any("{}" in p or p == a for p, a in zip(concept.prompts, concept.anchors))
        assert name in list_concepts()
    assert concept_of("nudity").unsafe and not concept_of("a dog").unsafe
    assert set(concept_of("nudity", "a tree").anchors) == {"a tree"}
