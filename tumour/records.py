"""Read JSON, CSV and tensor files: anybody may have written them, so what they contain is checked and never run."""

import csv
import json
import math
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tumour.errors import InputError

LARGEST = 64 * 2**20  # bytes of a JSON file; the check of 10,000 cases writes about 20 MB
TEXT = "case patient region kind outcome before after light slices note".split()  # columns; all others are numbers
FORMULA = re.compile("'*[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")  # what makes a spreadsheet compute a cell (OWASP)
EXACT: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "float_precision": "round_trip"}
WORDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false", None: "null"}


def read_json(path: Path, shape: Any) -> Any:
    """Read a JSON file. Its strings stay strings, whatever they begin with.

    Args:
        path: the file.
        shape: what it must contain: `str`, `int`, `bool`, `float` for any finite number, `None`, `object` for anything;
            a list with the shape of all its items; a dict with the shape of each value by name, where other names are
            allowed, a name that ends in `?` may be missing, and `str` as a name stands for all; a tuple of choices.

    Raises:
        InputError: the file is missing, damaged, over 64 MiB, or contains something else; the message names it.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has over {LARGEST >> 20} MiB")
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=_once)
        json.dumps(content, ensure_ascii=False).encode()  # half of a character cannot be printed or written
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); restore it.") from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).split("\n")[0]
        raise InputError(f"'{path}' is not valid JSON ({why}); restore or delete it.") from error
    if fault := _fault(content, shape, ""):
        raise InputError(f"'{path}' is not what it should be: {fault}; restore or delete it.")
    return content


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which Python would keep the last of two equal names."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"it has the name {name!r} twice")
        content[name] = value
    return content


def _fault(value: Any, shape: Any, place: str) -> str | None:
    """Where a value differs from a shape, or None."""
    where = place or "its content"
    if isinstance(shape, tuple):
        faults = [_fault(value, each, place) for each in shape]
        return None if None in faults else f"{where} is {_shown(value)}, not {' or '.join(map(_wanted, shape))}"
    if isinstance(shape, list | dict):
        if not isinstance(value, type(shape)):
            return f"{where} is {_shown(value)}, not {_wanted(shape)}"
        return next(filter(None, _inner(value, shape, place)), None)
    if shape is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    elif shape is None or shape is object:
        fits = value is None or shape is object
    else:
        fits = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
    return None if fits else f"{where} is {_shown(value)}, not {_wanted(shape)}"


def _inner(value: Any, shape: Any, place: str) -> Iterable[str | None]:
    """The faults of the items of a list or of the values of an object."""
    if isinstance(shape, list):
        yield from (_fault(each, shape[0], f"{place}[{number}]") for number, each in enumerate(value))
        return
    below = f"{place}." if place else ""
    for name, of_value in shape.items():
        if name is str:
            yield from (_fault(each, of_value, f"{below}{key}") for key, each in value.items())
        elif name.removesuffix("?") in value:
            yield _fault(value[name.removesuffix("?")], of_value, f"{below}{name.removesuffix('?')}")
        elif not name.endswith("?"):
            yield f"{below}{name} is missing"


def _wanted(shape: Any) -> str:
    return "a list" if isinstance(shape, list) else "an object" if isinstance(shape, dict) else WORDS[shape]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Collection[str] = ()) -> str:
    """The text of a CSV file. No spreadsheet takes a cell for a formula, and `read_table` gives back what was written.

    Text that begins like a formula gets an apostrophe in front, and all text is quoted, so that no other separator
    splits it (https://owasp.org/www-community/attacks/CSV_Injection); numbers stay as they are.

    Args:
        rows: values by column.
        columns: all columns in order; default: those of the rows.
    """
    frame = pd.DataFrame([{_safe(name): _safe(value) for name, value in row.items()} for row in rows])
    ordered = frame.reindex(columns=[_safe(name) for name in columns]) if columns else frame
    return ordered.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _original(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value.startswith("'") and FORMULA.match(value) else value


def read_table(path: Path, columns: Collection[str] = ()) -> pd.DataFrame:
    """Read a CSV file. Only empty cells are missing values, so that a case may be called NA or null.

    Args:
        path: the file.
        columns: those that it must have.

    Raises:
        InputError: the file is missing or not a table, lacks a column, or has text where numbers should be.
    """
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), **EXACT)
    except (OSError, ValueError) as error:
        why = str(error).split("\n")[0]
        raise InputError(f"'{path}' cannot be read as a table ({why}); restore or delete it.") from error
    frame = frame.map(_original).rename(columns=_original)
    missing = [name for name in columns if name not in frame]
    if missing:
        raise InputError(f"'{path}' has no column {', '.join(missing)}; restore or delete it.")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas would take the first cells for names of the rows
        raise InputError(f"'{path}' has rows with more cells than columns; restore or delete it.")
    for name in frame.columns.difference(TEXT) if len(frame) else ():
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise InputError(f"'{path}' has text in its column {name}, which is for numbers; restore or delete it.")
    return frame


def read_tensors(path: Path) -> Any:
    """Read a file that torch has written on the CPU, without running any code that it may contain.

    Raises:
        Exception: of many kinds, where the file is damaged, or takes more memory than its size on the disk.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # torch compresses nothing, but it reads what others compressed
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("compressed")
    return torch.load(path, map_location="cpu", weights_only=True)
