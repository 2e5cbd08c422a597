"""A short run on real weights and real photos: the one test that learning works at all."""

from pathlib import Path

import pytest
import torch

from fast_style.settings.config import load_config
from fast_style.training.build import build_trainer
from fast_style.training.run_folder import open_run


@pytest.mark.real_data
def test_a_short_run_brings_the_objective_below_that_of_the_photos_themselves(
    assets: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "short.yaml"
    settings.write_text(
        f"""
name: short
style: {{image: {assets / "styles/starry_night.jpg"}, size: 128}}
data:
  photos: {assets / "photos/train"}
  validation_photos: {assets / "photos/val"}
  validation_count: 8
  crop_size: 64
  workers: 0
model: {{width: 16, residual_blocks: 2}}
loss_network: {{weights: {assets / "weights/vgg16_conv5_3.pth"}, preprocessing: caffe}}
loss: {{style_weight: 5, stability_weight: 0, autocorrelation_weight: 0,
       halo_weight: 0}}
train: {{steps: 120, batch_size: 4, learning_rate: 2.0e-3, warmup_steps: 10}}
log: {{samples: 1}}
"""
    )
    config = load_config(settings)
    run = open_run(config, root=tmp_path / "runs", fresh=False, say=print)
    trainer = build_trainer(config, run, device=torch.device("cpu"), say=print)
    photos = trainer.validation.photos.float() / 255
    with torch.no_grad():
        own = trainer.perceptual_loss(photos, photos).total.item()
    untrained = trainer.validation.measure(trainer.fast_net)["validation/total"]
    trainer.train()
    trained = trainer.validation.measure(trainer.fast_net)["validation/total"]
    print(own, untrained, trained)
    # Seen: photos 17.7, untrained 26.1, trained 9.4.
    assert trained < 0.55 * own
    assert trained < 0.45 * untrained
