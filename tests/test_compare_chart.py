"""The chart of a comparison: its numbers are those of the cells, its labels are whole and apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_unlearn.compare import chart
from hf_unlearn.compare.ranking import points_lost

KEPT = sorted((Path(__file__).parents[1] / "benchmarks/results/compare").glob("*/results.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_the_axes_are_the_cells_points(path):
    results = json.loads(path.read_text())["results"]
    for row, (forgetting, retaining) in chart.spreads(results).items():
        lost = max(points_lost(results[row]).values())
        if row == "retrained":
            assert forgetting[0] == retaining[0] == 0
        if len(results[row]) == 1:
            assert retaining[0] == pytest.approx(lost)
        assert retaining[0] >= lost - 1e-9  # the worse of two, run by run
        metrics, told = results[row][0]["metrics"], results[row][0]["metrics"]["average_gap"]["details"]
        first = chart.sides_of(results[row][0])
        gaps = [
            100 * abs(metrics[name]["value"] - told[f"retrained_{name}"])
            for name in ("forget_accuracy", "mia_entropy_logistic")
        ]
        assert first[0] == pytest.approx(sum(gaps) / 2)


def test_a_diverged_row_has_no_place():
    results = json.loads(KEPT[0].read_text())["results"]
    results["sfron"][0]["diverged"] = "loss"
    assert "sfron" not in chart.spreads(results) and "salun" in chart.spreads(results)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_every_row_is_named_beside_its_point_and_nothing_is_cut(path, tmp_path, monkeypatch):
    kept = json.loads(path.read_text())
    seen = {}

    def label(figure, axis, found, rows, over):
        drawn(figure, axis, found, rows, over)
        figure.canvas.draw()
        texts = [text for text in axis.texts if text.get_text() != "" and not text.get_text().startswith("limit")]
        seen["names"] = [text.get_text().replace("\n", "") for text in texts]
        seen["boxes"] = [chart._box(text.get_window_extent()) for text in texts]
        seen["frame"] = chart._box(axis.get_window_extent())
        seen["small"] = min(text.get_fontsize() for text in texts)

    drawn = chart._label
    monkeypatch.setattr(chart, "_label", label)
    chart.plot(kept["results"], tmp_path / "chart.png", path.parent.name, kept["recipe"]["accuracy_limit"])
    assert sorted(seen["names"]) == sorted(chart.spreads(kept["results"]))
    left, low, right, high = seen["frame"]
    for k, box in enumerate(seen["boxes"]):
        assert left <= box[0] + 1 and box[2] <= right + 1 and low <= box[1] + 1 and box[3] <= high + 1
        assert all(chart._common(box, other) < 20 for other in seen["boxes"][:k]), seen["names"][k]
    image = np.asarray(Image.open(tmp_path / "chart.png").convert("L"))
    assert all((edge == 255).all() for edge in (image[:3], image[-3:], image[:, :3], image[:, -3:]))
    # 390 pixels wide on a phone: a point of text is 390 / (72 * WIDTH) pixels there
    assert seen["small"] * 390 / (72 * chart.WIDTH) > 7.5


def test_charts_are_redrawn_without_computing(tmp_path, monkeypatch, capsys):
    from hf_unlearn.cli.commands.compare import compare_command

    folder = tmp_path / "digits_vit_class3"
    with pytest.raises(ValueError, match="does not exist: run the comparison"):
        compare_command(["digits_vit_class3", "--output_dir", str(tmp_path), "--redraw"])
    folder.mkdir()
    (folder / "results.json").write_text(KEPT[-2].read_text())
    compare_command(["digits_vit_class3", "--output_dir", str(tmp_path), "--redraw"])
    assert (folder / "tradeoff.png").is_file() and "tradeoff.png" in capsys.readouterr().out
    (folder / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks what a chart shows"):
        compare_command(["digits_vit_class3", "--output_dir", str(tmp_path), "--redraw"])
