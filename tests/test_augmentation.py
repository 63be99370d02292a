"""Targeted augmentation: what is slow-learnt, variants that depend on their own image alone, runs that go on."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import (
    config,
    random_images,
    save_classifier,
    save_vit_and_images,
    tiny_dit,
    tiny_pipeline,
    tiny_sd,
    tiny_vit,
    weights,
)
from torch import nn

from hf_unlearn import FineTune, UnlearnTrainer, split_by_label
from hf_unlearn.augmentation import Variation, augment, elbow, find_slow_learnt, generator_of, redraw
from hf_unlearn.augmentation.pictures import image_of
from hf_unlearn.augmentation.retaining import blanks, repairing, standing_in
from hf_unlearn.augmentation.sam import SharpnessAware
from hf_unlearn.augmentation.slow import RULES, Slow
from hf_unlearn.augmentation.training import fit, train_early
from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.joining import Joined, seen_more
from hf_unlearn.data.pairs import check_overlap, collate, labels_of, subset
from hf_unlearn.evaluation.classification import predictions
from hf_unlearn.families.classifier.load import load_image_classifier, load_labelled_images

FEW_STEPS = dict(num_inference_steps=6, width=4)


def drawer(pipeline=None, **values):
    return generator_of(pipeline or tiny_pipeline(), Variation(**{**FEW_STEPS, **values}), "tiny")


class Says(nn.Module):
    """A classifier whose logits are the mean of each image times a row, so that a test knows its losses."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.config = SimpleNamespace(num_labels=logits.shape[1], id2label={}, label2id={})

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.logits[pixel_values[:, 0, 0, 0].round().long()])


