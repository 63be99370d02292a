"""UNet2D and DiT folders as others saved them: each is unlearned and measured, or refused before a step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_VAE, save_classifier, tiny_unet, tiny_vit
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    ScoreSdeVeScheduler,
    UNet2DModel,
)
from PIL import Image

from hf_unlearn import NoisePrediction, UnlearnTrainer, load_ddpm_pipeline
from hf_unlearn.report.made import sampler_of
from hf_unlearn.report.reading import read_record

SCRIPTS = Path(__file__).parents[1] / "scripts"
QUICK = "--max_train_steps 1 --train_batch_size 4 --fisher_samples 4 --num_inference_steps 2 --forget_class 1".split()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Folders of three classes of four images, by their size and channels."""
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, shape in {"grey": (8, 8), "colour": (8, 8, 3), "wide": (8, 16, 3), "large": (10, 10)}.items():
        for label in range(3):
            (root / name / str(label)).mkdir(parents=True)
            for i in range(4):
                picture = Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))
                picture.save(root / name / str(label) / f"{i}.png")
    return root


def unet(**values) -> UNet2DModel:
    """`tiny_unet` with other values in its configuration."""
    torch.manual_seed(0)
    return UNet2DModel(**{**dict(tiny_unet(values.pop("classes", 3)).config), **values})


def ddpm(folder: Path, network: UNet2DModel, scheduler=None) -> Path:
    """Save a pipeline as diffusers' own DDPMPipeline: its index has no null class."""
    DDPMPipeline(network, scheduler or DDPMScheduler(1000)).save_pretrained(folder)
    return folder


def dit(folder: Path, vae=None, scheduler=None, **values) -> Path:
    torch.manual_seed(0)
    sizes = dict(num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=4, patch_size=2)
    sizes |= dict(in_channels=4, out_channels=8, num_embeds_ada_norm=3)
    parts = DiTTransformer2DModel(**{**sizes, **values}), AutoencoderKL(**{**TINY_VAE, **(vae or {})})
    DiTPipeline(*parts, scheduler or DDIMScheduler(1000)).save_pretrained(folder)
    return folder


@pytest.fixture
def unlearn(run_script, tmp_path, images, monkeypatch):
    """`unlearn("ddpm" | "dit", model, data, *flags)`: (exit code, output, error) and how many trainings began."""
    begun = []
    train = UnlearnTrainer.train
    monkeypatch.setattr(UnlearnTrainer, "train", lambda self, **kw: begun.append(1) or train(self, **kw))

    def call(family: str, model: Path, data: str, *flags: str):
        command = [*QUICK, "--pretrained_model_name_or_path", model, "--train_data_dir", images / data]
        result = run_script(SCRIPTS / f"unlearn_{family}.py", *command, "--output_dir", tmp_path / "out", *flags)
        return *result, len(begun)

    return call


def test_a_null_class_reaches_losses_samples_and_what_is_saved(unlearn, tmp_path):
    model = ddpm(tmp_path / "model", unet(classes=4))
    code, text, error, _ = unlearn("ddpm", model, "grey", "--null_class", "3", "--guidance_scale", "2")
    assert code == 0 and "guidance scale 1 instead" not in text, error
    assert read_record(tmp_path / "out").objective.null_class == 3 and (tmp_path / "out/README.md").exists()
    saved = load_ddpm_pipeline(str(tmp_path / "out"))
    saved.set_progress_bar_config(disable=True)
    draw = dict(num_inference_steps=2, output_type="pt")
    seeds = [torch.Generator().manual_seed(0) for _ in range(3)]
    plain, guided, default = (
        saved(0, generator=g, **draw, **more).images
        for g, more in zip(seeds, ({"guidance_scale": 1.0}, {"guidance_scale": 1.5}, {}))
    )
    assert saved.null_class == 3 and torch.equal(guided, default) and not torch.equal(plain, guided)


def test_without_a_null_class_guidance_is_1_and_said(unlearn, tmp_path):
    """The record says the scale that the samples were generated with, not the one asked for."""
    save_classifier(tiny_vit(), tmp_path / "judge")
    model = ddpm(tmp_path / "model", unet(classes=4))
    judge = ["--classifier_model_name_or_path", tmp_path / "judge", "--eval_samples_per_class", "2"]
    code, text, error, _ = unlearn("ddpm", model, "grey", *judge)
    assert sampler_of(read_record(tmp_path / "out")).guidance_scale == 1.0
    assert code == 0 and "guidance scale 1 instead of 1.5" in text and "--null_class" in text, error
    assert (tmp_path / "out/before_after.png").exists() and (tmp_path / "out/README.md").exists()
    saved = load_ddpm_pipeline(str(tmp_path / "out"))
    assert saved.null_class is None and len(saved(0, num_inference_steps=2).images) == 1


