"""Train the second emoji model, which understands several wordings, or its twin that never saw one object or style.

    python benchmarks/train_emoji2.py --tokenizer FOLDER --data_dir FOLDER --output_dir emoji2
    python benchmarks/train_emoji2.py --tokenizer FOLDER --output_dir twin --without_object rocket --without_style noto

The same networks and pictures as the shipped model, and its autoencoder; the captions are those of emoji_captions.py.
A killed run goes on from its last checkpoint when the command is repeated, to the same weights; with `--stop_after` it
ends at an earlier step of the same schedule. The twin starts from
nothing too: it is what unlearning is compared with. Writes a diffusers pipeline with the judge beside it, and
report.json: what the judge reads in pictures by kind of caption.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from emoji_captions import KEPT_KINDS, KINDS, asked, drawn
from emoji_pictures import augmented, load_emoji
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import trange
from train_emoji_sd import build_pipeline, schedule, step
from transformers import CLIPTokenizer

from hf_unlearn.attacks.pictures import ask
from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.files import atomic, write_text
from hf_unlearn.common.identity import identity_of, tensor_digest
from hf_unlearn.common.keys import content_key
from hf_unlearn.common.limits import SEEDS, check_limits
from hf_unlearn.common.untrusted import loading
from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, EmojiClassifier
from hf_unlearn.families.latents import Drawing
from hf_unlearn.families.text_to_image.load import load_text_to_image_pipeline

DRAWING = Drawing(num_inference_steps=20, guidance_scale=3.0, batch_size=36)
CHECKPOINT = "checkpoint.pt"


@torch.no_grad()
def latents_of(vae: AutoencoderTiny, images: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """(N, copies, C, h, w): latents of each image, turned and moved in so many ways."""
    made = [vae.encode(augmented(images, generator)).latents for _ in trange(copies, desc="latents")]
    return torch.stack(made, dim=1)


class Training:
    """UNet and text encoder together, one caption in ten empty; at the end the average of the last weights.

    A subclass may train other networks by another loss.

    Args:
        latents: (N, copies, C, h, w). names: style and object of each of the N.
        folder: holds the checkpoint. key: what it depends on; one of another key is not used.
    """

    rate = 2e-3

    def __init__(self, pipeline: DiffusionPipeline, steps: int, seed: int, folder: Path, key: str):
        self.pipeline, self.steps, self.path, self.key = pipeline, steps, folder / CHECKPOINT, key
        self.trained = nn.ModuleList(self.networks()).train()
        self.average = AveragedModel(self.trained, multi_avg_fn=get_ema_multi_avg_fn(0.998))
        self.optimizer, self.scheduler = schedule(self.trained.parameters(), steps, self.rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.done = 0

    def networks(self) -> list[nn.Module]:
        """Those that are trained."""
        return [self.pipeline.unet.to(memory_format=torch.channels_last), self.pipeline.text_encoder]

    def _parts(self) -> dict:
        return {
            "trained": self.trained,
            "average": self.average,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        states |= {"generator": self.generator.get_state(), "done": self.done, "key": self.key}
        with atomic(self.path) as partial:
            torch.save(states, partial)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this key."""
        if not self.path.exists():
            return
        with loading(self.path):
            states = torch.load(self.path, weights_only=True)
        if states["key"] != self.key:
            print(f"{self.path} is of other settings: the training begins anew", flush=True)
            return
        for name, part in self._parts().items():
            part.load_state_dict(states[name])
        self.generator.set_state(states["generator"])
        self.done = states["done"]
        print(f"goes on after step {self.done}", flush=True)

    def run(
        self, latents: Tensor, names: list[tuple[str, str]], batch_size: int, save_steps: int, last: int | None = None
    ) -> None:
        """Take the steps that are left, up to step `last`. Afterwards the pipeline has the averaged weights.

        The last checkpoint has those that a longer training goes on from.
        """
        last = min(last or self.steps, self.steps)
        for _ in (bar := trange(self.done, last, desc="network", initial=self.done, total=last)):
            step(self.optimizer, self.scheduler, self._loss(latents, names, batch_size), bar)
            self.average.update_parameters(self.trained)
            self.done += 1
            if self.done % save_steps == 0 or self.done == last:
                self.save()
        self.trained.load_state_dict(self.average.module.state_dict())
        self.trained.eval()

    def _batch(self, latents: Tensor, names: list[tuple[str, str]], count: int) -> tuple[Tensor, list[str], Tensor]:
        """(latents (count, C, h, w), captions, one in ten empty, noise)."""
        generator = self.generator
        chosen = torch.randint(len(latents), (count,), generator=generator)
        batch = latents[chosen, torch.randint(latents.shape[1], (count,), generator=generator)]
        styles, things = zip(*(names[i] for i in chosen.tolist()))
        captions = drawn(list(styles), list(things), generator)
        dropped = (torch.rand(count, generator=generator) < 0.1).tolist()
        texts = ["" if drop else caption for drop, caption in zip(dropped, captions)]
        return batch, texts, torch.randn(batch.shape, generator=generator)

    def _loss(self, latents: Tensor, names: list[tuple[str, str]], count: int) -> Tensor:
        pipeline = self.pipeline
        batch, texts, noise = self._batch(latents, names, count)
        length = pipeline.tokenizer.model_max_length
        ids = pipeline.tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt").input_ids
        half = torch.randint(1000, (count // 2,), generator=self.generator)
        t = torch.cat([half, 999 - half])
        noisy = pipeline.scheduler.add_noise(batch, noise, t)
        return F.mse_loss(pipeline.unet(noisy, t, pipeline.text_encoder(ids)[0]).sample, noise)


def judged(pipeline, judge: EmojiClassifier, styles, things, per_pair: int = 1) -> dict[str, dict[str, float]]:
    """By kind of caption: the shares of pictures read as the style and as the object asked for, and their number."""
    found = {}
    for kind in (*KINDS, *KEPT_KINDS):
        rows = asked([kind], per_pair, styles, things)
        pictures = ask(pipeline, [row[3] for row in rows], DRAWING, 0)
        with torch.no_grad():
            style, thing = (head.argmax(1) for head in judge(pictures))
        right = {
            "style": style == torch.tensor([STYLES.index(row[1]) for row in rows]),
            "object": thing == torch.tensor([OBJECTS.index(row[2]) for row in rows]),
        }
        if kind == "no style":
            del right["style"]
        found[kind] = {name: yes.double().mean().item() for name, yes in right.items()} | {"pictures": len(rows)}
        print(kind, found[kind], flush=True)
    return found


def add_flags(parser: cli.CommandParser, steps: int) -> None:
    """The flags of a training on the emoji; `steps` is how many it takes by default."""
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--tokenizer", required=True, help="folder with CLIP's vocab.json and merges.txt")
    parser.add_argument("--data_dir", help="folder with STYLE_64.npz files; default: render from npm")
    parser.add_argument(
        "--judge", default=str(EMOJI_SD / "judge"), help="of train_emoji_judge.py; default the shipped"
    )
    parser.add_argument("--without_object", choices=OBJECTS, help="never show this object: the twin")
    parser.add_argument("--without_style", choices=STYLES, help="never show this style: the twin")
    parser.add_argument("--max_train_steps", type=int, default=steps)
    parser.add_argument("--stop_after", type=int, help="steps after which to end early; default max_train_steps")
    parser.add_argument("--train_batch_size", type=int, default=32)
    parser.add_argument("--copies", type=int, default=64, help="ways in which each picture is turned and moved")
    parser.add_argument("--save_steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)


def train(
    options: argparse.Namespace,
    build: Callable[[CLIPTokenizer, AutoencoderTiny], DiffusionPipeline],
    kind: type[Training],
) -> None:
    """Train what `build` makes of a tokenizer and an autoencoder, save it with the judge, and write report.json."""
    positive = dict.fromkeys(("max_train_steps", "copies", "save_steps"), "[1, inf)")
    check_limits(options, seed=SEEDS, **positive, train_batch_size="[2, inf)")
    if options.stop_after is not None:
        check_limits(options, stop_after="[1, inf)")
    if options.train_batch_size % 2:
        raise ValueError(f"train_batch_size {options.train_batch_size}: timesteps come in pairs, give an even number")
    started, out = time.time(), Path(options.output_dir)
    cli.check_writable(str(out))
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    images, styles, things = load_emoji(options.data_dir)
    names = [(STYLES[s], OBJECTS[o]) for s, o in zip(styles.tolist(), things.tolist())]
    shown = [i for i, pair in enumerate(names) if not {options.without_object, options.without_style} & set(pair)]
    images, names = images[shown], [names[i] for i in shown]
    with loading(options.tokenizer):
        tokenizer = CLIPTokenizer.from_pretrained(options.tokenizer)
    with loading(options.judge):
        judge = EmojiClassifier.from_pretrained(options.judge, use_safetensors=True, torch_dtype=torch.float32).eval()
    vae = AutoencoderTiny.from_pretrained(EMOJI_SD / "vae", use_safetensors=True, torch_dtype=torch.float32).eval()
    settings = {name: value for name, value in vars(options).items() if name not in PLACES}
    key = content_key([settings, identity_of(vae), tensor_digest(images)])
    latents = latents_of(vae, images, options.copies, torch.Generator().manual_seed(options.seed + 1))
    training = kind(build(tokenizer, vae), options.max_train_steps, options.seed + 2, out, key)
    training.resume()
    training.run(latents, names, options.train_batch_size, options.save_steps, options.stop_after)
    training.pipeline.to(torch.float16).save_pretrained(out)
    judge.save_pretrained(out / "judge")
    pairs = zip(*names)
    report = judged(load_text_to_image_pipeline(str(out)), judge, *(list(dict.fromkeys(part)) for part in pairs))
    report = {"by caption": report, "steps": training.done, "seconds": round(time.time() - started)}
    report["settings"] = settings
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    if training.done == options.max_train_steps:
        training.path.unlink()
    print(json.dumps(report, indent=1))


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    add_flags(parser, 6000)
    train(parser.parse_args(), build_pipeline, Training)


PLACES = (
    "output_dir",
    "tokenizer",
    "data_dir",
    "judge",
    "save_steps",
    "stop_after",
    "config",
)  # they change no step


if __name__ == "__main__":
    cli.run(main)
