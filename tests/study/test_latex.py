"""The tables compile, and their text is read back from the PDF as it stands in the page."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from benchmarks.made_up_study import scored_images, write_maps, write_study
from omegaconf import OmegaConf

from saliency_entropy.study.report import report

DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage[paperwidth=300cm, paperheight=200cm, margin=1cm]{geometry}
\begin{document}
%s
\end{document}
"""
# Characters that LaTeX takes for its own, and signs that its usual fonts lack.
NAME = r"a_b & 50 % #1 {x} ~ ^ $y$ \z [k] <l> “é” … – —"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a study with maps and with columns and titles that are no LaTeX."""
    images = scored_images().assign(pose=NAME).replace({"generator": {"stylegan3": NAME}})
    study = write_study(tmp_path_factory.mktemp("latex") / "study", {"cross_entropy": 2, "droid": 2}, images=images)
    write_study(study, {"mine": 2}, images=images, title=NAME)
    write_maps(study, range(0, 200, 5), images=images)
    report(OmegaConf.create({"study": str(study), "output": None, "gallery_images": 0}))
    return sorted((study / "report").glob("*.tex"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex (Debian: texlive-latex-recommended)")
def test_every_table_compiles(tables: list[Path], tmp_path: Path) -> None:
    assert len(tables) > 10
    body = "\n\n".join(rf"\clearpage\input{{{path}}}" for path in tables)
    (tmp_path / "all.tex").write_text(DOCUMENT % body)
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path, capture_output=True,
        text=True, errors="replace", timeout=400,
    )  # fmt: skip
    said = (tmp_path / "all.log").read_text(errors="replace")
    assert ran.returncode == 0, "\n".join(line for line in said.splitlines() if line.startswith(("!", "l.")))
    assert "Missing character" not in said
    assert re.search(rf"Output written on all\.pdf \({len(tables)} pages", said)
