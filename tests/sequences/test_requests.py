"""What may be asked, in words, mappings and Python."""

import pytest
from stream import tasks

from hf_unlearn.data.images import ArrayDataset
from hf_unlearn.sequences import Part, Request, Standing, Tasks, request_of, requests_of


@pytest.mark.parametrize("word", ["0R", "1T", "2F"])
def test_the_words_of_clpu(word):
    request = request_of(word.lower())
    assert request.word == word and request_of(request.as_dict()) == request


def test_a_request_is_the_same_however_it_is_written():
    assert request_of("1T") == Request(learn=True, task=1, temporary=True) == Request(Part(tasks=(1,)), temporary=True)
    assert request_of({"forget": True, "task": 2}) == request_of({"forget": {"tasks": [2]}}) == request_of("2F")
    assert request_of({"learn": {"classes": [3, 1]}}) == Request(learn=Part(classes=(1, 3)))
    assert [each.word for each in requests_of("0R 1T 2F")] == ["0R", "1T", "2F"]
    assert requests_of(["0R", {"forget": {"sample": 4}}])[1].text == "forget sample 4"


def test_a_request_in_words():
    both = Request(learn=Part(tasks=(4,), classes=(1, 2)), forget=Part(samples=tuple(range(9))), temporary=True)
    assert both.text == both.word == "learn task 4 and classes 1, 2 for a time, forget 9 samples"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "asks for nothing"),
        ({"learn": {"tasks": []}}, "names no data"),
        ({"learn": {"tasks": [-1]}}, "tasks holds -1: give numbers from 0"),
        ({"learn": {"tasks": ["a"]}}, "tasks holds 'a'"),
        ({"learn": {"tasks": [True]}}, "tasks holds True"),
        ({"learn": {"tasks": [1, 1]}}, "tasks names 1 twice"),
        ({"learn": {"colour": [1]}}, "learn has the unknown key 'colour'"),
        ({"learn": 3}, "learn is 3: give a mapping"),
        ({"learns": {"tasks": [1]}}, "the unknown key 'learns'"),
        ({"learn": True}, "learn is True: name the task"),
        ({"task": 1}, "task 1 needs one of learn=True and forget=True"),
        ({"task": "1", "learn": True}, "task '1' is no number"),
        ({"task": 1, "learn": True, "forget": True}, "task 1 needs one of"),
        ({"forget": {"tasks": [1]}, "temporary": True}, "temporary is said of what is learnt"),
        ({"learn": {"tasks": [1]}, "temporary": "yes"}, "temporary is 'yes'"),
        ({"learn": {"samples": [1, 2]}, "forget": {"samples": [2]}}, "samples 2 is to be learnt and forgotten"),
        (7, "neither a word like 1T nor a mapping"),
    ],
)
def test_what_is_no_request_ends_in_one_line(given, said):
    with pytest.raises(ValueError, match=said) as refused:
        request_of(given)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError):
        requests_of([given])


def test_no_requests_are_refused():
    for given in ([], 3, ""):
        with pytest.raises(ValueError, match="requests must be a list"):
            requests_of(given)


def test_what_is_known_after_each_request():
    standing = Standing(tasks())
    first = {i for i in range(32) if i % 4 < 2}
    standing = standing.after(request_of("0R")).after(request_of("1T"))
    assert standing.remembered == first and standing.classes == [0, 1, 2, 3]
    promoted = standing.change(request_of("1R"))
    assert len(promoted.learn) == 16 and not promoted.new  # nothing of it is new
    standing = standing.after(request_of({"forget": {"classes": [1, 2]}}))
    assert standing.classes == [0, 3]
    again = standing.change(request_of("1R"))
    assert again.new == {i for i in range(32) if i % 4 == 2} and len(again.learn) == 16
    assert standing.after(request_of("1R")).temporary == frozenset()


def test_samples_forgotten_one_by_one_come_back_only_by_name():
    standing = Standing(tasks()).after(request_of("0T")).after(request_of({"forget": {"samples": [0, 1]}}))
    assert standing.singly == {0, 1}
    assert not standing.change(request_of("0R")).learn & {0, 1}
    standing = standing.after(request_of("0F"))
    assert not standing.known and not standing.change(request_of("0R")).learn & {0, 1}
    standing = standing.after(request_of({"learn": {"samples": [0]}}))
    assert standing.known == {0} and standing.singly == {1}
    with pytest.raises(ValueError, match="sample 0 is learnt already"):
        standing.change(request_of({"learn": {"samples": [0]}}))
    with pytest.raises(ValueError, match="sample 1 is forgotten already"):
        standing.change(request_of({"forget": {"samples": [1]}}))


def test_tasks_that_do_not_fit_the_data_are_refused():
    good = tasks()
    with pytest.raises(ValueError, match="class 1 is in two tasks, 0 and 1"):
        Tasks(good.train, good.test, [[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="class 9 has no training sample"):
        Tasks(good.train, good.test, [[0, 9]])
    with pytest.raises(ValueError, match="data with labels"):
        Tasks(ArrayDataset(good.train.pixel_values), good.test, [[0]])
