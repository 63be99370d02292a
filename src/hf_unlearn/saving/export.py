"""Write checkpoints and exported models, and check that an export reloads to what was saved."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_pt_utils import safe_globals

from ..common.files import atomic, atomic_folder, write_text
from ..common.names import is_hub_id
from ..common.precisions import as_stored, round_to_stored, take_any, takes_any
from ..common.sharding import is_sharded
from ..common.untrusted import loading, read_json
from ..common.weights import contiguous_state, save_weights
from ..families import Objective
from ..saliency.masks import Masks
from .adapters import exporting, load_factors, merged_copy, reloaded_adapter, save_adapter

MASKS_FILE, STATE_FILE = "masks.safetensors", "unlearn_state.json"
LOSSES_FILE = "profile.safetensors"  # the baseline losses; older checkpoints have this name
ADAPTER_FOLDER = "adapter"  # beside merged weights


def save_checkpoint(
    folder: Path, objective: Objective, masks: Masks | None, baseline_losses: torch.Tensor | None, state: dict
) -> None:
    """Write the weights under the name that Trainer resumes from, with masks, baseline losses and state of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_sharded(objective):  # each process writes its own shards of a sharded model
        save_weights(objective, folder / "model.safetensors")
    if masks is not None:
        masks.save(folder / MASKS_FILE)
    if baseline_losses is not None:
        with atomic(folder / LOSSES_FILE) as partial:
            save_file({"profile": baseline_losses}, partial)
    write_text(folder / STATE_FILE, json.dumps(state, indent=2))


def load_checkpoint(folder: Path) -> tuple[Masks | None, torch.Tensor | None, dict]:
    """Return (masks, baseline losses, state) as `save_checkpoint` wrote them."""
    if not (folder / STATE_FILE).is_file():
        raise ValueError(f"{folder} is not a checkpoint of UnlearnTrainer: {STATE_FILE} is missing")
    masks = Masks.load(folder / MASKS_FILE) if (folder / MASKS_FILE).is_file() else None
    baseline_losses = None
    if (folder / LOSSES_FILE).is_file():
        with loading(folder / LOSSES_FILE):
            baseline_losses = load_file(folder / LOSSES_FILE)["profile"]
    state = read_json(folder / STATE_FILE)
    if state.get("method") == "sfron":
        _as_today(state.get("options", {}))
    return masks, baseline_losses, state


def _as_today(options: dict[str, Any]) -> None:
    """Bring the options of an older checkpoint of sfron up to date, where they mean what today's defaults do."""
    options.setdefault("strength", "rate")  # there was nothing else before 0.4
    if "resist_relearning" not in options and options["strength"] == "rate" and options.get("use_mask") is True:
        options["use_mask"] = None  # the default of a run at a rate, under its former name
    options.setdefault("resist_relearning", 0.0)
    options.setdefault("relearning_rate", 3e-4)
    options.setdefault("adversary", None if options["strength"] == "rate" else False)  # on by default since


def check_same_run(folder: Path, state: dict[str, Any], described: dict[str, Any]) -> None:
    """Raise ValueError if a checkpoint's `state` says otherwise than `described`, what a resumed run must share."""
    for key, ours in described.items():
        theirs = state.get(key)
        if theirs != ours:
            if isinstance(ours, dict) and isinstance(theirs, dict):  # say only what differs
                names = [n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n)]
                theirs, ours = ({n: part.get(n) for n in names} for part in (theirs, ours))
            raise ValueError(f"{folder} was written with {key} {theirs}, this run has {ours}")


def check_checkpoint(folder: Path, objective: Objective) -> None:
    """Check what Trainer will load from a checkpoint: weights as safetensors, all else as tensors and containers.

    Raises:
        ValueError: a file is damaged, belongs to another model, or holds anything else, as a pickle can.
    """
    read_json(folder / "trainer_state.json")
    weights = folder / "model.safetensors"
    pickled = sorted(folder.glob("*.bin"))
    if pickled and not weights.is_file():
        raise ValueError(f"{folder} has weights as {pickled[0].name} and no model.safetensors: pickles are not loaded")
    if weights.is_file():
        with loading(weights), safe_open(weights, framework="pt") as file:
            theirs = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        ours = {name: tuple(value.shape) for name, value in objective.state_dict().items()}
        other: list[Any] = sorted(theirs.items() - ours.items())
        lost = other or sorted(contiguous_state(objective).keys() - theirs.keys())
        if lost:
            raise ValueError(f"{weights} is of another model: {lost[0]} does not fit")
    for path in sorted([*folder.glob("*.pt"), *folder.glob("*.pth")]):
        try:
            with safe_globals():
                torch.load(path, "cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is torn or would run code, so it is not loaded: {said}") from error


