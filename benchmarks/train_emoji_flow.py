"""Train a small flow model of the emoji: a StableDiffusion3Pipeline, for the tables of unlearning and attacks.

    python benchmarks/train_emoji_flow.py --tokenizer FOLDER --data_dir FOLDER --output_dir emoji-flow

An MMDiT on the latents of the shipped autoencoder and two small CLIP text encoders, without T5, trained together on
the captions of emoji_captions.py by flow matching. A killed run goes on from its last checkpoint when the command is
repeated. Writes a diffusers pipeline with the judge beside it, and report.json: what the judge reads by kind of
caption. Plain diffusers loads it with text_encoder_3=None and tokenizer_3=None.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from train_emoji2 import Training, add_flags, train
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.limits import check_limits
from hf_unlearn.families import FlowSchedule

WORDS = 32  # tokens of a caption, at most
T5_TOKENS = 256  # that the pipeline puts after the text where there is no T5: zeros
TEXT_WIDTHS = (48, 32)  # of the two text encoders
HEAD = 32  # width of an attention head


class Together(TorchFunctionMode):
    """Inside, the last token that attention looks at counts `count` times: its score gets log(count).

    SD3's text tokens have no places, so that equal ones stay equal: one of them, weighed, gives what all of them do.
    """

    def __init__(self, count: int):
        super().__init__()
        self.bonus = math.log(count)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            scores = torch.zeros(1, 1, 1, args[1].shape[-2], dtype=args[1].dtype)
            scores[..., -1] = self.bonus
            options["attn_mask"] = scores
        return func(*args, **options)


def build_pipeline(
    tokenizer: CLIPTokenizer, vae: AutoencoderTiny, width: int, layers: int, patch: int
) -> StableDiffusion3Pipeline:
    """The untrained pipeline. Its text sides are as narrow as the emoji allow."""
    tokenizer.model_max_length = WORDS
    encoders = []
    for size in TEXT_WIDTHS:
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size,
            intermediate_size=2 * size,
            num_hidden_layers=2,  # the pipeline takes the tokens before the last one
            num_attention_heads=4,
            projection_dim=size,
            max_position_embeddings=WORDS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        encoders.append(CLIPTextModelWithProjection(config))
    channels, text = vae.config.latent_channels, sum(TEXT_WIDTHS)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=patch,
        in_channels=channels,
        out_channels=channels,
        num_layers=layers,
        attention_head_dim=HEAD,
        num_attention_heads=width // HEAD,
        joint_attention_dim=text,
        caption_projection_dim=width,
        pooled_projection_dim=text,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


class FlowTraining(Training):
    """Transformer and text encoders together: mean (v_θ(x_t, t, c) - (ε - x_0))², t from the logit-normal."""

    rate = 1e-3

    def networks(self) -> list[nn.Module]:
        self.schedule = FlowSchedule(self.pipeline.scheduler, weighting_scheme="logit_normal")
        return [self.pipeline.transformer, self.pipeline.text_encoder, self.pipeline.text_encoder_2]

    def _loss(self, latents: Tensor, names: list[tuple[str, str]], count: int) -> Tensor:
        batch, texts, noise = self._batch(latents, names, count)
        timesteps = self.schedule.draw(count, self.generator, antithetic=True)
        noisy, times = self.schedule.add_noise(batch, noise, timesteps), self.schedule.times(timesteps)
        return F.mse_loss(self.predicted(noisy, times, texts), self.schedule.target(batch, noise, timesteps))

    def predicted(self, noisy: Tensor, times: Tensor, texts: list[str]) -> Tensor:
        """Velocities (B, C, h, w), with one of the equal tokens in place of T5's."""
        embeds, _, pooled, _ = self.pipeline.encode_prompt(texts, None, None, do_classifier_free_guidance=False)
        with Together(T5_TOKENS):
            return self.pipeline.transformer(noisy, embeds[:, : WORDS + 1], pooled, times).sample


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    add_flags(parser, 10_000)
    parser.add_argument("--width", type=int, default=128, help=f"of the transformer, a multiple of {HEAD}")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--patch_size", type=int, default=1, choices=[1, 2, 4])
    options = parser.parse_args()
    check_limits(options, width=f"[{HEAD}, inf)", layers="[1, inf)")
    if options.width % HEAD:
        raise ValueError(f"width {options.width} is no multiple of {HEAD}: give one")
    sizes = {"width": options.width, "layers": options.layers, "patch": options.patch_size}
    train(options, partial(build_pipeline, **sizes), FlowTraining)


if __name__ == "__main__":
    cli.run(main)
