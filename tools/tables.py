"""Tables in Markdown, and pages that contain one which is made from records."""

from collections.abc import Mapping, Sequence

from tumour.errors import InputError


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table with the columns of all rows; a row without a column has an empty cell there.

    What would be HTML or another cell is escaped, because records next to weights may contain any text.

    Written here because `DataFrame.to_markdown` needs tabulate, which is not a dependency.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def filled(page: str, start: str, end: str, content: str) -> str:
    """The text of a README.md with other content between two comments.

    Raises:
        InputError: a comment is missing.
    """
    before, first, rest = page.partition(start)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise InputError(f"README.md must contain the lines '{start}' and '{end}'; the results go between them.")
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def _cell(text: str) -> str:
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").split())