def load_saved(objective: Objective, folder: str) -> None:
    """Load the weights that a finished run exported to `folder` into the objective's network."""
    if objective.adapter is None:
        objective.network.load_state_dict(objective.reload_network(folder).state_dict())
    else:
        load_factors(objective, Path(folder) / ADAPTER_FOLDER if objective.adapter.merge else folder)


def export(objective: Objective, folder: str | Path, write: bool = True) -> tuple[str, ...]:
    """Write the result in a format that plain diffusers, transformers or peft loads. Return its files in `folder`.

    Every part is written in the precision of the files that it came from. Trained weights stay rounded to that, so
    that what is measured next is what was written; every process calls it, and one of them with `write`.

    This is the full pipeline or model, or the adapter alone. A merged adapter is also kept beside the result, in
    `adapter`. The result is reloaded and compared before it replaces an earlier one.

    Raises:
        RuntimeError: the result does not reload to what was saved.
        OSError: the result could not be written. In both cases an earlier result in `folder` is unchanged.
    """
    if objective.adapter is None:
        round_to_stored(objective.network)
    if not write:
        return ()
    with atomic_folder(folder) as staged:
        _export(objective, staged)
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        return tuple(path.relative_to(staged).as_posix() for path in files)


def _export(objective: Objective, folder: Path) -> None:
    if objective.adapter is None:
        save_whole(objective, folder)
        forget_local_names(folder)
        check_reload(objective, str(folder))
        return
    factors = folder / ADAPTER_FOLDER if objective.adapter.merge else folder
    save_adapter(objective, factors)
    live = _output(objective, objective.network)
    _same_output(live, _output(objective, reloaded_adapter(objective, factors)), factors)
    if objective.adapter.merge:
        merged = merged_copy(objective.network)
        _same_output(live, _output(objective, merged), folder)
        with exporting(objective, merged):
            save_whole(objective, folder)
            forget_local_names(folder)
            check_reload(objective, str(folder))


def save_whole(objective: Objective, folder: str | Path) -> None:
    """Write the whole pipeline or model, every part in the precision that it is stored in."""
    with as_stored(objective.exported):
        objective.save_pretrained(str(folder))


def forget_local_names(folder: str | Path) -> None:
    """Remove the base model's local path from the saved configurations. A Hub id stays."""
    for path in [*Path(folder).glob("*.json"), *Path(folder).glob("*/*config.json")]:
        config = json.loads(path.read_text(encoding="utf-8"))
        name = config.get("_name_or_path") if isinstance(config, dict) else None
        if isinstance(name, str) and not is_hub_id(name):
            del config["_name_or_path"]
            write_text(path, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def check_reload(objective: Objective, folder: str) -> None:
    """Reload the saved network as its users would, and compare the weights and one forward pass.

    Raises:
        RuntimeError: anything differs, so the folder must not be published.
    """
    live = objective.network
    loaded = objective.reload_network(folder).to(next(live.parameters()).device)
    saved = loaded.state_dict()
    for name, value in live.state_dict().items():
        if name not in saved or not torch.equal(saved[name].to(value.dtype), value):
            raise RuntimeError(f"{folder} does not reload to what was saved: {name} differs")
    if takes_any(live):
        take_any(loaded)
    own = {**dict(live.named_parameters()), **dict(live.named_buffers())}
    for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers()):
        tensor.data = tensor.data.to(own[name].dtype)  # diffusers loads float32 unless it is told otherwise
    _same_output(_output(objective, live), _output(objective, loaded), folder)


@torch.no_grad()
def _output(objective: Objective, network: nn.Module) -> torch.Tensor:
    """Return the output of one small forward pass in eval mode."""
    device = next(network.parameters()).device
    args, kwargs = objective.probe(torch.Generator().manual_seed(0))
    args, kwargs = send_to_device(args, device), send_to_device(kwargs, device)
    training = network.training
    output = network.eval()(*args, **kwargs, return_dict=False)[0]
    network.train(training)
    return output


def _same_output(live: torch.Tensor, loaded: torch.Tensor, folder: str | Path) -> None:
    difference = (live - loaded.to(live.device)).abs().max().item()
    if not difference <= 1e-5 * max(1.0, live.abs().max().item()):
        raise RuntimeError(f"{folder} does not reload to what was saved: one forward differs by {difference:.3g}")
