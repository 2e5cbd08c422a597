"""How ``python -m fast_style``, ``fast-style``, ``train.py`` and ``stylize.py`` start."""

import sys
from typing import NoReturn


def run() -> NoReturn:
    """Run ``fast-style`` with the arguments of this process, and exit."""
    start("main")


def start(name: str) -> NoReturn:
    """Run a command line of `cli.main` with the arguments of this process, and exit.

    Ctrl-C is told in a line from here on, and not by a traceback of the imports.

    Args:
        name: of the function.
    """
    try:
        from fast_style.cli import main

        main.run_to_the_end(getattr(main, name))
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
