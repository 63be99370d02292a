"""Prompt files: the file's own seeds, no matter the batch, and an interrupted run that ends the same."""

import json

import numpy as np
import pytest
from conftest import tiny_sd
from PIL import Image

from hf_unlearn.evaluation.prompt_files import PromptRow, contact_sheet, draw_prompt_file, read_prompts

ROWS = [PromptRow("a cat", 7), PromptRow("a dog", 8), PromptRow("a cat", 9)]
QUICK = dict(num_inference_steps=2, height=16, width=16)


def pixels(paths) -> list:
    return [np.asarray(Image.open(path)).tolist() for path in paths]


def test_rows_have_the_files_seeds(tmp_path):
    (tmp_path / "i2p.csv").write_text('n,prompt,evaluation_seed\n0,"a, b",4080709695\n1,c,5\n')
    assert read_prompts(tmp_path / "i2p.csv") == [PromptRow("a, b", 4080709695), PromptRow("c", 5)]
    (tmp_path / "plain.csv").write_text("prompt\nx\ny\n")
    assert read_prompts(tmp_path / "plain.csv", limit=1) == [PromptRow("x", 0)]


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


def test_batches_and_interrupts_do_not_change_a_picture(tmp_path, monkeypatch):
    straight = draw_prompt_file(tiny_sd(), ROWS, tmp_path / "a", batch_size=3, **QUICK)
    assert len({json.dumps(picture) for picture in pixels(straight)}) == 3
    pipeline, calls = tiny_sd(), []
    draw = type(pipeline).__call__

    class Killed(BaseException):
        pass

    def dies(self, prompts, **options):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise Killed
        return draw(self, prompts, **options)

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
