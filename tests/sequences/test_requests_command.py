"""hf-unlearn requests: from a file and from words, listed, reported, and gone on with."""

import json

import pytest
import yaml

from hf_unlearn.report.record import FORGOTTEN, NOT_FORGOTTEN, PARTLY_FORGOTTEN
from hf_unlearn.sequences import Book
from hf_unlearn.sequences.ledger import Entry, Ledger
from hf_unlearn.sequences.outcome import readings
from hf_unlearn.sequences.report import card, listing, page, plot, rows, status

pytestmark = pytest.mark.xdist_group("sequences")
FILE = {
    "model": "digits_vit",
    "data": "digits",
    "tasks": [[0, 1], [2, 3], [4, 5]],
    "memory": {"samples": 20, "by": "herding"},
    "method": "sfron",
    "steps": 2,
    "batch_size": 8,
    "requests": ["0R", "1T"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two requests, to which others are added."""
    from hf_unlearn.sequences.setup import read_file, store_setup

    root = tmp_path_factory.mktemp("requests")
    (root / "q.yaml").write_text(yaml.safe_dump(FILE))
    setup, asked = read_file(root / "q.yaml")
    setup.sequence(root / "run").run(asked)
    store_setup(root / "run", setup)
    return root / "run"


def test_words_and_flags_are_added_and_carried_out(call, folder):
    code, said, error = call("requests", folder, "add", "1F", "--learn_classes", 4, "--temporary")
    assert code == 0, error
    assert "2 done, 2 queued; next is 3: forget task 1" in said
    code, said, error = call("requests", folder, "run")
    assert code == 0 and "4 done" in said and "FA " in said, error
    ledger = Book(folder).read()
    assert ledger.setup["extend_to"] == 8 and 2 <= ledger.entries[2].steps <= 8  # what has not forgotten goes on
    assert [e.asked.text for e in Book(folder).read().entries][2:] == ["forget task 1", "learn class 4 for a time"]
    code, said, _ = call("requests", folder, "--json")
    assert [entry["state"] for entry in json.loads(said)["entries"]] == ["done"] * 4
    code, said, _ = call("requests", folder, "report")
    assert code == 0 and (folder / "requests.html").is_file() and (folder / "requests.png").stat().st_size > 5000
    text = (folder / "requests.html").read_text()
    assert "learn class 4 for a time" in text and "data:image/png;base64," in text and "<script" not in text
    code, said, _ = call("requests", folder, "status")
    assert said.strip() == "4 done"
    text = (folder / "model/README.md").read_text()
    assert (
        text.startswith("---\n")
        and "| 3 | forget task 1" in text
        and Book(folder).read().entries[3].weights_after in text
    )


def test_the_same_file_again_changes_nothing(call, folder):
    before = (folder / "ledger.json").read_bytes()
    code, said, error = call("requests", folder, "add", "--file", folder.parent / "q.yaml")
    assert code == 2 and "task 0 is learnt already" in error
    (folder.parent / "other.yaml").write_text(yaml.safe_dump({**FILE, "steps": 3}))
    code, said, error = call("requests", folder, "run", "--file", folder.parent / "other.yaml")
    assert code == 2 and "was set up with steps 2, not 3" in error
    assert (folder / "ledger.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add"], "add needs a request"),
        (["add", "9R"], "there is no task 9"),
        (["add", "--forget_samples", 5000], "there is no sample 5000"),
        (["add", "--temporary"], "asks for nothing"),
        (["run", "0R"], "requests are for add, not for run"),
        (["stop"], "invalid choice"),
    ],
)
def test_bad_words_are_one_line_and_leave_the_ledger_alone(call, folder, words, says):
    before = (folder / "ledger.json").read_bytes()
    code, _, error = call("requests", folder, *words)
    assert code == 2 and says in error and len(error.splitlines()) == 1
    assert (folder / "ledger.json").read_bytes() == before


# ---- what is shown -----------------------------------------------------------------------------
def ledger() -> Ledger:
    figures = {"known": [0, 1], "classes": {"0": [9, 10], "1": [10, 10]}, "forgotten": {}}
    done = Entry(1, {"learn": {"tasks": [0]}}, "done", {"learn": 20}, steps=5, weights_after="abc", figures=figures)
    bad = Entry(2, {"forget": {"tasks": [0]}}, "failed", error="<b>|it *broke*</b>")
    return Ledger({"tasks": [[0, 1]]}, [done, bad, Entry(3, {"learn": {"classes": [1]}})])


def test_a_ledger_in_words():
    assert status(ledger()) == "1 done, 1 failed, 1 queued; next is 2: forget task 0"
    assert status(Ledger()) == "no requests"
    header, body = rows(ledger())
    assert body[0][:3] == ["1", "learn task 0", "done"] and body[2][2] == "queued" and len(header) == len(body[1])
    assert "failed: <b>|it *broke*</b>" in listing(ledger())


def forgot(left: dict[str, float], part: dict, figures: dict | None = None) -> Ledger:
    """A ledger with one forget request, of which so much is left."""
    seen = {"known": [0], "classes": {"0": [90, 100], "1": [0, 100]}, "forgotten": left}
    entry = Entry(1, {"forget": part}, "done", {"forget": 100}, figures=figures or seen)
    return Ledger({"tasks": [[0, 1]]}, [entry])


@pytest.mark.parametrize(
    ("part", "left", "state"),
    [
        ({"classes": [1]}, 0.0, FORGOTTEN),
        ({"classes": [1]}, 0.05, FORGOTTEN),
        ({"classes": [1]}, 0.2, PARTLY_FORGOTTEN),
        ({"classes": [1]}, 0.7, NOT_FORGOTTEN),
        ({"samples": [4, 5]}, 0.92, FORGOTTEN),  # 90 of 100 test samples are recognised
        ({"samples": [4, 5]}, 0.96, FORGOTTEN),  # within chance
        ({"samples": [4, 5]}, 1.0, PARTLY_FORGOTTEN),
    ],
)
def test_a_request_says_whether_it_is_still_forgotten(part, left, state):
    course = forgot({"1": left}, part)
    assert readings(course)[1].state == state
    header, body = rows(course)
    assert body[0][header.index("now")] == state.lower()
    assert (state.lower() in status(course)) == (state != FORGOTTEN)
    assert not readings(forgot({}, part))  # what is known again is not to be forgotten


@pytest.mark.parametrize(("left", "state"), [(0.19, FORGOTTEN), (0.4, PARTLY_FORGOTTEN), (0.8, NOT_FORGOTTEN)])
def test_so_does_one_of_a_diffusion_model(left, state):
    course = forgot({}, {"classes": [1]}, {"left": {"1": left}, "drift": 0.0})
    assert readings(course)[1].state == state


def test_foreign_text_is_escaped_on_page_and_card():
    text = page(ledger(), b"png")
    assert "<b>" not in text and "&lt;b&gt;|it" in text
    assert r"&lt;b&gt;\|it \*broke\*" in card(ledger())


def test_there_is_no_picture_without_a_request(tmp_path):
    with pytest.raises(ValueError, match="no request is done yet"):
        plot(Ledger({"tasks": [[0, 1]]}), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
