"""Variants of what a replay memory holds: which there are, that nothing of them stays, and what is refused."""

import pytest
import torch
from conftest import config, tiny_pipeline, tiny_unet, tiny_vit
from stream import REQUESTS, files, images, tasks

from hf_unlearn import ClassConditionalDDPMPipeline, SFRon
from hf_unlearn.augmentation import Variation, generator_of
from hf_unlearn.augmentation.pictures import image_of
from hf_unlearn.data.pairs import labels_of
from hf_unlearn.evaluation.classification import Predictions
from hf_unlearn.families import Classification
from hf_unlearn.families.classifier.inputs import pixels_for, plain_processor
from hf_unlearn.sequences import ReplayMemory, Sequence
from hf_unlearn.sequences.bench import Cell
from hf_unlearn.sequences.setup import memory_variants
from hf_unlearn.sequences.strategies import Unlearning
from hf_unlearn.sequences.variants import MemoryVariants
from hf_unlearn.training.trainer import UnlearnTrainer

pytestmark = pytest.mark.xdist_group("sequences")
NAMES = {label: str(label) for label in range(4)}


def variants(factor: int = 2, strength: float = 0.5) -> MemoryVariants:
    return MemoryVariants(generator_of(tiny_pipeline(), Variation(num_inference_steps=4, width=4)), factor, strength)


def reads_all(data) -> Predictions:
    labels = torch.tensor(labels_of(data))
    return Predictions(torch.nn.functional.one_hot(labels, 4).float(), labels)


def sequence(folder, made: MemoryVariants | None) -> Sequence:
    args = config(folder, learning_rate=None, max_steps=3, save_strategy="steps", save_steps=1, logging_strategy="no")
    strategy = Unlearning(method=SFRon(fisher_samples=4), learn_rate=2e-3)
    return Sequence(tiny_vit(), args, tasks(), ReplayMemory(12), strategy, variants=made)


def test_variants_by_hand():
    kept, made = images(2, 1), variants(factor=3)
    found = made.of(kept, Classification(tiny_vit()), reads_all, seed=5)
    assert found.refused == 0 and found.images.labels == [label for label in kept.labels for _ in range(2)]
    again = made.of(kept, Classification(tiny_vit()), reads_all, seed=5).images
    assert torch.equal(again.pixel_values, found.images.pixel_values)
    other = made.of(kept, Classification(tiny_vit()), reads_all, seed=6).images
    assert not torch.equal(other.pixel_values, found.images.pixel_values)
    alone = made.of(torch.utils.data.Subset(kept, [3]), Classification(tiny_vit()), reads_all, seed=5).images
    assert torch.equal(alone.pixel_values, found.images.pixel_values[6:8])  # whichever stand beside it


def test_a_variant_is_what_the_generator_makes_of_the_image():
    from hf_unlearn.augmentation.drawing import planned

    kept, made = images(1, 1), variants()
    found = made.of(kept, Classification(tiny_vit()), reads_all, seed=5).images
    rows = [one.row for one in planned(kept, range(4), kept.labels, NAMES, made.generator, 1, [0.5], 5)]
    drawn = made.generator.vary(kept.pixel_values, kept.labels, [row["seed"] for row in rows], 0.5)
    assert (found.pixel_values - drawn.clamp(-1, 1)).abs().max() <= 1 / 255 + 1e-6
    assert (found.pixel_values - kept.pixel_values).abs().max() > 0.1


def test_a_variant_that_the_classifier_reads_otherwise_is_refused():
    def reads_zero(data) -> Predictions:
        return Predictions(torch.eye(4)[[0] * len(data)], torch.tensor(data.labels))

    found = variants().of(images(2, 1), Classification(tiny_vit()), reads_zero, seed=0)
    assert found.refused == 6 and found.images.labels == [0, 0]


