"""How a script ends: the model card and the upload; and how it begins if it is to upload. See `upload`, `contents`."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.files import write_text
from ..common.processes import is_first
from ..hub.upload import reserve
from ..report.cards import BEGIN, CARD_FILE, write_card
from ..report.outcome import judged, outcome
from ..report.page import PAGE_FILE, page
from ..report.reading import read_record
from ..report.record import RECORD_FILE, RunRecord
from ..report.verdict import verdict


def prepare_repo(training: Any, revision: str | None = None) -> str | None:
    """Make the repository of --hub_model_id before training, so that a wrong token costs nothing.

    Returns its id on the first process, None on the others and without --push_to_hub.

    Raises:
        ValueError, OSError: what `publish` raises about the token, the id and the Hub.
    """
    if training.push_masks and not training.push_to_hub:
        raise ValueError("push_masks uploads the masks beside the result: set push_to_hub too")
    if not training.push_to_hub or not is_first():
        return None
    name = training.hub_model_id or Path(training.output_dir).resolve().name
    return reserve(name, training.hub_token, bool(training.hub_private_repo), revision)


def name_card(folder: str | Path, repo: str) -> None:
    """Have a card that a run wrote load the model from `repo`, where it will be; other cards stay as they are.

    Raises:
        ValueError: what `read_record` and `write_card` raise.
    """
    card = Path(folder) / CARD_FILE
    if (Path(folder) / RECORD_FILE).is_file() and card.is_file() and BEGIN in card.read_text(errors="replace"):
        write_card(folder, read_record(folder), repo)


def renew(folder: str | Path, record: RunRecord) -> list[str]:
    """Write a finished run's record again, with its card, badge and Hub entries, and its page where there is one.

    Returns:
        Names of the files that a person reads.
    """
    record.write(folder)
    path = write_card(folder, record)
    written = [RECORD_FILE, path.name]
    if (Path(folder) / PAGE_FILE).is_file():
        write_text(Path(folder) / PAGE_FILE, page(record, folder))
        written.append(PAGE_FILE)
    return written


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


def finish(
    training: Any, repo: str | None, record: RunRecord, table: str, trainer: Any, command: Sequence[str] | None = None
) -> None:
    """How a script ends: the record, the card, the outcome and the table on the screen, and the upload if `repo` was
    made.

    Args:
        command: words of the command with whole paths, which the record does not keep: on the screen, what to try next
            can be run as it stands.
    """
    folder, record = training.output_dir, judged(record)
    here = replace(record, command=list(command)) if command is not None else record
    record.write(folder)
    write_card(folder, record, repo)
    shown = f"{folder}/{record.picture} shows it; " if record.picture else ""
    print(f"\n{outcome(here).line}\n{verdict(record)}\n\n{table}\n")
    print(f"{shown}{folder}/README.md says more, and how to load it.")
    if repo is not None:
        print(push(trainer, repo, training.push_masks))
    print(f"hf-unlearn report {shlex.quote(str(folder))} makes one page of it.")
