"""Tables in Markdown."""

from collections.abc import Mapping, Sequence


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table with the columns of all rows; a row without a column has an empty cell there.

    What would be HTML or another cell is escaped, because records next to weights may contain any text.

    Written here because `DataFrame.to_markdown` needs tabulate, which is not a dependency.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").split())
