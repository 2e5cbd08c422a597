"""Fast feed-forward neural style transfer: one small network per style."""

__version__ = "0.1.0"
