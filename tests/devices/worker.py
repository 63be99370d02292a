"""FAMILY:CASE...: two outer steps each on a device that is not the host, a line "FAMILY:CASE ok" or what went wrong.

There is no such device: tensors are fake ones, which know shape, type and device and hold no numbers, of a backend
that is registered here by name. Operations refuse to mix them with tensors on the host, as a GPU's do; where the
program asks for a number it is told 1. So this finds what was left on the host, and nothing else.
"""

import os
import sys
import tempfile
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
DEVICE = torch.device("elsewhere", 0)
torch.elsewhere.get_rng_state = lambda device=0: torch.zeros(8, dtype=torch.uint8)
torch.elsewhere.set_rng_state = lambda state, device=0: None
torch.elsewhere.device_count = lambda: 1

from accelerate.state import PartialState  # noqa: E402
from attack_cases import subject  # noqa: E402
from class_cases import dit_subject  # noqa: E402
from conftest import config, tiny_sd  # noqa: E402
from families import family_case  # noqa: E402

from hf_unlearn import METHODS, SFRon, UnlearnConfig, UnlearnTrainer  # noqa: E402
from hf_unlearn.attacks.benign_relapse import BenignRelapse  # noqa: E402
from hf_unlearn.attacks.class_embedding import ClassEmbedding  # noqa: E402
from hf_unlearn.attacks.class_null import ClassNull  # noqa: E402
from hf_unlearn.attacks.class_relearning import ClassRelearning  # noqa: E402
from hf_unlearn.attacks.completion import Completion  # noqa: E402
from hf_unlearn.attacks.discrete import DiscretePrefix  # noqa: E402
from hf_unlearn.attacks.merge_back import MergeBack  # noqa: E402
from hf_unlearn.attacks.noise_probe import NoiseProbe  # noqa: E402
from hf_unlearn.attacks.quantised import Quantised  # noqa: E402
from hf_unlearn.attacks.ring_a_bell import RingABell  # noqa: E402
from hf_unlearn.attacks.soft_prefix import SoftPrefix  # noqa: E402
from hf_unlearn.attacks.tina import Tina  # noqa: E402
from hf_unlearn.attacks.weight_noise import WeightNoise  # noqa: E402
from hf_unlearn.families.classifier.unseen import Unseen, losses_of  # noqa: E402
from hf_unlearn.saliency.ranks import add_lora, choose_lora  # noqa: E402
from hf_unlearn.training.config import RATE  # noqa: E402

ATTACKS = {
    "completion": Completion(begun=0.5),
    "noise_probe": NoiseProbe(levels=2),
    "soft_prefix": SoftPrefix(steps=2),
    "discrete": DiscretePrefix(steps=1, candidates=1),
    "ring_a_bell": RingABell(tokens=2, generations=1, population=4),
    "tina": Tina(timesteps=2, steps=1),
    "merge_back": MergeBack(),
    "quantised": Quantised(),
    "weight_noise": WeightNoise(),
    "benign_relapse": BenignRelapse(steps=2),
}
CLASS_ATTACKS = {
    "embedding": ClassEmbedding(pictures=4, steps=2),
    "null": ClassNull(),
    "relearning": ClassRelearning(pictures=4, every=1, max_steps=1),
}
# name: method, options of the config
VARIANTS = {
    "slow": (SFRon(slow_rate=0.5, mask_mode="gradient"), {}),
    "ema": (SFRon(slow_form="ema", slow_rate=0.5, forget_optim="shared"), {}),
    "reference": (SFRon(preset="reference"), {}),
    "evaluated": (SFRon(), {"eval_strategy": "steps", "eval_steps": 1}),
    "lora": (SFRon(), {}),
    "found": (SFRon(), {"learning_rate": None}),
    "found_evaluated": (SFRon(slow_rate=0.5), {"learning_rate": None, "eval_strategy": "steps", "eval_steps": 1}),
}


class Numbers(TorchDispatchMode):
    """What a number read from a tensor is."""

    last = ""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.name() == "aten::_local_scalar_dense":
            dtype = args[0].dtype
            if dtype == torch.bool:
                return not self.last.startswith("aten::any")
            return 1.0 if dtype.is_floating_point else 1
        if operation.name() == "aten::equal":
            return True
        self.last = operation.name()
        return operation(*args, **(kwargs or {}))


def as_numpy(tensor) -> numpy.ndarray:
    if tensor.device.type != "cpu":
        raise TypeError(f"a tensor on {tensor.device} is no array: use .cpu()")
    return numpy.ones(tensor.shape, str(tensor.dtype).removeprefix("torch."))


def move(module, *args, **kwargs):
    """nn.Module.to, which cannot put a fake tensor in the place of a real one."""
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, old in held.items():
                if old is None:
                    continue
                new = old.detach().to(device or old.device, dtype if dtype and old.is_floating_point() else old.dtype)
                if new.device != old.device or new.dtype != old.dtype:
                    held[name] = torch.nn.Parameter(new, old.requires_grad) if part._parameters is held else new
    return module


