"""What cannot work together is said before anything is drawn, encoded or trained: of the flags, then of the model."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...common.files import check_apart
from ...methods import Method
from ...report.reading import read_record
from ...saliency.masks import Masks, masks_from
from ...saliency.ranks import lora_layers
from ...saving.checkpoints import find_checkpoint
from ...saving.export import check_same_run, load_checkpoint
from ...training.checks import method_for, resolved_method
from ...training.config import UnlearnConfig
from ..stages import AGAIN

UNLISTED = {"flyte", "kubeflow", "neptune"}  # transformers does not say whether these are installed


# Flags that name what is read, and whether the output folder must not hold it either.
READ = {
    **dict.fromkeys(("pretrained_model_name_or_path", "classifier_model_name_or_path"), True),
    **dict.fromkeys(("retrained_model", "clip_model", "model_config"), True),
    **dict.fromkeys(("train_data_dir", "validation_data_dir", "forget_data_dir", "retain_data_dir"), False),
}


def check_folders(parts: Sequence[Any]) -> None:
    """Raise ValueError if the output folder is one that is read, lies in one, or holds a model that is read."""
    output = next(part.output_dir for part in parts if hasattr(part, "output_dir"))
    for name, holding in READ.items():
        for folder in filter(None, (getattr(part, name, None) for part in parts)):
            check_apart(output, folder, name, holding)


def check_flags(training: Any, lora: Any, method: Method) -> None:
    """Raise ValueError for flags that cannot work together, whatever the model and the data are."""
    if lora.use_lora and (method.masks_every_step or not method.trains):
        raise ValueError(f"{method.name} works on weights, which an adapter leaves alone: do without --use_lora")
    if method.fast_steps and training.gradient_accumulation_steps != 1:
        raise ValueError(
            f"{method.name} takes optimizer steps of its own: set gradient_accumulation_steps=1 and "
            "--train_batch_size to the batch you want"
        )
    if training.mask_path:
        _check_masks(training.mask_path, lora, method)
    folder = find_checkpoint(training.output_dir, training.resume_from_checkpoint)
    if folder is not None:
        state = load_checkpoint(Path(folder))[2]
        options = asdict(method_for(method, training))
        check_same_run(Path(folder), state, {"method": method.name, "options": options})
    if not method.trains:
        stops = {name: getattr(training, name) for name in ("target_forget", "max_retain_drift", "eval_steps")}
        stops |= {"resume_from_checkpoint": training.resume_from_checkpoint}
        given = [name for name, value in stops.items() if value is not None]
        if given:
            raise ValueError(f"{method.name} edits the weights once and takes no steps: leave --{given[0]} out")
    if not training.push_to_hub:
        given = [name for name in ("hub_model_id", "hub_private_repo") if getattr(training, name)]
        if given:
            raise ValueError(f"--{given[0]} says where to upload: add --push_to_hub, or leave it out")


def _check_masks(path: str, lora: Any, method: Method) -> None:
    if lora.use_lora:
        raise ValueError("--mask_path is for weights, and an adapter gets no mask: leave it or --use_lora out")
    if not (method.fast_steps or method.masks_every_step):
        raise ValueError(f"{method.name} moves all weights, so a mask does nothing: leave --mask_path out")
    if getattr(method, "use_mask", True) is False:
        raise ValueError("--mask_path and --use_mask false say the opposite: leave one out")
    Masks.load(path)


def check_images(data: Any, training: Any, method: Method, optional: bool = False) -> None:
    """Raise ValueError for data flags of UNets and DiTs that name too little, or that cannot be streamed.

    Args:
        optional: whether there is data and something to forget where the flags name none.
    """
    if data.source is None and not (optional and not data.forget_data_dir):
        raise ValueError("no data: set --train_data_dir or --dataset_name to the images the model was trained on")
    given = [name for name in ("forget_class", "forget_indices", "forget_data_dir") if getattr(data, name)]
    if len(given) > 1 or (not given and data.source is not None):
        raise ValueError("say what to forget with one of --forget_class, --forget_indices or --forget_data_dir")
    for name in ("train_data_dir", "forget_data_dir"):
        folder = getattr(data, name)
        if folder is not None and not Path(folder).exists():
            raise ValueError(f"{name} {folder} does not exist")
    if data.train_data_dir and data.dataset_name:
        raise ValueError("give the training images by --train_data_dir or by --dataset_name, not both")
    if data.streaming:
        if "retain" not in method.streams:
            raise ValueError(f"{method.name} trains on no retain data, so it can stream none: leave --streaming out")
        if training.dataloader_num_workers:
            raise ValueError("a stream keeps its place in the training process: leave --dataloader_num_workers out")


def check_arguments(arguments: UnlearnConfig) -> None:
    """Raise ValueError for a tracker that does not exist or is not installed."""
    from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks

    given: Any = arguments.report_to
    trackers: list[str] = given if isinstance(given, list) else [given]
    get_reporting_integration_callbacks(trackers)  # names those that exist
    lacking = sorted(set(trackers) - UNLISTED - set(get_available_reporting_integrations()))
    if lacking:
        raise ValueError(f"report_to {lacking[0]} is not installed: install it, or leave --report_to out")


def check_model(objective: Any, method: Method, training: Any, lora: Any, arguments: UnlearnConfig) -> None:
    """Raise ValueError if method, masks or adapter do not fit the model, before its data are made."""
    resolved_method(objective, method, arguments)
    masks_from(training.mask_path, objective.network)
    if lora.use_lora:
        if not objective.adaptable:
            raise ValueError("adapters are for the UNet: choose another --train_method, or do without --use_lora")
        lora_layers(objective.network, "xattn" if lora.lora_select == "xattn" else "all")


def has_record(folder: str, show: bool) -> bool:
    """Whether the run in `folder` can be read, which a call that only measures again adds to. It says so if not."""
    try:
        read_record(folder)
    except ValueError as error:
        if show:
            print(f"{error}, {AGAIN}", flush=True)
        return False
    return True
