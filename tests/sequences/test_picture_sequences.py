"""Sequences of requests on diffusion models: what is held, what is on disk, and runs that are killed."""

import json
import signal
from pathlib import Path

import pytest
import torch
import yaml
from conftest import tiny_pipeline
from diffusers import AutoModel, StableDiffusionPipeline
from pictures import CLASSES, PROMPTS, class_painter, prompt_painter, sequence
from PIL import Image
from pipeline_cases import tiny_sd3
from safetensors.torch import load_file
from stream import files, launched

from hf_unlearn import NoisePrediction
from hf_unlearn.evaluation.emoji import prompt_of
from hf_unlearn.families import denoiser_of
from hf_unlearn.families.concept_words import TEMPLATES
from hf_unlearn.families.held import Held
from hf_unlearn.saving.history import read_history
from hf_unlearn.sequences import Book, ReplayMemory, Request, request_of, strategy_of
from hf_unlearn.sequences.diffusion import DiffusionSequence, PromptPainter, Standing
from hf_unlearn.sequences.diffusion.setup import PictureSetup
from hf_unlearn.sequences.report import card, listing, summary, write_report
from hf_unlearn.sequences.requests import ConceptPart
from hf_unlearn.training.trainer import UnlearnTrainer

pytestmark = pytest.mark.xdist_group("sequences")
ASKED = {"classes": CLASSES, "prompts": PROMPTS}


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> dict[str, Path]:
    """The folders of runs that nothing stops, by kind."""
    made = {}
    for kind, asked in ASKED.items():
        made[kind] = tmp_path_factory.mktemp(kind)
        sequence(kind, made[kind]).run(asked)
    return made


# ---- what is held ------------------------------------------------------------------------------
def batch(labels: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, len(labels), 1, 8, 8, generator=generator)
    given = {"pixel_values": noise[0].clamp(-1, 1), "noise": noise[1], "labels": torch.tensor(labels)}
    dropped = torch.zeros(len(labels), dtype=torch.bool)
    return {**given, "timesteps": torch.arange(len(labels)) * 200 + 50, "drop_labels": dropped}


def test_a_painter_trains_the_network_of_any_text_to_image_pipeline(tmp_path):
    pipeline = tiny_sd3()
    pipeline.save_pretrained(tmp_path / "model")
    made = PictureSetup(str(tmp_path / "model")).sequence(tmp_path / "out").painter
    assert type(made.network).__name__ == "SD3Transformer2DModel" and made.network is made.pipeline.transformer
    assert made.drawing.guidance_scale == denoiser_of(pipeline).guidance(pipeline)


def test_targets_by_hand():
    objective, first, latest = (NoisePrediction(tiny_pipeline(seed)) for seed in (0, 1, 2))
    held = Held(first.network, {1: 3}, latest.network, frozenset({2}))
    given = batch([0, 1, 2, 3])
    found = held.predict(objective, given)
    noisy = objective.schedule.add_noise(given["pixel_values"], given["noise"], given["timesteps"])
    for row, (network, label) in enumerate([(first, 0), (first, 3), (latest, 2), (first, 3)]):
        with torch.no_grad():
            at = noisy[row : row + 1], given["timesteps"][row : row + 1]
            expected = network.network(*at, class_labels=torch.tensor([label])).sample
        assert torch.allclose(found[row : row + 1], expected, atol=1e-6)


def test_what_was_learnt_since_needs_the_network_that_knows_it():
    with pytest.raises(ValueError, match="pass latest"):
        Held(tiny_pipeline().unet, since=frozenset({1}))


def test_retained_samples_of_a_run_are_matched_to_the_first_model(tmp_path, monkeypatch):
    """In request 2 the target of the key that request 1 forgot is what the first model says under its anchor."""
    made, seen = sequence("classes", tmp_path), []
    first = tiny_pipeline()
    stock = Held.predict

    def predict(self, objective, given):
        found = stock(self, objective, given)
        for row, label in enumerate(given["labels"].tolist()):
            one = {name: value[row : row + 1] for name, value in given.items()}
            asked = {1: 2}.get(label, label)
            expected = NoisePrediction(first).predict(first.unet, {**one, "labels": torch.tensor([asked])})
            seen.append((label, bool(torch.allclose(found[row : row + 1], expected, atol=1e-6))))
        return found

    made.run(CLASSES[:1])
    monkeypatch.setattr(Held, "predict", predict)
    made.run(CLASSES[:2])
    assert {label for label, _ in seen} == {0, 1, 2} and all(same for _, same in seen)


