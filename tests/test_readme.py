"""The README's commands and code run as written, and the links of all pages lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

LOOK, USE, TRY, MAKE = README.partition("```sh\n")[2].splitlines()[:4]
# Commands that cannot run as they stand, and what runs instead (None: nothing).
INSTEAD = {
    LOOK: "cp fast_style/demo/style.png photo.png && fast-style styles --sheet photo.png",
    USE: "fast-style stylize --style the_scream photo.png",
    TRY: "cp photo.png style.png && fast-style try style.png photo.png",
    # It takes two minutes more; tests/demo/test_demo.py runs a smaller one.
    MAKE: None,
    "make demo": "fast-style demo",  # the same, in the tests' environment
    "source .venv/bin/activate": None,
    # The file still says data/photos.
    "fast-style train my_style.yaml --check": (
        "fast-style train my_style.yaml data.photos=demo/photos --check"
    ),
    "fast-style train my_style.yaml": (
        "fast-style train my_style.yaml data.photos=demo/photos "
        "data.crop_size=32 data.grown_crop_size=48 train.steps=2 train.warmup_steps=1"
    ),
    "fast-style preview my_style.yaml --photo demo/held_out/chelsea.png": (
        "fast-style preview my_style.yaml --photo demo/held_out/chelsea.png --iterations 4"
    ),
    # VGG's weights cannot be downloaded everywhere.
    "fast-style optimize configs/optimize/gatys.yaml style.image=demo/style.png "
    "--content demo/held_out/chelsea.png --output drawn.png": (
        "fast-style optimize configs/optimize/gatys.yaml style.image=demo/style.png "
        "--content demo/held_out/chelsea.png --output drawn.png loss_network.weights=compact "
        "optimize.size=64 optimize.iterations=3"
    ),
    "fast-style evaluate runs/quickstart/model.safetensors --photos demo/held_out/chelsea.png "
    "--quick --output report": (
        "fast-style evaluate runs/quickstart/model.safetensors --photos demo/held_out/chelsea.png "
        "--quick --output report --iterations 5"
    ),
    # Nor those of the judge; tests/evaluating/test_evaluate_command.py runs a smaller one.
    "fast-style evaluate runs/*/model.safetensors --judge --photos demo/held_out/chelsea.png "
    "--output judged": None,
    "tensorboard --logdir runs": "tensorboard --logdir runs --version",  # else it runs forever
    "make test": None,  # CI runs it by itself
    "make check": None,
}
# The same for parts of the Python code.
INSTEAD_IN_PYTHON = {
    '"data.photos=demo/photos"]': (
        '"data.photos=demo/photos", "data.crop_size=32", "data.grown_crop_size=48", '
        '"train.steps=2", "train.warmup_steps=1"]'
    ),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.readme
def test_commands_of_the_readme_run_one_after_the_other(tmp_path: Path) -> None:
    for name in ("fast_style", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for line in "".join(blocks("sh")).splitlines():
        command = INSTEAD.get(line, line)
        if command is None:
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        ran += 1
    assert ran >= 8
    for code in blocks("python"):
        for part, instead in INSTEAD_IN_PYTHON.items():
            code = code.replace(part, instead)
        subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    for made in (
        "demo/sheet.png",
        "demo/held_out/chelsea.quickstart.png",
        "styles.png",
        "photo.the_scream.png",
        "report/report.md",
        "drawn.png",
        "painting.png",
        "runs/notebook/model.safetensors",
    ):
        assert (tmp_path / made).is_file(), made
    assert len(list((tmp_path / "stylized").iterdir())) == 5


PAGES = sorted([*ROOT.glob("*.md"), ROOT / "data" / "README.md", *ROOT.glob("docs/**/*.md")])


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_everything_replaced_is_still_in_the_readme() -> None:
    lines = "".join(blocks("sh")).splitlines()
    assert [line for line in INSTEAD if line not in lines] == []
    code = "".join(blocks("python"))
    assert [part for part in INSTEAD_IN_PYTHON if part not in code] == []
