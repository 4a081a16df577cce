"""Stages, PUT and COPY INTO: files cross by HTTP, Parquet is loaded by column name."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from fakesnow.transforms.stage import LOCAL_BUCKET_PATH
from sqlglot import exp

from dagster_safe_backfill_tests.harness.snowflake import errors, prepared
from dagster_safe_backfill_tests.harness.snowflake.catalog import Name, literal, quoted
from dagster_safe_backfill_tests.harness.snowflake.names import Resolver
from dagster_safe_backfill_tests.harness.snowflake.results import Result, column

BUCKET = Path(LOCAL_BUCKET_PATH)
COPY = 0x3600
_PART = re.compile(r'"((?:[^"]|"")*)"|([^."/]+)')


@dataclass(frozen=True)
class Stage:
    """A place for files: of a user, a table, or by name."""

    folder: Path
    path: str
    table: Name | None = None

    def files(self) -> list[Path]:
        found = (file for file in sorted(self.folder.rglob("*")) if file.is_file())
        return [file for file in found if str(file.relative_to(self.folder)).startswith(self.path)]


def _stage(session: Any, written: str) -> Stage:
    """Find the stage of `@~/path`, `@%table/path` or `@db.schema.stage/path`."""
    written = written.strip()
    if written.startswith("'"):
        written = re.sub(r"\\(.)", r"\1", written[1:-1])
    written = written.removeprefix("@")
    if written.startswith("~"):
        return Stage(BUCKET / "_user", written[1:].lstrip("/"))
    parts: list[str] = []
    rest = written
    while found := re.match(r'\s*(%?(?:"(?:[^"]|"")*"|[^."/]+))(\.|/|$)', rest):
        raw = found[1]
        mark, raw = ("%", raw[1:]) if raw.startswith("%") else ("", raw)
        plain = raw[1:-1].replace('""', '"') if raw.startswith('"') else raw.upper()
        if plain.startswith("%"):
            mark, plain = "%", plain[1:]
        parts.append(mark + plain)
        rest = rest[found.end() :]
        if found[2] != ".":
            break
    table = exp.table_(parts[-1].removeprefix("%"), *reversed(parts[:-1]), quoted=True)
    resolver = Resolver(session)
    if parts[-1].startswith("%"):
        target = resolver.existing(table)
        return Stage(BUCKET / target.database / target.schema / f"%{target.table}", rest, target)
    name = resolver.name(table)
    owner = session.account.stages.get(name, "missing")
    if owner == "missing" or owner not in {None, session.number}:
        raise errors.does_not_exist("Stage", str(name))
    return Stage(BUCKET / name.database / name.schema / name.table, rest)


def create_stage(session: Any, tree: exp.Create) -> Result:
    """CREATE [TEMPORARY] STAGE; a temporary one is seen by its session only and goes with it."""
    name = Resolver(session).name(tree.this)
    temporary = any(isinstance(item, exp.TemporaryProperty) for item in tree.find_all(exp.Property))
    if name in session.account.stages:
        if tree.args.get("exists"):
            return said(f"{name.table} already exists, statement succeeded.")
        if not tree.args.get("replace"):
            raise errors.already_exists(str(name))
        drop_stage(session.account, name)
    session.account.stages[name] = session.number if temporary else None
    return said(f"Stage area {name.table} successfully created.")


def said(status: str) -> Result:
    return Result(0x6000, [column("status", "VARCHAR")], rows=[[status]])


def drop_stage(account: Any, name: Name) -> None:
    account.stages.pop(name, None)
    shutil.rmtree(BUCKET / name.database / name.schema / name.table, ignore_errors=True)


def put(session: Any, tree: exp.Put, base_url: str) -> Result:
    """PUT: tells the client where to upload, which is this server."""
    source = re.sub(r"^file://", "", tree.this.name)
    stage = _stage(session, tree.args["target"].name)
    options = _options(tree.args.get("properties"))
    target = (stage.folder / stage.path / os.path.basename(source)).relative_to(BUCKET)
    data = {
        "stageInfo": {
            "locationType": "GCS",
            "location": f"{stage.folder.name}/",
            "creds": {},
            "presignedUrl": f"{base_url}/fs_bucket/{quote(str(target))}",
        },
        "src_locations": [source],
        "parallel": 4,
        "autoCompress": options.get("AUTO_COMPRESS", "TRUE") == "TRUE",
        "sourceCompression": options.get("SOURCE_COMPRESSION", "auto_detect").lower(),
        "overwrite": options.get("OVERWRITE", "FALSE") == "TRUE",
        "command": "UPLOAD",
    }
    return Result(0, upload=data)


def upload(path: str, body: bytes) -> bool:
    """Keep a file that a client uploads; False if it would land outside of the stages."""
    target = (BUCKET / path).resolve()
    if not target.is_relative_to(BUCKET.resolve()):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(body)
    return True


def remove(session: Any, written: str) -> Result:
    """REMOVE @stage[/path]."""
    stage = _stage(session, written)
    gone = stage.files()
    for file in gone:
        file.unlink()
    rows: list[list[str | None]] = [[str(file.relative_to(BUCKET)), "removed"] for file in gone]
    return Result(0, [column("name", "VARCHAR"), column("result", "VARCHAR")], rows=rows)


def listing(session: Any, written: str) -> Result:
    """LIST @stage[/path]."""
    stage = _stage(session, written)
    names = ("name", "size", "md5", "last_modified")
    rows: list[list[str | None]] = [
        [f"{stage.folder.name.lower()}/{file.relative_to(stage.folder)}", str(file.stat().st_size), _md5(file), ""]
        for file in stage.files()
    ]
    return Result(0, [column(name, "BIGINT" if name == "size" else "VARCHAR") for name in names], rows=rows)


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def _options(properties: exp.Expression | None) -> dict[str, str]:
    found = properties.expressions if properties is not None else []
    return {
        item.this.name.upper(): item.args["value"].name.upper() or str(item.args["value"]).upper() for item in found
    }


_COPY = re.compile(
    r"^\s*COPY\s+INTO\s+(?P<target>.+?)\s+FROM\s+(?P<stage>'@(?:[^'\\]|\\.)*'|@\S+)\s*(?P<options>.*)$", re.I | re.S
)
_OPTION = re.compile(r"(\w+)\s*=\s*(\((?:[^()]|\([^)]*\))*\)|'(?:[^']|'')*'|[\w.]+)", re.S)


def copy_into(session: Any, sql: str) -> Result:
    """COPY INTO a table from Parquet files on a stage, by MATCH_BY_COLUMN_NAME."""
    found = _COPY.match(sql.rstrip("; \n"))
    if found is None:
        raise errors.unsupported("this COPY INTO in the emulator")
    options = {key.upper(): value for key, value in _OPTION.findall(found["options"])}
    file_format = {
        key.upper(): value.strip("'").upper() for key, value in _OPTION.findall(options.get("FILE_FORMAT", "")[1:-1])
    }
    if file_format.get("TYPE") != "PARQUET":
        raise errors.unsupported("a FILE_FORMAT that is no PARQUET in the emulator")
    match = options.get("MATCH_BY_COLUMN_NAME", "NONE").upper()
    if match not in {"CASE_INSENSITIVE", "CASE_SENSITIVE"}:
        raise errors.SnowflakeError(
            2019,
            "0A000",
            "SQL compilation error:\nPARQUET file format can produce one and only one column of type variant, object,"
            " or array. Load data into separate columns using the MATCH_BY_COLUMN_NAME copy option or copy with"
            " transformation.",
        )
    table = exp.to_table(found["target"].strip(), dialect="snowflake")
    prepared.fold(table)
    target = Resolver(session).existing(table)
    stage = _stage(session, found["stage"])
    if stage.table not in {None, target}:
        raise errors.SnowflakeError(
            1023, "42601", "SQL compilation error:\nAccess to the stage area of a table is not allowed."
        )
    loads = [_load(session, target, file, match, file_format, options) for file in stage.files()]
    if not loads:
        return Result(COPY, [column("status", "VARCHAR")], rows=[["Copy executed with 0 files processed."]])
    names = ("file", "status", "rows_parsed", "rows_loaded", "error_limit", "errors_seen", "first_error")
    return Result(COPY, [column(name, "BIGINT" if "rows" in name else "VARCHAR") for name in names], rows=loads)


def _load(
    session: Any, target: Name, file: Path, match: str, file_format: dict[str, str], options: dict[str, str]
) -> list[str | None]:
    shown = f"{file.parent.name}/{file.name}"
    mark = (str(target), shown, _md5(file))
    if mark in session.account.loaded and options.get("FORCE", "").upper() != "TRUE":
        return [shown, "LOAD_SKIPPED", "0", "0", None, "1", "File was loaded before."]
    there = session.relation(target).columns
    fields = {field.name: field for field in pq.read_schema(file)}
    _check_types(fields, file_format)
    fold = str.upper if match == "CASE_INSENSITIVE" else str
    by_name = {fold(name): name for name in fields}
    pairs = [(name, by_name[fold(name)]) for name in there if fold(name) in by_name]
    if not pairs:
        raise errors.SnowflakeError(
            2020, "0A000", "SQL compilation error:\nNo column of the file matches a column of the table."
        )
    into = ", ".join(quoted(name) for name, _ in pairs)
    taken = ", ".join(_taken(name, there[into], file_format) for into, name in pairs)
    sql = f"INSERT INTO {target.sql} ({into}) SELECT {taken} FROM read_parquet({literal(str(file))})"
    rows = session.run_write(target, sql)
    session.loaded(mark, file if options.get("PURGE", "").upper() == "TRUE" else None)
    return [shown, "LOADED", str(rows), str(rows), "1", "0", None]


def _taken(name: str, kind: str, file_format: dict[str, str]) -> str:
    """Return a field as it is loaded: unless NULL_IF says otherwise, the text \\N is NULL."""
    is_kept = kind != "VARCHAR" or file_format.get("NULL_IF") == "()"
    return quoted(name) if is_kept else f"NULLIF({quoted(name)}, '\\N')"


def _check_types(fields: dict[str, pa.Field], file_format: dict[str, str]) -> None:
    """Refuse what Snowflake would read otherwise than meant, unless the file format says how."""
    for field in fields.values():
        if pa.types.is_timestamp(field.type) and file_format.get("USE_LOGICAL_TYPE") != "TRUE":
            raise errors.SnowflakeError(
                100071, "22000", f"Column {field.name} is a timestamp: only USE_LOGICAL_TYPE = TRUE reads it as one."
            )
        if pa.types.is_binary(field.type) and file_format.get("BINARY_AS_TEXT") != "FALSE":
            raise errors.SnowflakeError(
                100071, "22000", f"Column {field.name} is binary: only BINARY_AS_TEXT = FALSE reads it as such."
            )
