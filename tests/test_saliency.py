import pytest
import torch
from conftest import tiny_unet
from safetensors.torch import load_file, save_file

from hf_unlearn import NoisePrediction, split_by_label
from hf_unlearn.data.pairs import collate
from hf_unlearn.saliency import squares
from hf_unlearn.saliency.fisher import fisher
from hf_unlearn.saliency.masks import Masks, density_masks, load_masks, ratio_masks


def handmade(objective, images, groups: list[list[int]], per_sample: bool) -> dict[str, torch.Tensor]:
    """Mean of squared gradients over samples, or over batches, with plain autograd."""
    named = dict(objective.network.named_parameters())
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    count = 0
    objective.eval()
    for number, group in enumerate(groups):
        batch = collate([images[i] for i in group])
        draws = objective.draw(batch, torch.Generator().manual_seed(number))
        batch.update(objective.forget_draw(draws))
        pieces = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(len(group))] if per_sample else [batch]
        for piece in pieces:
            gradients = torch.autograd.grad(objective(**piece).mean(), list(named.values()))
            count += 1
            for n, g in zip(named, gradients):
                total[n] += g**2
    return {n: t / count for n, t in total.items()}


def close(ours, expected) -> None:
    """Relative to the tensor. Key biases have no gradient (softmax does not see them): rounding only, 1e-19."""
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        assert (value - expected[name]).norm() <= 1e-5 * expected[name].norm() + 1e-15, name


