"""Paint photos with a trained network.

Examples:
    python stylize.py --help
    python stylize.py --model runs/starry_night/model.safetensors photo.jpg
    python stylize.py --model runs/starry_night/model.safetensors --output stylized/ photos/
"""

from fast_style.cli import stylize_main

if __name__ == "__main__":  # worker processes import this file again
    raise SystemExit(stylize_main())
