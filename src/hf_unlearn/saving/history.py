"""What a model was made to forget, oldest first, in the configuration that it is saved with.

transformers: `config.unlearning_history`. diffusers: `_unlearning_history` of the trained network's configuration,
because plain `from_pretrained` keeps keys that start with an underscore and warns of any other that it does not know.
"""

from datetime import date
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .. import __version__
from ..common.names import public_name

KEY = "unlearning_history"


def entry(forgotten: str, method: str, outer_steps: int, base_model: str | None) -> dict[str, Any]:
    """One run: forgotten (in words), method, outer_steps, date, hf_unlearn (version), base_model (public name)."""
    return {
        "forgotten": forgotten,
        "method": method,
        "outer_steps": outer_steps,
        "date": str(date.today()),
        "hf_unlearn": __version__,
        "base_model": base_model and public_name(base_model),
    }


def read_history(network: nn.Module) -> list[dict[str, Any]]:
    """Entries of the runs that the network went through; empty for one that was never made to forget."""
    if isinstance(network, PreTrainedModel):
        return list(network.config.to_dict().get(KEY, []))
    return list(network.config.get(f"_{KEY}", []))


def write_history(network: nn.Module, history: list[dict[str, Any]]) -> None:
    """Put `history` into the network's configuration; a network without one keeps its configuration as it is."""
    if not history:
        return
    if isinstance(network, PreTrainedModel):
        setattr(network.config, KEY, history)
    else:
        network.register_to_config(**{f"_{KEY}": history})
