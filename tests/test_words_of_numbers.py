"""A number has its noun in the singular or in the plural."""

import pytest

from ssl_lightning.words import counted


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 steps"), (1, "1 step"), (2.5, "2.5 steps"), (1438, "1,438 steps"), (1281167, "1,281,167 steps")],
)
def test_a_number_is_written_with_its_noun(number, expected):
    assert counted(number, "step") == expected
