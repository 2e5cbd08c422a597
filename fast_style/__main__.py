"""Make ``python -m fast_style`` the same as the command ``fast-style``."""

from fast_style.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
