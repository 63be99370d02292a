"""How a script ends: the model card and the upload; and how it begins if it is to upload. See `upload`, `contents`."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from . import __version__
from .methods import Method
from .upload import reserve

CARD = """
# {title}

{forgets} with hf_unlearn {version}, method `{method}`{paper}.

{table}

![before and after](before_after.png)

Largest drift of a weight outside the mask in the forget phase: {drift:.3g}. Share of weights in the mask: {density}.

## Use

```python
from diffusers import UNet2DModel

unet = UNet2DModel.from_pretrained("{title}", subfolder="unet")
```

## Recipe

```json
{recipe}
```

## Limits

The figures say what the samples show, not that the forgotten data cannot be recovered: relearning and other attacks
were not tried.
"""


def prepare_repo(training: Any, revision: str | None = None) -> str | None:
    """Make the repository of --hub_model_id before training, so that a wrong token costs nothing.

    Returns its id on the first process, None on the others and without --push_to_hub.

    Raises:
        ValueError, OSError: what `publish` raises about the token, the id and the Hub.
    """
    if training.push_masks and not training.push_to_hub:
        raise ValueError("push_masks uploads the masks beside the result: set push_to_hub too")
    if not training.push_to_hub or int(os.environ.get("RANK", 0)) != 0:
        return None
    name = training.hub_model_id or Path(training.output_dir).resolve().name
    return reserve(name, training.hub_token, bool(training.hub_private_repo), revision)


def push(trainer: Any, repo: str, with_masks: bool = False) -> str:
    """Upload the result in the trainer's output_dir to `repo`; returns the address.

    Raises:
        OSError: the Hub failed; the result is in the folder and can be published from there.
    """
    trainer.hub_model_id = repo
    folder = trainer.args.output_dir
    if with_masks and trainer.masks is None:
        print(f"no masks to upload: {trainer.method.name} has none")
    try:
        return trainer.push_to_hub(include_masks=with_masks and trainer.masks is not None).url
    except OSError as error:
        raise OSError(f"{error}. The result is in {folder}: hf-unlearn publish {folder} {repo}") from None


def finish(training: Any, repo: str | None, base_model: str | None, method: Method, table: str, trainer: Any) -> None:
    """How a script ends: the card, the table on the screen, and the upload if `repo` was made."""
    write_card(training.output_dir, base_model, method, table, trainer, repo)
    adapter = trainer.objective.adapter
    holds = "an adapter" if adapter is not None and not adapter.merge else "a diffusers pipeline"
    print(f"\n{table}\n\n{training.output_dir}/before_after.png shows it; the folder is {holds}.")
    if repo is not None:
        print(push(trainer, repo, training.push_masks))


def write_card(
    folder: str, base_model: str | None, method: Method, table: str, trainer: Any, repo: str | None = None
) -> None:
    """README.md of the result, from what the run recorded. Front matter as the Hub reads it.

    `repo` is the id it will be loaded by, if it is published.
    """
    data = ModelCardData(
        base_model=base_model if base_model and not Path(base_model).exists() else None,
        base_model_relation="finetune" if base_model and not Path(base_model).exists() else None,
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        tags=["hf-unlearn", "machine-unlearning", "diffusers", f"method:{method.name}"],
    )
    recipe = {"method": method.name, **asdict(method), "outer_steps": trainer.state.global_step}
    recipe |= {
        "learning_rate": trainer.args.learning_rate,
        "batch_size": trainer.args.train_batch_size * trainer.args.world_size,
        "seed": trainer.args.seed,
    }
    name = repo or Path(folder).resolve().name
    text = CARD.format(
        title=name,
        forgets="Unlearned",
        version=__version__,
        method=method.name,
        paper=f" (arXiv {method.paper})" if method.paper else "",
        table=table,
        drift=trainer.verify_mask(),
        density=f"{trainer.masks.density:.3f}" if trainer.masks is not None else "all, no mask",
        recipe=json.dumps(recipe, indent=2),
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n{text}").save(Path(folder) / "README.md")
