"""OpenMP's threads sleep while they wait: set before PyTorch is loaded, whatever is imported first, and inherited."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VARIABLES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")
SET = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}

ENTRIES = {
    # What a script imports, in its functions, too.
    **{path.name: f"import_all({str(path)!r})" for path in sorted((ROOT / "experiments").glob("*.py"))},
    # As they are started: Hydra imports its plugins and callbacks first, and the package is one of these to plan.py.
    "train.py": "start('experiments/train.py', 'method=droid')",
    "plan.py": "start('experiments/plan.py', 'method=droid')",
    "a sweep": "start('experiments/train.py', '-m', 'method=droid')",
    "saliency_entropy.functional": "import saliency_entropy.functional",
    # A job of Slurm's unpickles a launcher.
    "the Slurm launcher": "import hydra_plugins.saliency_entropy_launchers.slurm",
    "Hydra's plugins": "from hydra.core.plugins import Plugins; Plugins.instance()",
    "pytest": "import pytest; pytest.main(['-q', '--collect-only', '-p', 'no:cacheprovider', 'tests/test_device.py'])",
}
# Each entry point runs in a fork of a process that has not loaded PyTorch, up to the moment in which it is looked for.
PROGRAM = """
import ast, importlib, json, os, runpy, sys
import hydra, matplotlib.pyplot, pandas, scipy.stats  # once for all of them, since these take long

def note():
    os.write(there, json.dumps({name: os.environ.get(name) for name in variables}).encode())
    os._exit(0)

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            note()

def import_all(script):
    runpy.run_path(script, run_name="script")
    for node in ast.walk(ast.parse(open(script).read())):
        for name in [node.module] if isinstance(node, ast.ImportFrom) else []:
            importlib.import_module(name)

def start(script, *arguments):
    sys.argv = [script, *arguments, f"runs_dir={runs}"]
    runpy.run_path(script, run_name="__main__")

entries, variables, runs = map(json.loads, sys.argv[1:])
found = {}
for name, code in entries.items():
    here, there = os.pipe()
    if os.fork() == 0:
        try:
            sys.meta_path.insert(0, Finder)
            os.dup2(2, 1)
            exec(code)
            note()
        finally:
            os._exit(1)
    os.close(there)
    found[name] = json.loads(open(here).read() or "null")
    os.wait()
print(json.dumps(found))
"""


def python(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program without the user's settings of OpenMP, but with ``variables``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "GOMP_"))}
    places = os.pathsep.join(str(ROOT / folder) for folder in ("", "experiments", "tests/chaos"))
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, env=kept | {"PYTHONPATH": places} | variables,
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str | None] | None]:
    """Entry point -> the variables when it looks for PyTorch or, where it does not, in the end."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are not forked here")
    given = (ENTRIES | {"torch": "import torch"}, VARIABLES, str(tmp_path_factory.mktemp("runs")))
    return json.loads(python(PROGRAM, *map(json.dumps, given)).stdout)


def test_what_is_noted_is_from_before_pytorch(found: dict) -> None:
    assert found["torch"] == dict.fromkeys(VARIABLES)


@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_set_before_pytorch_is_looked_for(found: dict, entry: str) -> None:
    assert found[entry] == SET


def test_a_choice_of_the_users_is_kept() -> None:
    program = "import os, saliency_entropy; print(os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME'])"
    assert python(program, OMP_WAIT_POLICY="ACTIVE").stdout.split() == ["ACTIVE", "0"]
    assert python(program, KMP_BLOCKTIME="200").stdout.split() == ["PASSIVE", "200"]


def test_processes_inherit_it() -> None:
    program = (
        "import multiprocessing, os, subprocess, sys, saliency_entropy\n"
        "if __name__ == '__main__':\n"
        "    for method in multiprocessing.get_all_start_methods():\n"
        "        with multiprocessing.get_context(method).Pool(1) as pool:\n"
        "            print(pool.apply(os.getenv, ['OMP_WAIT_POLICY']), flush=True)\n"
        "    subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"OMP_WAIT_POLICY\"])'])\n"
    )
    printed = python(program).stdout.split()
    assert len(printed) >= 2
    assert set(printed) == {"PASSIVE"}


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has GNU's OpenMP on Linux only")
def test_gnus_openmp_does_not_spin() -> None:
    """OMP_WAIT_POLICY is shown as PASSIVE even where it is not set, and the threads then spin 300,000 times."""
    printed = python("import saliency_entropy, torch", OMP_DISPLAY_ENV="VERBOSE").stderr
    assert "GOMP_SPINCOUNT = '0'" in printed, printed
