"""Tiny models and data, made from config: nothing is downloaded."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from hub_server import TOKEN, HubServer

from hf_unlearn import ClassConditionalDDPMPipeline, UnlearnConfig, UnlearnTrainer, split_by_label
from hf_unlearn.data.images import ArrayDataset

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


def environment(**values: str) -> dict[str, str]:
    """The environment of a worker process: one thread, and what pytest's `pythonpath` adds to this one's path."""
    paths = [str(ROOT / name) for name in ("src", "tests", "benchmarks", "scripts")]
    paths += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **values}


def tiny_unet(num_class_embeds: int | None = 5, seed: int = 0, widths: tuple[int, int] = (8, 16)) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=widths,
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


def unlearned(pipeline, folder, method, resume=None, **values) -> UnlearnTrainer:
    """After `train()` on random images, label 1 to forget."""
    trainer = UnlearnTrainer(pipeline, config(folder, **values), method, *split_by_label(random_images(), 1))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer) -> dict[str, torch.Tensor]:
    return {n: v.clone() for n, v in trainer.objective.network.state_dict().items()}


def batches_of(trainer: UnlearnTrainer) -> list[dict[str, torch.Tensor]]:
    """A list that fills, as the trainer trains, with every batch that its method is given, with its draws."""
    seen, draw = [], trainer.step.draws.add

    def watched(batch, generator, forget, split=True):
        made = draw(batch, generator, forget, split)
        if split:
            seen.append({k: v.clone() for k, v in made.items()})
        return made

    trainer.step.draws.add = watched
    return seen


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(v, right[n]) for n, v in left.items())


@pytest.fixture
def pipeline() -> ClassConditionalDDPMPipeline:
    return tiny_pipeline()


@pytest.fixture
def unconditional() -> DDPMPipeline:
    return DDPMPipeline(tiny_unet(None), DDIMScheduler(1000))


@pytest.fixture
def images() -> ArrayDataset:
    return random_images()


def random_images() -> ArrayDataset:
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


def save_classifier(model, folder) -> None:
    """Save a classifier with a processor that puts pixels in [-1, 1]."""
    from hf_unlearn.families.classifier.inputs import plain_processor

    model.save_pretrained(folder)
    plain_processor(model.config, [0.5], [0.5]).save_pretrained(folder)


def save_vit_and_images(root: Path) -> None:
    """`root`/vit, a classifier of "0" to "3", and three images of each class in `root`/grey and `root`/colour."""
    import numpy as np
    from PIL import Image

    vit = tiny_vit()
    vit.config.id2label = {i: str(i) for i in range(4)}
    vit.config.label2id = {str(i): i for i in range(4)}
    save_classifier(vit, root / "vit")
    generator = np.random.default_rng(0)
    for name, shape in (("grey", (8, 8)), ("colour", (8, 8, 3))):
        for label in range(4):
            (root / name / str(label)).mkdir(parents=True)
            for i in range(3):
                pixels = generator.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / str(label) / f"{i}.png")


@pytest.fixture
def call(monkeypatch, capsys):
    """`call(command, *flags)` in this process: (exit code, output, error)."""
    from hf_unlearn.__main__ import main

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hf-unlearn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def run_script(monkeypatch, capsys):
    """`run_script(path, *arguments)` runs a script's main in this process: (exit code, standard output, error)."""
    import importlib.util

    from hf_unlearn.cli import parsing as cli

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


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on loopback that this process uploads to, with a token in the environment and no stored login."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        files = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + files)  # made of it at import
        yield server


def tiny_dit(seed: int = 0):
    """A DiTPipeline of four classes, 4x4 latents of 8x8 images, learned sigma. Guidance needs 1000 classes."""
    from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(seed)
    sizes = dict(num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=4, patch_size=2)
    transformer = DiTTransformer2DModel(in_channels=4, out_channels=8, num_embeds_ada_norm=4, **sizes)
    with torch.no_grad():
        for p in transformer.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return DiTPipeline(transformer, AutoencoderKL(**TINY_VAE), DDIMScheduler(1000)).to("cpu")


TINY_VAE = dict(
    block_out_channels=(8, 8),
    norm_num_groups=4,
    latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    sample_size=16,
)
TINY_UNET = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(8, 16),
    layers_per_block=1,
    norm_num_groups=4,
    attention_head_dim=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
)


def byte_tokenizer():
    """A CLIPTokenizer whose tokens are single bytes."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def tiny_text_encoder(cls=None, **values):
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=514)
    return (cls or CLIPTextModel)(CLIPTextConfig(**sizes, bos_token_id=512, eos_token_id=513, **values))


def pil_processor(name: str) -> Any:
    """transformers' image processor that resizes with PIL; older versions have it without a suffix."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def tiny_dino(folder, seed: int = 0):
    """A Dinov2Model (16 features) with its processor."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    model = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=2)).eval()
    model.save_pretrained(folder)
    sizes = dict(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    pil_processor("BitImageProcessor")(**sizes).save_pretrained(folder)
    return model


def tiny_clip(folder) -> None:
    """Save a CLIPModel of 16x16 images with its tokenizer and image processor."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    text = dict(**sizes, vocab_size=514, bos_token_id=512, eos_token_id=513)
    config = CLIPConfig(text_config=text, vision_config=dict(**sizes, image_size=16, patch_size=8), projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    sizes = dict(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    pil_processor("CLIPImageProcessor")(**sizes).save_pretrained(folder)


def tiny_sd(seed: int = 0, **scheduler):
    """A StableDiffusionPipeline of 16x16 images in 8x8 latents, byte-level CLIP."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(cross_attention_dim=16, **TINY_UNET)
    parts = (
        AutoencoderKL(**TINY_VAE),
        tiny_text_encoder(),
        byte_tokenizer(),
        unet,
        DDIMScheduler(1000, steps_offset=1, clip_sample=False, **scheduler),
    )
    pipeline = StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_sdxl(seed: int = 0):
    """A StableDiffusionXLPipeline of 16x16 images: two text encoders, pooled embeddings, time ids."""
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(seed)
    added = dict(addition_embed_type="text_time", addition_time_embed_dim=4, transformer_layers_per_block=1)
    unet = UNet2DConditionModel(
        cross_attention_dim=32, projection_class_embeddings_input_dim=16 + 6 * 4, **added, **TINY_UNET
    )
    encoders = (tiny_text_encoder(), tiny_text_encoder(CLIPTextModelWithProjection, projection_dim=16))
    tokenizers = (byte_tokenizer(), byte_tokenizer())
    vae = AutoencoderKL(**TINY_VAE)
    pipeline = StableDiffusionXLPipeline(
        vae, *encoders, *tokenizers, unet, DDIMScheduler(1000, steps_offset=1), add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(prompts, count: int = 12, seed: int = 2) -> ArrayDataset:
    """Random 8x8 latents whose labels are the numbers 1.. of `prompts` in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % (len(prompts.texts) - 1) + 1
    return ArrayDataset(torch.randn(count, 4, 8, 8, generator=generator), labels)


def save_base_and_adapter(folder: Path) -> None:
    """Save a tiny pipeline to `folder`/base, and an adapter of it that changes what it draws to `folder`/run."""
    from hf_unlearn import NoisePrediction, add_lora
    from hf_unlearn.saliency.ranks import choose_lora
    from hf_unlearn.saving.adapters import save_adapter

    objective = NoisePrediction(tiny_pipeline(0))
    objective.pipeline.save_pretrained(folder / "base")
    add_lora(objective, choose_lora(objective, None, None, "all", rank=2))
    for name, p in objective.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    save_adapter(objective, folder / "run")
