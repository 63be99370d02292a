"""LoRA ranks from saliency: choose which layers get an adapter, and of what rank, from the two Fishers.

A mask on low-rank factors is not a mask on weights. A factor B of zeros gives gradients only to itself, and changing
one entry of a factor moves a full row or column of the weight. Adapters therefore get no mask: ranks select layers, as
masks select weights in full training.
"""

import heapq
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..common.precisions import precision_name
from ..data.protocols import SizedDataset
from ..data.streaming import RetainStream
from ..families import Adapter, Objective, text_side
from .bases import BasePrecision, check_base, lower_base
from .fisher import drawn_batch, fisher
from .masks import Fisher, ratio_masks
from .squares import kept_by_sample

Layer = nn.Linear | nn.Conv2d  # what a LoRA can be put on

NAME = "default"  # name of the adapter that is trained
SELECTIONS = ("saliency", "all", "xattn")
MAX_RANKS = 4  # a layer gets at most this many times `rank`
SMALL = 2**25  # bytes of two Fishers that nobody runs short of: those of four million weights
LEAST_ROOM = 2**23  # bytes that the two Fishers of layer scores take at least
TRAINED_BYTES = 20  # that training keeps of a factor's weight beside the weight: a gradient and two Adams


def lora_layers(network: nn.Module, select: str = "all") -> dict[str, Layer]:
    """Return the trained linear and ungrouped convolution layers by name; for "xattn" those of cross attention, or
    of the text in joint attention.

    Raises:
        ValueError: there is no such layer.
    """
    found: dict[str, Layer] = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    found = {name: module for name, module in found.items() if module.weight.requires_grad}
    if select == "xattn":
        words = set(text_side(network))
        found = {name: module for name, module in found.items() if words & set(name.split("."))}
        if not found:
            raise ValueError("the model has no cross attention: set lora_select to saliency or all")
    if not found:
        raise ValueError("the model has no linear or convolution layer that is trained: nothing can be adapted")
    return found


