"""Make ``python -m fast_style`` the same as the command ``fast-style``."""

from fast_style.cli.main import run

if __name__ == "__main__":
    run()
