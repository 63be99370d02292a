"""Tiny models and data, made from config: nothing is downloaded."""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

from hf_unlearn import ClassConditionalDDPMPipeline, UnlearnConfig
from hf_unlearn.images import ArrayDataset

torch.set_num_threads(1)


def tiny_unet(num_class_embeds: int | None = 5, seed: int = 0) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        num_class_embeds=num_class_embeds,
    )


def tiny_pipeline(seed: int = 0, **scheduler) -> ClassConditionalDDPMPipeline:
    """Four classes and the null class 4."""
    return ClassConditionalDDPMPipeline(tiny_unet(seed=seed), DDIMScheduler(1000, **scheduler), null_class=4)


def config(folder, **values) -> UnlearnConfig:
    defaults = dict(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        max_steps=4,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        disable_tqdm=True,
        use_cpu=True,
    )
    return UnlearnConfig(**{**defaults, **values})


@pytest.fixture
def pipeline() -> ClassConditionalDDPMPipeline:
    return tiny_pipeline()


@pytest.fixture
def unconditional() -> DDPMPipeline:
    return DDPMPipeline(tiny_unet(None), DDIMScheduler(1000))


@pytest.fixture
def images() -> ArrayDataset:
    """20 random images, labels 0 1 2 3 0 1 ..."""
    generator = torch.Generator().manual_seed(1)
    return ArrayDataset(torch.rand(20, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(20) % 4)


def tiny_vit(seed: int = 0, attention: str = "sdpa"):
    """Four classes, 8x8 grey images."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    made = ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=4, **sizes)
    made._attn_implementation = attention
    model = ViTForImageClassification(made)
    with torch.no_grad():
        for p in model.parameters():  # no bias starts at exactly 0, where the sign of a rounding error would count
            p.add_(torch.randn_like(p) * 0.02)
    return model


@pytest.fixture
def run_script(monkeypatch, capsys):
    """`run_script(path, *arguments)` runs a script's main in this process: (exit code, standard output, error)."""
    import importlib.util

    from hf_unlearn import cli

    def call(path, *arguments) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        script = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, script)  # dataclasses look their module up
        spec.loader.exec_module(script)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.run(script.main)
        return stop.value.code, *capsys.readouterr()

    return call
