"""The judge's losses: one objective that never changes, whatever models are trained with.

`fast-style evaluate --judge` compares models by it, and a training can log its terms.
"""

from fast_style.core.errors import UserError
from fast_style.losses.build import load_loss_weights
from fast_style.losses.inputs import JUDGE_WORDS, LOSS_NETWORK_KEYS
from fast_style.losses.loss_network import UnfitWeightsError, Weights
from fast_style.settings.gatys_config import GatysConfig, load_gatys_config
from fast_style.settings.generated import JUDGE_FILE
from fast_style.settings.sections import NAMED_WEIGHTS


def load_judge_settings(weights: str | None) -> GatysConfig:
    """The settings of ``judge.yaml``, with other weights if they are given.

    Args:
        weights: of VGG-16, of Caffe origin: a file, or a word as in loss_network.weights; None
            takes torchvision's.
    """
    config = load_gatys_config(JUDGE_FILE)
    if weights is None:
        return config
    # A file may not state which pixels its weights expect. The judge's are Caffe's.
    is_file = weights not in NAMED_WEIGHTS
    changed = {"weights": weights, "preprocessing": "caffe" if is_file else None}
    network = config.loss_network.model_copy(update=changed)
    return config.model_copy(update={"loss_network": network})


def judge_sides(settings: GatysConfig) -> tuple[int, int]:
    """The shorter side of the judge's style picture, and the side of its photos, in pixels."""
    style, photo = settings.style.size, settings.optimize.size
    assert isinstance(style, int)  # judge.yaml never changes
    assert isinstance(photo, int)
    return style, photo


def load_judge_weights(settings: GatysConfig, option: str) -> Weights:
    """The weights that the judge's settings name.

    Args:
        settings: from `load_judge_settings`.
        option: what sets the weights, for messages: ``--weights`` or a key.

    Raises:
        UserError: the weights are missing, or do not fit.
    """
    keys = LOSS_NETWORK_KEYS._replace(
        weights=option, preprocessing="the judge's preprocessing", words=JUDGE_WORDS
    )
    try:
        return load_loss_weights(settings, keys)
    except UnfitWeightsError as error:
        # The judge's settings never change, so their remedies are none here.
        raise UserError(
            f"{error.problem}. Choose other weights: the judge's, from {option}, are of VGG-16 up "
            "to relu4_3 and of Caffe origin"
        ) from None
    except UserError as error:
        raise UserError(f"{error} (the judge's weights of VGG-16 come from {option})") from None