def told(logits, labels) -> tuple[Says, ArrayDataset]:
    """A classifier that says row i of `logits` for image i, and these images."""
    places = torch.arange(len(labels), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Says(torch.tensor(logits)), ArrayDataset(places.clone(), torch.tensor(labels))


# ---- what is slow-learnt -------------------------------------------------------------------------
def test_the_cluster_of_higher_loss_is_slow_in_each_class():
    sure, unsure = [4.0, 0.0], [0.3, 0.0]
    rows = [sure, unsure, sure, unsure, sure] + [row[::-1] for row in (unsure, unsure, sure, sure, unsure)]
    model, data = told(rows, [0] * 5 + [1] * 5)
    slow = find_slow_learnt(model, data)
    assert slow.positions == [1, 3, 5, 6, 9]
    assert slow.per_class == {0: 2, 1: 3} and slow.share == 0.5
    p = predictions(model, data)
    assert torch.equal(slow.losses, nn.functional.cross_entropy(p.logits, p.labels, reduction="none"))
    assert find_slow_learnt(model, data, outputs="logits").positions == slow.positions


def test_the_other_rules():
    rows = [[2.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 3.0], [0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]
    model, data = told(rows, [0, 0, 0, 0, 1, 1, 1, 1])
    assert find_slow_learnt(model, data, "misclassified").positions == [1, 6]
    assert find_slow_learnt(model, data, "loss", 0.5).positions == [1, 3, 5, 6]
    assert find_slow_learnt(model, data, "all").positions == list(range(8))
    drawn = find_slow_learnt(model, data, "random", 0.5, seed=1)
    assert drawn.positions == find_slow_learnt(model, data, "random", 0.5, seed=1).positions
    assert set(drawn.per_class.values()) == {2}
    others = {tuple(find_slow_learnt(model, data, "random", 0.5, seed=s).positions) for s in range(9)}
    assert len(others) > 1


def test_bad_questions_are_one_line():
    model, data = told([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1])
    with pytest.raises(ValueError, match="no sample is slow-learnt by clusters") as lost:
        find_slow_learnt(model, data)
    assert "\n" not in str(lost.value)
    model, data = told([[1.0, 0.0], [0.5, 0.0]], [0, 0])
    with pytest.raises(ValueError, match="class 1 has no samples"):
        find_slow_learnt(model, data)
    assert find_slow_learnt(model, data, classes=[0]).positions == [1]
    with pytest.raises(ValueError, match=r"by 'luck' is not one of " + ", ".join(RULES)):
        find_slow_learnt(model, data, "luck", classes=[0])
    with pytest.raises(ValueError, match="share is for"):
        find_slow_learnt(model, data, share=0.5)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got 0"):
        find_slow_learnt(model, data, "loss", 0)
    with pytest.raises(ValueError, match="no labels"):
        find_slow_learnt(model, ArrayDataset(data.pixel_values))


def test_the_elbow_is_where_the_fall_slows():
    assert elbow([0.9, 0.3, 0.25, 0.22, 0.2]) == 2
    assert elbow([0.9, 0.6, 0.3, 0.28, 0.27, 0.26]) == 3
    with pytest.raises(ValueError, match="at least 3 epochs, got 2"):
        elbow([0.9, 0.1])
    with pytest.raises(ValueError, match="does not fall"):
        elbow([0.3, 0.4, 0.3])


def learnable(count: int = 48) -> ArrayDataset:
    """Images of four classes that brightness tells apart."""
    labels = torch.arange(count) % 4
    noise = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 0.4
    return ArrayDataset((noise + labels.view(-1, 1, 1, 1) / 2 - 1).clamp(-1, 1), labels)


def test_the_early_model_is_the_one_of_its_epoch():
    """The weights at the elbow are those of a run of that many epochs: nothing that is measured disturbs the run."""
    data, values = learnable(), dict(learning_rate=3e-3, per_device_train_batch_size=8)
    early, epoch, errors = train_early(lambda: tiny_vit(1), data, 4, 0, **values)
    assert len(errors) == 4 and epoch == elbow(errors)
    straight = tiny_vit(1)
    steps = epoch * len(data) // 8
    fit(straight, data, 0, max_steps=steps, warmup_steps=0, lr_scheduler_type="constant", **values)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, early.state_dict()[name]), name


# ---- variants ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["ddpm", "dit", "sd"])
def test_a_variant_depends_on_its_own_image_alone(kind):
    """Any subset, in any order, comes out with the same bits."""
    make = {"ddpm": tiny_pipeline, "dit": tiny_dit, "sd": tiny_sd}[kind]
    generator = drawer(make(), guidance_scale=1.0 if kind == "dit" else None)
    images = torch.rand(7, generator.channels, *generator.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    conditions = [["a cat", "a dog"][i % 2] if kind == "sd" else i % 4 for i in range(7)]
    seeds = list(range(100, 107))
    every = generator.vary(images, conditions, seeds, 0.5)
    assert every.shape == images.shape and every.isfinite().all() and not torch.equal(every, images)
    for chosen in ([2], [6, 0, 3], [1, 2, 3, 4, 5]):
        parts = ([conditions[i] for i in chosen], [seeds[i] for i in chosen])
        assert torch.equal(generator.vary(images[chosen], *parts, 0.5), every[chosen])
    other = generator.vary(images[:1], conditions[:1], [999], 0.5)
    assert not torch.equal(other, every[:1])


def test_a_chain_by_hand():
    """DDIM from the noised image on, one image at a time, without guidance; compared within rounding."""
    pipeline = tiny_pipeline()
    generator = drawer(pipeline, guidance_scale=1.0)
    images = random_images().pixel_values[:3]
    found = generator.vary(images, [1, 2, 3], [5, 6, 7], 0.5)
    scheduler, unet = pipeline.scheduler, pipeline.unet.eval()
    scheduler.set_timesteps(6)
    alphas, steps = scheduler.alphas_cumprod, scheduler.timesteps[-3:]
    for i in range(3):
        noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5 + i))
        x = alphas[steps[0]].sqrt() * images[i : i + 1] + (1 - alphas[steps[0]]).sqrt() * noise
        for t in steps:
            with torch.no_grad():
                eps = unet(x, t, class_labels=torch.tensor([i + 1])).sample
            now = alphas[t]
            start = ((x - (1 - now).sqrt() * eps) / now.sqrt()).clamp(-1, 1)
            eps = (x - now.sqrt() * start) / (1 - now).sqrt() if not scheduler.config.clip_sample else eps
            before = t - 1000 // 6
            then = alphas[before] if before >= 0 else scheduler.final_alpha_cumprod
            x = then.sqrt() * start + (1 - then).sqrt() * eps
        assert torch.allclose(found[i : i + 1], x, atol=1e-5)