@pytest.mark.parametrize("estimator", ["sample", "batch"])
def test_fisher_is_the_stated_mean_of_squares(pipeline, images, estimator):
    objective = NoisePrediction(pipeline)
    ours, metadata = fisher(objective, images, forget=True, estimator=estimator, max_samples=8, batch_size=3)
    positions = [i * 20 // 8 for i in range(8)]
    groups = [positions[:3], positions[3:6], positions[6:]]
    expected = handmade(objective, images, groups, estimator == "sample")
    close(ours, expected)
    assert metadata["estimator"] == estimator and metadata["samples"] == "8"


def test_the_chunk_changes_rounding_only(pipeline, images):
    """One sample after the other by plain autograd, or several by vmap, the last chunk a smaller one."""
    objective = NoisePrediction(pipeline)
    options = dict(forget=True, max_samples=8, batch_size=8)
    alone, metadata = fisher(objective, images, chunk=1, **options)
    for chunk in (3, 8):
        together, same = fisher(objective, images, chunk=chunk, **options)
        close(together, alone)
        assert same == metadata  # a mask is found again whatever machine chose the chunk


@pytest.mark.parametrize(("room", "chunk"), [(2.9, 1), (7.9, 1), (8, 8), (9.5, 9), (100, 32)])
def test_the_chunk_is_what_the_memory_holds(pipeline, monkeypatch, room, chunk):
    parameters = dict(pipeline.unet.named_parameters())
    size = sum(4 * p.numel() for p in parameters.values())
    monkeypatch.setitem(squares.CHUNK_BYTES, "cpu", int(room * size))
    assert squares.sample_chunk(parameters, 32) == chunk


def test_the_two_estimators_differ_and_the_batch_one_depends_on_the_batch_size(pipeline, images):
    objective = NoisePrediction(pipeline)
    total = {
        (estimator, size): sum(
            f.sum().item()
            for f in fisher(objective, images, True, estimator, max_samples=16, batch_size=size)[0].values()
        )
        for estimator, size in (("sample", 4), ("batch", 4), ("batch", 16))
    }
    assert total["batch", 16] < 0.9 * total["batch", 4] < 0.9 * 0.9 * total["sample", 4] / 0.9


def test_fisher_is_not_clipped(pipeline, images):
    """Released DDPM code squares clipped gradients, so that only relative sizes are left."""

    class Louder(NoisePrediction):
        def forward(self, pixel_values, noise, timesteps, labels=None, drop_labels=None, anchor_labels=None):
            return 100 * super().forward(pixel_values, noise, timesteps, labels, drop_labels, anchor_labels)

    quiet = fisher(NoisePrediction(pipeline), images, True, max_samples=4)[0]
    loud = fisher(Louder(pipeline), images, True, max_samples=4)[0]
    name = "conv_in.weight"
    assert torch.allclose(loud[name], 1e4 * quiet[name], rtol=1e-3) and quiet[name].max() > 0


def test_fisher_leaves_mode_and_gradients_alone(pipeline, images):
    before = {n: v.clone() for n, v in pipeline.unet.state_dict().items()}
    for training in (True, False):
        objective = NoisePrediction(pipeline).train(training)
        fisher(objective, images, True, max_samples=4)
        assert objective.training is training and pipeline.unet.training is training
        assert all(p.grad is None for p in objective.parameters())
    assert all(torch.equal(before[n], v) for n, v in pipeline.unet.state_dict().items())


@pytest.mark.parametrize("estimator", ["sample", "batch"])
def test_fisher_is_measured_without_dropout(pipeline, images, estimator):
    """A network with dropout in train mode has the Fisher of the same network in eval mode."""
    dropout = torch.nn.Dropout(0.5)
    pipeline.unet.conv_out.register_forward_pre_hook(lambda module, args: (dropout(args[0]),))
    pipeline.unet.dropout = dropout
    values = [
        fisher(NoisePrediction(pipeline).train(mode), images, True, estimator, max_samples=4)[0]["conv_in.weight"]
        for mode in (True, False)
    ]
    assert torch.equal(*values)


def test_labels_are_dropped_from_retain_draws_only(pipeline, images):
    """With label dropout 1 a retain sample touches the null class's embedding (4), a forget sample its own."""
    touched = {}
    for forget in (True, False):
        objective = NoisePrediction(pipeline, label_dropout=1.0)
        rows = fisher(objective, images, forget, max_samples=20)[0]["class_embedding.weight"]
        touched[forget] = [i for i in range(5) if rows[i].any()]
    assert touched == {True: [0, 1, 2, 3], False: [4]}


def test_fisher_of_an_unconditional_model(unconditional, images):
    objective = NoisePrediction(unconditional)
    ours = fisher(objective, images, True, max_samples=4, batch_size=4)[0]
    expected = handmade(objective, images, [[0, 5, 10, 15]], per_sample=True)
    close(ours, expected)
    with pytest.raises(ValueError, match="'sample' or 'batch'"):
        fisher(objective, images, True, "exact")


INFO = {"estimator": "sample"}


def test_dead_weights_are_not_salient():
    """Released code adds 1e-15 to both Fishers, so that 0/0 passes gamma = 1."""
    forget, retain = {"w": torch.tensor([0.0, 1.0, 1.0, 3.0])}, {"w": torch.tensor([0.0, 0.0, 2.0, 2.0])}
    assert ratio_masks((forget, INFO), (retain, INFO), gamma=1.0).tensors["w"].tolist() == [False, True, False, True]
    assert ratio_masks((forget, INFO), (retain, INFO), gamma=0.5).tensors["w"].tolist() == [False, True, True, True]
    assert not density_masks((forget, INFO), (retain, INFO), 1.0).tensors["w"][0]


def test_density_masks_take_the_largest_ratios():
    forget = {"a": torch.arange(1.0, 11.0), "b": torch.arange(11.0, 21.0)}
    retain = {name: torch.ones(10) for name in forget}
    masks = density_masks((forget, INFO), (retain, INFO), 0.25)
    assert masks.density == 0.25
    assert masks.tensors["b"].tolist() == [False] * 5 + [True] * 5 and not masks.tensors["a"].any()
    assert masks.table() == [("a", 10, 0.0), ("b", 10, 0.5)]
    assert sum(size * share for _, size, share in masks.table()) == masks.density * 20
    for density in (0.0, 1.5):
        with pytest.raises(ValueError, match="must lie in"):
            density_masks((forget, INFO), (retain, INFO), density)


def test_rounding_is_not_salience():
    """An attention key's bias has no gradient in theory; what fp32 makes of that must not pass the ratio."""
    forget, retain = (
        {"w": torch.tensor([1e-3]), "b": torch.tensor([2e-19])},
        {"w": torch.zeros(1), "b": torch.zeros(1)},
    )
    for masks in (ratio_masks((forget, INFO), (retain, INFO)), density_masks((forget, INFO), (retain, INFO), 1.0)):
        assert masks.tensors["w"].tolist() == [True] and masks.tensors["b"].tolist() == [False]


def test_key_biases_are_not_salient(pipeline, images):
    parts = (
        fisher(NoisePrediction(pipeline), part, forget) for part, forget in zip(split_by_label(images, 1), (1, 0))
    )
    masks = ratio_masks(*parts)
    biases = [name for name in masks.tensors if name.endswith("to_k.bias")]
    assert biases and not any(masks.tensors[name].any() for name in biases)


def test_density_and_ratio_masks_of_a_model(pipeline, images):
    objective = NoisePrediction(pipeline)
    forget, retain = (fisher(objective, images, f, max_samples=8, seed=s) for f, s in ((True, 0), (False, 1)))
    assert density_masks(forget, retain, 0.1).density == pytest.approx(0.1, abs=1e-3)
    densities = [ratio_masks(forget, retain, gamma).density for gamma in (0.1, 1.0, 10.0)]
    assert 1 > densities[0] > densities[1] > densities[2] > 0
    metadata = ratio_masks(forget, retain, 1.0).metadata
    assert metadata["gamma"] == "1.0" and '"estimator": "sample"' in metadata["forget"]
    with pytest.raises(ValueError, match="gamma"):
        ratio_masks(forget, retain, -1.0)


def some_masks(network) -> Masks:
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.rand(p.shape, generator=generator) < 0.3 for n, p in network.named_parameters()}
    return Masks(tensors, {"gamma": "1.0"})


