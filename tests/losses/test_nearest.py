"""Which shipped style is nearest to a painting."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_styles import ship

from fast_style.losses import nearest
from fast_style.losses.nearest import NearestStyles, give_colors
from fast_style.pictures.colors import colors_of, recolored
from fast_style.styles import shipped

NAMES = ("great_wave", "starry_night")


def noise(side: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(40, 216, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[shipped.ShippedStyle]:
    ship(monkeypatch, tmp_path / "ships", *NAMES)
    return shipped.shipped_styles()


def test_nearest_style_has_the_least_loss_of_all(styles: list[shipped.ShippedStyle]) -> None:
    paintings = [noise(256, 0), Image.radial_gradient("L").convert("RGB")]
    photos = [noise(128, 10), noise(128, 20)]
    found = NearestStyles(styles, paintings).of(photos)
    for painting, name in zip(paintings, found, strict=True):
        totals = {}
        for style in styles:
            one = NearestStyles([style], [painting])
            (only,) = one.of(photos)
            assert only == style.name
            drawn = [
                nearest.tensor_to_image(one._nets[only](nearest._pixels(p))[0]) for p in photos
            ]
            totals[only] = one._targets[0].total(drawn, photos)
        assert totals[name] == min(totals.values())
        assert len(set(totals.values())) == 2


def test_texture_decides_and_not_the_colors() -> None:
    """The painting's strokes in other colors are nearer than a smooth picture in its own."""
    network = nearest.LossNetwork("vgg16", nearest.load_weights("compact", "vgg16", "relu4_3"))
    painting = noise(256, 1)
    target = nearest._Target.of(painting, network)
    photo = [noise(128, 5)]
    rough = recolored(noise(128, 2), colors_of(Image.radial_gradient("L").convert("RGB")))
    smooth = recolored(Image.linear_gradient("L").resize((128, 128)).convert("RGB"), target.colors)
    assert target.total([rough], photo) < target.total([smooth], photo)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (700, 2)])
def test_photo_may_have_any_size(size: tuple[int, int], styles: list[shipped.ShippedStyle]) -> None:
    found = NearestStyles(styles, [noise(256, 3)]).of([Image.new("RGB", size, "teal")])
    assert found[0] in NAMES


def test_network_gets_about_the_colors_of_the_painting(
    styles: list[shipped.ShippedStyle],
) -> None:
    painting = recolored(noise(256, 4), colors_of(Image.new("RGB", (9, 9), (150, 110, 80))))
    photos = [noise(90, seed) for seed in range(3)]
    net = nearest.load_transform_net(styles[0].model)[0]
    apart = []
    for _ in range(2):
        drawn = [picture.resize((90, 90)) for picture in nearest._drawn(net, photos)]
        means = [colors_of(picture).mean for picture in drawn]
        apart.append(np.abs(np.mean(means, axis=0) - colors_of(painting).mean).max())
        give_colors(net, photos, painting)
    assert apart[1] < 0.3 * apart[0]
    assert apart[1] < 0.05
