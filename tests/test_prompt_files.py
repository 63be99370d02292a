"""Prompt files: the file's own seeds, no matter the batch, and an interrupted run that ends the same."""

import json

import numpy as np
import pytest
import torch
from conftest import tiny_sd
from PIL import Image

from hf_unlearn.evaluation.prompt_files import PromptRow, StoredPictures, contact_sheet, draw_prompt_file, read_prompts

ROWS = [PromptRow("a cat", 7), PromptRow("a dog", 8), PromptRow("a cat", 9)]
QUICK = dict(num_inference_steps=2, height=16, width=16)


def pixels(paths) -> list:
    return [np.asarray(Image.open(path)).tolist() for path in paths]


def test_rows_have_the_files_seeds(tmp_path):
    (tmp_path / "i2p.csv").write_text('n,prompt,evaluation_seed\n0,"a, b",4080709695\n1,c,5\n')
    assert read_prompts(tmp_path / "i2p.csv") == [PromptRow("a, b", 4080709695), PromptRow("c", 5)]
    (tmp_path / "plain.csv").write_text("prompt\nx\ny\n")
    assert read_prompts(tmp_path / "plain.csv", limit=1) == [PromptRow("x", 0)]
    (tmp_path / "lines.txt").write_text("a, cat\n\n a dog \n")
    assert read_prompts(tmp_path / "lines.txt") == [PromptRow("a, cat", 0), PromptRow("a dog", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("text\nx\n", "no prompt column, but text"), ("prompt\n", "no rows"), ("prompt,evaluation_seed\nx,y\n", "'y'")],
)
def test_bad_files_are_one_line(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="does not exist"):
        read_prompts(tmp_path / "none.csv")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="empty.txt has no rows"):
        read_prompts(tmp_path / "empty.txt")


def test_batches_and_interrupts_do_not_change_a_picture(tmp_path, monkeypatch):
    straight = draw_prompt_file(tiny_sd(), ROWS, tmp_path / "a", batch_size=3, **QUICK)
    assert len({json.dumps(picture) for picture in pixels(straight)}) == 3
    pipeline, calls = tiny_sd(), []
    draw = type(pipeline).__call__

    class Killed(BaseException):
        pass

    def dies(self, prompt, **options):
        calls.append(len(prompt))
        if len(calls) == 2:
            raise Killed
        return draw(self, prompt, **options)

    monkeypatch.setattr(type(pipeline), "__call__", dies)
    with pytest.raises(Killed):
        draw_prompt_file(pipeline, ROWS, tmp_path / "b", batch_size=1, **QUICK)
    (tmp_path / "b/00001.partial").write_bytes(b"torn")
    again = draw_prompt_file(pipeline, ROWS, tmp_path / "b", batch_size=1, **QUICK)
    assert pixels(again) == pixels(straight) and calls == [1, 1, 1, 1]


def test_a_folder_of_other_pictures_is_refused(tmp_path):
    draw_prompt_file(tiny_sd(), ROWS[:1], tmp_path, **QUICK)
    with pytest.raises(ValueError, match="other prompts or settings"):
        draw_prompt_file(tiny_sd(), ROWS[1:], tmp_path, **QUICK)


def test_contact_sheet_holds_all_and_hides_what_it_must(tmp_path):
    paths = []
    for number, colour in enumerate(("red", "lime", "blue")):
        picture = Image.new("RGB", (40, 40), colour)
        picture.paste("white", (0, 0, 20, 40))
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
    contact_sheet(paths, tmp_path / "sheet.png", side=20)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (40, 40)
    assert [sheet.getpixel(p) for p in ((17, 5), (37, 5), (17, 25), (37, 25))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
    contact_sheet(paths, tmp_path / "hidden.png", side=20, blurred=True)
    sharp, soft = (np.asarray(Image.open(tmp_path / n).convert("L"), dtype=float) for n in ("sheet.png", "hidden.png"))
    assert np.abs(np.diff(soft[5, :20])).max() < 0.5 * np.abs(np.diff(sharp[5, :20])).max()
    contact_sheet(paths, tmp_path / "some.png", side=20, blurred=[False, True, False])
    some = np.asarray(Image.open(tmp_path / "some.png").convert("L"), dtype=float)
    assert np.array_equal(some[:20, :20], sharp[:20, :20]) and np.array_equal(some[:20, 20:], soft[:20, 20:])
    for shown, blurred in ((paths, [True]), ([], [])):
        with pytest.raises(ValueError, match=f"contact sheet of {len(shown)} pictures, {len(blurred)} of them"):
            contact_sheet(shown, tmp_path / "none.png", blurred=blurred)


@pytest.mark.parametrize("torn", [b"", b"not a picture", None])
def test_a_torn_picture_is_drawn_again_and_no_other(tmp_path, torn):
    pipeline = tiny_sd()
    paths = draw_prompt_file(pipeline, ROWS, tmp_path, **QUICK)
    whole, times = pixels(paths), [path.stat().st_mtime_ns for path in paths]
    paths[1].write_bytes(paths[1].read_bytes()[:-40] if torn is None else torn)
    assert pixels(draw_prompt_file(pipeline, ROWS, tmp_path, **QUICK)) == whole
    assert [path.stat().st_mtime_ns == time for path, time in zip(paths, times)] == [True, False, True]


class BlackPainter(torch.nn.Module):
    """A safety checker that finds everything unsafe."""

    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, images, clip_input):
        return torch.zeros_like(torch.as_tensor(images)), [True] * len(images)


class Prepared(dict):
    pixel_values = torch.zeros(1)

    def to(self, device):
        return self


def test_the_pipelines_own_checker_does_not_hide_pictures_from_a_detector(tmp_path):
    pipeline, plain = tiny_sd(), pixels(draw_prompt_file(tiny_sd(), ROWS, tmp_path / "plain", **QUICK))
    checker = BlackPainter()
    pipeline.safety_checker, pipeline.feature_extractor = checker, lambda *_, **__: Prepared()
    painted = pixels(draw_prompt_file(pipeline, ROWS, tmp_path / "painted", **QUICK))
    assert np.max(painted) == 0 < np.max(plain)
    assert pixels(draw_prompt_file(pipeline, ROWS, tmp_path / "bare", safety_checker=False, **QUICK)) == plain
    assert pipeline.safety_checker is checker
    with pytest.raises(ValueError, match="other prompts or settings"):
        draw_prompt_file(pipeline, ROWS, tmp_path / "painted", safety_checker=False, **QUICK)


def test_long_prompts_are_warned_of_once(tmp_path, caplog):
    long = [PromptRow("a cat " * 40, 1), PromptRow("a dog " * 40, 2), PromptRow("x" * 75, 3)]
    with pytest.warns(UserWarning, match="2 of 3 prompts have more than 77 tokens") as caught:
        draw_prompt_file(tiny_sd(), long, tmp_path, batch_size=1, **QUICK)
    assert len([w for w in caught if "tokens" in str(w.message)]) == 1 and "truncated" not in caplog.text


def test_stored_pictures_are_opened_when_asked_for(tmp_path):
    for number, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        Image.new("RGB", (2, 2), colour).save(tmp_path / f"{number}.png")
    stored = StoredPictures([tmp_path / f"{number}.png" for number in range(3)])
    assert len(stored) == 3 and stored[2].getpixel((0, 0)) == (0, 0, 255)
    assert [picture.getpixel((1, 1)) for picture in stored[1:9]] == [(0, 255, 0), (0, 0, 255)]
