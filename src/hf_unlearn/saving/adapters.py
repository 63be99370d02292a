"""Save, load, combine, weight and remove adapters.

`model` is a pipeline or a bare network (UNet, transformer, classifier).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn

from ..common.files import atomic
from ..common.names import is_hub_id
from ..common.untrusted import loading
from ..families import TEXT_TO_IMAGE, Objective, denoiser_of, family_of
from ..saliency.bases import factors_in_full, shared_memo
from ..saliency.ranks import NAME

PREFIX = "base_model.model."  # peft's name for the network in a PeftModel
PEFT_FILE, DIFFUSERS_FILE = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"


def tuner_layers(network: nn.Module) -> dict[str, Any]:
    """Return peft's layers by name, each a module and a `BaseTunerLayer`."""
    return {name: module for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)}


def network_of(model: Any) -> nn.Module:
    """Return the trained network of a pipeline. A network is returned as it is."""
    if isinstance(model, nn.Module):
        return model
    return model.transformer if "transformer" in model.components else model.unet


def strip(network: nn.Module) -> nn.Module:
    """Put every base layer back in the place of its adapter, which restores the original network exactly."""
    for name, layer in tuner_layers(network).items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())
    vars(network).pop("peft_config", None)
    return network


def base_copy(network: nn.Module) -> nn.Module:
    """Return a copy of the network without its adapters. It shares all weights, so it costs no memory."""
    return strip(copy.deepcopy(network, shared_memo(network)))


def merged_copy(network: nn.Module) -> nn.Module:
    """Return a copy of the network with its adapters merged. It shares the weights that no adapter changes."""
    touched = {id(p) for layer in tuner_layers(network).values() for p in layer.parameters()}
    merged = copy.deepcopy(network, {id(p): p for p in network.parameters() if id(p) not in touched})
    for layer in tuner_layers(merged).values():
        layer.merge(safe_merge=True)
    return strip(merged).requires_grad_(False)


# ---- files -----------------------------------------------------------------------------------
def save_adapter(objective: Objective, folder: str | Path) -> None:
    """Write the trained adapter with its ranks and scales, in the format that its users load.

    For a text-to-image pipeline that loads adapters this is `pytorch_lora_weights.safetensors`
    (`pipe.load_lora_weights`), otherwise adapter_config.json and adapter_model.safetensors
    (`PeftModel.from_pretrained`).

    Raises:
        ValueError: the objective has no adapter.
    """
    if objective.adapter is None:
        raise ValueError("the model has no adapter to save: call add_lora first")
    folder, config = Path(folder), objective.adapter.config
    pipeline: Any = getattr(objective, "pipeline", None)
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(objective.network, adapter_name=NAME)
    state = {name: value.detach().contiguous().cpu() for name, value in state.items()}
    if _loads_lora(pipeline):
        metadata = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
        part = denoiser_of(pipeline).part
        told: dict[str, Any] = {f"{part}_lora_layers": state, f"{part}_lora_adapter_metadata": metadata}
        pipeline.save_lora_weights(folder, **told)
        return
    base = objective.base_model
    config.base_model_name_or_path = base if base is not None and is_hub_id(base) else None  # no local path
    config.inference_mode = True
    config.save_pretrained(folder)
    config.inference_mode = False
    with atomic(folder / PEFT_FILE) as partial:
        save_file({PREFIX + name: value for name, value in state.items()}, partial, metadata={"format": "pt"})


def holds_adapter(folder: str | Path) -> bool:
    """Return whether `folder` holds an adapter instead of a full model."""
    return any((Path(folder) / name).is_file() for name in (PEFT_FILE, DIFFUSERS_FILE))


