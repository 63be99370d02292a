"""Which sizes of images a pipeline takes, said before anything is drawn."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_sd
from pipeline_cases import SIDES, TINY, small

from hf_unlearn import TextToImage, encode_prompts
from hf_unlearn.families import denoiser_of
from hf_unlearn.families.latents import Drawing, drawn_latents
from hf_unlearn.families.text_to_image.pipelines import DENOISERS

# As published: pixels of a latent, patch of the configuration -> what a side is a multiple of.
PUBLISHED = {
    "StableDiffusionPipeline": (8, None, 8),
    "StableDiffusionXLPipeline": (8, None, 8),
    "StableDiffusion3Pipeline": (8, 2, 16),
    "FluxPipeline": (8, 1, 16),
    "Flux2KleinPipeline": (8, 1, 16),
    "SanaPipeline": (32, 1, 32),
    "QwenImagePipeline": (8, 2, 16),
    "PixArtSigmaPipeline": (8, 2, 16),
}
MULTIPLES = {"sd3": 4, "flux": 4, "flux2": 4, "sana": 32, "qwen": 4, "pixart": 8}  # of tiny ones, 2 pixels a latent


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_need_whole_tokens_and_what_their_call_asks(name):
    factor, patch, multiple = PUBLISHED[name]
    network = SimpleNamespace(config={} if patch is None else {"patch_size": patch})
    pipeline = SimpleNamespace(vae_scale_factor=factor, unet=network, transformer=network)
    assert DENOISERS[name].multiple(pipeline) == multiple
    assert PUBLISHED.keys() == DENOISERS.keys()


@pytest.mark.parametrize("family", TINY)
def test_what_does_not_fit_is_one_line_and_what_fits_is_drawn_and_trained_on(family):
    pipeline, multiple = small(family), MULTIPLES[family]
    adapter, prompts = denoiser_of(pipeline), encode_prompts(pipeline, ["a dog"])
    assert adapter.multiple(pipeline) == multiple
    side = SIDES[family] + multiple
    for other in (side + 1, side + multiple // 2):
        said = f"resolution {other} does not fit .*: set a multiple of {multiple} pixels, such as"
        with pytest.raises(ValueError, match=said):
            TextToImage(pipeline, prompts, resolution=other)
    with pytest.raises(ValueError, match=f"resolution {side + 1} does not fit"):
        TextToImage(pipeline, prompts, resolution=(side, side + 1))
    objective = TextToImage(pipeline, prompts, resolution=side)
    latents = drawn_latents(pipeline, ["a dog"], Drawing(2, 2.0, side))
    assert latents.shape[-1] == side // adapter.factor(pipeline)
    batch = {"pixel_values": latents, "labels": torch.tensor([1])}
    assert objective(**batch, **objective.draw(batch, torch.Generator().manual_seed(0))).isfinite().all()


def test_the_command_says_it_before_anything_is_drawn(tmp_path, call, monkeypatch):
    tiny_sd().save_pretrained(tmp_path / "base")
    monkeypatch.setattr("hf_unlearn.families.latents._drawn", None)
    flags = ["--pretrained_model_name_or_path", tmp_path / "base", "--concept", "a church", "--resolution", 20]
    code, _, error = call("t2i", *flags, "--output_dir", tmp_path / "out")
    said = error.strip().splitlines()[-1]
    assert (
        code == 2
        and "resolution 20 does not fit StableDiffusionPipeline: set a multiple of 8 pixels, such as 16" in said
    )
