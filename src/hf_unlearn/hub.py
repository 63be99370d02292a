"""From a finished run to a repository: the model card and the upload. Masks, Fisher and checkpoints stay local."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from .cards import write_card
from .evaluation.record import RunRecord

UPLOADED = ["model_index.json", "README.md", "before_after.png", "figures.json", "figures.md"]


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


def finish(training: Any, repo: str | None, record: RunRecord, table: str, trainer: Any) -> None:
    """How a script ends: the record, the card, the table on the screen, and the upload if `repo` was made."""
    folder = training.output_dir
    record.write(folder)
    write_card(folder, record, repo)
    shown = f"{folder}/{record.picture} shows it; " if record.picture else ""
    print(f"\n{table}\n\n{shown}{folder}/README.md says more, and how to load it.")
    if repo is not None:
        print(push_folder(folder, repo, training))
