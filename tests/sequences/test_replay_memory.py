"""The bounded memory: its bounds, what it chooses, what leaves it, and its file."""

import itertools

import pytest
import torch

from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.data.pairs import subset
from hf_unlearn.sequences import ReplayMemory
from hf_unlearn.sequences.memory import herded

SIZE = 4 * 4 + 8  # bytes of a sample: four float32 pixels and an int64 label


def data(count: int = 40, classes: int = 4) -> ArrayDataset:
    pixels = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    return ArrayDataset(pixels, torch.arange(count) % classes)


def filled(memory: ReplayMemory, positions=range(40), of: ArrayDataset | None = None) -> ReplayMemory:
    memory.learn(list(positions), subset(of or data(), list(positions)))
    return memory


@pytest.mark.parametrize("by", ["reservoir", "herding"])
def test_it_holds_as_many_of_each_class_and_the_first_classes_what_is_left_over(by):
    memory = filled(ReplayMemory(10, by=by))
    assert [memory.labels.count(label) for label in range(4)] == [3, 3, 2, 2]
    everything = data()
    for position, row in zip(memory.positions, range(len(memory))):
        assert torch.equal(memory.columns["pixel_values"][row], everything[position]["pixel_values"])


@pytest.mark.parametrize("by", ["reservoir", "herding"])
def test_new_classes_take_their_share_from_the_old_ones(by):
    memory = ReplayMemory(8, by=by)
    filled(memory, [i for i in range(40) if i % 4 < 2])
    assert [memory.labels.count(label) for label in range(4)] == [4, 4, 0, 0]
    old = list(memory.positions)
    filled(memory, [i for i in range(40) if i % 4 >= 2])
    assert [memory.labels.count(label) for label in range(4)] == [2, 2, 2, 2]
    assert [p for p in memory.positions if p % 4 < 2] == [*old[:2], *old[4:6]]  # the first to stay stay


def test_it_is_bound_by_bytes():
    memory = filled(ReplayMemory(None, size=SIZE * 9 + 3))
    assert len(memory) == 9 and memory.nbytes == 9 * SIZE
    assert len(filled(ReplayMemory(5, size=SIZE * 9))) == 5


@pytest.mark.parametrize("by", ["reservoir", "herding"])
def test_it_is_the_same_from_the_same_seed(by):
    assert filled(ReplayMemory(8, by=by)).digest == filled(ReplayMemory(8, by=by)).digest
    different = filled(ReplayMemory(8, by=by, seed=1)).positions != filled(ReplayMemory(8, by=by)).positions
    assert different == (by == "reservoir")  # herding draws nothing


def test_the_reservoir_does_not_depend_on_the_order():
    parts = [range(0, 8), range(8, 24), range(24, 40)]
    found = set()
    for order in itertools.permutations(parts):
        memory = ReplayMemory(8)
        for part in order:
            filled(memory, part)
        found.add(tuple(sorted(memory.positions)))
    assert len(found) == 1


def test_the_reservoir_is_uniform():
    """Each of ten samples of a class is kept by two fifths of the seeds, within four standard deviations."""
    counts, seeds = torch.zeros(40), 500
    for seed in range(seeds):
        counts[filled(ReplayMemory(16, seed=seed)).positions] += 1
    deviation = (0.4 * 0.6 * seeds) ** 0.5
    assert (counts - 0.4 * seeds).abs().max() < 4 * deviation


def test_what_is_forgotten_does_not_change_which_of_the_others_stay():
    memory = filled(ReplayMemory(8))
    before = list(memory.positions)
    assert memory.forget([before[0], before[3], 999]) == 2
    assert memory.positions == [p for p in before if p not in (before[0], before[3])]


def test_herding_follows_the_mean_of_the_class():
    """By hand: the unit vectors at 0, 90 and 180 degrees have the mean (0, 1/3), so the second one is the first."""
    features = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]], dtype=torch.float64)
    # then (0, 1/2) + half of either other one lies as far from the mean: the first row wins the tie
    assert herded(features, 3) == [1, 0, 2]
    assert herded(features, 1) == [1] and herded(features, 9) == [1, 0, 2]


@pytest.mark.parametrize("by", ["reservoir", "herding"])
def test_saved_is_reloaded_and_the_same_content_gives_the_same_bytes(tmp_path, by):
    memory = filled(ReplayMemory(8, by=by))
    memory.save(tmp_path / "a")
    loaded = ReplayMemory.load(tmp_path / "a")
    assert loaded.digest == memory.digest and loaded.settings == memory.settings
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    # it goes on as the one that stayed in the process
    more = ArrayDataset(torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(4)), torch.arange(60) % 5)
    for each in (memory, loaded):
        filled(each, range(40, 60), more)
    assert loaded.digest == memory.digest


def test_the_bytes_of_forgotten_samples_are_not_in_the_file(tmp_path):
    memory, everything = filled(ReplayMemory(20)), data()
    memory.save(tmp_path / "memory")
    gone = [position for position in memory.positions if position % 4 == 1]
    assert gone
    stored = {position: everything[position]["pixel_values"].numpy().tobytes() for position in memory.positions}
    assert all(content in (tmp_path / "memory").read_bytes() for content in stored.values())
    memory.forget(gone)
    memory.save(tmp_path / "memory")
    assert {p for p, content in stored.items() if content in (tmp_path / "memory").read_bytes()} == set(
        memory.positions
    )
    memory.forget(list(memory.positions))
    memory.save(tmp_path / "memory")
    empty = ReplayMemory.load(tmp_path / "memory")
    assert len(empty) == 0 and empty.dataset() is None and empty.labels == []


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give samples or size"):
        ReplayMemory(None)
    with pytest.raises(ValueError, match="samples of the memory must be at least 1, got 0"):
        ReplayMemory(0)
    with pytest.raises(ValueError, match="reservoir or herding, got 'random'"):
        ReplayMemory(by="random")
    with pytest.raises(ValueError, match="holds 3 samples, fewer than the 4 classes"):
        filled(ReplayMemory(3))
    memory = filled(ReplayMemory(8))
    with pytest.raises(ValueError, match="is in the memory already"):
        filled(memory, memory.positions[:1])
    with pytest.raises(ValueError, match="2 positions for 40 samples"):
        memory.learn([1, 2], data())
    (tmp_path / "other").write_bytes(b"12345678")
    with pytest.raises(ValueError):
        ReplayMemory.load(tmp_path / "other")
