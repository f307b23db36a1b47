"""The installed command: ``saliency-entropy train ...`` runs ``experiments/train.py`` with the same arguments.

Light to import, since the list of commands does not wait for Hydra.
"""

import ast
import difflib
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# The wheel carries the scripts in the package, beside the configuration that they read; a checkout has both at its top.
SCRIPTS = next(folder for folder in (PACKAGE / "experiments", PACKAGE.parent / "experiments") if folder.is_dir())
CONFIGURATION = SCRIPTS.parent / "conf"
FOR_DEVELOPERS = ("benchmark", "chaos")  # of a checkout: they need its tests and benchmarks


def main() -> None:
    """Run the command that the first argument names, or list the commands."""
    names = sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem not in FOR_DEVELOPERS)
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("saliency-entropy COMMAND [--help] [key=value ...]\n")
        for name in names:
            print(f"  {name:10} {summary(SCRIPTS / f'{name}.py')}")
        return
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        meant = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(names)}"
        sys.exit(f"saliency-entropy has no command {name!r}: {meant}")
    script = str(SCRIPTS / f"{name}.py")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def summary(script: Path) -> str:
    """The first sentence of a script's docstring."""
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    return " ".join(_as_typed(docstring.partition("\n\n")[0]).split())


def script_help(docstring: str) -> str:
    """What a script is for and its first three calls, by its docstring."""
    purpose, calls, *_ = docstring.split("\n\n")
    return _as_typed("\n".join((purpose, "", *(f"    {call.strip()}" for call in calls.strip().splitlines()[:3]))))


def groups_help(folders: Sequence[Path], name: str) -> str:
    """The groups that the main file ``<name>.yaml`` has, each with its options in the folders of configuration files;
    empty if it has none."""
    named = re.findall(r"^  - (\w+):", (CONFIGURATION / f"{name}.yaml").read_text(), re.MULTILINE)
    options = {
        group: sorted({option.stem for folder in folders for option in (folder / group).glob("*.yaml")})
        for group in sorted(named + ["term"] * ("method" in named))  # a method is a sum of terms
    }
    return "\n".join(
        ["Groups, as group=option:", "", *(f"{group}: {', '.join(own)}" for group, own in options.items())]
        * bool(named)
    )


def typed(name: str) -> str:
    """How a command is given: ``python experiments/report.py`` in a checkout, ``saliency-entropy report`` elsewhere."""
    return f"python experiments/{name}.py" if PACKAGE not in SCRIPTS.parents else f"saliency-entropy {name}"


def _as_typed(text: str) -> str:
    return re.sub(r"python experiments/(\w+)\.py", lambda named: typed(named[1]), text)
