"""The unlearning history: what a model was made to forget, oldest first, kept in its configuration.

transformers models keep it in `config.unlearning_history`, diffusers models in `_unlearning_history` of the trained
network's configuration: plain `from_pretrained` keeps keys that start with an underscore and warns of other unknown
ones.
"""

from datetime import date
from typing import Any

from diffusers import ConfigMixin
from torch import nn
from transformers import PreTrainedModel

from .. import __version__
from ..common.names import public_name

KEY = "unlearning_history"


def entry(forgotten: str, method: str, outer_steps: int, base_model: str | None) -> dict[str, Any]:
    """Describe one run: what was forgotten (in words), method, outer steps, date, version and base model."""
    return {
        "forgotten": forgotten,
        "method": method,
        "outer_steps": outer_steps,
        "date": str(date.today()),
        "hf_unlearn": __version__,
        "base_model": base_model and public_name(base_model),
    }


def read_history(network: nn.Module) -> list[dict[str, Any]]:
    """Return the entries of the runs that the network went through. A model that was never unlearned has none."""
    if isinstance(network, PreTrainedModel):
        return list(network.config.to_dict().get(KEY, []))
    return list(_configured(network).config.get(f"_{KEY}", []))


def write_history(network: nn.Module, history: list[dict[str, Any]]) -> None:
    """Write `history` into the network's configuration. An empty history leaves the configuration as it is."""
    if not history:
        return
    if isinstance(network, PreTrainedModel):
        setattr(network.config, KEY, history)
    else:
        _configured(network).register_to_config(**{f"_{KEY}": history})


def _configured(network: nn.Module) -> Any:
    """Return the network if it has a diffusers configuration. Raises TypeError otherwise."""
    if not isinstance(network, ConfigMixin):
        raise TypeError(f"{type(network).__name__} is no model of transformers or diffusers: it has no configuration")
    return network
