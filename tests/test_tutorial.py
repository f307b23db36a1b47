"""The tutorial: it runs from its first cell to its last, and its stored outputs are fit to be passed on."""

import getpass
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install 'saliency-entropy[docs]'")
ROOT = Path(__file__).parents[1]
TUTORIAL = nbformat.read(ROOT / "docs" / "guide" / "tutorial.ipynb", as_version=4)
LARGEST = 200_000  # characters of all outputs; pictures have four for three bytes


def outputs(notebook: Any) -> dict[str, list[Any]]:
    """Those of the code cells, by their id."""
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def printed(notebook: Any, cell: str) -> str:
    return "".join(output.text for output in outputs(notebook)[cell] if output.output_type == "stream")


@pytest.mark.timeout(1800)
def test_it_runs_and_ends_as_its_text_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    notebook = nbformat.from_dict(TUTORIAL)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1200, record_timing=False, coalesce_streams=True, resources=place).execute()
    assert "No error" in printed(notebook, "check")
    assert "all 4 runs done" in printed(notebook, "status")
    in_mark = {method: int(share) for method, share in re.findall(r"(\w+): (\d+)%", printed(notebook, "cams"))}
    assert in_mark["cross_entropy"] > 5 * in_mark["droid_cyborg"]
    assert "PyTorch loaded: False" in printed(notebook, "onnx")
    assert (tmp_path / "tutorial/runs/tutorial/report/index.html").is_file()


def test_its_outputs_are_those_of_one_run_of_all_cells_and_small() -> None:
    cells = [cell for cell in TUTORIAL.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {key for cell in cells for key in cell.metadata} <= {"tags"}  # no times of execution
    assert len(nbformat.writes(TUTORIAL)) < LARGEST


def test_its_outputs_name_no_machine_no_user_and_no_absolute_path() -> None:
    for cell, found in outputs(TUTORIAL).items():
        for output in found:
            assert output.get("name") != "stderr", f"{cell}: {output.get('text')}"
            data = output.get("data", {"text/plain": output.get("text", "")})
            text = "\n".join(value for kind, value in data.items() if kind.startswith("text/"))
            paths = re.findall(r"""(?:^|[\s"'=(>])((?:/[\w.-]+){2,}|[A-Za-z]:\\\S+|~/\S+)""", text)
            assert paths == [], cell
            assert not {socket.gethostname(), getpass.getuser()} & {*re.split(r"\W+", text)}, cell
