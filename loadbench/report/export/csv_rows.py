"""The seconds of a run as CSV (RFC 4180, UTF-8): a heading, then a row each."""

import csv
import io

from loadbench.report.export.source import Source
from loadbench.report.export.table import names, rows


def csv_bytes(found: Source) -> bytes:
    """The file. Missing values are empty cells."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names(found))
    writer.writerows(rows(found))
    return text.getvalue().encode()