def test_a_forgotten_key_is_held_in_later_requests(tmp_path):
    made = sequence("prompts", tmp_path)
    sets = []
    stock = UnlearnTrainer.__init__

    def init(self, model, args, method, forget, retain, **options):
        texts = model.prompts.texts
        sets.append([{texts[label] for label in part.labels} for part in (forget, retain)])
        stock(self, model, args, method, forget, retain, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnlearnTrainer, "__init__", init)
        made.run(PROMPTS)
    cats, dogs = {"a cat", "a photo of a cat"}, {"a dog", "a photo of a dog"}
    assert sets[0] == [cats, dogs | {"a car"}]
    assert sets[1] == [cats | dogs, {"a car"}]  # what drew a dog must draw something else now
    assert sets[2] == [{"a ship", "a red a ship"}, cats | dogs | {"a car"}]


@pytest.mark.parametrize("change", [{"hold": False}, {"match": "last"}])
def test_remedies_can_be_left_out(straight, tmp_path, change):
    made = sequence("classes", tmp_path, **change)
    made.run(CLASSES[:2])
    first, second = Book(tmp_path).read().entries
    theirs = Book(straight["classes"]).read().entries
    same = change != {"match": "last"}  # in the first request nothing is held yet
    assert (first.weights_after == theirs[0].weights_after) == same
    assert second.weights_after != theirs[1].weights_after


# ---- what is known -----------------------------------------------------------------------------
def after(standing: Standing, *asked) -> Standing:
    for each in asked:
        standing = standing.after(request_of(each))
    return standing


def test_anchors_are_never_forgotten_themselves():
    start = Standing(prompt_painter(), tuple(prompt_painter().every))
    end = after(start, *PROMPTS[:2])
    assert set(end.gone.values()) == {"a car", "a photo of a car"} and end.known == ["a car"]
    assert end.moved(after(start, PROMPTS[0])).keys() == end.gone.keys()
    classes = after(Standing(class_painter(), class_painter().every), *CLASSES)
    assert dict(classes.gone) == {"3": "0"} and classes.since == {"1"}
    assert after(classes, {"forget": {"classes": [1]}}).since == frozenset()


def test_a_style_and_then_an_object_that_was_drawn_in_it():
    styles, things = ("fluent", "noto"), ("cat", "car", "carrot", "rose")
    words = PromptPainter(None, [prompt_of(style, thing) for style in styles for thing in things])
    style = after(Standing(words, words.every), {"forget": {"concept": "noto", "anchor": "fluent"}})
    assert style.gone == {prompt_of("noto", thing): prompt_of("fluent", thing) for thing in things}
    both = after(style, {"forget": {"concept": "a car", "anchor": "a rose"}})
    assert both.known == [prompt_of("fluent", thing) for thing in ("cat", "carrot", "rose")]
    rose = prompt_of("fluent", "rose")
    assert both.moved(style) == {prompt_of("noto", "car"): rose, prompt_of("fluent", "car"): rose}
    learnt = Request(learn=ConceptPart("car", images="."))
    again = both.after(learnt)
    assert again.since == {prompt_of(style, "car") for style in styles} and prompt_of("fluent", "car") in again.known
    with pytest.raises(ValueError, match="is known already"):
        again.after(learnt)


def test_a_thing_that_the_mixed_list_names_once_is_forgotten_by_the_templates_too():
    words = PromptPainter(None)
    gone = after(Standing(words, words.every), {"forget": {"concept": "a red car", "anchor": "a ship"}}).gone
    assert (
        gone["a red car on a street"] == "a ship on a street"
        and gone["a painting of a red car"] == "a painting of a ship"
    )
    assert len(gone) == 1 + len(TEMPLATES)


