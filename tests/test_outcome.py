"""A run has one outcome: the right one for every kind of run, and the same in every place that shows it."""

import html
import json
import re
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest
from records import figure, generator, models, painter, run_record
from scenarios import ALL, BROKE, FORGOTTEN, KEPT, NONE, NOT, SCENARIOS, UNTESTED

from hf_unlearn.__main__ import main
from hf_unlearn.attacks import ATTACKS
from hf_unlearn.cli import finish as finish_module
from hf_unlearn.evaluation.metric import difference_interval
from hf_unlearn.hub.contents import BESIDE
from hf_unlearn.report.badge import BADGE_FILE, COLOURS, badge
from hf_unlearn.report.card_text import attack_table, card_table, failures
from hf_unlearn.report.cards import BEGIN, write_card
from hf_unlearn.report.escaping import markdown
from hf_unlearn.report.forgetting import kind_of
from hf_unlearn.report.next_step import with_flag
from hf_unlearn.report.outcome import judged, outcome
from hf_unlearn.report.page import page
from hf_unlearn.report.reading import read_record
from hf_unlearn.report.record import STATES, Outcome
from hf_unlearn.report.recovery import BORROW, NEEDS_CONTROL, TRAIN, UNREADABLE, WORDS, recoveries
from hf_unlearn.report.verdict import verdict

NAMES = pytest.mark.parametrize("name", SCENARIOS)
AUTO = {"strength": "auto"}  # of a method that finds its own


@NAMES
def test_every_run_ends_in_its_state(name):
    record, state, evidence, tried = SCENARIOS[name]
    found = outcome(record)
    assert found.state == state and found.evidence.startswith(evidence), found.line
    assert found.next.endswith(tried), found.next
    assert found.line.startswith(f"{state}: {found.evidence}. Try: ")


@NAMES
def test_the_card_lists_it_first_unless_forgotten(name):
    """What is retained counts beyond its interval or tolerance only, so nothing else is against a good run."""
    record, state, _, _ = SCENARIOS[name]
    listed = failures(record)
    assert (not listed) == (state == FORGOTTEN) or name.startswith("a ") or name.startswith("good, as")
    if state != FORGOTTEN:
        assert listed[0] == f"{state.capitalize()}: {outcome(record).evidence}."
    assert not any("0.08361" in line for line in listed)  # rounding


# ---- the places that show it -----------------------------------------------------------------
def terminal(record, folder, monkeypatch, capsys) -> str:
    training = type("Flags", (), {"output_dir": str(folder), "push_masks": False})
    finish_module.finish(training, None, record, "| a table |", None)
    out = capsys.readouterr().out
    assert out.index(verdict(record)) < out.index("| a table |")
    return out.strip().splitlines()[0]


def page_of(record, folder, monkeypatch, capsys) -> str:
    text = page(record, folder)
    said = re.search(r'<section class="verdict".*?</section>', text, re.S)[0]
    assert text.index(said) < text.index("<h2")
    words = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", said))).strip()
    state = max((s for s in STATES if words.startswith(s)), key=len)
    assert f'<span class="state" style="background: {COLOURS[state]}">{state}</span>' in said
    return words.replace(f"{state} ", f"{state}: ", 1)


def card(record, folder, monkeypatch, capsys) -> str:
    write_card(folder, record)
    text = (folder / "README.md").read_text()
    lines = text[text.index(BEGIN) :].splitlines()
    first = next(line for line in lines[1:] if line and not line.startswith("#"))
    tried = lines[lines.index(first) + 2]
    assert (folder / BADGE_FILE).read_text().count(f">{outcome(record).state}</text>") == 1
    plain = re.sub(r"!\[[A-Z, ]+\]\(verdict\.svg\) \*\*([A-Z, ]+)\*\*:", r"\1:", first)
    assert plain != first and markdown(outcome(record).evidence) in first
    return f"{html.unescape(plain)} {tried.replace('`', '')}"


def written(record, folder, monkeypatch, capsys) -> str:
    finish_module.finish(type("Flags", (), {"output_dir": str(folder), "push_masks": False}), None, record, "", None)
    return Outcome(**json.loads((folder / "unlearning_report.json").read_text())["outcome"]).line


def checked(record, folder, monkeypatch, capsys) -> str:
    record.write(folder)
    monkeypatch.setattr("sys.argv", ["hf-unlearn", "check", str(folder), "--require-forgotten"])
    with pytest.raises(SystemExit) as stop:
        main()
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == (0 if lines[0].startswith("FORGOTTEN:") else 1) and len(lines) == 2
    return lines[0]


@pytest.mark.parametrize("place", [terminal, page_of, card, written, checked])
@NAMES
def test_every_place_says_it_first(name, place, tmp_path, monkeypatch, capsys):
    record = SCENARIOS[name][0]
    said, line = place(record, tmp_path, monkeypatch, capsys), outcome(record).line
    assert said.startswith(line)
    monkeypatch.undo()


@pytest.mark.parametrize("state", STATES)
def test_the_badge_is_a_picture_that_escapes(state):
    """Of every state, and a class may be called anything."""
    drawn = badge(Outcome(state, "<script>\"'&", ""))
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == f"{state}: <script>\"'&" and "<script" not in drawn
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")] == ["unlearning", state]
    assert BADGE_FILE in BESIDE