def test_save_and_load_keep_tensors_and_metadata(tmp_path):
    network = tiny_unet()
    masks = some_masks(network)
    masks.save(tmp_path / "m.safetensors")
    loaded = load_masks(tmp_path / "m.safetensors", network)
    assert loaded.metadata == {"gamma": "1.0"} and loaded.tensors.keys() == masks.tensors.keys()
    assert all(torch.equal(loaded.tensors[n], m) for n, m in masks.tensors.items())
    weights = sum(m.numel() for m in masks.tensors.values())
    stored = load_file(tmp_path / "m.safetensors")
    assert sum(bits.numel() for bits in stored.values()) < weights / 8 + len(stored)  # one bit a weight


def test_masks_of_earlier_versions_load(tmp_path):
    """They had one byte a weight."""
    network = tiny_unet()
    masks = some_masks(network)
    save_file(masks.tensors, tmp_path / "old.safetensors", metadata={"gamma": "1.0"})
    loaded = load_masks(tmp_path / "old.safetensors", network)
    assert loaded.metadata == {"gamma": "1.0"}
    assert all(torch.equal(loaded.tensors[n], m) for n, m in masks.tensors.items())


def test_bits_that_are_not_what_their_shapes_say_are_refused(tmp_path):
    bits = {"w": torch.zeros(2, dtype=torch.uint8)}
    for shapes in ("no", "[3]", '{"w": [17]}', '{"v": [16]}', '{"w": [-16]}', '{"w": 16}'):
        save_file(bits, tmp_path / "m.safetensors", metadata={"shapes": shapes})
        with pytest.raises(ValueError, match="holds no weight masks"):
            Masks.load(tmp_path / "m.safetensors")


def test_masks_that_do_not_fit_are_refused(tmp_path):
    """A released script looked names up in a list of tensors: the mask matched nothing and was never applied."""
    network = tiny_unet()
    tensors = some_masks(network).tensors
    first = next(iter(tensors))
    prefixed = Masks({f"module.{n}": m for n, m in tensors.items()})
    for wrong, message in (
        (prefixed, "do not belong"),
        (Masks({n: m for n, m in tensors.items() if n != first}), "1 parameters without a mask"),
        (Masks({**tensors, first: tensors[first][:1]}), "has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong.aligned(network)
    save_file({n: m.float() for n, m in tensors.items()}, tmp_path / "floats.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    for name, message in (("floats", "no weight masks"), ("text", "not a readable"), ("absent", "not a readable")):
        with pytest.raises(ValueError, match=message):
            load_masks(tmp_path / f"{name}.safetensors", network)