@pytest.mark.long  # a few seconds each; the two above run the same way
@pytest.mark.parametrize(
    ("family", "build", "data", "says"),
    [
        ("ddpm", lambda f: ddpm(f, unet(classes=3)), "grey", "guidance scale 1 instead of 1.5"),
        ("ddpm", lambda f: ddpm(f, unet(classes=None)), "grey", ""),
        ("ddpm", lambda f: ddpm(f, unet(in_channels=3, out_channels=3)), "colour", ""),
        ("ddpm", lambda f: ddpm(f, unet(in_channels=3, out_channels=3, sample_size=(8, 16))), "wide", ""),
        ("ddpm", lambda f: ddpm(f, unet(), PNDMScheduler(1000, skip_prk_steps=True)), "grey", ""),
        ("ddpm", lambda f: ddpm(f, unet(), DDPMScheduler(4)), "grey", ""),
        ("dit", lambda f: dit(f), "colour", "guidance scale 1 instead of 4"),
        ("dit", lambda f: dit(f, num_embeds_ada_norm=1000), "colour", ""),
        ("dit", lambda f: dit(f, out_channels=None), "colour", ""),
        ("dit", lambda f: dit(f, sample_size=8, patch_size=4), "colour", ""),
        ("dit", lambda f: dit(f, vae=dict(in_channels=1, out_channels=1)), "grey", ""),
    ],
    ids=range(11),
)
def test_ordinary_folders_end_with_a_card(unlearn, tmp_path, family, build, data, says):
    code, text, error, _ = unlearn(family, build(tmp_path / "model"), data)
    assert code == 0 and says in text and "before" in text, error
    assert (tmp_path / "out/README.md").exists() and (tmp_path / "out/before_after.png").exists()


THREE_LEVELS = dict(
    block_out_channels=(8, 16, 16), down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3
)
REFUSED = [
    (lambda f: ddpm(f, unet(classes=None, class_embed_type="identity")), "grey", "", "class_embed_type 'identity'"),
    (lambda f: ddpm(f, unet(classes=None, class_embed_type="timestep")), "grey", "", "class_embed_type 'timestep'"),
    (lambda f: ddpm(f, unet(out_channels=2)), "grey", "", "takes 1 channels and gives 2"),
    (lambda f: ddpm(f, unet(sample_size=10, **THREE_LEVELS)), "large", "", "generates no image"),
    (lambda f: ddpm(f, unet(), DDPMScheduler(4)), "grey", "--num_inference_steps 10", "num_inference_steps"),
    (lambda f: ddpm(f, unet(), ScoreSdeVeScheduler()), "grey", "", "ScoreSdeVeScheduler"),
    (lambda f: ddpm(f, unet(), FlowMatchEulerDiscreteScheduler()), "grey", "", "FlowMatchEulerDiscreteScheduler"),
    (lambda f: ddpm(f, unet(classes=None)), "grey", "--null_class 3", "embeds none"),
    (lambda f: ddpm(f, unet()), "grey", "--null_class 3", "must lie in 0..2"),
    (lambda f: ddpm(f, unet()), "grey", "--null_class 1", "class 1 means none"),
    (lambda f: dit(f, vae=dict(latent_channels=3)), "colour", "", "latents of 3 channels"),
    (lambda f: dit(f, out_channels=12), "colour", "", "gives 12 channels"),
    (lambda f: dit(f, sample_size=5), "large", "", "generates no image"),
    (lambda f: dit(f, scheduler=DDPMScheduler(4)), "colour", "--num_inference_steps 9", "num_inference_steps"),
]


@pytest.mark.parametrize(("build", "data", "flags", "says"), REFUSED, ids=range(len(REFUSED)))
def test_other_folders_are_refused_before_a_step(unlearn, tmp_path, build, data, flags, says):
    model = build(tmp_path / "model")
    family = "dit" if (model / "transformer").exists() else "ddpm"
    code, text, error, begun = unlearn(family, model, data, *flags.split())
    lines = [line for line in error.splitlines() if "error:" in line]
    assert code == 2 and len(lines) == 1 and says in lines[0] and "Traceback" not in error, text + error
    assert not begun and not (tmp_path / "out/unet").exists()


def test_the_objectives_null_class_is_saved_with_any_pipeline(tmp_path):
    """Also with diffusers' DDPMPipeline, whose index then tells the loader."""
    pipeline = DDPMPipeline(unet(classes=4), DDPMScheduler(1000))
    objective = NoisePrediction(pipeline, null_class=3)
    objective.save_pretrained(str(tmp_path))
    assert objective.null_class == 3 and load_ddpm_pipeline(str(tmp_path)).null_class == 3
    with pytest.raises(ValueError, match="class_embed_type"):
        NoisePrediction(DDPMPipeline(unet(classes=None, class_embed_type="identity"), DDPMScheduler(1000)))
