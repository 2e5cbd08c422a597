"""The table of counted figures, and what is a failure."""

import importlib

import pytest


@pytest.mark.usefixtures("command")
def test_property_that_never_held_or_was_never_tried_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = importlib.import_module("figures")
    good, bad, none = (figures.Figure("a", *counts) for counts in ((2, 2), (1, 2), (0, 0)))
    assert [figures.conclude(each) for each in ([good], [good, bad], [none])] == [0, 1, 1]
    assert "\n| a | 1 of 2 |  |\n" in capsys.readouterr().out


@pytest.mark.usefixtures("command")
def test_property_that_cannot_be_tried_here_says_why_and_does_not_fail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = importlib.import_module("figures")
    assert figures.conclude([figures.Figure("far away", 0, None, "no ship")]) == 0
    assert capsys.readouterr().out.endswith("\n| far away | not tried | no ship |\n")