# ---- the record ------------------------------------------------------------------------------
def test_a_file_keeps_it_and_an_older_one_is_judged(tmp_path):
    """What a file says of its own outcome is not believed."""
    record = SCENARIOS["rate of a no-op"][0]
    judged(record).write(tmp_path)
    assert read_record(tmp_path).outcome == outcome(record)
    assert outcome(replace(record, outcome=Outcome(FORGOTTEN, "all of it"))).state == NOT
    older = replace(record, forgets=None, command=None)
    assert outcome(older).state == NOT and outcome(older).next == "the same with learning_rate=1e-08"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"forgets": "concept"}, "concept"),
        ({"forgets": None, "pipeline_tag": "text-to-image"}, "concept"),
        ({"forgets": None, "forgotten": "126 training images"}, "samples"),
        ({"forgets": None, "forgotten": "class 3"}, "class"),
        ({"forgets": "nonsense", "forgotten": "chosen images"}, "samples"),
        ({"forgets": None, "forgotten": "cats", "figures": models(forgotten_class_test_accuracy=(ALL, ALL))}, "class"),
    ],
)
def test_older_records_say_what_was_forgotten(changes, kind):
    assert kind_of(run_record(**{"per_class": [], **changes})) == kind


def test_figures_that_cannot_be_are_passed_over():
    """A share above 1, a share of no samples, a progress that is text."""
    for wrong in ((7.0, 100), (0.5, 0), (None, 100)):
        found = outcome(generator(forget_accuracy=(ALL, wrong), retain_accuracy=KEPT))
        assert (found.state, found.evidence) == (UNTESTED, "forget accuracy has no value")
    assert outcome(painter(forget_progress=(None, figure(None, by_timestep="x")))).state == UNTESTED


@pytest.mark.parametrize(
    ("changes", "tried"),
    [
        ({"method": {"name": "esd", "options": {}}}, "hf-unlearn ddpm --forget_class=3 --learning_rate 0.5"),
        ({"training": {"outer_steps": 50}, "command": ["hf-unlearn", "ddpm"]}, "ddpm --max_train_steps 150"),
        (
            {"method": {"name": "sfron", "options": {"strength": "auto"}}, "command": None},
            "the same with max_steps=150",
        ),
        ({"method": {"name": "ssd", "options": {}}}, "--learning_rate=0.05 --method sfron"),
    ],
)
def test_what_to_try_fits_the_method(changes, tried):
    """A rate that was given and does nothing is ten times larger for a method that needs one; an edit has none."""
    record = generator(0.05, forget_accuracy=(ALL, ALL), retain_accuracy=KEPT)
    whole = run_record(**{**asdict(record), **changes, "outcome": None})
    assert outcome(whole).next.endswith(tried)


def test_a_strength_that_was_found_and_broke_the_rest_needs_more_steps():
    """Where the rest broke, and no rate says how strong the run was: half the drift that it had."""
    figures = models(forget_accuracy=(ALL, NONE), retain_drift=(None, figure(0.3, limit=0.2)))
    record = replace(generator(), figures=run_record(figures=figures).figures)
    record.method.options.update(AUTO)
    assert outcome(record).state == BROKE and outcome(record).next.endswith("--forget_class=3 --max_train_steps 150")


def test_samples_that_a_command_left_out_are_generated_again():
    record = SCENARIOS["losses alone"][0]
    words = ["hf-unlearn", "ddpm", "--eval_samples_per_class", "0"]
    assert outcome(replace(record, command=words)).next == "hf-unlearn ddpm --eval_samples_per_class 100"


def test_a_flag_takes_the_place_of_what_was_given():
    words = ["hf-unlearn", "sd", "--max-steps=3", "--concept", "a", "b", "--max_train_steps", "5", "--seed", "1"]
    assert with_flag(words, "max_train_steps", "9") == [
        *["hf-unlearn", "sd", "--concept", "a", "b", "--seed", "1", "--max_train_steps", "9"]
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    # Newcombe 1998, table II, cases (a) and (d) by method 10.
    [((56 / 70, 70), (48 / 80, 80), (0.0524, 0.3339)), ((9 / 10, 10), (3 / 10, 10), (0.1705, 0.8090))],
)
def test_the_interval_of_a_difference_is_newcombes(first, second, expected):
    assert difference_interval(first, second) == pytest.approx(expected, abs=1e-4)


def test_the_attacks_that_are_read_apart_are_attacks():
    """A name that no attack has would change nothing without a word; each attack has words of its own."""
    names = {attack.name for attack in ATTACKS if not attack.counts_steps}
    assert {*BORROW, *TRAIN, *NEEDS_CONTROL} <= names and set(WORDS) == names


def test_what_attacks_found_is_no_figure_of_the_forgotten():
    """Shares that an attack recovered are neither the headline nor a limit of what is asked for."""
    record = SCENARIOS["a soft prefix brings it back"][0]
    assert verdict(record).startswith("After unlearning a rocket, concept share latents is 0.0%")
    assert [read.counts for read in recoveries(record)] == [True, False]
    assert "soft prefix" not in card_table(record) and "79 % [68, 87]" in attack_table(record)


@pytest.mark.parametrize(
    "details",
    [{"ceiling": "x", "settings": 3, "budget": None}, {"ceiling": {"value": 7, "samples": 72}}, {"attack": ["x"]}],
)
def test_details_of_strangers_are_read_as_far_as_they_go(details):
    record = painter(recovered_x=(None, {"value": 1.0, "definition": "d", "samples": 72, "details": details}))
    (read,) = recoveries(record)
    assert (read.reading, read.why, read.counts) == (
        UNREADABLE,
        "the same attack on the original was not measured",
        False,
    )
