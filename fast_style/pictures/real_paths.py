"""The real paths of files: what all links to a file have in common.

`os.path.realpath` asks the disk for every folder of a path. A hundred thousand files lie in few
folders, so here each folder is asked for once.
"""

import os

_MOST_LINKS = 40  # that Linux follows from one path


class RealPaths:
    """Finds the real paths of files, and keeps those of their folders."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def in_real_folder(self, path: str) -> str:
        """The path of a file with the real path of its folder; the file itself is not looked at."""
        folder = path[: path.rfind(os.sep) + 1]
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], path[len(folder) :])

    def of_link(self, path: str) -> str:
        """The real path of the file that a link leads to, through further links if need be."""
        path = self.in_real_folder(path)
        for _ in range(_MOST_LINKS):
            try:
                target = os.readlink(path)
            except OSError:  # no link
                break
            path = self.in_real_folder(os.path.join(os.path.dirname(path), target))
        return path
