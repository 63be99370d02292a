"""From a finished run to a repository: the model card and the upload. Masks, Fisher and checkpoints stay local."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData

from . import __version__
from .methods import Method

PICTURES = ["before_after.png", "samples_before.png", "samples_after.png"]  # what is unsafe in them is blurred
UPLOADED = ["model_index.json", "README.md", *PICTURES, "figures.json", "figures.md"]

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


def prepare_repo(training: Any) -> str:
    """Create the repository before training, so that a wrong token costs nothing; returns its id."""
    name = training.hub_model_id or Path(training.output_dir).resolve().name
    api = HfApi(token=training.hub_token)
    return api.create_repo(name, private=training.hub_private_repo, exist_ok=True).repo_id


def push_folder(folder: str, repo: str, training: Any) -> str:
    """Upload the exported pipeline, card and picture of `folder`; returns the address."""
    api = HfApi(token=training.hub_token)
    index = json.loads((Path(folder) / "model_index.json").read_text())
    parts = [f"{name}/*" for name in index if not name.startswith("_") and (Path(folder) / name).is_dir()]
    patterns = [*UPLOADED, *parts]
    done = api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=patterns, commit_message="Unlearned")
    return str(done)


def finish(training: Any, repo: str | None, base_model: str | None, method: Method, table: str, trainer: Any) -> None:
    """How a script ends: the card, the table on the screen, and the upload if `repo` was made."""
    write_card(training.output_dir, base_model, method, table, trainer)
    adapter = trainer.objective.adapter
    holds = "an adapter" if adapter is not None and not adapter.merge else "a diffusers pipeline"
    print(f"\n{table}\n\n{training.output_dir}/before_after.png shows it; the folder is {holds}.")
    if repo is not None:
        print(push_folder(training.output_dir, repo, training))


def write_card(folder: str, base_model: str | None, method: Method, table: str, trainer: Any) -> None:
    """README.md of the result, from what the run recorded. Front matter as the Hub reads it."""
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
    name = Path(folder).resolve().name
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
