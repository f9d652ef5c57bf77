"""Rows of text as aligned lines, for terminals and logs."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: frozenset[int]) -> list[str]:
    """A line for each row; columns not in `left` are set to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