def making(make):
    """torch.tensor or torch.as_tensor, which make their result on the device itself."""

    def made(*args, device=None, **kwargs):
        new = make(*args, **kwargs)
        return new if device is None else torch.zeros(new.shape, dtype=new.dtype, device=device)

    return made


class Known(Unseen):
    """What is read from labels, which are no numbers here, is not asked."""

    known = True


def unseen_of(classes, forget, retain, holdout, learn=None) -> Known:
    return Known(torch.zeros(classes, dtype=torch.bool), holdout, samples=True)


def arguments(**values) -> UnlearnConfig:
    """A configuration on the device."""
    values = {"guard_steps": 0, "verify_mask_steps": 1, "optim": "adamw_torch", "max_steps": 2, **values}
    args = config(tempfile.mkdtemp(), **values)
    assert args.device.type == "cpu"  # has accelerate look for one now
    PartialState._shared_state["device"] = DEVICE
    return args


@contextmanager
def elsewhere():
    """All tensors that are made inside are fake ones."""
    contexts = (
        patch.object(UnlearnConfig, "device", DEVICE),
        patch.object(torch.nn.Module, "to", move),
        patch("hf_unlearn.families.classifier.objective.unseen_of", unseen_of),
        patch("torch.tensor", making(torch.tensor)),
        patch("torch.as_tensor", making(torch.as_tensor)),
        FakeTensorMode(allow_non_fake_inputs=True),
        Numbers(),
    )
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def run_attack(name: str) -> None:
    """An attack on two pipelines that are on the device. The images that its reader sees are on the host."""
    pipeline, original = tiny_sd(seed=1), tiny_sd(seed=0)
    own = subject(pipeline, original, OnTheHost(), samples=2)
    FakeTensor.numpy, FakeTensor.tolist = as_numpy, lambda tensor: numpy.ones(tensor.shape, int).tolist()
    args = arguments()
    with (
        elsewhere(),
        patch.object(UnlearnConfig, "quiet", lambda **values: args),
        patch("hf_unlearn.attacks.completion.weights_digest", lambda network: ""),
    ):
        for part in (*pipeline.components.values(), *original.components.values()):
            if isinstance(part, torch.nn.Module):
                part.to(DEVICE)
        assert pipeline.device == DEVICE
        ATTACKS[name].attack(own, 0)


def run_class_attack(name: str) -> None:
    """An attack on a DiT that is on the device, and not on a copy of it: fake tensors of a scheduler have none."""
    own = dit_subject()
    own = replace(own, target=replace(own.target, reader=OnTheHost()))
    FakeTensor.numpy, FakeTensor.tolist = as_numpy, lambda tensor: numpy.ones(tensor.shape, int).tolist()
    arguments()
    with elsewhere(), patch("hf_unlearn.attacks.classes.frozen_copy", lambda pipeline: pipeline):
        for part in own.model.components.values():
            if isinstance(part, torch.nn.Module):
                part.to(DEVICE)
        assert own.model.device == DEVICE
        CLASS_ATTACKS[name].attack(own, 0)


class OnTheHost:
    """A reader of images on the host."""

    name = "the host"

    def __call__(self, images):
        assert images.device.type == "cpu"
        return torch.zeros(len(images), dtype=torch.bool)


def run(family: str, name: str) -> None:
    if family == "attack":
        return run_attack(name)
    if family == "dit_attack":
        return run_class_attack(name)
    left_behind = family == "left_behind"
    objective, forget, retain = family_case("unet" if left_behind else family)
    if left_behind:
        schedule = objective.schedule
        object.__setattr__(schedule, "alphas", schedule._buffers.pop("alphas"))
    method, values = VARIANTS[name] if name in VARIANTS else (METHODS[name](), {})
    if name == "lora":
        add_lora(objective, choose_lora(objective, forget, retain, "all", rank=2))
    FakeTensor.numpy, FakeTensor.tolist = as_numpy, lambda tensor: numpy.ones(tensor.shape, int).tolist()
    args = arguments(per_device_eval_batch_size=512, **values)
    with elsewhere():
        trainer = UnlearnTrainer(objective, args, method, forget, retain, holdout_dataset=retain)
        if (trainer.step.strength is None) != (args.learning_rate != RATE):
            raise AssertionError("the strength was to be found without a learning rate, and not with one")
        trainer.train()
        if objective.knows_unseen:
            losses_of(objective, retain)
        places = {p.device for p in objective.parameters()}
    assert places == {DEVICE}, places


if __name__ == "__main__":
    for case in sys.argv[1:]:
        family, _, name = case.partition(":")
        sys.stdout.flush()
        if os.fork():
            os.wait()
            continue
        try:
            run(family, name)
            print(case, "ok")
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "hf_unlearn" in frame.filename]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].line}" if frames else ""
            print(case, type(error).__name__, str(error).split("\n")[0], where)
        sys.stdout.flush()
        os._exit(0)
