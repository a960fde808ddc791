from random import Random

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


def test_distance_is_the_last_of_the_costs_whatever_the_sequences_are():
    random = Random(0)
    for _ in range(300):
        alphabet = random.choice((2, 5, 40))
        first, second = ([random.randrange(alphabet) for _ in range(random.randrange(150))] for _ in range(2))
        assert edit_distance(first, second) == edit_costs(first, second)[-1]
