"""Every image classifier of transformers, from a tiny configuration: trained and reloaded, or refused in words."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_classifier
from PIL import Image
from safetensors.torch import save_file
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from hf_unlearn import Classification, SFRon, UnlearnConfig, UnlearnTrainer, split_by_label
from hf_unlearn.cli.classifier_flags import ClassifierDataFlags, processor_of
from hf_unlearn.common.versions import VersionFault
from hf_unlearn.data.images import ArrayDataset, to_pixels
from hf_unlearn.families.classifier.inputs import input_channels, input_sides, pixels_for, plain_processor
from hf_unlearn.families.classifier.load import load_image_classifier

SCRIPT = Path(__file__).parents[1] / "scripts/unlearn_classification.py"
LAYERS = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
VIT = dict(**LAYERS, image_size=16, patch_size=8)
TOWERS = dict(
    vision_config=dict(**VIT, projection_dim=8),
    text_config=dict(**LAYERS, vocab_size=32, projection_dim=8, projection_size=16),
)
CONVS = dict(depths=[1] * 4, hidden_sizes=[8] * 4)
PYRAMID = dict(**CONVS, num_attention_heads=[1] * 4, mlp_ratios=[1] * 4)
WINDOWS = dict(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
STAGE = [[3, 8, 8, 1, False]]
TINY = {  # model_type -> values of its configuration
    **dict.fromkeys(("data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "ijepa", "vit", "vit_msn"), VIT),
    **dict.fromkeys(("clip", "metaclip_2", "siglip"), TOWERS),
    **dict.fromkeys(("donut-swin", "swin", "swinv2"), WINDOWS),
    **dict.fromkeys(("convnext", "convnextv2"), {**CONVS, "image_size": 32}),
    **dict.fromkeys(("pvt", "segformer"), {**PYRAMID, "image_size": 32}),
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v2"), dict(image_size=32, depth_multiplier=0.1)),
    "beit": {**VIT, "out_indices": None},
    "bit": {**CONVS, "embedding_size": 8, "num_groups": 2},
    "cvt": {},
    "efficientnet": dict(image_size=32, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128),
    "focalnet": dict(
        image_size=32, embed_dim=8, depths=[1, 1], hidden_sizes=[8, 16], focal_levels=[1, 1], focal_windows=[3, 3]
    ),
    "hgnet_v2": dict(
        embedding_size=8,
        stem_channels=[3, 8, 8],
        **dict.fromkeys(("hidden_sizes", "stage_in_channels", "stage_mid_channels", "stage_out_channels"), [8] * 4),
        **dict.fromkeys(("depths", "stage_num_blocks", "stage_numb_of_layers"), [1] * 4),
    ),
    "hiera": dict(
        image_size=[32, 32],
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        num_query_pool=1,
        masked_unit_attention=[True, False],
        masked_unit_size=[4, 4],
    ),
    "levit": dict(
        image_size=32,
        hidden_sizes=[16] * 3,
        num_attention_heads=[1] * 3,
        depths=[1] * 3,
        key_dim=[8] * 3,
        down_ops=[["Subsample", 8, 2, 2, 2, 2]] * 2,
    ),
    "mobilevit": dict(image_size=32, hidden_sizes=[8] * 3, neck_hidden_sizes=[8] * 7, num_attention_heads=2),
    "mobilevitv2": dict(image_size=64, n_attn_blocks=[1] * 3, base_attn_unit_dims=[8] * 3, width_multiplier=0.1),
    "perceiver": dict(
        num_latents=4, d_latents=8, num_self_attends_per_block=1, num_self_attention_heads=1, image_size=9
    ),
    "poolformer": CONVS,
    "pvt_v2": {**PYRAMID, "image_size": [32, 32]},
    "regnet": {**CONVS, "embedding_size": 8, "groups_width": 4},
    "resnet": {**CONVS, "embedding_size": 8, "layer_type": "basic"},
    "swiftformer": dict(image_size=32, depths=[1] * 4, embed_dims=[8] * 4, mlp_ratio=1),
    "textnet": dict(
        image_size=[32, 32],
        stem_out_channels=8,
        hidden_sizes=[8] * 5,
        conv_layer_kernel_sizes=[[[3, 3]]] * 4,
        conv_layer_strides=[[2]] * 4,
    ),
}
NO_LOGITS = {"pp_lcnet": dict(block_configs=[STAGE] * 5, stem_channels=8, class_expand=16)}
REFUSED = {
    "imagegpt": dict(n_embd=16, n_layer=1, n_head=2, n_positions=64),
    "siglip2": {**TOWERS, "vision_config": dict(**LAYERS, num_patches=4, patch_size=8)},
    "shieldgemma2": {},  # billions of weights: its configuration alone is saved
}
OPTIONAL = {"dinat": "natten", "timm_wrapper": "timm"}  # packages that this one does not need
CONFIGS = {config.model_type: config for config in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING}
NESTED = ("clip", "siglip")


def build(name: str, channels: int | None = None):
    """An untrained model of four classes."""
    made = CONFIGS[name](**{**TINY, **NO_LOGITS, **REFUSED}[name], num_labels=4)
    if channels is not None:
        made.num_channels = channels
    cls = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(made)]
    torch.manual_seed(0)
    model = (cls if isinstance(cls, type) else cls[0])(made)
    with torch.no_grad():
        for p in model.parameters():  # some start with layers of zeros, through which no gradient comes
            p.add_(torch.randn_like(p) * 0.05)
    return model


def test_every_configuration_is_covered():
    assert set(CONFIGS) <= {*TINY, *NO_LOGITS, *REFUSED, *OPTIONAL}


@pytest.mark.parametrize("name", sorted({*TINY, *OPTIONAL}))
def test_every_configuration_says_its_channels(name):
    config = CONFIGS[name](**TINY.get(name, {}))
    sides = input_sides(config)
    assert input_channels(config) == 3 and (sides is None or len(sides) == 2)


def unlearned(model, folder: Path) -> Path:
    """Two steps on random images, saved to `folder`/out."""
    save_classifier(model, folder)
    model, processor = load_image_classifier(str(folder))
    sides = input_sides(model.config) or (32, 32)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, input_channels(model.config), *sides, generator=generator) * 2 - 1
    sets = split_by_label(ArrayDataset(images, torch.arange(12) % 4), 1)
    args = UnlearnConfig.quiet(
        output_dir=str(folder / "out"), max_steps=2, per_device_train_batch_size=4, use_cpu=True
    )
    trainer = UnlearnTrainer(Classification(model, processor), args, SFRon(fisher_samples=4), *sets)
    trainer.train()
    trainer.save_model()
    return folder / "out"


@pytest.mark.parametrize(
    "name", [*NESTED, *(pytest.param(n, marks=pytest.mark.long) for n in sorted(set(TINY) - set(NESTED)))]
)
def test_it_trains_saves_and_reloads(name, tmp_path):
    model = build(name)
    first = {n: p.clone() for n, p in model.named_parameters()}
    again, processor = load_image_classifier(str(unlearned(model, tmp_path)))
    assert type(again) is type(model) and processor is not None
    assert any(not torch.equal(p, first[n]) for n, p in again.named_parameters())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_others_are_refused_by_name(name, tmp_path):
    if name == "shieldgemma2":
        CONFIGS[name](num_labels=4).save_pretrained(tmp_path)
    else:
        build(name).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"is a {name} model, which does not take images"):
        load_image_classifier(str(tmp_path))


def test_a_model_without_logits_is_refused_before_training():
    with pytest.raises(ValueError, match="the pp_lcnet gives no logits"):
        Classification(build("pp_lcnet")).check({"pixel_values": torch.zeros(3, 64, 64)}, [0])


@pytest.mark.parametrize("name", [n for n, package in OPTIONAL.items() if find_spec(package) is None])
def test_a_missing_package_is_named(name, tmp_path):
    config = CONFIGS[name](num_labels=4) if name == "dinat" else CONFIGS[name](architecture="resnet18", num_labels=4)
    config.save_pretrained(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises((ValueError, VersionFault), match="natten|timm"):
        load_image_classifier(str(tmp_path))


def test_an_image_of_another_size_is_refused_before_training():
    """The position embeddings of a nested vision tower are made for one size."""
    objective = Classification(build("clip"))
    with pytest.raises(ValueError, match="the clip takes no image of 32x32"):
        objective.check({"pixel_values": torch.zeros(3, 32, 32)}, [0])
    with pytest.raises(ValueError, match="images have 1 channels but the model takes 3"):
        objective.check({"pixel_values": torch.zeros(1, 16, 16)}, [0])


# ---- a folder without a processor ----------------------------------------------------------------
@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """A grey ViT without a processor, and images of four classes."""
    model, images, generator = tmp_path / "model", tmp_path / "images", np.random.default_rng(0)
    build("vit", channels=1).save_pretrained(model)
    for label in range(4):
        (images / str(label)).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(generator.integers(0, 256, (16, 16), dtype=np.uint8))
            picture.save(images / str(label) / f"{i}.png")
    return model, images


def test_mean_and_std_are_asked_for_and_saved(folders, tmp_path, run_script):
    model, images = folders
    command = ["--pretrained_model_name_or_path", model, "--train_data_dir", images, "--forget_class", "1"]
    command += ["--max_train_steps", "1", "--train_batch_size", "4", "--fisher_samples", "4", "--use_cpu", "True"]
    command += ["--disable_tqdm", "True", "--output_dir", tmp_path / "out"]
    code, _, error = run_script(SCRIPT, *command)
    lines = [line for line in error.splitlines() if "error:" in line]
    assert code == 2 and len(lines) == 1 and "set --image_mean and --image_std" in lines[0], error
    assert not (tmp_path / "out/config.json").exists()
    code, _, error = run_script(SCRIPT, *command, "--image_mean", "0.4", "--image_std", "0.2")
    assert code == 0 and (tmp_path / "out/README.md").exists(), error
    values = json.loads((tmp_path / "out/preprocessor_config.json").read_text())
    assert values["image_mean"] == [0.4] and values["image_std"] == [0.2]
    loaded, processor = load_image_classifier(str(tmp_path / "out"))
    picture = Image.open(images / "0/0.png")
    expected = (torch.from_numpy(np.asarray(picture, dtype=np.float32))[None] / 255 - 0.4) / 0.2
    assert torch.allclose(torch.as_tensor(pixels_for(picture, loaded.config, processor)), expected, atol=1e-5)


def test_one_half_is_what_to_pixels_gives():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    config = CONFIGS["vit"](image_size=16)
    made = torch.as_tensor(pixels_for(picture, config, plain_processor(config, [0.5], [0.5])))
    assert torch.allclose(made, to_pixels(picture, 16, 3), atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std", "has", "says"),
    [
        (None, None, False, "set --image_mean and --image_std"),
        ([0.5], [0.5], True, "leave --image_mean and --image_std out"),
        ([0.5, 0.5], [0.5], False, "image_mean needs"),
        ([0.5], [0.0], False, "image_std must be above 0"),
    ],
)
def test_flags_that_do_not_describe_a_processor(mean, std, has, says):
    model = build("clip")
    data = ClassifierDataFlags(image_mean=mean, image_std=std)
    found = plain_processor(model.config, [0.5], [0.5]) if has else None
    with pytest.raises(ValueError, match=says):
        processor_of(data, model, found, "the folder")
    with pytest.raises(ValueError, match="belong together"):
        ClassifierDataFlags(image_mean=[0.5])