def test_a_picture_is_learnt_under_the_prompt_that_is_its_caption(tmp_path):
    for i in range(3):
        Image.new("RGB", (16, 16), (80 * i, 0, 0)).save(tmp_path / f"{i}.png")
    rows = [("0.png", "b cat"), ("1.png", "something else"), ("2.png", "a cat")]
    said = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
    painter, keys = prompt_painter(), ["a cat", "b cat"]

    def named() -> list[str]:
        images = painter.images(ConceptPart("a cat", images=str(tmp_path)))
        return [painter.key_of(images, keys, i) for i in range(3)]

    assert named() == ["a cat", "b cat", "a cat"]  # without captions in turn
    (tmp_path / "metadata.jsonl").write_text("\n".join(said))
    assert named() == ["b cat", "b cat", "a cat"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([PROMPTS[0], PROMPTS[0]], "request 2 (forget a cat (draws a dog)): a cat (draws a dog) is forgotten already"),
        ([{"forget": {"concept": "a cat", "anchor": "a cat"}}], "is its own anchor"),
        (
            [PROMPTS[0], {"forget": {"concept": "a dog", "anchor": "a cat"}}],
            "the anchor 'a cat' of 'a dog' draws 'a dog', which is to be forgotten: choose another anchor",
        ),
        ([{"forget": {"concept": "photo", "anchor": "drawing"}}, {"forget": {"classes": [1]}}], "names a concept"),
        ([{"learn": {"concept": "a cat", "images": "nowhere"}}], "images nowhere does not exist"),
        ([{"forget": {"concept": "a cat", "images": "x"}}], "images are for what is learnt"),
        ([{"forget": {"concept": "a cat", "templates": ["a cat"]}}], 'needs "{}" once'),
        ([{"forget": {"concept": ""}}], "concept is '': give a text"),
        ([{"forget": {"concept": "a cat", "ancor": "a dog"}}], "unknown key 'ancor'"),
    ],
)
def test_what_makes_no_sense_to_prompts_is_one_line(tmp_path, asked, said):
    with pytest.raises(ValueError) as error:
        sequence("prompts", tmp_path / "run").run(asked)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run/ledger.json").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([{"forget": {"classes": [7]}}], "there is no class 7: the model has 0, 1, 2, 3"),
        (["0R"], "a request to a class-conditional model names classes"),
        ([{"learn": {"classes": [1]}}], "class 1 is known already"),
        ([{"forget": {"classes": [1]}}, {"forget": {"classes": [1]}}], "class 1 is forgotten already"),
        ([{"forget": {"classes": [0, 1, 2, 3]}}], "is to be forgotten itself"),
        ([{"forget": {"concept": "a cat"}}], "names classes"),
    ],
)
def test_what_makes_no_sense_to_classes_is_one_line(tmp_path, asked, said):
    with pytest.raises(ValueError) as error:
        sequence("classes", tmp_path / "run").run(asked)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run/ledger.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strategy": strategy_of("retrain")}, "a diffusion model takes clu or sfron"),
        ({"match": "second"}, "match must be first or last"),
        ({"samples": 2}, "holds 2 pictures, fewer than the 4"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        sequence("classes", tmp_path, **change)


def test_a_memory_that_grows_with_bytes_is_refused(tmp_path):
    made = sequence("classes", tmp_path)
    with pytest.raises(ValueError, match="bounded by samples"):
        DiffusionSequence(class_painter(), made.config, ReplayMemory(size=1000))
    with pytest.raises(ValueError, match="stands twice"):
        PromptPainter(None, ["a", "a"])


# ---- runs --------------------------------------------------------------------------------------
def test_the_ledger_says_what_was_done(straight):
    first, second, third = Book(straight["classes"]).read().entries
    assert [entry.state for entry in (first, second, third)] == ["done"] * 3
    assert first.samples == {"forget": 4} and first.left_memory == 2 and third.samples == {"learn": 5}
    assert set(third.data) == {"learn"} and first.data == {}
    assert set(second.figures["left"]) == {"1", "2"} and set(third.figures["left"]) == {"2"}
    assert second.figures["replayed"] == 2 and third.figures["replayed"] == 3
    assert all(entry.figures["drift"] >= 0 for entry in (first, second))
    known = Book(straight["prompts"]).read().entries[2].figures
    assert set(known["left"]) == {"1", "2", "3"} and known["replayed"] == 1


def test_the_memory_holds_nothing_that_is_forgotten(straight, tmp_path, monkeypatch):
    made = sequence("classes", tmp_path)
    made.run(CLASSES[:1])
    kept = made._kept(made.queue.standing(made.ledger.entries))
    assert "1" not in kept and len(kept) == 3
    going = [picture.numpy().tobytes() for picture in kept["3"]]
    assert going and all(content in whole(tmp_path) for content in going)

    def look(self, *args, **kwargs):
        assert not any(content in whole(tmp_path) for content in going)
        raise KeyboardInterrupt

    monkeypatch.setattr(UnlearnTrainer, "train", look)
    with pytest.raises(KeyboardInterrupt):
        sequence("classes", tmp_path).run(CLASSES[:2])


def whole(folder: Path) -> bytes:
    """All that is written in a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("kind", ["classes", "prompts"])
def test_a_run_killed_in_the_middle_of_request_2_ends_in_the_same_bytes(straight, tmp_path, kind):
    assert launched("pictures.py", kind, tmp_path, 2, 2) == -signal.SIGKILL
    assert [entry.state for entry in Book(tmp_path).read().entries] == ["done", "running", "queued"]
    assert list(tmp_path.glob("request-0002/clu/checkpoint-2"))
    sequence(kind, tmp_path).run(ASKED[kind])
    assert files(tmp_path) == files(straight[kind])
    assert Book(tmp_path).read().substance() == Book(straight[kind]).read().substance()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classes", "prompts"])
def test_two_processes_are_one(tmp_path, kind):
    """The batch of four is two of two each: what is predicted agrees to rounding, and the same pictures are kept.

    A bias whose gradient is nothing but rounding may differ by a step.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    for processes, folder in ((1, one), (2, two)):
        assert launched("pictures.py", kind, folder, processes=processes) == 0
    assert files(one).keys() == files(two).keys()
    memory = "memory-0003.safetensors"
    ours, theirs = (load_file(folder / memory) for folder in (one, two))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(value.float(), theirs[name].float(), atol=1e-4) for name, value in ours.items())
    networks = [AutoModel.from_pretrained(str(folder / "model"), subfolder="unet") for folder in (one, two)]
    ours, theirs = (prediction(network) for network in networks)
    assert torch.allclose(ours, theirs, atol=1e-4) and ours.std() > 0.01


