"""Claims about `spawning`: children start without the caller's script."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from small_run import command_environment

from fast_style.core.spawning import ScriptlessSpawn


def test_child_of_a_script_without_a_main_guard_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from fast_style.core.spawning import ScriptlessSpawn\n"
        "print('the script runs', flush=True)\n"
        "child = ScriptlessSpawn().Process(target=math.sqrt, args=(4,))\n"
        "child.start()\n"
        "child.join()\n"
        "print(child.exitcode)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=command_environment()
    )
    assert (done.stdout, done.stderr) == ("the script runs\n0\n", "")


def test_script_is_in_its_place_again_after_threads_have_started_children() -> None:
    main = sys.modules["__main__"]

    def start(number: int) -> int | None:
        child = ScriptlessSpawn().Process(target=abs, args=(number,))
        child.start()
        child.join()
        return child.exitcode

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == [0] * 4
    assert sys.modules["__main__"] is main


def test_child_that_ignores_sigterm_ends_with_its_parent(tmp_path: Path) -> None:
    """Python waits for the children that it has terminated."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, time\n"
        "from fast_style.core.spawning import ScriptlessSpawn\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)  # children begin with it\n"
        "ScriptlessSpawn().Process(target=time.sleep, args=(600,), daemon=True).start()\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, script], timeout=60, env=command_environment())
    assert done.returncode == 3
