"""Real runs on the digits say what they came to, the same on the screen and in every file."""

import html

import pytest
from scenarios import FORGOTTEN, NOT

from hf_unlearn.report.badge import BADGE_FILE, badge
from hf_unlearn.report.escaping import markdown
from hf_unlearn.report.outcome import outcome
from hf_unlearn.report.page import page
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import STATES
from hf_unlearn.report.verdict import verdict


def said_everywhere(call, folder, *command) -> tuple[str, set[str]]:
    """Run a command, and return its state with the lines that screen, record, card, page and check begin with."""
    code, screen, error = call(*command, "--output_dir", folder)
    assert code == 0, error
    record = read_record(folder)
    line = next(line for line in screen.splitlines() if line.startswith(STATES))
    assert screen.index(line) < screen.index(verdict(record)) < screen.index("|--")
    evidence = outcome(record).evidence
    assert record.outcome == outcome(record) and line.startswith(
        f"{record.outcome.state}: {evidence}. Try: hf-unlearn "
    )
    assert f"**{record.outcome.state}**: {markdown(evidence)}." in (folder / "README.md").read_text()
    assert (folder / BADGE_FILE).read_text() == badge(record.outcome) + "\n"
    assert evidence in html.unescape(page(record, folder)).replace("\u00a0", " ")
    code, checked, _ = call("check", folder, "--require-forgotten")
    assert checked.splitlines()[0] == record.outcome.line and code == (0 if record.outcome.state == FORGOTTEN else 1)
    return record.outcome.state, line


@pytest.mark.parametrize(("rate", "state"), [("1e-9", NOT), pytest.param("5e-4", FORGOTTEN, marks=pytest.mark.long)])
def test_the_digits_ddpm(call, tmp_path, rate, state):
    """Three steps at a rate that changes nothing, and the fifty that forget."""
    steps = "50" if state == FORGOTTEN else "3"
    words = ["ddpm", "--learning_rate", rate, "--max_steps", steps, "--eval_samples_per_class", "30"]
    found, line = said_everywhere(call, tmp_path / "out", *words)
    assert found == state, line
    # The screen's command keeps the whole path, which no file has.
    assert str(tmp_path) in line and str(tmp_path) not in (tmp_path / "out" / "unlearning_report.json").read_text()
    assert read_record(tmp_path / "out").forgets == "class"


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["--learning_rate", "1e-9", "--max_steps", "3"], NOT),
        (["--learning_rate", "1e-9", "--max_steps", "3", "--forget_class", "3"], NOT),
        (["--learning_rate", "5e-4", "--forget_class", "3"], FORGOTTEN),
    ],
)
def test_the_digits_classifier(call, tmp_path, words, state):
    """A random tenth and a class, each beside the retrained model."""
    found, line = said_everywhere(call, tmp_path / "out", "classify", "--disable_tqdm", "True", *words)
    assert found == state, line
    assert read_record(tmp_path / "out").forgets == ("class" if "--forget_class" in words else "samples")
