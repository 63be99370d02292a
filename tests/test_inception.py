"""FID's network against torch-fidelity's, the figures in its features by hand, and one line where weights are missing.

No Inception weights are at hand: the tests take a file of the right architecture whose weights follow a formula.
"""

import math
from urllib.error import URLError

import numpy
import pytest
import torch
from safetensors.torch import save_file

from hf_unlearn.evaluation import extras, inception
from hf_unlearn.evaluation.fidelity import features_of, fidelity
from hf_unlearn.evaluation.inception import InceptionV3, resize_as_tensorflow1

NAME = "weights-inception-2015-12-05-6726825d.pth"


def by_formula(shapes: dict) -> dict[str, torch.Tensor]:
    """Weights that keep the size of what passes: sin(12.9898 i + k) * 43758.5453, modulo 2, minus 1, scaled."""
    state = {}
    for k, (name, shape) in enumerate(shapes.items()):
        places = torch.arange(math.prod(shape), dtype=torch.float64)
        noise = ((torch.sin(places * 12.9898 + k) * 43758.5453) % 2 - 1).reshape(shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = (1 + 0.3 * noise).float()
        elif name.endswith(("bias", "running_mean")):
            state[name] = (0.02 * noise).float()
        else:
            state[name] = (noise * (6 / math.prod(shape[1:])) ** 0.5).float()
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / NAME
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_published", lambda *_: None)
        shapes = {name: tuple(value.shape) for name, value in InceptionV3(path).state_dict().items()}
    torch.save(by_formula(shapes), path)
    return path


@pytest.fixture(scope="module")
def network(weights):
    return InceptionV3(weights)


def test_features_are_those_of_torch_fidelity(network):
    """The numbers are what torch-fidelity 0.4.0 gives with these weights and pictures."""
    places = torch.arange(3 * 40 * 48, dtype=torch.float64).reshape(1, 3, 40, 48)
    bytes_ = torch.cat([((torch.sin(places * w) + 1) * 127.5).round() for w in (0.001, 0.0137)])
    features = network.features(bytes_.float() / 127.5 - 1)
    expected = [
        [1.6792933, 0.1019773, 1.4284620, 0.1271556, 0.0023188, 2.2638638, 0.4244321],
        [2.3261116, 0.1744554, 1.9585942, 0.1791290, 0.0007059, 2.8302116, 0.7244422],
    ]
    assert features[:, [0, 1, 2, 500, 1000, 1500, 2047]].tolist() == [pytest.approx(row, rel=1e-3) for row in expected]
    assert features.norm(dim=1).tolist() == pytest.approx([72.910599, 96.764565], rel=1e-4)
    assert not network.train().training and "not the published" in network.label


def test_pictures_are_enlarged_as_tensorflow_1_does():
    row = torch.tensor([0.0, 10, 20, 40]).expand(1, 1, 4, 4)
    assert resize_as_tensorflow1(row, 8)[0, 0, 3].tolist() == [0, 5, 10, 15, 20, 30, 40, 40]
    assert resize_as_tensorflow1(row.mT, 8)[0, 0, :, 3].tolist() == [0, 5, 10, 15, 20, 30, 40, 40]
    assert torch.equal(resize_as_tensorflow1(row, 4), row)


def test_fid_kid_precision_and_recall_by_hand(network):
    generator = torch.Generator().manual_seed(0)
    real, made = (torch.rand(n, 3, 24, 24, generator=generator) * 2 - 1 for n in (5, 5))
    made[0] = real[0]  # a perfect copy lies among the real ones
    state = torch.random.get_rng_state()
    found = fidelity(network, real, made)
    assert torch.equal(torch.random.get_rng_state(), state)
    a, b = (features_of(network, side).double().numpy() for side in (real, made))

    # tr((C_a C_b)^½) is the sum of the singular values of A Bᵀ, whose rows are the centred features.
    x, y = ((side - side.mean(0)) / 2 for side in (a, b))
    cross = numpy.linalg.svd(x @ y.T, compute_uv=False).sum()
    fid = ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross
    assert found["fid"].value == pytest.approx(fid, rel=1e-3)
    assert found["fid"].definition.startswith("FID: Frechet distance of 2048 Inception-v3")

    def kernel(u, v):
        return (u @ v / 2048 + 1) ** 3

    same = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(5) for j in range(5) if i != j) / 20
    other = sum(kernel(u, v) for u in a for v in b) / 25
    assert found["kid"].value == pytest.approx(same - 2 * other, rel=1e-3)

    def inside(point, others) -> bool:
        radii = [sorted(numpy.linalg.norm(o - p) for p in others)[3] for o in others]
        return any(numpy.linalg.norm(point - o) <= r for o, r in zip(others, radii))

    assert found["precision"].value == pytest.approx(sum(inside(p, a) for p in b) / 5)
    assert found["recall"].value == pytest.approx(sum(inside(p, b) for p in a) / 5)
    assert all(m.samples == 5 and m.details["weights_sha256"] == network.weights_digest for m in found.values())


def test_weights_are_found_or_the_line_says_how_to_get_them(tmp_path, weights, network, monkeypatch):
    with pytest.raises(OSError, match=f"FID needs {NAME}, but .*none.pth does not exist: get it from .*feature_model"):
        InceptionV3(tmp_path / "none.pth")
    save_file(network.state_dict(), tmp_path / "same.safetensors")
    assert torch.equal(InceptionV3(tmp_path / "same.safetensors").fc.weight, network.fc.weight)
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("not found")
    for name in ("other.pth", "text.pth"):
        with pytest.raises(ValueError, match=f"{name} does not hold the Inception weights of FID"):
            InceptionV3(tmp_path / name)


def test_a_download_is_asked_for_by_name_and_kept(tmp_path, monkeypatch):
    asked = []

    def fails(url, path, hash_prefix, progress):
        asked.append((url, hash_prefix))
        raise URLError("no connection")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fails)
    with pytest.raises(OSError, match=f"{NAME}, which cannot be downloaded from .*no connection.*name the file, or"):
        InceptionV3("download")
    assert asked == [(inception.URL, "6726825d")]
    (tmp_path / "checkpoints" / NAME).write_bytes(b"here")
    found = extras.weights_file("download", inception.URL, "FID", "")
    assert found == tmp_path / "checkpoints" / NAME and len(asked) == 1