def test_the_folder_reads_back_and_is_drawn_again_from_its_metadata(tmp_path):
    data, generator = random_images(), drawer()
    made = augment(data, [0, 3, 5], generator, tmp_path / "out", factor=3, strength=[0.4, 0.7])
    assert made.drawn == 6 and made.wanted == {"0": 2, "3": 2, "1": 2} and not made.refused
    rows = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    assert rows == made.rows
    assert [(r["source"], r["copy"], r["strength"], r["label"]) for r in rows[:2]] == [(0, 0, 0.4, 0), (0, 1, 0.7, 0)]
    assert {r["generator"] for r in rows} == {"tiny"} and len({r["seed"] for r in rows}) == 6
    files = [(made.folder / row["file_name"]).read_bytes() for row in rows]
    assert redraw(rows[4:] + rows[:1], data, drawer()) == files[4:] + files[:1]
    read = made.dataset(tiny_vit())
    assert read.labels == [row["label"] for row in rows] and read[0]["pixel_values"].shape == (1, 8, 8)
    with pytest.raises(ValueError, match="drawn by another generator"):
        redraw(rows, data, drawer(tiny_pipeline(seed=1)))
    with pytest.raises(ValueError, match="is not in the data"):
        redraw(rows, ArrayDataset(data.pixel_values.flip(-1), data.label_tensor), generator)


def test_a_killed_run_goes_on_and_ends_as_a_straight_one(tmp_path):
    data = random_images()
    straight = augment(data, range(10), drawer(), tmp_path / "straight")

    class Killed(Exception):
        pass

    generator, calls = drawer(), []
    vary = generator.vary

    def watched(images, *rest):
        calls.append(len(images))
        if len(calls) == 3:
            raise Killed
        return vary(images, *rest)

    generator.vary = watched
    with pytest.raises(Killed):
        augment(data, range(10), generator, tmp_path / "killed")
    assert calls == [4, 4, 2] and not (tmp_path / "killed/metadata.jsonl").exists()
    resumed = augment(data, range(10), generator, tmp_path / "killed")
    assert calls[3:] == [2] and resumed.drawn == 2
    contents = [
        {row["file_name"]: (made.folder / row["file_name"]).read_bytes() for row in made.rows}
        for made in (straight, resumed)
    ]
    assert contents[0] == contents[1]


def test_what_is_kept_is_found_by_content(tmp_path):
    data, generator = random_images(), drawer()
    first = augment(data, [0, 1], generator, tmp_path / "out")
    torn = next((tmp_path / "out/.variants").glob("*.png"))
    torn.write_bytes(torn.read_bytes()[:-9])
    again = augment(data, [0, 1, 2], generator, tmp_path / "out")
    assert (first.drawn, again.drawn) == (2, 2)  # the torn one and the new one
    names = {label: str(label) for label in range(4)}
    assert augment(subset(data, [2, 1]), [0, 1], generator, tmp_path / "out", names=names).drawn == 0
    left = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("[0-9]/*.png"))
    assert [name.split("_")[0] for name in left] == ["1/000001", "2/000002"]  # what was not asked for is gone


def test_refused_variants_are_counted_and_left_out(tmp_path):
    def judge(images):
        return nn.functional.one_hot(torch.tensor([1] * len(images)), 4).float()

    made = augment(random_images(), [0, 1, 4, 5], drawer(), tmp_path / "out", judge=judge)
    assert made.refused == {"0": 2} and [row["label"] for row in made.rows] == [1, 1]
    assert json.loads((tmp_path / "out/augmentation.json").read_text())["refused"] == {"0": 2}
    with pytest.raises(ValueError, match="reads none of 2 variants as their class"):
        augment(random_images(), [0, 4], drawer(), tmp_path / "none", judge=judge)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"strength": 0}, r"strength must lie in \(0, 1\)"),
        ({"strength": 1}, "strength 1 leaves nothing of the image"),
        ({"strength": [0.5, 1.2]}, r"strength must lie in \(0, 1\)"),
        ({"strength": 0.1}, "strength 0.1 of 6 steps is no step"),
        ({"factor": 1}, "factor must be at least 2"),
        ({"slow": []}, "no slow-learnt image"),
        ({"names": {i: str(i) for i in range(5)}}, "draws 4 classes and the data has 5"),
        ({"data": ArrayDataset(random_images().pixel_values)}, "the images have no labels"),
        ({"data": ArrayDataset(random_images().pixel_values * 3, torch.arange(20) % 4)}, "a generator takes"),
    ],
)
def test_bad_requests_are_one_line_before_anything_is_drawn(tmp_path, values, said):
    data, slow = values.pop("data", random_images()), values.pop("slow", [0])
    with pytest.raises(ValueError, match=said) as refused:
        augment(data, slow, drawer(), tmp_path / "out", **values)
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "out").rglob("*.png"))


