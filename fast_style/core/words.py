"""Numbers with their nouns, as lines for users have them."""


def count(number: int, noun: str) -> str:
    """A number with its noun: ``1 photo``, ``2,000 photos``."""
    return f"{number:,} {plural(number, noun)}"


def plural(number: int | None, noun: str) -> str:
    """The noun as it follows a number; None stands for one that is not known."""
    return noun if number == 1 else f"{noun}s"
