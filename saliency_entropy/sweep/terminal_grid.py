"""The runs of a study as a grid of methods and seeds for a terminal of 80 columns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_entropy.run.study_folders import method_order

WIDTH = 80  # where the output is no terminal
SEEDS = 10  # side by side; more are in further grids
MOST_ROWS = 24  # of a grid; more fill the screen


class Sign(NamedTuple):
    """How a state of runs is shown: by a sign, its style, and words in the legend."""

    sign: str
    style: str
    words: str


class Cell(NamedTuple):
    """A run in the grid.

    Attributes:
        method: of the run.
        seed: None of a run that has no cell and is counted only.
        state: a key of the signs.
        percent: of its epochs that are done; None where that is not shown.
        part: the variant of the study, or the trial of the search, that it is a run of; "" if there are none.
    """

    method: str
    seed: int | None
    state: str
    percent: int | None = None
    part: str = ""


def terminal() -> Console:
    """A console that wraps at the terminal's width, or at :data:`WIDTH`; names of files are not coloured."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def counted(number: int, thing: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def print_runs(
    console: Console, title: str, cells: Sequence[Cell], signs: Mapping[str, Sign], parts: str = "method"
) -> None:
    """Print a title, a row a method, in the paper's order, with a column a seed, and the number of runs by state.

    Of a study in many parts, the runs of each part and method are counted, in a table of parts and methods.

    Args:
        console: to print to.
        title: the first line.
        cells: the runs.
        signs: of each state, in the order of the legend.
        parts: what the parts are, if there are any: "variant", "trial".
    """
    console.print(Text(title, style="bold"), soft_wrap=True)
    shown = [cell for cell in cells if cell.seed is not None]
    methods = sorted({cell.method for cell in shown}, key=method_order)
    parts_there = list(dict.fromkeys(cell.part for cell in shown))
    rows = sorted(
        {(cell.part, cell.method) for cell in shown},
        key=lambda row: (parts_there.index(row[0]), methods.index(row[1])),
    )
    if len(rows) > MOST_ROWS and len(methods) > 1 and any(parts_there):
        _print_counts(console, shown, methods, signs, parts)
    else:
        _print_grid(console, shown, rows, signs, parts)
    counts = Counter(cell.state for cell in cells)
    legend = [f"{sign.sign} {counts[state]} {sign.words}" for state, sign in signs.items() if counts[state]]
    console.print(Text("  ".join(legend)))


def _print_grid(
    console: Console, cells: Sequence[Cell], rows: Sequence[tuple[str, str]], signs: Mapping[str, Sign], parts: str
) -> None:
    grid = {(cell.part, cell.method, cell.seed): cell for cell in cells}
    named_by_part = parts == "trial" and len({method for _, method in rows}) == 1
    seeds = sorted({cell.seed for cell in cells})
    for first in range(0, len(seeds), SEEDS):
        table = _table(f"{parts} \\ seed")
        shown = seeds[first : first + SEEDS]
        for seed in shown:
            table.add_column(str(seed), justify="center", no_wrap=True, min_width=4)
        for part, method in rows:
            name = part if named_by_part else f"{part}/{method}".lstrip("/")
            table.add_row(Text(name), *(_text(grid.get((part, method, seed)), signs) for seed in shown))
        console.print(table)


def _print_counts(
    console: Console, cells: Sequence[Cell], methods: Sequence[str], signs: Mapping[str, Sign], parts: str
) -> None:
    counts = Counter((cell.part, cell.method, cell.state) for cell in cells)
    table = _table(f"{parts} \\ method")
    for method in methods:
        table.add_column(method, overflow="fold", min_width=4)
    for part in dict.fromkeys(cell.part for cell in cells):
        row = []
        for method in methods:
            of_state = {state: counts[part, method, state] for state in signs if counts[part, method, state]}
            row.append(
                Text(" ").join(Text(f"{signs[state].sign}{n}", signs[state].style) for state, n in of_state.items())
            )
        table.add_row(Text(part), *row)
    console.print(table)


def _table(heading: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column(heading, overflow="fold")
    return table


def _text(cell: Cell | None, signs: Mapping[str, Sign]) -> Text:
    if cell is None:
        return Text("")
    percent = "" if cell.percent is None else f"{cell.percent}%"
    return Text(signs[cell.state].sign + percent, signs[cell.state].style)


def print_lines(console: Console, name: str, text: str) -> None:
    """Print a name and what there is to say of it, its further lines indented."""
    lines = Text(text).wrap(console, max(20, console.width - 4))
    if len(lines) == 1 and len(name) + 4 + len(lines[0]) <= console.width:
        console.print(Text.assemble(f"  {name}  ", lines[0]))
        return
    console.print(Text(f"  {name}"))
    for line in lines:
        console.print(Text("    ").append_text(line))


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``, ``5 days 2 h``: as exact as an estimate can be."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
