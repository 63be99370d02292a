"""The page of a run: what it says is what the record says, and nothing of the record runs in it."""

import base64
import io
import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from records import attack, figure, painter, relearning, run_record, share

from hf_unlearn import SFRon
from hf_unlearn.__main__ import main
from hf_unlearn.evaluation.grids import save_grid
from hf_unlearn.evaluation.metric import share_interval
from hf_unlearn.report.badge import COLOURS
from hf_unlearn.report.charts import bars, line_chart, ticks
from hf_unlearn.report.loading import recipe_flags
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.page import class_sections, loss_curves, page
from hf_unlearn.report.risk import residual_risk
from hf_unlearn.report.tiles import tiles
from hf_unlearn.report.verdict import headline_metric, shown, verdict
from hf_unlearn.saliency.layers import by_module, by_prefix

BARE = ["Attacks", "What is open", "Use it, make it again", "How it was made"]
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Seen(HTMLParser):
    """Tags with their attributes, headings, and the text of the page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self.headings, self._in_heading = "", [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_heading = tag == "h2"

    def handle_endtag(self, tag):
        self._in_heading = False

    def handle_data(self, data):
        self.text += data
        if self._in_heading:
            self.headings.append(data)


def seen(record, folder) -> Seen:
    return Seen(page(record, folder))


def test_what_is_not_a_default_is_said(tmp_path):
    usual = asdict(SFRon())
    of = [run_record(method={"name": "sfron", "options": {**usual, **more}}) for more in ({}, {"retain_steps": 5})]
    assert not [line for line in recipe_flags(of[0]) if "default" in line]
    assert [line for line in recipe_flags(of[1]) if "default" in line] == ["--retain_steps 5  # default: 2"]
    texts = [seen(record, tmp_path).text for record in of]
    assert "the method's all by default" in texts[0] and "1 of them not the default" in texts[1]
    foreign = run_record(method={"name": "mine", "options": {"depth": 3}})
    assert "--depth 3" in recipe_flags(foreign) and "default" not in seen(foreign, tmp_path).text


def test_the_verdict_holds_the_metrics():
    assert verdict(run_record()) == (
        "After unlearning class 3, forget accuracy fell from 100.0% to 1.0% (100 samples; a model retrained without "
        "that data: 2.0%) and retain accuracy fell from 99.0% to 98.0% (900 samples; the retrained one: 99.0%)."
    )


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        ({}, "Nothing was measured after unlearning class 3."),
        ({"before": {"forget_accuracy": share(1.0)}}, "Nothing was measured after unlearning class 3."),
        ({"after": {"forget_accuracy": share(None)}}, "Nothing was measured after unlearning class 3."),
        (
            {"after": {"forget_accuracy": share(0.5, 7)}},
            "After unlearning class 3, forget accuracy is 50.0% (7 samples).",
        ),
        (
            {"before": {"retain_loss": share(0.5)}, "after": {"retain_loss": share(0.75)}},
            "After unlearning class 3, retain loss rose from 0.5 to 0.75 (100 samples).",
        ),
        (
            {"before": {"retain_accuracy": share(0.5)}, "after": {"retain_accuracy": share(0.5001)}},
            "After unlearning class 3, retain accuracy is 50.0%, as before (100 samples).",
        ),
    ],
)
def test_the_verdict_says_no_more_than_was_measured(figures, sentence):
    assert verdict(run_record(figures=figures)) == sentence


def test_a_share_speaks_before_a_loss():
    after = {"forget_loss": share(0.1), "forget_accuracy": share(0.2), "retain_loss": share(0.3)}
    record = run_record(figures={"after": after})
    assert headline_metric(record, "forget") == "forget_accuracy"
    assert headline_metric(record, "retain") == "retain_loss"
    assert [shown("forget_accuracy", v) for v in (0.005, None)] == ["0.5%", "–"]
    assert shown("forget_loss", 0.00123456) == "0.001235"


def test_the_page_shows_every_section(tmp_path):
    Image.new("RGB", (40, 10), "red").save(tmp_path / "before_after.png")
    found = seen(run_record(picture="before_after.png"), tmp_path)
    assert found.headings == [
        "Before and after",
        "Metrics",
        "Attacks",
        "What is open",
        "Class by class",
        "Losses during training",
        "What this model was made to forget",
        "Use it, make it again",
        "Which weights could move",
        "How it was made",
        "Data",
        "Cost",
        "Environment",
    ]
    text = " ".join(found.text.split())
    assert "The mask holds 40.0% of 40 trained weights." in text and "one outer step2.00 s" in text
    assert "forgotten: class 5 · method: ssd" in text and "1,234" in text
    assert [text.count(aim) for aim in ("lower forgets more", "higher is better", "lower is better")] == [1, 1, 1]
    image = next(attrs for tag, attrs in found.tags if tag == "img")
    assert image["src"].split(",")[0] == "data:image/png;base64" and "class 3" in image["alt"]
    assert base64.b64decode(image["src"].split(",")[1]) == (tmp_path / "before_after.png").read_bytes()
    notes = [attrs["id"] for tag, attrs in found.tags if tag == "li" and "id" in attrs]
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    assert notes == ["note-1", "note-2", "note-3"] and [a for a in links if "note" in a] == [f"#{n}" for n in notes]
    places = {f"#{attrs['id']}" for _, attrs in found.tags if "id" in attrs}
    assert set(links) <= places and len([a for a in links if "note" not in a]) == 7  # the bar leads to sections


def grid(folder, names: list[str], marked: list[bool], **grids: int) -> None:
    """A picture of one colour a cell: `grids` gives the red of a row, the column the green."""
    cells = {row: torch.zeros(len(names), 1, 3, 300, 300) - 1 for row in grids}
    for row, red in grids.items():
        cells[row][:, :, 0] = red / 127.5 - 1
        for k in range(len(names)):
            cells[row][k, :, 1] = 40 * k / 127.5 - 1
    save_grid(cells, names, marked, folder / "before_after.png")


def shown_pixel(html: str, alt: str) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """(size, colour in the middle) of the image with this text."""
    address = next(attrs["src"] for tag, attrs in Seen(html).tags if tag == "img" and attrs["alt"] == alt)
    image = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    return image.size, image.convert("RGB").getpixel((image.width // 2, image.height // 2))


def test_every_forgotten_class_is_shown_before_after_and_beside_its_anchor(tmp_path):
    grid(tmp_path, ["3", "4", "a dog"], [True, False, False], before=200, after=0)
    record = run_record(picture="before_after.png", objective={"anchors": [["3", "4"]]})
    html = page(record, tmp_path)
    expected = {"before: samples of 3": (200, 0), "after: samples of 3": (0, 0), "anchor: 4: samples of 3": (200, 40)}
    expected |= {"before: samples of a dog": (200, 80), "after: samples of a dog": (0, 80)}
    for alt, (red, green) in expected.items():
        (width, height), pixel = shown_pixel(html, alt)
        assert width >= 256 and height >= 256 and pixel == pytest.approx((red, green, 0), abs=6), alt
    assert html.count("<img") == 7  # each column before and after, and the anchor


def test_a_page_of_many_forgotten_classes_says_what_it_leaves_out(tmp_path):
    grid(tmp_path, [str(k) for k in range(15)], [True] * 15, after=9)
    text = seen(run_record(picture="before_after.png"), tmp_path).text
    assert "3 more are in before_after.png." in text


def test_the_tile_of_what_was_kept_shows_what_broke():
    shares = {"concept_share_latents": (None, (0.0, 32)), "retain_loss": (figure(0.08), figure(0.081))}
    lost = tiles(painter(**shares, anchor_share_latents=((1.0, 16), (0.25, 16))))[1]
    assert (lost.title, lost.value, lost.aside) == ("Kept", "25.0%", "before 100.0%")
    kept = tiles(painter(**shares, anchor_share_latents=((1.0, 16), (1.0, 16))))[1]
    assert kept.value == "0.081"


def test_the_tiles_say_the_four_numbers(tmp_path):
    found = {tile.title: tile for tile in tiles(run_record())}
    assert list(found) == ["Forgotten", "Kept", "Recovered by attack", "Cost"]
    low, high = share_interval(0.01, 100)
    assert found["Forgotten"].value == "1.0%" and found["Forgotten"].aside == "before 100.0%, retrained 2.0%"
    assert found["Forgotten"].interval == f"{100 * low:.1f} to {100 * high:.1f} %"
    assert found["Kept"].value == "98.0%" and found["Recovered by attack"].value == "not attacked"
    assert found["Cost"].value == "1.7 min" and "50 outer steps" in found["Cost"].about
    shares = dict(recovered_soft_prefix=(None, attack("soft_prefix", 0.5)), recovered_x=(None, attack("x", 0.0)))
    read = tiles(painter(**shares, recovered_completion=(None, attack("completion", 1.0))))[2]
    assert read.value == "50.0%" and read.about == "soft prefix, the strongest of 3 tried"
    assert read.aside == "brought back, 100 % in the original"  # what borrows the original comes after
    steps = tiles(painter(relearning_steps=(None, relearning(10))))[2]
    assert steps.value == "10 steps"


def test_the_page_and_the_card_say_the_same_of_what_is_open(tmp_path):
    from hf_unlearn.report.card_text import failures
    from hf_unlearn.report.cards import model_card

    rows = [{"name": "8", "forget": False, "before": 1.0, "after": 0.5}]
    record = run_record(per_class=rows, loads_with=["DDPMPipeline"])
    text, card = " ".join(seen(record, tmp_path).text.split()), model_card(record, tmp_path.name)
    sentences = [*failures(record), *residual_risk(record)]
    assert len(sentences) > 5
    for sentence in sentences:
        assert sentence.replace("`", "") in text
        assert sentence.replace("(arXiv 2603.06640)", "([arXiv 2603.06640](https://arxiv.org/abs/2603.06640))") in card


def test_the_page_says_how_to_load_and_to_repeat_it(tmp_path):
    record = run_record(loads_with=["DDPMPipeline"], command=["hf-unlearn", "ddpm", "--forget_class", "3"])
    text = seen(record, tmp_path).text
    assert f'pipe = DDPMPipeline.from_pretrained("{tmp_path.name}")' in text
    assert "hf-unlearn ddpm --forget_class 3" in text and "--forget_alpha 2\n" in text and "--bound_margin" not in text


def test_a_sequences_course_is_on_the_page(tmp_path):
    assert not [tag for tag, _ in seen(run_record(), tmp_path).tags if tag == "img"]
    Image.new("RGB", (40, 10), "red").save(tmp_path / "requests.png")
    assert [attrs["width"] for tag, attrs in seen(run_record(), tmp_path).tags if tag == "img"] == ["40"]


def test_an_adapter_has_its_section(tmp_path):
    adapter = {"rank": 4, "scale": 2.0, "merged": False, "weights": 1234, "layers": [["mid.to_q", 8], ["mid.to_v", 2]]}
    base = {"name": "a", "on_hub": False, "licence": {"license": "mit"}}
    text = " ".join(seen(run_record(adapter=adapter, base_model=base, loads_with=["X", "Y"]), tmp_path).text.split())
    assert "trained weights1,234 rank4 alpha over rank2 mergedno" in text
    assert "mid.to_q8 mid.to_v2" in text and "its licencemit loads withX, Y" in text
    assert "40 trained weights of the adapter, which is no mask on the weights of the model." in text
    assert "Adapter" not in seen(run_record(), tmp_path).headings


def test_what_is_missing_has_no_section(tmp_path):
    nothing = dict(figures={}, per_class=[], log=[], mask={}, data={}, history=[], cost={}, environment={})
    assert seen(run_record(**nothing, picture="before_after.png"), tmp_path).headings == BARE


def test_nothing_of_the_record_is_markup(tmp_path):
    record = run_record(
        forgotten=EVIL,
        base_model={"name": EVIL, "revision": EVIL, "on_hub": True},
        method={"name": EVIL, "paper": EVIL, "options": {EVIL: EVIL, "list": [EVIL]}},
        data={EVIL: {"samples": 1, "fingerprint": EVIL, "source": EVIL}},
        figures={
            m: {
                EVIL: {
                    **share(0.5),
                    "definition": EVIL,
                    "library": EVIL,
                    "details": {EVIL: EVIL, "num_inference_steps": 3, "scheduler": EVIL},
                }
            }
            for m in ("before", "after", EVIL)
        },
        per_class=[{"name": EVIL, "forget": f, "before": 1.0, "after": 0.5} for f in (True, False)],
        log=[{"step": step, f"{EVIL}_loss": 0.5} for step in (1, 2)],
        mask={"density": 0.5, "drift": 0.0, "layers": [[EVIL, 3, 0.5]]},
        cost={"seconds": 1.0, "device": EVIL},
        history=[dict.fromkeys(("forgotten", "method", "date", "hf_unlearn", "base_model"), EVIL)],
        weights={"network": EVIL, "total": 3, "trained": "part", "trained_share": 0.5},
        objective={"train_method": EVIL, "anchor_rule": EVIL, "anchors": [[EVIL, EVIL]]},
        environment=dict.fromkeys(("hf_unlearn", "packages", "python"), EVIL),
        created=EVIL,
    )
    html = page(record, tmp_path)
    found = Seen(html)
    tags = {tag for tag, _ in found.tags}
    assert "script" not in tags and "img" not in tags
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert found.text.count(EVIL) >= 20 and "<script" not in html
    plain = {tag for tag, _ in seen(run_record(), tmp_path).tags}
    assert tags <= plain  # no element that an honest record does not make


def test_nothing_is_fetched(tmp_path):
    found = seen(run_record(), tmp_path)
    addresses = [v for _, attrs in found.tags for k, v in attrs.items() if k in ("src", "href", "srcset", "action")]
    assert addresses and all(a.startswith(("data:", "#")) for a in addresses)
    policy = next(attrs["content"] for _, attrs in found.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("before_after.png", b"no picture", "is not a picture"),
        ("../other.png", None, "not a file in the run's folder"),
        ("before_after.bmp", "BMP", "is BMP, which browsers do not show"),
    ],
)
def test_bad_pictures(tmp_path, name, content, problem):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        Image.new("L", (4, 4)).save(tmp_path / name, content)
    with pytest.raises(ValueError, match=problem):
        page(run_record(picture=name), tmp_path)


def test_many_classes_fold():
    rows = [{"name": str(i), "forget": i == 7, "before": 1.0, "after": 1 - i / 200} for i in range(100)]
    found = class_sections(run_record(per_class=rows))
    assert [row["name"] for row in found["shown"]] == ["7", *map(str, range(77, 100))]
    assert len(found["folded"]) == 76 and found["models"] == ["before", "after"]


def test_curves_are_the_losses_of_the_log():
    assert [curve["name"] for curve in loss_curves(run_record())] == ["retain loss", "forget loss"]
    own = [{"step": s, "loss": 0.5, "retain_loss": None} for s in (1, 2)]
    assert [curve["name"] for curve in loss_curves(run_record(log=own))] == ["loss"]
    rounded = [{"step": s, "loss": 0.5, "retain_loss": 0.5000001} for s in (1, 2)]
    assert [curve["name"] for curve in loss_curves(run_record(log=rounded))] == ["retain loss"]
    apart = [{"step": s, "loss": 0.5, "retain_loss": 0.51} for s in (1, 2)]
    assert [curve["name"] for curve in loss_curves(run_record(log=apart))] == ["loss", "retain loss"]


def test_a_line_is_where_its_numbers_are():
    drawn = str(line_chart([(0, 0.0), (5, None), (10, 4.0), (20, 2.0)], "x"))
    assert re.findall(r'points="([^"]*)"', drawn) == ["196.0,10.0 340.0,82.0"]
    assert re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn) == [("52.0", "154.0")]
    assert 'aria-label="x by outer step: 0 at outer step 0, 2 at 20; lowest 0 at 0, highest 4 at 10"' in drawn
    assert re.findall(r"<rect[^>]* width=\"([\d.]+)\" height=\"10\"", str(bars([("a", 0.25), ("b", 2.0)]))) == [
        "25.00",
        "100.00",
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1.0]),
        (0, 0.109, [0, 0.05, 0.1, 0.15]),
        (-3, 4, [-4, -2, 0, 2, 4]),
        (5, 5, [4, 6, 8, 10]),
        (0, 0, [0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_hold_the_data(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_layers_are_joined_by_name():
    rows = [(f"b.{i}.{part}.weight", 10, 0.1 * i) for i in range(5) for part in ("q", "k")] + [("head.bias", 10, 1.0)]
    assert by_module([("a.weight", 30, 0.5), ("a.bias", 10, 0.1), ("free", 1, 1.0)]) == [
        ("a", 40, pytest.approx(0.4)),
        ("free", 1, 1.0),
    ]
    assert len(by_prefix(rows, 11)) == 11
    assert by_prefix(rows, 10) == [*((f"b.{i}", 20, pytest.approx(0.1 * i)) for i in range(5)), ("head", 10, 1.0)]
    assert by_prefix(rows, 2) == [("b", 100, pytest.approx(0.2)), ("head", 10, 1.0)]
    many = [(f"layer{i}.weight", 1, 1.0) for i in range(30)]
    assert by_prefix(many, 10)[-1] == ("and 21 more", 21, 1.0) and len(by_prefix(many, 10)) == 10
    assert by_prefix([]) == []


def contrast(first: str, second: str) -> float:
    """Of two colours #rrggbb, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart(tmp_path):
    html = page(run_record(), tmp_path)
    palettes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", html, re.S)]
    assert len(palettes) == 2 and contrast("#000000", "#ffffff") == pytest.approx(21)
    assert min(contrast("#ffffff", colour) for colour in COLOURS.values()) >= 4.5  # of the outcome, in both palettes
    for colours in palettes:
        for text in ("text", "soft", "link", "forgotten"):
            assert min(contrast(colours[text], colours[under]) for under in ("page", "panel")) >= 4.5, text
        for shape in ("before", "after", "forgotten"):
            assert contrast(colours[shape], colours["page"]) >= 3, shape


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    run_record(figures={}).write(tmp_path)

    def call(*argv) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["hf-unlearn", "report", *map(str, argv)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, "".join(capsys.readouterr())

    code, text = call(tmp_path)
    said = [outcome(run_record(figures={})).line, verdict(run_record(figures={}))]
    assert code == 0 and text.splitlines() == [*said, str(tmp_path / "report.html")]
    assert (tmp_path / "report.html").read_text() == page(run_record(figures={}), tmp_path)
    code, text = call(tmp_path, "--output", tmp_path / "new" / "page.html", "--json")
    assert code == 0 and '"figures": {}' in text and (tmp_path / "new" / "page.html").exists()
    for argv, problem in (((tmp_path / "none",), "holds no"), ((tmp_path, "--output", tmp_path), "is a folder")):
        code, text = call(*argv)
        assert code == 2 and problem in text and len(text.splitlines()) == 1
    assert not list(tmp_path.rglob("*.partial"))
