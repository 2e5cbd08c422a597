"""Claims about `spawning`: children start without the caller's script."""

import subprocess
import sys
import time
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


def test_child_ends_although_its_parent_is_killed_before_it_is_ready(tmp_path: Path) -> None:
    """It looks for its parent after seconds of imports, and finds init in its place."""
    script = tmp_path / "script.py"
    child = (
        "import time; time.sleep(1); from fast_style.core.spawning import end_with_parent; "
        "end_with_parent(); time.sleep(600)"
    )
    script.write_text(
        "import time\n"
        "from fast_style.core.spawning import ScriptlessSpawn\n"
        f"child = ScriptlessSpawn().Process(target=exec, args=({child!r},))\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    words = [sys.executable, str(script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=command_environment()) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended, and for which nobody has waited, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
