"""Paint photos with a trained network.

Examples:
    python stylize.py --help
    python stylize.py --style starry_night photo.jpg
    python stylize.py --model runs/starry_night/model.safetensors photo.jpg
    python stylize.py --model runs/starry_night/model.safetensors --output stylized/ photos/
"""

from fast_style.__main__ import start

if __name__ == "__main__":  # worker processes import this file again
    start("stylize_main")
