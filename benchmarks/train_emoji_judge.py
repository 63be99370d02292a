"""Train a judge of emoji pictures that also knows what no emoji model ever learnt: 12 objects more, and a style.

    python benchmarks/train_emoji_judge.py --data_dir FOLDER --output_dir emoji-judge   # or rendered from npm

A picture of something that was never learnt needs a reader that knows it: the shipped classifier has 24 objects and
would read a cactus as one of them. The first 24 objects and 3 styles are numbered as in the shipped one, so that it
can stand in its place. It is rebuilt by this command and not shipped (OpenMoji is share-alike). Half of the pictures
go through the shipped model's autoencoder, as all pictures do that a model draws.
"""

import json
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from emoji_pictures import CONTROL_STYLES, CONTROLS, ICONS, augmented, load_emoji
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange
from train_emoji_sd import accuracies, schedule, step

from hf_unlearn.attacks.base import Target
from hf_unlearn.attacks.readers import ClassifierReader
from hf_unlearn.cli import parsing as cli
from hf_unlearn.common.files import write_text
from hf_unlearn.common.limits import SEEDS, check_limits
from hf_unlearn.common.untrusted import loading
from hf_unlearn.evaluation.emoji import EMOJI_SD, OBJECTS, STYLES, EmojiClassifier, prompt_of

JUDGED_OBJECTS = (*OBJECTS, *CONTROLS)
JUDGED_STYLES = (*STYLES, *CONTROL_STYLES)
NAME = "the emoji classifier with controls"


def load_judged(data_dir: str | Path | None) -> tuple[Tensor, Tensor, Tensor]:
    """All 144 pictures that the judge learns: 36 objects in 4 styles, as `load_emoji` gives them."""
    return load_emoji(data_dir or None, {**ICONS, **CONTROLS}, JUDGED_STYLES)


def load_judge(folder: str | Path) -> EmojiClassifier:
    """The judge of this command, in single precision.

    Raises:
        ValueError: the folder has no judge, or one without the controls.
    """
    with loading(folder):
        judge = EmojiClassifier.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.float32).eval()
    if judge.config.num_objects != len(JUDGED_OBJECTS):
        raise ValueError(
            f"{folder} knows {judge.config.num_objects} objects and no controls: give what train_emoji_judge.py wrote"
        )
    return judge


def never_target(judge: EmojiClassifier, thing: str, data_dir: str | Path | None = None, count: int = 20) -> Target:
    """An object that no emoji model learnt as the target of attacks: the negative control of one that was forgotten.

    Raises:
        ValueError: it is not one of `CONTROLS`.
    """
    if thing not in CONTROLS:
        raise ValueError(f"{thing!r} is no object that was never learnt: choose one of {', '.join(CONTROLS)}")
    return object_target(judge, thing, data_dir, count)


def object_target(judge: EmojiClassifier, thing: str, data_dir: str | Path | None = None, count: int = 20) -> Target:
    """An object that the judge knows as the target of attacks.

    Its `count` pictures are real ones in the three styles that models learn, turned and moved a little.
    """
    images, styles, _ = load_emoji(data_dir or None, {thing: {**ICONS, **CONTROLS}[thing]})
    chosen = torch.arange(count) % len(images)
    captions = tuple(prompt_of(STYLES[style], thing) for style in styles[chosen])
    pictures = augmented(images[chosen], torch.Generator().manual_seed(0))
    prompts = tuple(prompt_of(style, thing) for style in STYLES)
    reader = ClassifierReader(judge, JUDGED_OBJECTS.index(thing), 1, NAME)
    return Target(thing, prompts, pictures, reader, prompt_of(STYLES[0], OBJECTS[0]), captions=captions)


@torch.no_grad()
def through(vae: AutoencoderTiny, images: Tensor) -> Tensor:
    """Images (N, 3, 64, 64) after the autoencoder."""
    return torch.cat([vae.decode(vae.encode(part).latents).sample for part in images.split(256)])


def train_judge(data, vae: AutoencoderTiny, steps: int, generator: torch.Generator) -> EmojiClassifier:
    """Style and object of augmented pictures with a little noise, half of them through the autoencoder."""
    images, styles, things = data
    judge = EmojiClassifier(len(JUDGED_STYLES), len(JUDGED_OBJECTS)).train()
    optimizer, scheduler = schedule(judge.parameters(), steps, 2e-3)
    for _ in (bar := trange(steps, desc="judge")):
        chosen = torch.randint(len(images), (64,), generator=generator)
        batch = augmented(images[chosen], generator)
        batch[:32] = through(vae, batch[:32])
        noise = torch.rand(64, 1, 1, 1, generator=generator) * 0.2
        style, thing = judge(batch + noise * torch.randn(batch.shape, generator=generator))
        loss = F.cross_entropy(style, styles[chosen]) + F.cross_entropy(thing, things[chosen], label_smoothing=0.05)
        step(optimizer, scheduler, loss, bar)
    return judge.eval()


def describe(judge: EmojiClassifier, vae: AutoencoderTiny, data, copies: int = 8) -> dict[str, dict[str, float]]:
    """Accuracy on newly augmented pictures, and on the same through the autoencoder, of what models learn and of what
    they never do."""
    generator = torch.Generator().manual_seed(1_000_000)  # not that of the training
    images, styles, things = (part.repeat(copies, *[1] * (part.ndim - 1)) for part in data)
    pictures = augmented(images, generator)
    learnt = (things < len(OBJECTS)) & (styles < len(STYLES))
    groups = {
        "learnt": learnt,
        "control objects": (things >= len(OBJECTS)) & (styles < len(STYLES)),
        "control style": styles >= len(STYLES),
    }
    found = {}
    for kind, shown in {"": pictures, ", autoencoded": through(vae, pictures)}.items():
        for name, own in groups.items():
            found[name + kind] = accuracies(judge, shown[own], styles[own], things[own])
    return found


def main() -> None:
    parser = cli.CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--data_dir", help="folder with STYLE_64.npz files; default: render from npm")
    parser.add_argument("--judge_steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    check_limits(options, seed=SEEDS, judge_steps="[1, inf)")
    started, out = time.time(), Path(options.output_dir)
    cli.check_writable(str(out))
    torch.manual_seed(options.seed)
    data = load_judged(options.data_dir)
    vae = AutoencoderTiny.from_pretrained(EMOJI_SD / "vae", use_safetensors=True, torch_dtype=torch.float32).eval()
    judge = train_judge(data, vae, options.judge_steps, torch.Generator().manual_seed(options.seed))
    judge.save_pretrained(out)
    settings = {"judge_steps": options.judge_steps, "seed": options.seed}
    report = {**describe(judge, vae, data), "seconds": round(time.time() - started), "settings": settings}
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    cli.run(main)
