"""The seconds of a run as Parquet, by pyarrow: the columns of `table`, with type and meaning."""

import io
import json
from typing import Any

from loadbench.errors import SpecError
from loadbench.model import plain
from loadbench.report.export.source import Source
from loadbench.report.export.table import columns, rows


def parquet_bytes(found: Source) -> bytes:
    """The file; the run's summary is in its metadata as `loadbench`. SpecError without pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SpecError(
            "Parquet is written by pyarrow, which is not installed",
            "pip install 'loadbench[parquet]', or --as csv, which has the same columns",
        ) from error
    kinds: dict[type, Any] = {
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
    }
    fields = [pyarrow.field("time", pyarrow.string(), metadata={"meaning": "ISO 8601, UTC"})]
    fields += [
        pyarrow.field(column.name, kinds[column.kind], metadata={"meaning": column.meaning})
        for column in columns(found)
    ]
    told = {"loadbench": json.dumps(plain(found.summary), ensure_ascii=False)}
    given = list(zip(*rows(found), strict=True)) or [()] * len(fields)
    arrays = [
        pyarrow.array(values, field.type) for values, field in zip(given, fields, strict=True)
    ]
    made = pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields, metadata=told))
    file = io.BytesIO()
    parquet.write_table(made, file, compression="zstd")
    return file.getvalue()
