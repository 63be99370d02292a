"""Write an adapter in kohya's form, which A1111, ComfyUI and others read.

A layer `unet.a.b` is `lora_unet_a_b` there, with `lora_down`, `lora_up` and an `alpha`: its scale is alpha / rank.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya, convert_unet_state_dict_to_peft
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..common.files import atomic
from ..common.untrusted import loading
from .adapters import DIFFUSERS_FILE

PREFIX, DOWN, UP = "unet.", ".lora_A.weight", ".lora_B.weight"
METADATA = "lora_adapter_metadata"  # where diffusers keeps peft's configuration
# diffusers reads these two layers of SDXL under the names of Stability's code only.
RENAMED = {
    "lora_unet_add_embedding_linear_1": "lora_unet_label_emb_0_0",
    "lora_unet_add_embedding_linear_2": "lora_unet_label_emb_0_2",
}


def write_kohya(folder: str | Path, path: str | Path) -> None:
    """Write the adapter of a UNet in `folder` (`save_adapter`) to `path`, a .safetensors file.

    Raises:
        ValueError: there is no such adapter, or kohya's form has no word for something in it.
    """
    source = Path(folder) / DIFFUSERS_FILE
    if not source.is_file():
        raise ValueError(f"{folder} has no {DIFFUSERS_FILE}: kohya's form is for adapters of a UNet (SD, SDXL)")
    with loading(source), safe_open(source, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
        config = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    written = kohya_state(state, config)
    with atomic(path) as partial:
        save_file(written, partial, metadata={"format": "pt"})


def kohya_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The factors of a UNet's adapter in kohya's form, with one alpha for all layers.

    Of alphas that differ diffusers drops those of attention, whose names it does not find again
    (`_convert_non_diffusers_lora_to_diffusers` in 0.42). Where they do, the most common one stands for all and the
    factors B of the other layers are multiplied by their alpha over that one: the changes of the weights are the same.

    Args:
        state: `unet.LAYER.lora_A.weight`, (r, in), and `unet.LAYER.lora_B.weight`, (out, r), of linear layers; of
            convolutions with the sides of the kernel.
        config: peft's configuration, each key behind `unet.`; without one the scale is 1, as for diffusers.

    Raises:
        ValueError: factors of another network, scales that depend on the rank, or a layer that is not read back.
    """
    other = next((name for name in state if not name.startswith(PREFIX)), None)
    if other is not None:
        raise ValueError(f"kohya's form is for adapters of a UNet (Stable Diffusion, SDXL), and this one has {other}")
    for name in ("use_rslora", "use_dora"):
        if config.get(PREFIX + name):
            raise ValueError(f"the adapter was made with {name}, which is not converted to kohya's form")
    given = dict(config.get(PREFIX + "alpha_pattern") or {})
    whole = config.get(PREFIX + "lora_alpha")
    alphas: dict[str, float] = {}
    for name, value in state.items():
        if name.endswith(DOWN):
            layer = name.removesuffix(DOWN)
            alpha = given.get(get_pattern_key(list(given), layer.removeprefix(PREFIX)), whole)
            alphas[layer] = float(len(value) if alpha is None else alpha)
    [(common, _)] = Counter(alphas.values()).most_common(1)
    scaled = dict(state)
    for layer, alpha in alphas.items():
        if alpha != common:
            scaled[layer + UP] = state[layer + UP] * (alpha / common)
    written = {}
    for name, value in convert_state_dict_to_kohya(dict(scaled)).items():
        layer, _, kind = name.partition(".")
        value = torch.tensor(common) if kind == "alpha" else value.contiguous()
        written[f"{RENAMED.get(layer, layer)}.{kind}"] = value
    _check_reading(scaled, written)
    return written


def _check_reading(state: Mapping[str, Tensor], written: dict[str, Tensor]) -> None:
    """Raise ValueError unless diffusers reads the factors of every layer back."""
    found, _ = StableDiffusionPipeline.lora_state_dict(dict(written))
    found = convert_unet_state_dict_to_peft(found)
    for name, value in state.items():
        if name not in found or not torch.equal(found[name], value):
            raise ValueError(
                f"the layer of {name} has a name that diffusers {diffusers.__version__} does not read back from"
                " kohya's form: 0.42 reads those of Stable Diffusion and SDXL"
            )
