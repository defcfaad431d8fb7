"""Compares an archive with the rows of the tables, by three readers that share no code.

Standard input: {"tables": {name: {"files": paths, "columns": [[name, kind]], "identity": names,
"expected": path}}}. The expected file has one line for each row: its values as texts, joined by
spaces, without those that are null. Standard output: {reader: {table: {"rows": count,
"differences": sentences}}}.

An event may be in several segments: the rows with the lowest incarnation and offset count. Events of
order books have a row for each level.
"""

import hashlib
import json
import sys
from collections import Counter

import duckdb
import polars
import pyarrow
import pyarrow.parquet

SHOWN = 3
ROWS_AT_ONCE = 50_000


def digest(lines):
    """The number of lines and a sum of their hashes, which does not depend on their order."""
    count = total = 0
    for line in lines:
        count += 1
        total += int.from_bytes(hashlib.blake2b(line.encode(), digest_size=16).digest())
    return count, total % 2**128


def expected_lines(table):
    with open(table["expected"]) as file:
        for line in file:
            yield line.rstrip("\n")


def by_duckdb(table):
    texts = {"time": "epoch_us({})::VARCHAR", "flag": "{}::VARCHAR"}
    columns = ", ".join(texts.get(kind, "{}::VARCHAR").format(name) for name, kind in table["columns"])
    identity = ", ".join(table["identity"])
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    rows = connection.execute(
        f"""SELECT concat_ws(' ', {columns}) FROM read_parquet($files, filename = true)
        QUALIFY rank() OVER (
          PARTITION BY {identity} ORDER BY split_part(filename, '/', -2), _offset) = 1""",
        {"files": table["files"]},
    )
    while some := rows.fetchmany(ROWS_AT_ONCE):
        for (line,) in some:
            yield line


def by_polars(table):
    def text(name, kind):
        column = polars.col(name)
        return (column.dt.epoch("us") if kind == "time" else column).cast(polars.String)

    place = ["_incarnation", "_offset"]
    placed = polars.scan_parquet(table["files"], include_file_paths="_file").with_columns(
        _incarnation=polars.col("_file").str.split("/").list.get(-2)
    )
    firsts = (
        placed.select(*table["identity"], *place)
        .sort(place)
        .unique(subset=table["identity"], keep="first", maintain_order=True)
    )
    rows = (
        placed.join(firsts, on=[*table["identity"], *place], how="semi")
        .select(
            polars.concat_str([text(*column) for column in table["columns"]], separator=" ", ignore_nulls=True)
        )
        .collect()
    )
    yield from rows.to_series()


def by_pyarrow(table):
    places = {}
    # In the order of incarnations and offsets, within each partition.
    for path in sorted(table["files"]):
        rows = pyarrow.parquet.ParquetFile(path).read()
        values = {name: plain(rows.column(name), kind) for name, kind in table["columns"]}
        offsets = rows.column("_offset").to_pylist()
        for row in sorted(range(rows.num_rows), key=offsets.__getitem__):
            identity = tuple(values[name][row] for name in table["identity"])
            place = (path, offsets[row])
            if places.setdefault(identity, place) != place:
                continue
            yield " ".join(one for column in values.values() if (one := column[row]) is not None)


def plain(column, kind):
    """The values of a column as texts."""
    if kind == "time":
        column = column.cast(pyarrow.timestamp("us", "UTC")).cast(pyarrow.int64())
    shown = {"decimal": lambda value: format(value, "f"), "flag": lambda value: str(value).lower()}.get(kind, str)
    return [None if value is None else shown(value) for value in column.to_pylist()]


def differences(read, table):
    """At most three lines that only one side has, or has more often."""
    found, expected = Counter(read(table)), Counter(expected_lines(table))
    surplus, missing = found - expected, expected - found
    said = [f"{surplus.total()} rows too many, such as {line}" for line in list(surplus)[:SHOWN]]
    return said + [f"{missing.total()} rows missing, such as {line}" for line in list(missing)[:SHOWN]]


def main():
    tables = json.load(sys.stdin)["tables"]
    answer = {}
    for name, read in [("DuckDB", by_duckdb), ("polars", by_polars), ("pyarrow", by_pyarrow)]:
        answer[name] = {}
        for table, one in tables.items():
            lines = digest(read(one)) if one["files"] else (0, 0)
            expected = digest(expected_lines(one))
            said = [] if lines == expected else differences(read, one) if one["files"] else ["no files"]
            answer[name][table] = {"rows": lines[0], "differences": said}
    json.dump(answer, sys.stdout)


main()