def test_new_images_are_drawn_where_they_are_meant(tmp_path):
    """At strength 1 nothing of the image is left but its class and the seed."""
    data = random_images()
    made = augment(data, [0], drawer(), tmp_path / "out", strength=1.0, new_images=True)
    assert made.rows[0]["strength"] == 1
    generator, seeds = drawer(), [made.rows[0]["seed"]]
    apart = [generator.vary(image[None], [0], seeds, s) for s in (0.4, 1.0) for image in data.pixel_values[[0, 4]]]
    assert (apart[2] - apart[3]).abs().max() < 0.2 * (apart[0] - apart[1]).abs().max()


def test_classes_without_an_image_are_drawn_from_nothing(tmp_path):
    generator = drawer()
    grey = blanks(generator, [1, 3])
    names = {label: str(label) for label in range(4)}
    made = augment(grey, [0, 1], generator, tmp_path / "out", 4, 1.0, names=names, new_images=True)
    assert [row["label"] for row in made.rows] == [1, 1, 1, 3, 3, 3]
    pictures = {(made.folder / row["file_name"]).read_bytes() for row in made.rows}
    assert len(pictures) == 6


def test_folders_of_others_are_not_touched(tmp_path):
    save_vit_and_images(tmp_path)
    (tmp_path / "grey/metadata.jsonl").write_text('{"file_name": "0/0.png"}\n')
    with pytest.raises(ValueError, match="no augmentation wrote"):
        augment(random_images(), [0], drawer(), tmp_path / "grey")
    assert (tmp_path / "grey/0/0.png").is_file()


def test_only_pipelines_with_a_condition_make_variants(unconditional):
    with pytest.raises(ValueError, match="draws no classes"):
        generator_of(unconditional)
    with pytest.raises(ValueError, match="write {} there"):
        Variation(prompt="a photo")
    names = drawer(tiny_sd(), prompt="a photo of a {}").conditions({0: "cat", 1: "dog"})
    assert names == {0: "a photo of a cat", 1: "a photo of a dog"}


def test_images_of_files_are_varied_as_their_files_hold_them(tmp_path):
    """A processor's mean and std do not reach the generator; the variant does not depend on them."""
    save_vit_and_images(tmp_path)
    model, processor = load_image_classifier(str(tmp_path / "vit"))
    images = load_labelled_images(tmp_path / "grey", model, processor, "train")
    _, other = load_image_classifier(str(tmp_path / "vit"))
    other.image_mean, other.image_std = [0.2], [0.1]
    moved = load_labelled_images(tmp_path / "grey", model, other, "train")
    assert not torch.equal(images[0]["pixel_values"], moved[0]["pixel_values"])
    first = augment(images, [0, 4], drawer(), tmp_path / "one")
    second = augment(moved, [0, 4], drawer(), tmp_path / "two")
    assert [r["key"] for r in first.rows] == [r["key"] for r in second.rows]
    assert first.rows[1]["source_image"] == "1/1.png" and first.rows[1]["class"] == "1"


# ---- training ------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_sharpness_aware_steps_are_those_of_the_formula(tmp_path, optimizer):
    """Two steps of θ <- θ - step(∇L(θ + ρ g / ‖g‖)) by hand."""
    data, rho = learnable(8), 0.1
    ours, hand = tiny_vit(2), tiny_vit(2).train()
    still = dict(per_device_train_batch_size=8, max_steps=2, lr_scheduler_type="constant", warmup_steps=0)
    plain = dict(max_grad_norm=0.0, weight_decay=0.0, adam_epsilon=1e-3)  # no rounding error becomes a whole step
    fit(ours, data, 0, optimizer, rho, learning_rate=0.01, **plain, **still)
    parameters = list(hand.parameters())
    if optimizer == "sgd":
        stepper = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    else:
        stepper = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.0, eps=1e-3)
    batch = collate([data[i] for i in range(8)])

    def gradients():
        loss = nn.functional.cross_entropy(hand(pixel_values=batch["pixel_values"]).logits, batch["labels"])
        return torch.autograd.grad(loss, parameters)

    for _ in range(2):
        first = gradients()
        norm = sum(g.square().sum() for g in first).sqrt()
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, first):
                p += rho * g / norm
        for p, g in zip(parameters, gradients()):
            p.grad = g
        with torch.no_grad():
            for p, b in zip(parameters, before):
                p.copy_(b)
        stepper.step()
    for (name, p), q in zip(hand.named_parameters(), ours.parameters()):
        if "k_proj.bias" not in name:  # attention does not depend on it: its gradient is rounding
            assert torch.allclose(p, q, atol=1e-6), name