@torch.no_grad()
def prediction(unet) -> torch.Tensor:
    """What a network makes of noise, for four of its classes or four prompts of noise."""
    draw, config = torch.Generator().manual_seed(0), unet.config
    noisy = torch.randn(4, config.in_channels, config.sample_size, config.sample_size, generator=draw)
    width = config.get("cross_attention_dim")
    told = (torch.arange(4),) if width is None else (torch.randn(4, 5, width, generator=draw),)
    return unet(noisy, torch.tensor([10, 300, 600, 900]), *told).sample


def test_requests_one_by_one_are_the_same_run(straight, tmp_path):
    for count in (1, 2, 3):
        sequence("prompts", tmp_path).run(PROMPTS[:count])
    assert files(tmp_path) == files(straight["prompts"])


def test_the_exported_pipeline_says_what_it_forgot(straight):
    pipeline = StableDiffusionPipeline.from_pretrained(straight["prompts"] / "model", safety_checker=None)
    names = [entry["forgotten"] for entry in read_history(pipeline.unet)]
    assert names == ["a cat (draws a dog)", "a dog (draws a car)", "a ship (draws a car)"]
    (weights,) = straight["prompts"].glob("weights-0003-*.safetensors")
    kept = load_file(weights)
    assert all(torch.equal(value, kept[name]) for name, value in pipeline.unet.state_dict().items())


def test_report_and_card(straight, tmp_path):
    ledger = Book(straight["prompts"]).read()
    text = write_report(ledger, tmp_path).read_text()
    assert "data:image/png;base64," in text and "forget a cat" in text
    assert {name for name, _, _ in summary(ledger)} == {"left", "worst", "relapse", "drift"}
    assert "pipeline_tag: text-to-image" in card(ledger) and "diffusers" in card(ledger)
    assert "a ship (draws a car)" in listing(ledger)


def test_from_a_file(call, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    asked = {"model": str(tmp_path / "model"), "steps": 2, "batch_size": 4, "memory": {"samples": 8}}
    asked |= {"num_inference_steps": 2, "guidance_scale": 1.0, "forget_pictures": 4, "requests": CLASSES[:1]}
    asked |= {"options": {}, "learning_rate": 1e-4}
    (tmp_path / "q.yaml").write_text(yaml.safe_dump(asked))
    code, said, error = call("requests", tmp_path / "run", "add", "--file", tmp_path / "q.yaml")
    assert code == 0 and "next is 1: forget class 1" in said, error
    code, said, error = call("requests", tmp_path / "run", "add", "--forget_classes", "1")
    assert code and "is forgotten already" in error
    code, said, error = call("requests", tmp_path / "run", "run")
    assert code == 0 and "1 done" in said and "drift" in said, error


def test_a_file_that_does_not_fit_is_one_line(call, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    for change, said in (
        ({"prompts": ["a", "b"]}, "draws classes: leave prompts and templates out"),
        ({"method": "lwf"}, "method lwf is for classifiers"),
        ({"match": "next"}, "match"),
        ({"memory": {"bytes": 3}}, "memory has the unknown key 'bytes'"),
        ({"model": "digits_vit"}, "data is missing"),
    ):
        given = {"model": str(tmp_path / "model"), "requests": CLASSES[:1], **change}
        (tmp_path / "q.yaml").write_text(yaml.safe_dump(given))
        code, _, error = call("requests", tmp_path / "run", "add", "--file", tmp_path / "q.yaml")
        assert code and said in error.strip().splitlines()[-1] and error.count("error:") == 1, error  # below a bar
    assert not (tmp_path / "run").exists()
