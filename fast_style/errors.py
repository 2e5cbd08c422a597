"""Mistakes that a user can mend, as opposed to bugs of ours, which keep their traceback."""


class UserError(Exception):
    """Something a user can put right: says where, which rule, what was found, what to do.

    The message holds one line per mistake. Only ``cli`` prints it.

    Args:
        message: the line or lines, without a leading ``error:``.
        exit_code: 2 for what is found before any work began, 1 when work failed.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
