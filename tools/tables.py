"""Tables: read the CSV files of a run, write Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file; only empty cells are missing values, so that a case may be called NA or null."""
    return pd.read_csv(path, dtype={"case": str, "region": str}, keep_default_na=False, na_values=[""])


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table with the columns of all rows; a row without a column has an empty cell there.

    Written here because `DataFrame.to_markdown` needs tabulate, which is not a dependency.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
