"""Several processes: what each of them is told, and that together they train what one would."""

import pytest

from fast_style.distributed import Launch, read_launch
from fast_style.errors import UserError

# --- What torchrun says -------------------------------------------------------------------------

SIXTH_OF_EIGHT = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


def test_torchrun_says_which_process_this_is() -> None:
    launch = read_launch(SIXTH_OF_EIGHT)
    assert launch == Launch(rank=5, world_size=8, local_rank=1, local_world_size=4)
    assert not launch.is_first


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE"])
def test_process_without_torchrun_is_alone(missing: str) -> None:
    environment = {name: text for name, text in SIXTH_OF_EIGHT.items() if name != missing}
    assert read_launch(environment) == Launch(0, 1, 0, 1)
    assert read_launch(environment).is_first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"RANK": "8"},
            "RANK in the environment: must be a whole number from 0 to 7, got '8'",
        ),
        (
            {"WORLD_SIZE": "two"},
            "WORLD_SIZE in the environment: must be a whole number from 1 to 999999, got 'two'",
        ),
        (
            {"LOCAL_RANK": ""},
            "LOCAL_RANK in the environment: must be a whole number from 0 to 3, is not set",
        ),
    ],
)
def test_place_that_makes_no_sense_is_told(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_launch({**SIXTH_OF_EIGHT, **change})
    assert str(caught.value) == (
        f"{message}; torchrun sets it, and without torchrun RANK and WORLD_SIZE must not be set"
    )
