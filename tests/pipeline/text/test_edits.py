import pytest

from pipeline.text.edits import edit_costs, edit_distance


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [
        ([], [], 0),
        (["A"], [], 1),
        ([], [1, 2], 2),
        ([1, 2, 3], [1, 3], 1),
        ([1, 2], [2, 1], 2),
        ("kitten", "sitting", 3),
    ],
)
def test_edit_distance(first, second, edits):
    assert edit_distance(first, second) == edits


def test_costs_are_those_of_every_beginning():
    first, second = "saturday", "sundays"
    assert edit_costs(first, second).tolist() == [edit_distance(first, second[:end]) for end in range(8)]
    assert edit_costs(first, second)[-1] == 4