def test_training_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="optimizer 'lion' is not one of adamw, sgd"):
        fit(tiny_vit(), learnable(8), 0, "lion")
    with pytest.raises(ValueError, match="rho must be a number above 0"):
        SharpnessAware(rho=-1.0)
    with pytest.raises(ValueError, match="at least 3 epochs, got 2"):
        train_early(tiny_vit, learnable(8), 2, 0)


# ---- unlearning ----------------------------------------------------------------------------------
def test_joined_sets_are_read_as_one():
    data = random_images()
    joined = Joined(subset(data, [3, 1]), ArrayDataset(data.pixel_values[5:7], torch.tensor([1, 2])))
    assert labels_of(joined) == [3, 1, 1, 2] and len(joined) == 4
    assert torch.equal(joined[1]["pixel_values"], data[1]["pixel_values"])
    assert torch.equal(joined[3]["pixel_values"], data[6]["pixel_values"])
    with pytest.raises(IndexError):
        joined[4]
    with pytest.raises(ValueError, match="some of the joined"):
        Joined(data, ArrayDataset(data.pixel_values))
    with pytest.raises(ValueError, match="1 samples are in both"):
        check_overlap({"forget": subset(data, [1]), "retain": joined, "learn": None})


def test_repair_sees_slow_learnt_samples_and_variants_more_often():
    data = random_images()
    slow = Slow([1, 4], "clusters", torch.zeros(20), torch.arange(20) % 4)
    more = repairing(data, slow, ArrayDataset(data.pixel_values[:3] / 2, torch.tensor([1, 0, 2])), 3)
    assert len(more) == 23 + 2 * 5
    assert sorted(more.indices[23:]) == sorted([1, 4, 20, 21, 22] * 2)
    assert repairing(data, slow, None, 1).indices == list(range(20))
    assert len(standing_in(subset(data, [0, 1]), data)) == 22
    with pytest.raises(ValueError, match="times must be at least 1"):
        seen_more(data, [0], 0)


def test_a_trainer_takes_the_repairing_set_as_the_samples_it_stands_for(tmp_path):
    """A run on the repeated set is a run on the same images in memory."""
    forget, retain = split_by_label(random_images(), 1)
    slow = Slow([0, 2], "loss", torch.zeros(len(retain)), torch.zeros(len(retain), dtype=torch.long))
    repeated = repairing(retain, slow, None, 2)
    copied = collate([repeated[i] for i in range(len(repeated))])
    trained = []
    for name, data in (("one", repeated), ("two", ArrayDataset(copied["pixel_values"], copied["labels"]))):
        trainer = UnlearnTrainer(tiny_vit(), config(tmp_path / name), FineTune(), None, data)
        trainer.train()
        trained.append(weights(trainer))
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


