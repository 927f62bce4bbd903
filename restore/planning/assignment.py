"""The best assignment of rows to columns, and how far ahead it is of the next. Arithmetic; it knows no disks."""

from collections.abc import Sequence

import msgspec

#: A weight for a pair that must not be; less than any sum of weights that may.
IMPOSSIBLE = -(1 << 40)


class Assignment(msgspec.Struct, frozen=True):
    """``columns``: for each row. ``total``: of the weights. ``lead``: by which it is ahead of the next best one."""

    columns: tuple[int, ...]
    total: int
    lead: int


def assign(weights: Sequence[Sequence[int]]) -> Assignment:
    """The assignment with the largest sum, each row to a column of its own.

    Every other assignment lacks a pair of the best one: the best without each of them in turn gives the next.

    Args:
        weights: by row and column; at least as many columns as rows.
    """
    columns, total = _best(weights)
    others = []
    for row, column in enumerate(columns):
        without = [list(line) for line in weights]
        without[row][column] = 2 * IMPOSSIBLE
        others.append(_best(without)[1])
    possible = [other for other in others if other > IMPOSSIBLE // 2]
    return Assignment(columns, total, total - max(possible) if possible else -IMPOSSIBLE)


def _best(weights: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], int]:
    """The Hungarian method with potentials, O(rows² x columns) (Kuhn 1955; Jonker and Volgenant 1987).

    Rows and columns count from 1 inside; column 0 stands for the row that is being placed.
    """
    rows = len(weights)
    width = len(weights[0]) if weights else 0
    by_row, by_column = [0] * (rows + 1), [0] * (width + 1)
    holder = [0] * (width + 1)
    for row in range(1, rows + 1):
        holder[0] = row
        way = _augmenting_way(weights, by_row, by_column, holder)
        column = next(at for at in way if holder[at] == 0)
        while column:
            holder[column] = holder[way[column]]
            column = way[column]
    columns = [0] * rows
    for column in range(1, width + 1):
        if holder[column]:
            columns[holder[column] - 1] = column - 1
    return tuple(columns), sum(weights[row][column] for row, column in enumerate(columns))


def _augmenting_way(
    weights: Sequence[Sequence[int]], by_row: list[int], by_column: list[int], holder: list[int]
) -> dict[int, int]:
    """Columns on the way from column 0 to a free one, each with the column before it; the potentials are adjusted."""
    width = len(by_column) - 1
    slack: dict[int, int] = {}
    way: dict[int, int] = {}
    reached = [0]
    left = set(range(1, width + 1))
    while holder[reached[-1]]:
        last = reached[-1]
        row = holder[last]
        for column in left:
            cost = -weights[row - 1][column - 1] - by_row[row] - by_column[column]
            if column not in slack or cost < slack[column]:
                slack[column], way[column] = cost, last
        step, nearest = min((slack[column], column) for column in left)
        for column in reached:
            by_row[holder[column]] += step
            by_column[column] -= step
        for column in left:
            slack[column] -= step
        left.remove(nearest)
        reached.append(nearest)
    # The free column is the last; callers look for it among the keys.
    return {column: way[column] for column in reached[1:]}
