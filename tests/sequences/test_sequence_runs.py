"""A sequence of requests on a tiny classifier: what is on disk, and what becomes of it where a run is killed."""

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stream import REQUESTS, files, launched, sequence, tasks
from transformers import AutoModelForImageClassification

from hf_unlearn.common.errors import DivergenceError
from hf_unlearn.saving.history import read_history
from hf_unlearn.sequences import Book, Part, ReplayMemory, Request
from hf_unlearn.sequences.strategies import Unlearning
from hf_unlearn.training.trainer import UnlearnTrainer

pytestmark = pytest.mark.xdist_group("sequences")


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """The folder of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("straight")
    sequence(folder).run(REQUESTS)
    return folder


def test_a_run_leaves_the_ledger_and_what_is_needed_to_go_on(straight):
    assert sorted(files(straight)) == [
        "memory-0003.safetensors",
        "model/config.json",
        "model/model.safetensors",
        "weights-0003-model.safetensors",
    ]
    ledger = Book(straight).read()
    assert [entry.state for entry in ledger.entries] == ["done"] * 3
    assert [entry.asked.word for entry in ledger.entries] == ["0R", "1T", "1F"]
    first, second, third = ledger.entries
    assert first.weights_after == second.weights_before != second.weights_after == third.weights_before
    assert first.memory_after == second.memory_before and third.memory_after != third.memory_before
    assert second.data["learn"] == third.data["forget"] and second.samples == {"learn": 16}
    assert third.left_memory == 6 and third.figures["kept_samples"] == 6  # six of each task were kept
    assert first.figures["known"] == [0, 1] and second.figures["known"] == [0, 1, 2, 3]
    assert set(third.figures["forgotten"]) == {"3"}
    assert all(entry.times["asked"] <= entry.times["begun"] <= entry.times["ended"] for entry in ledger.entries)


def test_the_ledger_holds_no_data(straight):
    text = (straight / "ledger.json").read_text()
    numbers = [n for n in json.loads(text)["entries"][1]["data"].values()]
    assert all(len(n) == 16 for n in numbers) and len(text) < 8000


@pytest.mark.parametrize("step", [0, 3])
def test_a_run_killed_in_the_middle_of_request_3_ends_in_the_same_bytes(straight, tmp_path, step):
    assert launched("stream.py", tmp_path, 3, step) == -signal.SIGKILL
    assert [entry.state for entry in Book(tmp_path).read().entries] == ["done", "done", "running"]
    checkpoints = sorted(path.name for path in tmp_path.glob("request-0003/forget/checkpoint-*"))
    assert checkpoints == (["checkpoint-2"] if step else [])
    sequence(tmp_path).run(REQUESTS)
    assert files(tmp_path) == files(straight)
    assert Book(tmp_path).read().substance() == Book(straight).read().substance()


def test_stopped_between_weights_and_ledger_it_ends_in_the_same_bytes(straight, tmp_path, monkeypatch):
    """Weights and memory of request 2 are written, the ledger does not say so yet."""
    from hf_unlearn.sequences.queue import Queue

    stock = Queue.put

    def put(self, entry):
        if entry.number == 2 and entry.state == "done":
            raise KeyboardInterrupt
        stock(self, entry)

    monkeypatch.setattr(Queue, "put", put)
    with pytest.raises(KeyboardInterrupt):
        sequence(tmp_path).run(REQUESTS)
    monkeypatch.undo()
    assert (tmp_path / "memory-0002.safetensors").is_file() and (tmp_path / "memory-0001.safetensors").is_file()
    sequence(tmp_path).run(REQUESTS)
    assert files(tmp_path) == files(straight)
    assert Book(tmp_path).read().substance() == Book(straight).read().substance()


def test_requests_one_by_one_are_the_same_run(straight, tmp_path):
    for words in ("0R", "0R 1T", REQUESTS):
        sequence(tmp_path).run(words)
    assert files(tmp_path) == files(straight)


def test_a_finished_run_changes_nothing(straight):
    before = files(straight), (straight / "ledger.json").read_bytes()
    sequence(straight).run(REQUESTS)
    sequence(straight).run()
    assert (files(straight), (straight / "ledger.json").read_bytes()) == before


@pytest.mark.long
def test_two_processes_are_one(tmp_path):
    """The batch of four is two of two each: the weights agree to rounding, and the same samples are kept."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert launched("stream.py", one, processes=1) == 0 and launched("stream.py", two, processes=2) == 0
    assert files(one).keys() == files(two).keys()
    assert (one / "memory-0003.safetensors").read_bytes() == (two / "memory-0003.safetensors").read_bytes()
    ours, theirs = (load_file(folder / "model/model.safetensors") for folder in (one, two))
    assert all(torch.allclose(value, theirs[name], atol=1e-5) for name, value in ours.items())
    assert Book(one).read().entries[2].figures["known"] == Book(two).read().entries[2].figures["known"]


