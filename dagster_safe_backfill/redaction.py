"""What messages, logs and events leave out: secrets always, and values of rows where `sample_columns` names others.

Whatever the library says about a statement, or repeats of what somebody else said, passes one of these functions. The
columns that may be shown are a context variable, not a parameter: what forgot to pass it on would say everything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dagster_safe_backfill.errors import SafeBackfillError

MASK = "***"
_SHOWN_SQL = 300

_shown_columns: ContextVar[frozenset[str] | None] = ContextVar("shown_columns", default=None)

_SECRET = (
    r"[\w-]*(?:passw(?:or)?d|passphrase|passcode|pwd|secret|token|credential|connection_?string"
    r"|(?:access|api|footer|private|account|encryption|shared|master)[_-]?key|key[_-]?id|signature)[\w-]*"
)
"""The name of an option whose value is a secret."""
_TEXT = r"""\\?'(?:[^']|'')*(?:'|$)|\\?"(?:[^"]|"")*(?:"|$)"""
"""A literal in quotes. The closing one may be cut off, and those of a `repr` are escaped."""
_IS = r"\s*(?::=|=>|=|:)\s*"
_SECRETS = (
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
    # postgres://user:password@host
    re.compile(r"(\w://)[^/\s'\"]*(?=@)"),
    # https://host/file?sig=…
    re.compile(rf"([?&](?:{_SECRET}|key|sig|code)=)[^&\s'\")]+", re.IGNORECASE),
    # password='…', "token": "…", SECRET := '…', host=… password=…
    re.compile(rf"(\b{_SECRET}\\?[\"']?{_IS})(?:{_TEXT}|[^\s&;,'\")\]}}]+)", re.IGNORECASE),
    # key='…', but not "key" = '…', which is a column.
    re.compile(rf"((?<![\w\"])key{_IS})(?:{_TEXT})", re.IGNORECASE),
    # CREATE SECRET (TYPE s3, KEY_ID '…', SECRET '…'), ATTACH '…' (ENCRYPTION_KEY '…')
    re.compile(rf"(\b(?:{_SECRET}|key|identified by)\s+)'(?:[^']|'')*(?:'|$)", re.IGNORECASE),
    re.compile(r"(\bBearer\s+)[\w.~+/=-]+", re.IGNORECASE),
    # add_parquet_key('…', '…')
    re.compile(rf"(\b(?:{_SECRET}|\w*_key)\()\s*'[^)]*", re.IGNORECASE),
)
"""What comes before a secret, which stays, and the secret."""

_EXCERPT = re.compile(r"\n\s*LINE \d+: .*", re.DOTALL)
"""The part of a statement that DuckDB adds to its errors."""
_LITERAL = re.compile(r"['$].*", re.DOTALL)
"""The rest of a statement from its first literal on: where a literal ends depends on the dialect."""
_NUMBER = re.compile(r"\"(?:[^\"]|\"\")*\"|(?<![\w\"])\d[\w.]*")
_IDENTIFIER = re.compile(r"\"((?:[^\"]|\"\")+)\"|\b([A-Za-z_]\w*)\b")
_SAID = (
    *("could not convert", "could not cast", "can't be cast", "when casting from source column", "out of range"),
    *("overflow", "division by zero", "divide by zero", "not recognized", "is too long", "would be truncated"),
    *("duplicate key", "constraint violation", "constraint failed", "primary key", "unique constraint", "foreign key"),
    *("not null", "check constraint", "does not exist", "already exists", "not found", "ambiguous", "syntax error"),
    *("malformed json", "invalid utf-?8", "no function matches", "not authorized", "permission", "not supported"),
    *("out of memory", "no space left", "timed? ?out", "conflict", "deadlock", "aborted", "locked", "read-only"),
    *("conversion error", "constraint error", "binder error", "parser error", "catalog error", "io error"),
    *(r"(?:numeric|timestamp|date|boolean) value", r"null result in a non-nullable column"),
)
"""What drivers say that no value is."""
_TYPES = (
    r"U?(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?(?:8|16|32|64|128)?|FLOAT|DOUBLE|DECIMAL|NUMBER|BOOLEAN|VARCHAR|TEXT|BLOB|"
    r"BINARY|DATE|TIME|TIMESTAMP(?:TZ|_NTZ|_LTZ|_TZ|_NS|_S|_MS)?|INTERVAL|UUID|JSON|VARIANT|STRUCT|UNION|ENUM"
)
_KEYWORDS = frozenset(
    ("select", "from", "where", "and", "or", "as", "on", "in", "is", "not", "null", "to", "by", "with", "into", "table")
)


class RedactedError(SafeBackfillError):
    """Stands for an error of a driver or of a library of frames, with its class and traceback, but not all of its text.

    In the chain of causes, and where nothing else is known of the error.
    """


@contextmanager
def masking(shown_columns: Iterable[str] | None) -> Generator[None, None, None]:
    """Let messages and logs of the block show values of these columns only; of all columns if None.

    Errors of others, which may quote values, are cut from the causes of the library's errors; without `shown_columns`,
    only those that quote a secret. In their place stands an error with their class and traceback, so that it can still
    be found where they were raised. The same stands in place of such an error that leaves the block, unless it is an
    `OSError`, which may pass, or one of Dagster's.
    """
    token = _shown_columns.set(None if shown_columns is None else frozenset(map(str.casefold, shown_columns)))
    try:
        yield
    except SafeBackfillError as error:
        _redact(error)
        raise
    except Exception as error:
        if not is_masking() or isinstance(error, OSError) or type(error).__module__.startswith("dagster."):
            raise
        # Of pyarrow, for example, where nothing else was to be expected of it.
        raise RedactedError(foreign_text(error)).with_traceback(error.__traceback__) from None
    finally:
        _shown_columns.reset(token)


def is_masking() -> bool:
    """Return True if values of some columns may not be shown."""
    return _shown_columns.get() is not None


def masked(value: Any, *columns: str) -> Any:
    """Return a value that was computed from columns, or `MASK` if one of them may not be shown, or none is named."""
    shown = _shown_columns.get()
    # A place within a nested column, such as `items[].price`, belongs to the column.
    is_shown = shown is None or (bool(columns) and all(shown & {*_enclosing(name.casefold())} for name in columns))
    return value if is_shown or value is None else MASK


def _enclosing(place: str) -> Iterator[str]:
    """Yield a place within a column, and all that may be the column's name: it may hold dots itself."""
    yield place
    yield from (place[: found.start()] for found in re.finditer(r"[.\[]", place))


def without_secrets(text: str) -> str:
    """Return a text with `MASK` in place of passwords, tokens, keys, and users in URLs."""
    for pattern in _SECRETS:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def statement_text(sql: str) -> str:
    """Return a statement without secrets; while values are masked, without numbers and up to its first literal."""
    return without_secrets(sql) if not is_masking() else _without_literals(sql)


def redacting_statements(record: logging.LogRecord) -> bool:
    """Leave out of a log record, whose message is a statement, what `statement_text` leaves out."""
    record.msg = statement_text(record.getMessage())
    record.args = ()
    return True


def refused_statement(error: Exception, doing: str) -> str:
    """Return what a driver said, and the beginning of the statement that it refused, on one line."""
    shown = " ".join(statement_text(doing).split())
    text = f"{shown[:_SHOWN_SQL]}{'…' if len(shown) > _SHOWN_SQL else ''}"
    return f"{foreign_text(error, statement=doing)} (while running: {text})"


def foreign_text(error: Exception, *, statement: str = "", names: Collection[str] = ()) -> str:
    """Return what an error of a driver or of a library of frames says, without secrets.

    While values are masked, only its class and number are returned, and of its text what can't be a value: what drivers
    are known to say, types, and the names in the statement and in `names`.
    """
    text = str(error)
    if is_masking():
        return _known_words(error, text, {*names, *_names_in(statement)})
    # The excerpt of a statement may begin within a secret, whose name is then missing.
    has_secret = without_secrets(statement) != statement
    return without_secrets(_EXCERPT.sub("", text) if has_secret else text)


def _without_literals(sql: str) -> str:
    kept = _LITERAL.sub("…", without_secrets(sql))
    return _NUMBER.sub(lambda found: found[0] if found[0].startswith('"') else "…", kept)


def _names_in(statement: str) -> set[str]:
    names = {(quoted or word) for quoted, word in _IDENTIFIER.findall(_LITERAL.sub("", statement))}
    return {name for name in names if name.lower() not in _KEYWORDS}


def _known_words(error: Exception, text: str, names: Collection[str]) -> str:
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    known = re.compile(rf"(?<!\w)(?:{'|'.join((*_SAID, _TYPES, *longest_first))})(?!\w)", re.IGNORECASE)
    words = dict.fromkeys(found[0] for found in known.finditer(_EXCERPT.sub("", text)))
    number = getattr(error, "errno", None)
    numbered = f" {number}" if isinstance(number, int) else ""
    said = f": {' … '.join(words)}" if words else ""
    return f"{type(error).__name__}{numbered}{said} [its text may quote values, which sample_columns doesn't show]"


def _redact(error: SafeBackfillError) -> None:
    """Leave secrets out of an error's message and causes, and put a `RedactedError` in place of what quotes more."""
    link: BaseException = error
    seen = set[int]()
    while id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, SafeBackfillError):
            link.args = tuple([without_secrets(one) if isinstance(one, str) else one for one in link.args])
        cause = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        if cause is None:
            return
        if not isinstance(cause, SafeBackfillError) and _may_quote(cause, told=str(link)):
            cause = RedactedError(_said_by(cause)).with_traceback(cause.__traceback__)
            # The context, too: Python keeps it beside a cause, and some loggers print it.
            link.__cause__ = link.__context__ = cause
        link = cause


def _may_quote(cause: BaseException, *, told: str) -> bool:
    # The excerpt of a statement in the cause may begin within a secret. Then what was told of it has a mask.
    return is_masking() or MASK in told or without_secrets(str(cause)) != str(cause)


def _said_by(cause: BaseException) -> str:
    name = type(cause).__name__
    if is_masking():
        return foreign_text(cause) if isinstance(cause, Exception) else name
    return without_secrets(f"{name}: {_EXCERPT.sub('', str(cause))}")
