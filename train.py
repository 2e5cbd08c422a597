"""Train one style-transfer network from a YAML file.

Examples:
    python train.py configs/starry_night.yaml
    python train.py configs/starry_night.yaml loss.style_weight=8 train.steps=20000
    python train.py --help-config                # every key, its default and its meaning

The same command again continues an unfinished run.
"""

from fast_style.__main__ import start

if __name__ == "__main__":  # data-loading workers import this file again
    start("train_main")
