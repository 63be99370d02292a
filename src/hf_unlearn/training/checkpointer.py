"""Checkpoints: written whole, described by what a resumed run must share, and read back part by part."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from accelerate import PartialState

from ..common.files import write_text, writing
from ..common.untrusted import read_json
from ..data.fingerprint import fingerprint
from ..data.streaming import StreamedPairs
from ..families.base import Objective
from ..methods import Method
from ..saving.checkpoints import discard, rotate, seal
from ..saving.export import STATE_FILE, check_checkpoint, check_same_run, load_checkpoint, save_checkpoint
from .callbacks import TwoSidedStop
from .config import UnlearnConfig
from .reference import Reference


class Stateful(Protocol):
    """A part of the trainer that goes into a checkpoint: its state is JSON."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Checkpointer:
    """The part of the trainer that writes what a run goes on from.

    Args:
        method: as the user gave it: a resumed run must have the same.
        parts: whose state goes into a checkpoint.
        train_dataset: it keeps its place where it is a stream.
    """

    def __init__(
        self,
        objective: Objective,
        method: Method,
        args: UnlearnConfig,
        reference: Reference,
        stop: TwoSidedStop,
        parts: list[Stateful],
        train_dataset: Any,
    ):
        self.objective, self.method, self.args = objective, method, args
        self.reference, self.stop, self.parts, self.train_dataset = reference, stop, parts, train_dataset

    def described(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        data = {name: fingerprint(part) for name, part in self.reference.sets.items() if part is not None}
        described: dict[str, Any] = {"method": self.method.name, "options": asdict(self.method), "data": data}
        digest = self.reference.digest()
        return described if digest is None else {**described, "model": digest}

    # ---- writing -----------------------------------------------------------------------------------
    def write(self, folder: Path, stock: Callable[[], None], best: str | None) -> None:
        """Write a checkpoint: stock files, then the manifest that says they are whole; then older ones go.

        Args:
            stock: writes transformers' own files, and calls `save` for ours.
            best: the checkpoint that is kept whatever its age.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        everyone = PartialState()
        try:
            with writing(folder):
                if self.args.should_save:
                    discard(folder)
                everyone.wait_for_everyone()
                stock()
                everyone.wait_for_everyone()
                if self.args.should_save:
                    seal(folder)
        except OSError:
            discard(folder)  # half a checkpoint is of no use, and its room is
            raise
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate(folder.parent, limit, best)

    def save(self, folder: Path) -> None:
        """Write weights, masks, the original's losses and the state of the parts."""
        self._save_place(folder)
        if self.args.should_save:
            state = self.described()
            for part in self.parts:
                state.update(part.state_dict())
            save_checkpoint(folder, self.objective, self.reference.masks, self.reference.baseline_losses, state)
            self.stop.copy_to(folder)

    # ---- going on ----------------------------------------------------------------------------------
    def resume(self, folder: Path) -> None:
        """Read everything but the weights and the optimizer, which transformers loads.

        Raises:
            ValueError: the checkpoint is torn, or of another run than this one.
        """
        self.reference.masks, self.reference.baseline_losses, state = load_checkpoint(folder)
        check_checkpoint(folder, self.objective)
        self.reference.keep_original()  # the checkpoint's weights are loaded after this
        self.reference.begin_method()
        state.setdefault("earlier", {"steps": 0, "log": []})  # versions before 0.3 wrote those of a first call only
        state.setdefault("high", 0)  # of the guard, which ended a run at the first retain loss over its limit
        described = self.described()
        kept = [key for part in self.parts for key in part.state_dict()]
        lacks = sorted({*described, *kept} - state.keys())
        if lacks:
            raise ValueError(f"{folder / STATE_FILE} has no {lacks[0]}: resume from another checkpoint")
        check_same_run(folder, state, described)
        for part in self.parts:
            part.load_state_dict({key: state[key] for key in part.state_dict()})
        self.stop.copy_from(folder)
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