def lora_size(layer: Layer, rank: int = 1) -> int:
    """Count the weights of a LoRA of `rank` on `layer`: A is rank x inputs (times the kernel), B is outputs x rank."""
    outputs = layer.weight.shape[0]
    return rank * (layer.weight.numel() // outputs + outputs)


def layer_scores(layers: dict[str, Layer], forget: Fisher, retain: Fisher, threshold: float = 1.0) -> dict[str, float]:
    """Score each layer by Σ_j S_j F_forget,j / Σ_j F_retain,j with SFR-on's S = [F_forget > 0 and F_forget >=
    threshold F_retain].

    Without the denominator the layers with the largest gradients would win (the first convolution, shortcuts), which
    serve everything the model knows. Layers that the retain data does not reach score like the best of the others.
    """
    salient = ratio_masks((forget, {}), (retain, {}), threshold).tensors
    gained = {name: (forget[f"{name}.weight"] * salient[f"{name}.weight"]).sum().item() for name in layers}
    lost = {name: retain[f"{name}.weight"].sum().item() for name in layers}
    best = max((gained[name] / lost[name] for name in layers if lost[name] > 0), default=1.0)
    return {name: gained[name] / lost[name] if lost[name] > 0 else best * (gained[name] > 0) for name in layers}


def allot_ranks(layers: dict[str, Layer], scores: dict[str, float], rank: int, budget: float) -> dict[str, int]:
    """Choose ranks that maximise Σ_m c_m s_m log(1 + r_m), where c_m counts the weights of one unit of rank.

    The budget is the share `budget` of the weights that `rank` on every layer would take. Units of rank go one by one
    to the layer with the largest gain per weight, s_m / (1 + r_m), until none fits. So 1 + r_m is nearly proportional
    to the score s_m. Layers that get no unit are left out.

    Raises:
        ValueError: the budget is not in (0, 1], or too small for one unit.
    """
    if not 0 < budget <= 1:
        raise ValueError(f"rank_budget must lie in (0, 1], got {budget}")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    left = budget * sum(lora_size(layer, rank) for layer in layers.values())
    ranks = dict.fromkeys(layers, 0)
    queue = [(-score, name) for name, score in scores.items() if score > 0]
    heapq.heapify(queue)
    while queue:
        _, name = heapq.heappop(queue)
        cost = lora_size(layers[name])
        if cost > left:
            continue
        left -= cost
        ranks[name] += 1
        limit = min(MAX_RANKS * rank, layers[name].weight.shape[0], layers[name].weight[0].numel())
        if ranks[name] < limit:
            heapq.heappush(queue, (-scores[name] / (1 + ranks[name]), name))
    chosen = {name: r for name, r in ranks.items() if r}
    if not chosen:
        raise ValueError(f"no layer gets a rank: raise rank_budget ({budget}) or rank ({rank})")
    return chosen


def find_salient_target_modules(
    objective: Objective,
    forget: SizedDataset,
    retain: SizedDataset | RetainStream,
    rank: int = 4,
    lora_alpha: float | None = None,
    rank_budget: float = 0.5,
    threshold: float = 1.0,
    max_samples: int = 512,
    batch_size: int = 32,
    seed: int = 0,
    train_batch_size: int = 1,
) -> dict[str, Any]:
    """Compute `target_modules`, `rank_pattern` and `alpha_pattern` of a peft `LoraConfig` from the two Fishers.

        LoraConfig(r=4, lora_alpha=4, **find_salient_target_modules(objective, forget, retain))

    Args:
        rank: LoRA rank of the uniform adapter that defines the budget.
        lora_alpha: LoRA alpha of that adapter, by default the rank. alpha_pattern keeps its scale, lora_alpha / rank.
        rank_budget: the share of that adapter's weights that the ranks may use.
        threshold: gamma of SFR-on's mask.
        max_samples, batch_size, seed: passed to `fisher`.
        train_batch_size: of the training, which the Fishers take no more memory than (`score_room`).
    """
    layers = lora_layers(objective.network)
    room = score_room(objective, forget, layers, rank, rank_budget, train_batch_size)
    options: dict[str, Any] = {"max_samples": max_samples, "batch_size": batch_size, "seed": seed, "room": room}
    forgotten, _ = fisher(objective, forget, True, **options)
    retained, _ = fisher(objective, retain, False, **options)
    ranks = allot_ranks(layers, layer_scores(layers, forgotten, retained, threshold), rank, rank_budget)
    scale = (rank if lora_alpha is None else lora_alpha) / rank
    return {
        "target_modules": list(ranks),
        "rank_pattern": ranks,
        "alpha_pattern": {name: scale * r for name, r in ranks.items()},
    }


def score_room(
    objective: Objective,
    forget: SizedDataset,
    layers: dict[str, Layer],
    rank: int,
    rank_budget: float,
    train_batch_size: int,
) -> int | None:
    """Return how many bytes the two Fishers of layer scores may take, so that their pass needs no more than training;
    None for those of all weights.

    Training keeps what the forwards of a batch keep, and 20 bytes of a factor's weight; the Fisher pass what the
    forward of a sample keeps, and the gradient of a layer. Where the Fishers of all weights take more than the
    difference, both sums of a score are over every k-th weight of a layer.
    """
    weights = [p.numel() for p in objective.network.parameters()]
    factors = rank_budget * sum(lora_size(layer, rank) for layer in layers.values())
    if room_of(weights, factors, 0) is None:
        return None
    device = next(objective.network.parameters()).device
    kept = kept_by_sample(objective, drawn_batch(objective, [forget[0]], True, 0, device))
    return room_of(weights, factors, (train_batch_size - 1) * kept)


def room_of(weights: list[int], factors: float, further: int) -> int | None:
    """The bytes of `score_room` for tensors of so many weights and so many weights of factors, where training keeps
    `further` bytes more of its forwards than the Fisher pass."""
    if 8 * sum(weights) <= SMALL:
        return None
    return max(LEAST_ROOM, further + int(TRAINED_BYTES * factors) - 4 * max(weights))


def add_lora(
    objective: Objective,
    config: LoraConfig,
    merge: bool = False,
    seed: int = 0,
    base_precision: BasePrecision | None = None,
) -> None:
    """Put an untrained adapter into the objective's network and train nothing else from then on.

    Args:
        merge: whether saving exports merged weights instead of the adapter alone.
        seed: random seed of the factors A. B is 0, so the output does not change.
        base_precision: of the weights below it: fp32, bf16, fp16, or nf4 and int8 by bitsandbytes
            (`bases.lower_base`). None keeps theirs.

    Raises:
        ValueError: the model has an adapter already, or the names in `config` match other layers than intended.
    """
    if objective.adapter is not None:
        raise ValueError("the model has an adapter already: merge or remove it first")
    if not objective.adaptable:
        raise ValueError("adapters are for the UNet: choose another train_method, or do without LoRA")
    network = objective.network
    base: BasePrecision = base_precision or precision_name(network)
    check_base(base, merge)
    wanted = None if isinstance(config.target_modules, str | None) else set(config.target_modules)
    network.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network, NAME)
    met = {name for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)}
    if wanted is not None and config.rank_pattern and met != wanted:
        raise ValueError(f"target_modules met {len(met)} layers, not {len(wanted)}: {sorted(met ^ wanted)[:3]}")
    lower_base(network, base)
    objective.adapter = Adapter(config, merge)


def choose_lora(
    objective: Objective,
    forget: SizedDataset,
    retain: SizedDataset | RetainStream,
    select: str = "saliency",
    rank: int = 4,
    lora_alpha: float | None = None,
    rank_budget: float = 0.5,
    max_samples: int = 512,
    seed: int = 0,
    train_batch_size: int = 1,
) -> LoraConfig:
    """Build the LoRA configuration of the command line's flags.

    Args:
        select: "all" layers or cross attention ("xattn") with one `rank`, or ranks by "saliency".
        rank: LoRA rank; with saliency, the average rank that the budget assumes.
        rank_budget: with saliency, the share of the weights of `rank` on all layers that the ranks may use.
        train_batch_size: with saliency, that of the training, which the Fishers take no more memory than.

    Raises:
        ValueError: `select` is unknown, or what `lora_layers` and `allot_ranks` raise.
    """
    if select not in SELECTIONS:
        raise ValueError(f"lora_select must be one of {', '.join(SELECTIONS)}, got {select!r}")
    alpha = rank if lora_alpha is None else lora_alpha
    chosen: dict[str, Any] = {"lora_alpha": alpha}
    if select == "saliency":
        sizes: dict[str, Any] = dict(max_samples=max_samples, seed=seed, train_batch_size=train_batch_size)
        chosen |= find_salient_target_modules(objective, forget, retain, rank, alpha, rank_budget, **sizes)
    else:
        chosen["target_modules"] = list(lora_layers(objective.network, select))
    return LoraConfig(r=rank, **chosen)
