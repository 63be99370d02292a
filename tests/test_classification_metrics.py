import json
import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from sklearn.metrics import accuracy_score
from torchmetrics.regression import KLDivergence
from transformers import ViTConfig, ViTForImageClassification

from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.evaluation.classification import (
    Predictions,
    accuracy,
    average_gap,
    classification_figures,
    js_divergence,
    kl_divergence,
    predictions,
)
from hf_unlearn.evaluation.membership import membership_share
from hf_unlearn.evaluation.metric import Metric, version_of


def tiny_vit(seed: int = 0, num_labels: int = 4) -> ViTForImageClassification:
    torch.manual_seed(seed)
    shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    vit = ViTConfig(
        **shape,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=num_labels,
        hidden_dropout_prob=0.5,
        initializer_range=0.5,
    )
    return ViTForImageClassification(vit)


def data(count: int, seed: int) -> ArrayDataset:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(count, 1, 8, 8, generator=generator) * 2 - 1
    return ArrayDataset(pixels, torch.randint(4, (count,), generator=generator))


def random_predictions(seed: int, count: int = 30, scale: float = 2.0) -> Predictions:
    logits = scale * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return Predictions(logits, torch.arange(count) % 4)


def test_metric_goes_to_json():
    metric = Metric(0.5, "share", 3, "torch 2", {"seed": 1})
    fields = {
        "value": 0.5,
        "definition": "share",
        "samples": 3,
        "library": "torch 2",
        "details": {"seed": 1},
        "role": None,
    }
    assert json.loads(json.dumps(metric.as_dict())) == fields
    assert Metric(0.0, "", 0).details is not Metric(0.0, "", 0).details


def test_version_of_names_major_and_minor():
    numbers = torch.__version__.split(".")
    assert version_of("torch") == f"torch {numbers[0]}.{numbers[1]}"
    assert version_of("scikit-learn", "torch") == f"{version_of('scikit-learn')}, {version_of('torch')}"


@pytest.mark.parametrize("batch_size", [2, 256])
def test_predictions_are_those_of_eval_mode_in_order(batch_size):
    model, samples = tiny_vit().train(), data(5, seed=1)
    p = predictions(model, samples, batch_size)
    with torch.no_grad():
        expected = model.eval()(pixel_values=samples.pixel_values).logits
    assert torch.allclose(p.logits, expected, atol=1e-5) and p.labels.tolist() == samples.labels
    assert p.logits.dtype == torch.float32 and not p.logits.requires_grad
    assert expected.std(0).min() > 0.01  # the model does tell the samples apart


def test_predictions_restore_the_mode_of_each_module():
    model = tiny_vit().train()
    model.classifier.eval()
    before = {name: module.training for name, module in model.named_modules()}
    predictions(model, data(2, seed=1))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert before["vit"] and not before["classifier"]


def test_predictions_take_plain_numbers_as_labels_and_a_half_precision_model():
    samples = data(3, seed=1)
    items = [{"pixel_values": samples.pixel_values[i], "labels": i} for i in range(3)]
    p = predictions(tiny_vit().to(torch.bfloat16), items)
    assert p.labels.tolist() == [0, 1, 2] and p.logits.dtype == torch.float32
    assert torch.allclose(p.logits, predictions(tiny_vit(), items).logits, atol=0.2)


def test_predictions_say_what_is_wrong_with_the_data():
    with pytest.raises(ValueError, match="data set is empty"):
        predictions(tiny_vit(), [])
    with pytest.raises(ValueError, match="no labels"):
        predictions(tiny_vit(), ArrayDataset(data(2, seed=1).pixel_values))
    with pytest.raises(ValueError, match=r"integers in 0\.\.2"):
        predictions(tiny_vit(num_labels=3), ArrayDataset(torch.zeros(2, 1, 8, 8), torch.tensor([0, 3])))
    diverged = tiny_vit()
    diverged.classifier.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="logits are not finite: the model has diverged"):
        predictions(diverged, data(2, seed=1))


def test_accuracy_counts_the_largest_logit():
    p = Predictions(torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 0.0]]), torch.tensor([0, 1, 1, 0]))
    assert accuracy(p).value == 0.75 and accuracy(p).samples == 4
    p = random_predictions(0)
    assert accuracy(p).value == accuracy_score(p.labels, p.logits.argmax(1))


def test_divergences_are_scipys():
    p, r = random_predictions(0, scale=1.0), random_predictions(1, scale=3.0)
    dense_p, dense_r = p.logits.double().softmax(1), r.logits.double().softmax(1)
    kl = kl_divergence(p, r).value
    assert kl == pytest.approx(rel_entr(dense_r.numpy(), dense_p.numpy()).sum(1).mean())
    assert kl == pytest.approx(KLDivergence()(dense_r, dense_p).item())
    assert kl != pytest.approx(kl_divergence(r, p).value, rel=0.1)  # the direction matters on these
    js = js_divergence(p, r).value
    assert js == pytest.approx((jensenshannon(dense_p.numpy(), dense_r.numpy(), axis=1) ** 2).mean())
    assert js == pytest.approx(js_divergence(r, p).value)


