"""What a run leaves behind and goes on from: checkpoints that resume, the exported result, its way to the Hub."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ..common.files import write_text, writing
from ..common.untrusted import read_json
from ..common.weights import weights_digest
from ..data.fingerprint import fingerprint
from ..data.streaming import StreamedPairs
from ..hub.upload import Published, publish, reserve
from ..saving.checkpoints import discard, rotate, seal
from ..saving.export import MASKS_FILE, STATE_FILE, check_checkpoint, export, load_checkpoint, save_checkpoint
from ..saving.history import entry, write_history
from .step import SteppingTrainer


class KeptRun(SteppingTrainer):
    """The saving half of UnlearnTrainer, whose attributes it reads."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """What the model was made to forget, oldest first, by this run too once it has taken a step."""
        steps = self.state.global_step
        if self.forget_dataset is None or (self.method.trains and not steps):
            return self._forgotten_before
        return [
            *self._forgotten_before,
            entry(self.forgotten, self.method.name, steps, self.objective.base_model),
        ]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Stock files, then the manifest that says they are whole, and only then are older checkpoints removed.

        No public method sees both ends of a save, hence this override.
        """
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(folder):
                if self.args.should_save:
                    discard(folder)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    seal(folder)
        except OSError:
            discard(folder)  # half a checkpoint is of no use, and its room is
            raise
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate(folder.parent, limit, self.state.best_model_checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Export the pipeline, or its adapter, and check that it reloads; checkpoints keep the layout that resumes."""
        folder = Path(output_dir or self.args.output_dir)
        if _internal_call:
            self._save_place(folder)
            if self.args.should_save:
                state = {
                    **self._described(),
                    "original_retain": self.original_retain,
                    "best": self.early_stop.best,
                    "first_retain": self.guard.first_retain,
                    "first_forget": self.guard.first_forget,
                    "stopped": self.early_stop.reached,
                }
                save_checkpoint(folder, self.objective, self.masks, self.profile, state)
                self.early_stop.copy_to(folder)
            return
        write_history(self.objective.network, self.history)
        if self.args.should_save:
            with self._averaged():
                export(self.objective, folder)
        self.accelerator.wait_for_everyone()  # a process that ends first may have the launcher end the one that writes
        if self.args.push_to_hub and folder == Path(self.args.output_dir):
            self.push_to_hub(include_masks=self.args.push_masks)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository before training, so that a wrong token costs nothing. Raises what `reserve` does."""
        if self.is_world_process_zero():
            args = self.args
            name = args.hub_model_id or Path(args.output_dir).resolve().name
            wanted = bool(args.hub_private_repo if private is None else private)
            self.hub_model_id = reserve(name, token or args.hub_token, wanted, args.hub_revision)

    def push_to_hub(
        self, commit_message: str = "Unlearned", token: str | None = None, include_masks: bool = False
    ) -> Published | None:
        """Publish what `save_model` exported to output_dir, never a checkpoint; None on all processes but the first.

        Raises:
            ValueError, OSError: what `publish` raises, or there are no masks to include.
        """
        if not self.is_world_process_zero():
            return None
        if self.hub_model_id is None:
            self.init_hf_repo(token)
        args, folder = self.args, Path(self.args.output_dir)
        if include_masks:
            if self.masks is None:
                raise ValueError(f"include_masks: {self.method.name} has no masks")
            self.masks.save(folder / MASKS_FILE)
        token = token or args.hub_token
        return publish(folder, self.hub_model_id, token, False, args.hub_revision, include_masks, commit_message)

    # ---- going on ---------------------------------------------------------------------------------
    def _described(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        parts = {"forget": self.forget_dataset, "retain": self.retain_dataset}
        data = {name: fingerprint(part) for name, part in parts.items() if part is not None}
        described = {"method": self.method.name, "options": asdict(self.method), "data": data}
        if self.original is not None:
            self._original_digest = self._original_digest or weights_digest(self.original)
        if self._original_digest:
            described["model"] = self._original_digest
        return described

    def _resume(self, folder: Path) -> None:
        self.masks, self.profile, state = load_checkpoint(folder)
        check_checkpoint(folder, self.objective)
        self._keep_original()  # the checkpoint's weights are loaded after this
        self._begin_method()
        described = self._described()
        kept = {"original_retain", "best", "first_retain", "first_forget", "stopped"}
        lacks = sorted({*described, *kept} - state.keys())
        if lacks:
            raise ValueError(f"{folder / STATE_FILE} has no {lacks[0]}: resume from another checkpoint")
        for key, ours in described.items():
            theirs = state[key]
            if theirs != ours:
                if isinstance(ours, dict) and isinstance(theirs, dict):  # say only what differs
                    names = [n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n)]
                    theirs, ours = ({n: part.get(n) for n in names} for part in (theirs, ours))
                raise ValueError(f"{folder} was written with {key} {theirs}, this run has {ours}")
        self.original_retain, self.early_stop.best = state["original_retain"], state["best"]
        self.guard.first_retain, self.guard.first_forget = state["first_retain"], state["first_forget"]
        self.early_stop.reached = state["stopped"]
        self.early_stop.copy_from(folder)
        self._load_place(folder)

    def _place_file(self, folder: Path) -> Path:
        return folder / f"stream-{self.args.process_index}.json"

    def _save_place(self, folder: Path) -> None:
        if isinstance(self.train_dataset, StreamedPairs):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(self._place_file(folder), json.dumps(self.train_dataset.state()))

    def _load_place(self, folder: Path) -> None:
        """Raises ValueError for a checkpoint of a run without a stream, or of more or fewer processes."""
        if isinstance(self.train_dataset, StreamedPairs):
            path = self._place_file(folder)
            if not path.is_file():
                raise ValueError(f"{folder} does not say where this process was in the stream: resume as it was run")
            self.train_dataset.restart(read_json(path))
