"""Damaged copies of files, for tests and for the commands of benchmarks/reliability."""

import random
import re
from collections.abc import Sequence

# What numbers in headers are most often wrong by: nothing, everything, and the signs' borders.
_BORDERS = (0x00, 0x01, 0x7F, 0x80, 0xFF)


def damaged(content: bytes, chance: random.Random, *, others: Sequence[bytes] = ()) -> bytes:
    """A file with bytes flipped, cut out or inserted, or with a piece of itself or of another file.

    Args:
        content: the file; not empty.
        chance: decides; the same state gives the same damage.
        others: files that pieces are taken from, too.
    """
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        # Headers are at the front, and have more to break.
        end = len(damaged) if chance.random() < 0.4 else min(len(damaged), 120)
        place = chance.randrange(end)
        match chance.randrange(7):
            case 0:
                damaged[place] = chance.randrange(256)
            case 1:
                damaged[place] ^= 1 << chance.randrange(8)
            case 2:
                damaged[place : place + 4] = bytes([chance.choice(_BORDERS)]) * 4
            case 3:
                del damaged[place : place + chance.randrange(1, 9)]
            case 4:
                damaged[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 5:
                source = chance.choice([content, *others])
                start = chance.randrange(len(source))
                damaged[place:place] = source[start : start + chance.randrange(1, 200)]
            case 6 if chance.random() < 0.2:  # else few files would stay long enough to be read
                del damaged[place:]
        if not damaged:
            break
    return bytes(damaged)


_TOKENS = [
    ":", ": ", "- ", "[", "]", "{", "}", ",", "\n", "\n  ", "\t", "#", " #", "'", '"', "&a ", "*a",
    "<<: ", "!!str ", "!x ", "? ", "|", ">", "%YAML 1.1\n", "---\n", "...\n", "~", "null", "true",
    "yes", "010", "1e400", ".nan", "-.inf", "1e5", "99999999999999999999", "0x", "é", "\u2028",
    "\ufeff", "\\", "\\ud800", '"\\ud800"', "\\0", "://", "~x/", "relu1_1", "block1_conv1: 1",
    "int", "style", "image", "steps: 0", "train: ", "loss: {style_layers: {", "\r",
]  # fmt: skip


def mutated_yaml(text: str, chance: random.Random) -> bytes:
    """Settings with bytes changed, pieces cut out or repeated, and YAML's own signs put in."""
    data = text.encode()
    for _ in range(chance.randint(1, 4)):
        at, end = chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 30) :]
            case 2:
                piece = data[at : at + chance.randint(1, 60)]
                data = data[:end] + piece + data[end:]
            case 3 | 4:
                token = chance.choice(_TOKENS).encode()
                data = data[:at] + token + data[at + chance.choice([0, 0, len(token)]) :]
            case 5:
                words = re.split(rb"(\W+)", data)
                words[chance.randrange(len(words))] = chance.choice(_TOKENS).encode()
                data = b"".join(words)
    return data