def test_divergences_by_hand():
    labels = torch.tensor([0])
    half, quarter = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    value = kl_divergence(Predictions(quarter, labels), Predictions(half, labels)).value
    assert value == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-7)


def test_divergences_of_certain_models_are_finite():
    labels = torch.tensor([0])
    one, other = (Predictions(torch.tensor([logits]), labels) for logits in ([1e4, -1e4, -1e4], [-1e4, 1e4, -1e4]))
    assert kl_divergence(one, other).value == pytest.approx(2e4)
    assert js_divergence(one, other).value == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [1e-3, 2.0, 1e4])
def test_divergence_from_itself_is_exactly_0(scale):
    p = random_predictions(0, scale=scale)
    assert kl_divergence(p, p).value == 0 and js_divergence(p, p).value == 0


def test_divergences_want_the_same_samples_and_classes():
    p = random_predictions(0)
    for other in (
        random_predictions(1, count=29),
        Predictions(p.logits[:, :3], p.labels.clamp(max=2)),
        Predictions(p.logits, p.labels.flip(0)),
    ):
        for divergence in (kl_divergence, js_divergence):
            with pytest.raises(ValueError, match="not of the same samples and classes"):
                divergence(p, other)


def test_average_gap_by_hand():
    figures, reference = {"a": 90.0, "b": 10.0, "c": 0.0}, {"a": 94.0, "b": 9.0, "c": 50.0}
    assert average_gap(figures, reference, ["a", "b"]) == 2.5
    with pytest.raises(ValueError, match=r"missing are \['d'\]"):
        average_gap(figures, reference, ["a", "d"])
    with pytest.raises(ValueError, match="give every figure"):
        average_gap(figures, reference, [])


SETS = {"forget": data(12, seed=1), "retain": data(40, seed=2), "test": data(30, seed=3)}


def test_figures_of_a_retrained_model_against_itself_are_exactly_0():
    figures = classification_figures(tiny_vit(0), **SETS, retrained=tiny_vit(0), batch_size=16)
    for name in ("average_gap", "kl_to_retrained", "js_to_retrained"):
        assert figures[name].value == 0


def test_figures_are_those_of_their_own_sets():
    model, retrained = tiny_vit(0), tiny_vit(1)
    figures = classification_figures(model, **SETS, retrained=retrained, batch_size=16, seed=3)
    assert list(figures) == [
        "forget_accuracy",
        "retain_accuracy",
        "test_accuracy",
        "mia_entropy_logistic",
        "mia_confidence_svc",
        "kl_to_retrained",
        "js_to_retrained",
        "average_gap",
    ]
    ours, theirs = ({n: predictions(m, part) for n, part in SETS.items()} for m in (model, retrained))
    for name, part in SETS.items():
        assert figures[f"{name}_accuracy"].value == accuracy(ours[name]).value
        assert figures[f"{name}_accuracy"].samples == len(part) and name in figures[f"{name}_accuracy"].definition
    values = []
    for p in (ours, theirs):
        pairs = [(p[name].logits, p[name].labels) for name in ("retain", "test", "forget")]
        shares = [
            membership_share(*pairs, *names, seed=3).value
            for names in (("entropy", "logistic"), ("confidence", "svc"))
        ]
        values.append([*(accuracy(p[name]).value for name in SETS), *shares])
    assert [figures[name].value for name in list(figures)[:5]] == values[0]
    assert figures["kl_to_retrained"].value == pytest.approx(kl_divergence(ours["forget"], theirs["forget"]).value)
    assert figures["js_to_retrained"].value == pytest.approx(js_divergence(ours["forget"], theirs["forget"]).value)
    expected = sum(abs(100 * a - 100 * b) for a, b in zip(values[0][:4], values[1][:4])) / 4
    assert figures["average_gap"].value == pytest.approx(expected) and expected > 1
    assert list(figures["average_gap"].details.values()) == values[1]


def test_without_a_retrained_model_there_is_nothing_to_compare():
    figures = classification_figures(tiny_vit(), **SETS, attacks=(("modified_entropy", "logistic"),))
    assert set(figures) == {"forget_accuracy", "retain_accuracy", "test_accuracy", "mia_modified_entropy_logistic"}


def test_figures_say_what_to_pass():
    with pytest.raises(ValueError, match="no test set: pass samples"):
        classification_figures(tiny_vit(), SETS["forget"], SETS["retain"], None)
    with pytest.raises(ValueError, match="retrained model has 5 classes and the model 4"):
        classification_figures(tiny_vit(), **SETS, retrained=tiny_vit(num_labels=5))
    with pytest.raises(ValueError, match="unknown attack"):
        classification_figures(tiny_vit(), **SETS, attacks=(("entropy", "knn"),))
