"""The metrics of a sequence against small matrices by hand."""

import pytest

from hf_unlearn.sequences.figures import Course
from hf_unlearn.sequences.ledger import Entry
from hf_unlearn.sequences.requests import request_of


def entries(*rows) -> list[Entry]:
    """Of (request, known classes, hits of ten of each class, accuracy on what each forget request forgot)."""
    made = []
    for number, (request, known, hits, forgotten) in enumerate(rows, 1):
        figures = {
            "known": known,
            "classes": {str(label): [n, 10] for label, n in enumerate(hits)},
            "forgotten": {str(f): value for f, value in forgotten.items()},
        }
        made.append(Entry(number, request_of(request).as_dict(), "done", figures=figures))
    return made


WHOLE_TASKS = entries(
    ("0R", [0, 1], [10, 8, 0, 0, 0, 0], {}),
    ("1T", [0, 1, 2, 3], [8, 8, 10, 6, 0, 0], {}),
    ("1F", [0, 1], [6, 8, 1, 0, 0, 0], {3: 0.1}),
    ("2R", [0, 1, 4, 5], [6, 6, 3, 1, 9, 9], {3: 0.25}),
)
TASKS = [[0, 1], [2, 3], [4, 5]]


def test_whole_tasks_by_hand():
    course = Course(WHOLE_TASKS, TASKS)
    assert course.matrix == [[0.9, None, None], [0.8, 0.8, None], [0.7, None, None], [0.6, None, 0.9]]
    assert course.average_accuracy == pytest.approx((0.9 + 0.8 + 0.8 + 0.7 + 0.6 + 0.9) / 6)
    # (0.9 - a_i0) for i = 0..3, and nothing for tasks 1 and 2 right after they were learnt
    assert course.forgetting == pytest.approx((0 + 0.1 + 0 + 0.2 + 0.3 + 0) / 6)
    assert course.learning_accuracy == pytest.approx((0.9 + 0.8 + 0.9) / 3)
    assert course.forget_requests == [2] and course.forget_accuracy == 0.1
    assert course.relapse == pytest.approx(0.15)
    assert course.whole[3] == [0.6, 0.2, 0.9]


def test_classes_over_tasks_count_their_task_while_one_is_known():
    rows = entries(
        ({"learn": {"tasks": [0, 1]}}, [0, 1, 2, 3], [10, 8, 6, 10], {}),
        ({"forget": {"classes": [1, 2]}}, [0, 3], [9, 0, 0, 7], {2: 0.0}),
        ({"learn": {"classes": [1]}}, [0, 1, 3], [9, 5, 1, 8], {2: 0.0}),
    )
    course = Course(rows, [[0, 1], [2, 3]])
    assert course.matrix == [[0.9, 0.8], [0.9, 0.7], [0.7, 0.8]]
    # class 1 is measured from the request that brought it back: (10 + 5) / 20 - (9 + 5) / 20
    assert course.forgetting == pytest.approx((0 + 0 + 0.1 + 0.3 + 0.05 + 0.2) / 6)
    assert course.learning_accuracy == pytest.approx((34 / 40 + 0.5) / 2)
    assert course.relapse == 0.0


def test_a_promise_to_remember_brings_nothing_new():
    rows = entries(("0T", [0, 1], [10, 10], {}), ("0R", [0, 1], [8, 8], {}))
    course = Course(rows, [[0, 1]])
    assert course.learning_accuracy == 1.0 and course.forgetting == pytest.approx(0.1)
    assert course.forget_accuracy is None and course.relapse is None


def test_what_is_learnt_again_is_no_relapse():
    rows = entries(
        ("0T", [0, 1], [10, 10], {}),
        ("0F", [], [0, 0], {2: 0.0}),
        ("0R", [0, 1], [10, 10], {}),
    )
    course = Course(rows, [[0, 1]])
    assert course.relapse is None and course.forget_accuracy == 0.0 and course.average_accuracy == 1.0


def test_nothing_done_has_no_figures():
    assert set(Course([], TASKS).figures().values()) == {None}
