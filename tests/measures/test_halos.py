"""The measure of halos on pictures that have one and that have none."""

import torch

from fast_style.measures.halos import halos


def sky() -> torch.Tensor:
    """A dark square in a flat sky, (1, 3, 96, 96)."""
    photo = torch.full((1, 3, 96, 96), 0.7)
    photo[..., 40:56, 40:56] = 0.1
    return photo


def test_a_glow_has_one_and_neither_the_photo_nor_other_colors_do() -> None:
    photo = sky()
    place = torch.arange(96) - 47.5
    distance = place[:, None].square() + place.square()
    glowing = photo - 0.4 * torch.exp(-distance / (2 * 20**2))
    recolored = photo * torch.tensor([0.4, 0.9, 0.6]).view(3, 1, 1)
    found = halos(torch.cat([glowing, photo, recolored]), photo.expand(3, -1, -1, -1))
    assert found[0] > 0.01
    assert found[1] == 0
    assert found[2] < 1e-3


def test_tiny_pictures_are_not_measured() -> None:
    photos = sky()[..., 32:63, :]
    assert halos(photos, photos).isnan().tolist() == [True]
