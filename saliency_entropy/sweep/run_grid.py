"""The runs of a study as a grid of methods and seeds for a terminal of 80 columns."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_entropy.run.study_folders import method_order

WIDTH = 80  # where the output is no terminal
SEEDS = 10  # side by side; more are further grids

# (method, seed) -> what a cell shows, and its style.
Cells = Mapping[tuple[str, int], tuple[str, str]]


def terminal() -> Console:
    """A console that wraps at the terminal's width, or at :data:`WIDTH`; names of files are not coloured."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def print_grid(console: Console, cells: Cells, rows: str = "method") -> None:
    """A row a method, in the paper's order, and a column a seed. A cell of its own may be as wide as 5 characters.

    Args:
        console: to print to.
        cells: of the grid.
        rows: what a row is, where it is no method.
    """
    methods = sorted({method for method, _ in cells}, key=method_order)
    seeds = sorted({seed for _, seed in cells})
    for first in range(0, len(seeds), SEEDS):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
        table.add_column(f"{rows} \\ seed", overflow="fold")
        shown = seeds[first : first + SEEDS]
        for seed in shown:
            table.add_column(str(seed), justify="center", no_wrap=True, min_width=4)
        for method in methods:
            row = (cells.get((method, seed), ("", "")) for seed in shown)
            table.add_row(Text(method), *(Text(*cell) for cell in row))
        console.print(table)


def print_lines(console: Console, name: str, text: str, style: str = "") -> None:
    """A name and what is said of it, further lines of it indented."""
    head = Text(f"  {name}", style=style)
    lines = Text(text).wrap(console, max(20, console.width - 4))
    if len(lines) == 1 and len(head) + 2 + len(lines[0]) <= console.width:
        console.print(Text.assemble(head, "  ", lines[0]))
        return
    console.print(head)
    for line in lines:
        console.print(Text("    ").append_text(line))