def test_images_that_a_processor_normalised_are_those_of_the_files():
    """The same picture by a processor of another mean: the generator meets the same image, the classifier its own."""
    model = tiny_vit()
    processor = plain_processor(model.config, [0.2], [0.3])
    plain = images(1, 1)
    levels = [image_of(pixels) for pixels in plain.pixel_values]
    own = torch.stack([pixels_for(level, model.config, processor) for level in levels])
    bare = torch.stack([pixels_for(level, model.config, None) for level in levels])
    kept, made = (type(plain)(part, plain.label_tensor) for part in (own, bare))
    ours = variants().of(kept, Classification(model, processor), reads_all, seed=0).images.pixel_values
    theirs = variants().of(made, Classification(model), reads_all, seed=0).images.pixel_values
    assert ((ours * 0.3 + 0.2) * 2 - 1 - theirs).abs().max() <= 2 / 255 + 1e-5


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("varied")
    sequence(folder, variants()).run(REQUESTS)
    return folder


def test_a_request_retains_the_memory_and_its_variants_and_none_of_the_forgotten(tmp_path, monkeypatch):
    met: list = []
    stock = UnlearnTrainer.__init__

    def begin(self, model, args, method, forget, retain, **options):
        met.append(sorted(labels_of(retain)))
        return stock(self, model, args, method, forget, retain, **options)

    monkeypatch.setattr(UnlearnTrainer, "__init__", begin)
    made = sequence(tmp_path, variants())
    monkeypatch.setattr(Sequence, "predict", lambda self, data: reads_all(data))
    ledger = made.run(REQUESTS)
    first, second, third = met
    assert len(first) == 16 and second == sorted([0, 1] * 12) and third == sorted([0, 1] * 6)
    told = [(entry.figures["variants"], entry.figures["refused_variants"]) for entry in ledger.done]
    assert told == [(0, 0), (12, 0), (6, 0)]


def test_nothing_of_them_stays_and_a_stopped_run_ends_in_the_same_bytes(straight, tmp_path, monkeypatch):
    sequence(tmp_path / "plain", None).run(REQUESTS)
    assert set(files(straight)) == set(files(tmp_path / "plain"))
    assert (
        files(straight)["weights-0003-model.safetensors"]
        != files(tmp_path / "plain")["weights-0003-model.safetensors"]
    )
    stock = UnlearnTrainer.training_step

    def step(self, *args, **kwargs):
        if "request-0003" in self.args.output_dir and self.state.global_step == 1:
            raise KeyboardInterrupt
        return stock(self, *args, **kwargs)

    monkeypatch.setattr(UnlearnTrainer, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        sequence(tmp_path / "stopped", variants()).run(REQUESTS)
    monkeypatch.setattr(UnlearnTrainer, "training_step", stock)
    sequence(tmp_path / "stopped", variants()).run(REQUESTS)
    assert files(tmp_path / "stopped") == files(straight)


@pytest.mark.parametrize("made", [None, lambda: variants(factor=3)])
def test_other_variants_are_another_sequence(straight, made):
    with pytest.raises(ValueError, match="holds requests of another sequence: variants is "):
        sequence(straight, made and made()).run(REQUESTS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"generator": "digits_ddpm", "much": 2}, "unknown key 'much', known are generator, factor and strength"),
        ({"factor": 2}, "names no generator"),
        ({"generator": "digits_ddpm", "strength": 1}, "strength 1 leaves nothing of the image"),
        ({"generator": "digits_ddpm", "factor": 1}, "factor must be at least 2"),
        ({"generator": "nowhere"}, "nowhere"),
    ],
)
def test_what_makes_no_variants_is_one_line(given, said):
    with pytest.raises((ValueError, OSError), match=said):
        memory_variants(given)


def test_a_generator_of_other_classes_is_refused_before_anything_is_trained(tmp_path):
    more = ClassConditionalDDPMPipeline(tiny_unet(num_class_embeds=7), tiny_pipeline().scheduler, null_class=6)
    with pytest.raises(ValueError, match="draws 6 classes and the data has 4"):
        sequence(tmp_path, MemoryVariants(generator_of(more)))
    assert not (tmp_path / "ledger.json").exists()


def test_a_cell_without_variants_is_named_as_before():
    plain = Cell("digits", "digits_vit", "tasks", "clu", 200, 0)
    assert "variants" not in plain.spec and plain.label == "clu"
    assert Cell(**{**plain.spec, "variants": "digits_ddpm"}).label == "clu + variants"