# ---- commands ------------------------------------------------------------------------------------
def only_line(error: str) -> str:
    """The line of an error; before it there may be progress bars of libraries."""
    lines = [line for line in error.splitlines() if line.strip() and "%|" not in line and " examples" not in line]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A classifier, its images, and generators of its classes and of others."""
    root, data = tmp_path_factory.mktemp("augment"), learnable(12)
    vit = tiny_vit()
    vit.config.id2label = {i: str(i) for i in range(4)}
    vit.config.label2id = {str(i): i for i in range(4)}
    fit(vit, learnable(), 0, max_steps=150, per_device_train_batch_size=16)
    save_classifier(vit, root / "vit")
    for i, label in enumerate(data.labels):
        (root / "grey" / str(label)).mkdir(parents=True, exist_ok=True)
        image_of(data.pixel_values[i]).save(root / "grey" / str(label) / f"{i}.png")
    tiny_pipeline().save_pretrained(root / "ddpm")
    return root


def test_the_command_draws_trains_and_goes_on(folders, tmp_path, call):
    flags = ["--model_name_or_path", folders / "vit", "--train_dir", folders / "grey", "--generator", folders / "ddpm"]
    flags += ["--output_dir", tmp_path / "out", "--num_inference_steps", 4, "--early_epochs", 0, "--judge", "none"]
    code, said, error = call("augment", *flags, "--by", "all", "--train", "restart", "--max_train_steps", 2)
    assert code == 0, error
    assert "slow-learnt by all: 12 of 12 images" in said and "12 drawn now; no classifier has read them" in said
    assert "trained on 24 images" in said and (tmp_path / "out/classifier/preprocessor_config.json").is_file()
    load_image_classifier(str(tmp_path / "out/classifier"))
    code, said, _ = call("augment", *flags, "--by", "random")
    assert code == 0 and "4 variants" in said and "0 drawn now" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strength", 0], "strength must lie in"),
        (["--strength", 1], "strength 1 leaves nothing"),
        (["--factor", 1], "factor must be at least 2"),
        (["--early_epochs", 0, "--train", "continue"], "set --early_epochs"),
        (["--generator", "digits"], "draws 10 classes and the data has 4"),
        (["--generator", "none"], "none"),
        (["--early_epochs", 0], "set --judge"),
        (["--output_dir", "grey"], "is train_dir"),
    ],
)
def test_what_does_not_fit_is_one_line(folders, tmp_path, call, flags, said):
    from hf_unlearn import DIGITS_DDPM

    places = {"digits": DIGITS_DDPM, "none": tmp_path / "none", "grey": folders / "grey"}
    given = ["--model_name_or_path", folders / "vit", "--train_dir", folders / "grey", "--generator", folders / "ddpm"]
    given += ["--output_dir", tmp_path / "out", *(places.get(flag, flag) for flag in flags)]
    code, _, error = call("augment", *given)
    assert code == 2 and said in only_line(error)
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_class_without_samples_is_one_line(folders, tmp_path, call):
    import shutil

    shutil.copytree(folders / "grey", tmp_path / "three", ignore=shutil.ignore_patterns("3"))
    flags = ["--model_name_or_path", folders / "vit", "--train_dir", tmp_path / "three", "--judge", "none"]
    flags += ["--generator", folders / "ddpm", "--output_dir", tmp_path / "out", "--early_epochs", 0]
    code, _, error = call("augment", *flags)
    assert code == 2 and "class 3 has no samples" in only_line(error)


def test_classify_retains_variants_and_measures_those_of_the_forgotten(folders, tmp_path, call):
    flags = ["--pretrained_model_name_or_path", folders / "vit", "--train_data_dir", folders / "grey"]
    flags += ["--validation_data_dir", folders / "grey", "--forget_class", "1", "--output_dir", tmp_path / "out"]
    flags += ["--max_train_steps", 2, "--train_batch_size", 2, "--learning_rate", 1e-4, "--use_cpu"]
    more = ["--augment_with", folders / "ddpm", "--augment_by", "all", "--augment_steps", 4]
    code, said, error = call("classify", *flags, *more, "--augment_strength", 0.3)
    assert code == 0, error
    assert "variants of 9 slow-learnt retained images" in said and "variants of forget images" in said
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert figures["original"]["forget_variants_accuracy"]["value"] == 1.0  # it refused all others
    assert "forget_variants_accuracy" in figures["unlearned"]
    assert figures["unlearned"]["retain_accuracy"]["samples"] == 9  # the images themselves, no variant


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--augment_factor", 3], "augment_factor needs a generator"),
        (["--augment_with", "x", "--augment_strength", 1.0], r"augment_strength must lie in (0, 1)"),
        (["--augment_with", "x", "--augment_by", "luck"], "augment_by 'luck' is not one of"),
    ],
)
def test_flags_of_classify_are_checked_first(call, flags, said):
    code, _, error = call("classify", *flags)
    assert code == 2 and said in error


def test_limits_of_the_variation():
    for wrong in ({"width": 0}, {"num_inference_steps": 0}, {"guidance_scale": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            Variation(**wrong)
    assert [Variation(num_inference_steps=10).steps_of(s) for s in (0.05, 0.5, 1.0)] == [0, 5, 10]
