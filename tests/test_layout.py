"""The order and the size of the modules, and what may be imported where.

A package imports only packages above it in `PACKAGES`, and a module only modules above it. So there
are no circles, and a reader can start at the top.
"""

import ast
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image
from tiny_model import write_tiny_model

import fast_style

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fast_style"

# A package imports only packages above it; a module only modules above it in its own package.
PACKAGES = {
    "core": [
        "errors", "words", "files", "paths", "folder_lock", "devices", "free_memory", "distributed",
        "signals", "spawning",
    ],
    "styles": ["shipped"],
    "settings": [
        "strict_yaml", "layers", "fields", "structure", "help", "mistakes", "writing", "reading",
        "sections", "config", "gatys_config", "starting_file", "generated",
    ],
    "pictures": [
        "formats", "tiff_pages", "reading", "pixels", "colors", "sheets", "writing", "real_paths",
        "own_files", "scanning", "several", "profiles", "folders",
    ],
    "networks": [
        "winograd", "transform_net", "borders", "fast_kernels", "fast_transform", "compiling",
        "feature_store", "grain", "streaming",
    ],
    "models": ["model_files", "narrow", "checkpoint", "shipping"],
    "losses": [
        "inputs", "weight_files", "downloads", "room", "loss_network", "blur", "autocorrelation",
        "halo", "sliced", "discriminator", "perceptual", "nearest", "build", "judge",
    ],
    "measures": ["artifacts", "blots", "repeats", "halos", "steadiness", "second_opinion"],
    "stylizing": [
        "jobs", "copies", "memory", "strokes", "stylizer", "folder", "style_sheet",
    ],
    "training": [
        "run_log", "photo_cache", "unreadable", "workers", "data", "recording", "schedule",
        "optimizer", "loop", "photo_stream", "stability", "saving", "adversary", "step", "guard",
        "start", "validation", "reporting", "trainer", "run_lock", "run_folder", "build",
        "checking", "other_trainings", "running",
    ],
    "optimizing": ["minimizing", "course", "picture", "preview", "first_look"],
    "evaluating": [
        "plan", "baselines", "objective", "timing", "evaluation", "summary", "plots", "pages",
        "earlier", "report", "judge", "judge_report",
    ],
    "distilling": ["students", "painters", "distiller", "build"],
    "demo": ["course", "demo"],
    "cli": [
        "allocator", "imports", "openmp", "stdout", "documents", "notes", "arguments", "painting",
        "process", "outputs", "runs", "distill", "evaluate", "info", "init", "optimize", "preview",
        "styles", "stylize", "first_look", "train", "demo", "main",
    ],
}  # fmt: skip
MODULES = [f"{package}.{module}" for package, modules in PACKAGES.items() for module in modules]

# The packages that do what users ask for. They do not import one another, so that each can be read
# and changed by itself; what two of them need moves up.
PRODUCTS = ["stylizing", "training", "optimizing", "evaluating", "distilling"]
ALLOWED_BETWEEN_PRODUCTS = {
    ("evaluating", "optimizing"): "the descents that a model is measured by",
    ("distilling", "training"): "a student is trained in a run folder, on the same crops of photos",
}

# The module that imports torchvision for all others. Stylizing must start without torchvision.
MAY_IMPORT_TORCHVISION = {"losses.downloads"}

# --help and mistakes in a YAML are answered without the seconds that importing torch takes.
PACKAGES_WITHOUT_TORCH = ["core", "styles", "settings", "pictures", "cli"]
WITHOUT_TORCH = [
    *(module for module in MODULES if module.partition(".")[0] in PACKAGES_WITHOUT_TORCH),
    "models.model_files",
    "losses.inputs",
    "stylizing.jobs",
    "stylizing.copies",
    "optimizing.course",
]

# What a notebook finds in the package itself.
ENTRY_POINTS = ["Stylizer", "build_trainer", "load_config", "open_run", "train"]

MAX_LINES = 500
# A longer module explains itself in a line of its docstring that begins with this.
REASON = f"Longer than {MAX_LINES} lines: "


def module_files() -> dict[str, Path]:
    """Every module of every package, such as ``core.errors``, with its file."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    }


def imported_names(source: str, package: str) -> Iterator[str]:
    """Absolute dotted names of all that a source imports, at the top or inside functions.

    `from a import b` gives both `a` and `a.b`, because b may be a module. `package` is the dotted
    name against which relative imports are resolved.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func).rpartition(".")[2]
            name = node.args[0]
            if (
                function in ("import_module", "__import__")
                and isinstance(name, ast.Constant)
                and isinstance(name.value, str)
            ):
                yield importlib.util.resolve_name(name.value, package)


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    """Absolute dotted names of all that a file of this package imports."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return frozenset(imported_names(path.read_text(encoding="utf-8"), package))


def own_modules(names: frozenset[str]) -> set[str]:
    """The modules of this package among imported names."""
    return {name.removeprefix("fast_style.") for name in names} & set(MODULES)


def exits_in(source: str) -> list[int]:
    """Lines that end the process."""
    ends = {"SystemExit", "sys.exit", "os._exit", "os.abort", "exit", "quit"}
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in ends
    ]


def gives_reason(source: str) -> bool:
    """Whether the docstring of a module explains why it is long."""
    lines = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    return any(line.startswith(REASON) and line.removeprefix(REASON).strip() for line in lines)


def modules_loaded_after(steps: Sequence[str], cwd: Path = ROOT) -> list[set[str]]:
    """Names of the modules that one fresh interpreter has loaded after each piece of code.

    The pieces run one after the other. So a name found late may have been loaded by an earlier
    piece, but a name never found was loaded by none.
    """
    program = """