def load_adapter(model: Any, folder: str | Path, name: str = NAME) -> None:
    """Attach a saved adapter under `name` and activate it beside the attached ones.

    Raises:
        ValueError: `folder` holds no adapter, the adapter does not fit the model, or the name is taken.
    """
    folder, network = Path(folder), network_of(model)
    layers = tuner_layers(network).values()
    if any(name in layer.active_adapters for layer in layers):
        raise ValueError(f"the model has an adapter {name!r} already: give another name")
    before = sorted({active for layer in layers for active in layer.active_adapters})
    if (folder / DIFFUSERS_FILE).is_file():
        if not _loads_lora(model):
            raise ValueError(f"{folder} is an adapter of a text-to-image pipeline: give the pipeline")
        with loading(folder / DIFFUSERS_FILE):  # by name: no fallback to a .bin where it is torn
            model.load_lora_weights(str(folder), weight_name=DIFFUSERS_FILE, use_safetensors=True, adapter_name=name)
    elif (folder / PEFT_FILE).is_file():
        with loading(folder):
            config = LoraConfig.from_pretrained(str(folder))
            if config.megatron_config:
                raise ValueError(
                    f"{folder} is for Megatron, a module that its configuration names: it is not imported"
                )
            state = {k.removeprefix(PREFIX): v for k, v in load_file(folder / PEFT_FILE).items()}
            inject_adapter_in_model(config, network, name)
            result: Any = set_peft_model_state_dict(network, state, adapter_name=name)
        lost = [k for k in result.missing_keys if f".{name}." in k]
        if result.unexpected_keys or lost:
            raise ValueError(f"adapter {folder} does not fit the model: {[*result.unexpected_keys, *lost][:3]}")
    else:
        raise ValueError(f"{folder} holds no adapter ({PEFT_FILE} or {DIFFUSERS_FILE})")
    _activate(network, [*before, name])


def set_strengths(model: Any, strengths: dict[str, float]) -> None:
    """Set the strength of each attached adapter: 1 is as trained, 0 is off. Adapters that are not named are off.

    Raises:
        ValueError: no adapter of that name is attached.
    """
    network = network_of(model)
    layers = tuner_layers(network).values()
    attached = {name for layer in layers for name in layer.scaling}
    unknown = sorted(strengths.keys() - attached)
    if unknown:
        raise ValueError(f"no adapter {unknown[0]!r} is attached, there is {', '.join(sorted(attached)) or 'none'}")
    _activate(network, [name for name, strength in strengths.items() if strength])
    for layer in layers:
        for name, strength in strengths.items():
            if name in layer.scaling and strength:
                layer.set_scale(name, strength)


def remove_adapters(model: Any) -> None:
    """Remove all adapters. The outputs are then exactly those from before any adapter was attached."""
    if _loads_lora(model):
        model.unload_lora_weights()
    else:
        strip(network_of(model))


def _activate(network: nn.Module, names: list[str]) -> None:
    for layer in tuner_layers(network).values():
        layer.enable_adapters(bool(names))
        layer.set_adapter([name for name in names if name in layer.scaling])


def _loads_lora(model: Any) -> bool:
    """Whether a pipeline loads adapters by itself, as all text-to-image pipelines but PixArt-Sigma's do."""
    return family_of(model) is TEXT_TO_IMAGE and hasattr(model, "load_lora_weights")


def adapter_ranks(objective: Objective) -> dict[str, int]:
    """Return the rank of each layer that the trained adapter changes."""
    return {name: layer.r[NAME] for name, layer in tuner_layers(objective.network).items()}


# ---- inside a run ----------------------------------------------------------------------------
def load_factors(objective: Objective, folder: str | Path) -> None:
    """Load the factors that `save_adapter` wrote to `folder` into the objective's adapter."""
    _set_factors(objective, objective.network, Path(folder))


def _set_factors(objective: Objective, network: nn.Module, folder: Path) -> None:
    if (folder / DIFFUSERS_FILE).is_file():
        path, prefix = folder / DIFFUSERS_FILE, f"{denoiser_of(objective.pipeline).part}."
    else:
        path, prefix = folder / PEFT_FILE, PREFIX
    state = {name.removeprefix(prefix): value for name, value in load_file(path).items()}
    set_peft_model_state_dict(network, state, adapter_name=NAME)


@contextmanager
def exporting(objective: Objective, network: nn.Module) -> Iterator[None]:
    """Put `network` into `objective` and its pipeline for the duration of the context."""
    live = objective.network
    put_network(objective, network)
    try:
        yield
    finally:
        put_network(objective, live)


def put_network(objective: Objective, network: nn.Module) -> None:
    """Put `network` into `objective` and its pipeline."""
    live, pipeline = objective.network, getattr(objective, "pipeline", None)
    name = next((n for n, part in pipeline.components.items() if part is live), None) if pipeline else None
    objective.network = network
    if name:
        setattr(pipeline, name, network)


def reloaded_adapter(objective: Objective, folder: str | Path) -> nn.Module:
    """Load the adapter in `folder` onto a copy of the base network, as its users would."""
    base: nn.Module = base_copy(objective.network)
    pipeline: Any = getattr(objective, "pipeline", None)
    model: Any = base
    if _loads_lora(pipeline):
        model = type(pipeline)(**{**pipeline.components, denoiser_of(pipeline).part: base})
    load_adapter(model, folder)
    if factors_in_full(base):  # those of a base in half precision were rounded to it
        _set_factors(objective, base, Path(folder))
    return base
