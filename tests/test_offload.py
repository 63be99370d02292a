"""The original and the slow weights in host memory: the same steps, and nothing of them left on the device between.

The hooks and copies are those of a GPU run; the device is a CPU, so that only the room is not seen here.
"""

import pytest
from conftest import config, random_images, same, tiny_pipeline, unlearned, weights

from hf_unlearn import SFRon, UnlearnTrainer, split_by_label

METHODS = {
    "original": SFRon(),
    "lookahead": SFRon(slow_rate=0.5, retain_loss="data"),
    "ema": SFRon(slow_form="ema", slow_rate=0.3),
}


def trained(folder, method, resume=None, **values) -> UnlearnTrainer:
    return unlearned(tiny_pipeline(), folder, method, resume, **values)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_same_weights_as_without(tmp_path, method):
    plain, offloaded = (weights(trained(tmp_path, method, offload=on)) for on in (False, True))
    assert same(plain, offloaded) and not same(plain, tiny_pipeline().unet.state_dict())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_resumed_equals_straight(tmp_path, method):
    values = dict(offload=True, save_strategy="steps", save_steps=2)
    straight = trained(tmp_path / "a", method, **values)
    resumed = trained(tmp_path / "b", method, str(tmp_path / "a/checkpoint-2"), **values)
    assert same(weights(straight), weights(resumed))


def test_nothing_of_the_original_stays_on_the_device(tmp_path):
    """`meta` is nowhere; a second train() goes on with the same copy."""
    trainer = trained(tmp_path, SFRon(), offload=True)
    places = {p.device.type for p in trainer.reference.original.parameters()}
    assert places == {"meta"} and {p.device.type for p in trainer.objective.network.parameters()} == {"cpu"}
    trainer.args.max_steps = 6
    trainer.train()
    assert {p.device.type for p in trainer.reference.original.parameters()} == {"meta"}
    assert {p.device.type for p in trained(tmp_path, SFRon()).reference.original.parameters()} == {"cpu"}


def test_weights_that_are_not_trained_stay_where_they_are(tmp_path):
    """They are the network's own, and a copy of them on the host would be room for nothing."""
    pipeline = tiny_pipeline()
    pipeline.unet.conv_in.requires_grad_(False)
    trainer = UnlearnTrainer(pipeline, config(tmp_path, offload=True), SFRon(), *split_by_label(random_images(), 1))
    trainer.train()
    assert trainer.reference.original.conv_in.weight is pipeline.unet.conv_in.weight
    assert (
        trainer.reference.original.conv_in.weight.device.type == "cpu"
        and trainer.reference.original.conv_out.weight.is_meta
    )