import json, sys
loaded = []
for step in json.loads(sys.argv[1]):
    exec(step, {"__name__": "step"})
    loaded.append(sorted(sys.modules))
print("\\n" + json.dumps(loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(steps)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [set(names) for names in json.loads(done.stdout.splitlines()[-1])]


def steps_that_load(name: str, steps: dict[str, str], cwd: Path = ROOT) -> list[str]:
    """The labels of the pieces of code after which a module is loaded; see above for the order."""
    loaded = modules_loaded_after(list(steps.values()), cwd)
    return [label for label, names in zip(steps, loaded, strict=True) if name in names]


def test_the_order_names_every_module_once() -> None:
    assert sorted(module_files()) == sorted(MODULES)


def test_contributing_lists_the_packages_in_their_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE) == list(PACKAGES)


def test_packages_begin_with_an_empty_file() -> None:
    for package in PACKAGES:
        assert (PACKAGE / package / "__init__.py").read_bytes() == b""


def test_modules_import_only_modules_above_them() -> None:
    wrong = [
        f"{module} imports {other}, which is not above it"
        for module, path in module_files().items()
        for other in sorted(own_modules(imports_of(path)) - {module})
        if other not in MODULES[: MODULES.index(module)]
    ]
    assert wrong == []


def test_products_import_one_another_only_where_a_reason_is_given() -> None:
    found = {
        pair
        for module, path in module_files().items()
        for other in own_modules(imports_of(path))
        if (pair := (module.partition(".")[0], other.partition(".")[0]))[0] != pair[1]
        and set(pair) <= set(PRODUCTS)
    }
    assert found == set(ALLOWED_BETWEEN_PRODUCTS)


def test_nothing_imports_the_commands() -> None:
    wrong = [
        module
        for module, path in module_files().items()
        if not module.startswith("cli.")
        and any(name.startswith("fast_style.cli") for name in imports_of(path))
    ]
    assert wrong == []


@pytest.mark.slow
def test_only_cli_ends_the_process() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} ends the process; raise UserError instead"
        for module, path in module_files().items()
        if not module.startswith("cli.")
        and module != "core.spawning"  # there, a child process whose parent has ended
        for line in exits_in(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_torchvision_is_imported_by_one_module_alone() -> None:
    importers = {
        module
        for module, path in module_files().items()
        if any(name.split(".")[0] == "torchvision" for name in imports_of(path))
    }
    assert importers <= MAY_IMPORT_TORCHVISION


def test_modules_load_without_torch() -> None:
    steps = {module: f"import fast_style.{module}" for module in WITHOUT_TORCH}
    assert steps_that_load("torch", steps) == []


SCRIPTS = ["train.py", "stylize.py", "fast_style/__main__.py"]


def test_help_loads_no_torch() -> None:
    code = """
import runpy, sys
sys.argv = [{script!r}, "--help"]
try:
    runpy.run_path({script!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
    steps = {script: code.format(script=script) for script in SCRIPTS}
    assert steps_that_load("torch", steps) == []


MISTAKES = [
    ["stylize", "-m", "none.safetensors", "a.png"],
    ["stylize", "-m", "model.safetensors", "none.png"],
    ["stylize", "-m", "model.safetensors", ""],
    ["stylize", "-m", "model.safetensors", "a.png", "--suffix", "a/b"],
    ["stylize", "-m", "model.safetensors", "a.png", "-o", "a.png"],
    ["stylize", "-m", "model.safetensors", "a.png", "-o", "a.xyz"],
    ["stylize", "-m", "a.png", "a.png"],
    ["stylize", "-m", "model.safetensors", "empty"],
    ["stylize", "-m", "model.safetensors", "a.png", "--device", "gpu"],
    ["stylize", "-m", "model.safetensors", "a.png", "--threads", "0"],
    ["stylize", "--style", "nonesuch", "a.png"],
    ["styles", "--output", "a.png"],
    ["styles", "--sheet", "none.png"],
    ["info", "none.safetensors"],
    ["init", "none.png"],
    ["optimize", "gatys.yaml", "-o", "b.png", "-c", "none.png"],
    ["optimize", "gatys.yaml", "-o", "a.png", "-c", "a.png"],
    ["optimize", "gatys.yaml", "-o", "b.png", "-c", "a.png", "style.image=none.png"],
    ["optimize", "gatys.yaml", "-o", "b.png", "-c", "a.png", "--reconstruct", "relu9"],
    ["optimize", "gatys.yaml", "-o", "b.png", "-c", "a.png", "loss_network.weights=none.pth"],
    ["evaluate", "none.safetensors", "--photos", "a.png", "-o", "report"],
    ["evaluate", "model.safetensors", "--photos", "none", "-o", "report"],
    ["evaluate", "model.safetensors", "--photos", "a.png", "-o", "r", "--style", "none.png"],
    ["evaluate", "model.safetensors", "--photos", "a.png", "-o", "r", "--weights", "none.pth"],
    ["evaluate", "model.safetensors", "--photos", "a.png", "-o", "r", "--loss", "none.yaml"],
    ["demo", "--photo", "none.png"],
    ["train", "none.yaml"],
    ["train", "gatys.yaml"],
    ["train", "train.yaml", "data.photos=none"],
    ["train", "train.yaml", "data.photos=a.png"],
    ["train", "train.yaml", "style.image=none.png"],
    ["train", "train.yaml", "loss_network.weights=none.pth"],
    ["distill", "none.yaml"],
    ["distill", "distill.yaml", "data.paintings=none"],
    ["distill", "distill.yaml", "teacher.weights=none.pth"],
]


@pytest.mark.slow
def test_mistakes_of_usage_load_no_torch(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "gatys.yaml").write_text("style: {image: a.png}")
    (tmp_path / "train.yaml").write_text("name: a\nstyle: {image: a.png}\ndata: {photos: empty}")
    (tmp_path / "distill.yaml").write_text("data: {photos: empty, paintings: empty}")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    code = """
from fast_style.cli.main import main
try:
    code = main({arguments!r})
except SystemExit as end:
    code = end.code
assert code == 2, ({arguments!r}, code)
"""
    steps = {" ".join(words): code.format(arguments=words) for words in MISTAKES}
    assert steps_that_load("torch", steps, tmp_path) == []


@pytest.mark.slow
def test_info_loads_no_torch(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors")
    steps = {
        name: f"from fast_style.cli.main import main; assert main(['info', {name!r}]) == 0"
        for name in (str(model), "compact")
    }
    assert steps_that_load("torch", steps) == []


def test_info_of_a_model_loads_neither_pillow_nor_the_settings(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors")
    code = f"from fast_style.cli.main import main; assert main(['info', {str(model)!r}]) == 0"
    (loaded,) = modules_loaded_after([code])
    assert loaded & {"torch", "PIL", "pydantic"} == set()


def test_package_itself_loads_nothing_heavy() -> None:
    (loaded,) = modules_loaded_after(["import fast_style; dir(fast_style)"])
    assert loaded & {"torch", "numpy", "PIL", "pydantic", "torchvision", "tensorboard"} == set()


def test_package_names_what_a_notebook_needs_and_nothing_else() -> None:
    assert set(ENTRY_POINTS) <= set(dir(fast_style))
    assert set(ENTRY_POINTS) <= set(fast_style.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        fast_style.Trainer  # noqa: B018


@pytest.mark.slow
def test_products_load_only_what_they_need() -> None:
    stylizing, optimizing, _ = modules_loaded_after(
        [
            "from fast_style import Stylizer\nassert isinstance(Stylizer, type)",
            "import fast_style.optimizing.picture, fast_style.optimizing.course",
            "from fast_style import build_trainer, load_config, open_run, train\n"
            "assert all(map(callable, [build_trainer, load_config, open_run, train]))",
        ]
    )
    assert {"torchvision", "tensorboard", "torch.utils.tensorboard"} & stylizing == set()
    assert "filelock" not in optimizing
    assert not any(name.startswith("fast_style.training") for name in optimizing)


def test_longer_modules_give_a_reason() -> None:
    too_long = {
        module
        for module, path in module_files().items()
        if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES
        and not gives_reason(path.read_text(encoding="utf-8"))
    }
    assert too_long == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f'"""A table.\n\n{REASON}it is one.\n"""\n', True),
        (f'"""A table.\n\n{REASON}\n"""\n', False),
        (f'"""A table."""\n# {REASON}it is one.\n', False),
    ],
)
def test_reason_for_length_is_a_line_of_the_docstring(source: str, expected: bool) -> None:
    assert gives_reason(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import fast_style.core.files", "fast_style.core.files"),
        ("from fast_style.core import files", "fast_style.core.files"),
        ("from fast_style.core.files import atomic_write", "fast_style.core.files"),
        ("from . import files", "fast_style.core.files"),
        ("from .files import atomic_write", "fast_style.core.files"),
        ("def f():\n    import fast_style.core.files as f", "fast_style.core.files"),
        (
            "import importlib\nimportlib.import_module('.files', 'fast_style.core')",
            "fast_style.core.files",
        ),
    ],
)
def test_imports_are_seen_in_every_form(source: str, expected: str) -> None:
    assert expected in set(imported_names(source, "fast_style.core"))


@pytest.mark.parametrize("source", ["import sys\nsys.exit(1)", "raise SystemExit", "exit()"])
def test_exits_are_seen_in_every_form(source: str) -> None:
    assert exits_in(source) != []