def test_forgotten_samples_leave_the_saved_memory_before_anything_is_trained(tmp_path, monkeypatch):
    made = sequence(tmp_path)
    made.run("0R 1T")
    data = tasks()
    kept = [position for position in made.memory.positions if data.labels[position] in (2, 3)]
    pixels = {position: data.train[position]["pixel_values"].numpy().tobytes() for position in kept}
    assert len(kept) == 6 and all(content in whole(tmp_path) for content in pixels.values())

    def look(self, *args, **kwargs):
        assert not any(content in whole(tmp_path) for content in pixels.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(UnlearnTrainer, "train", look)
    with pytest.raises(KeyboardInterrupt):
        sequence(tmp_path).run(REQUESTS)


def whole(folder: Path) -> bytes:
    """All that is written in a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_exported_model_says_what_it_forgot(straight):
    model = AutoModelForImageClassification.from_pretrained(straight / "model")
    (entry,) = read_history(model)
    assert entry["forgotten"] == "task 1" and entry["method"] == "sfron" and entry["request"] == 3
    weights = load_file(straight / "weights-0003-model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_failed_request_leaves_the_model_as_it_was_and_begins_anew(straight, tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise DivergenceError("the loss exploded")

    made = sequence(tmp_path)
    made.run("0R 1T")
    before = made.objective.network.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    monkeypatch.setattr(UnlearnTrainer, "train", fail)
    with pytest.raises(DivergenceError):
        made.run(REQUESTS)
    entry = Book(tmp_path).read().entries[2]
    assert (entry.state, entry.error) == ("failed", "the loss exploded")
    assert all(torch.equal(value, before[name]) for name, value in made.objective.network.state_dict().items())
    monkeypatch.undo()
    sequence(tmp_path).run()
    assert files(tmp_path) == files(straight)


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        (["0R"], r"request 2 \(learn task 0\): task 0 is learnt already"),
        (["1F"], r"request 2 \(forget task 1\): task 1 was never learnt, so it cannot be forgotten"),
        (["1T", "1F", "1F"], r"request 4 \(forget task 1\): task 1 is forgotten already"),
        (["2R"], "there is no task 2: tasks are numbered 0 to 1"),
        ([{"learn": {"classes": [7]}}], "class 7 is in no task: there is 0, 1, 2, 3"),
        ([{"learn": {"samples": [99]}}], "there is no sample 99: the training data has 32"),
        ([{"learn": {"tasks": [1]}, "forget": {"samples": [2]}}], "sample 2 was never learnt"),
        ([{"learn": {"task": 0}, "forget": {"task": 0}}], "tasks 0 is to be learnt and forgotten"),
        (["1T", {"learn": {"task": 1}, "forget": {"classes": [3]}}], "8 samples are to be learnt and forgotten"),
        (["x"], "request 'x' is not like 0R, 1T or 2F"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_queued(tmp_path, requests, said):
    made = sequence(tmp_path)
    made.add("0R")
    before = (tmp_path / "ledger.json").read_bytes()
    for ask in (lambda: made.run(["0R", *requests]), lambda: made.add(requests)):
        with pytest.raises(ValueError, match=said) as refused:
            ask()
        assert "\n" not in str(refused.value)
        assert (tmp_path / "ledger.json").read_bytes() == before


def test_a_memory_smaller_than_the_classes_is_refused(tmp_path):
    made = sequence(tmp_path, memory=ReplayMemory(3))
    with pytest.raises(ValueError, match=r"request 2 .*the memory holds 3 samples, fewer than the 4 classes"):
        made.run("0R 1T")
    assert not (tmp_path / "ledger.json").exists()


def test_another_sequence_in_the_folder_is_refused(straight, tmp_path):
    with pytest.raises(ValueError, match="requests of another sequence: seed is 42 there and 5 here"):
        sequence(straight, seed=5).run(REQUESTS)
    with pytest.raises(ValueError, match=r"holds the requests 0R, 1T, 1F: give these first"):
        sequence(straight).run("0R 1R")


def test_two_runs_of_one_folder_at_a_time_are_refused(tmp_path):
    made = sequence(tmp_path)
    with made.queue.book.locked("run"), pytest.raises(ValueError, match="another process runs the requests"):
        sequence(tmp_path).run("0R")
    assert not (tmp_path / "ledger.json").exists()


def test_classes_and_samples_over_tasks_and_both_at_once(tmp_path):
    made = sequence(tmp_path, Unlearning(learn_rate=2e-3), max_steps=2)
    ledger = made.run(
        [
            Request(learn=Part(tasks=(0, 1))),
            Request(forget=Part(classes=(1, 3))),
            {"learn": {"classes": [1]}, "forget": {"samples": [0, 2]}, "temporary": True},
        ]
    )
    assert [entry.state for entry in ledger.entries] == ["done"] * 3
    assert ledger.entries[1].figures["known"] == [0, 2] and ledger.entries[2].figures["known"] == [0, 1, 2]
    assert set(ledger.entries[2].figures["forgotten"]) == {"2", "3"}
    assert set(made.queue.forgotten(ledger.entries)[2]) == {3, 7, 11, 15, 19, 23, 27, 31}


def test_what_the_model_knows_already_may_be_forgotten(tmp_path):
    from conftest import config, tiny_vit

    from hf_unlearn.sequences import Sequence

    made = Sequence(tiny_vit(), config(tmp_path, max_steps=1), tasks(), known=Part(tasks=(0,)))
    ledger = made.run([{"forget": {"classes": [0]}}])
    assert ledger.entries[0].left_memory == 8 and made.memory.labels == [1] * 8
