"""The digest of a function: equal for the same code and values, in every process, and for no others."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import functools
import itertools
import json
import logging
import math
import operator
import os
import re
import subprocess
import sys
import textwrap
import threading
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.provenance.code import code_of


def holding(value: object) -> Callable[[], object]:
    """Return a function that holds a value in its closure."""
    return lambda: value


def digest(value: object) -> str | None:
    return code_of(holding(value))


def defined(source: str, name: str = "f", **given: object) -> Any:
    """Return what a piece of source defines, as a module of the user's own."""
    module: dict[str, Any] = {"__name__": "__main__", **given}
    exec(textwrap.dedent(source), module)
    return module[name]


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Rate:
    factor: float
    names: list[str] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def doubled(self) -> float:
        return 2 * self.factor


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    factor: float


class Settings(pydantic.BaseModel):
    factor: float
    parts: dict[str, int] = {}
    _calls: int = pydantic.PrivateAttr(default=0)


class Scale(dg.ConfigurableResource):
    factor: int


class Plain:
    def __init__(self, factor: object) -> None:
        self.factor = factor

    def compute(self) -> object:
        return self.factor

    def __call__(self) -> object:
        return self.factor


class Names(set[str]):
    pass


class Text(str):
    pass


class Point(NamedTuple):
    x: int
    y: int


FRAME = {"a": [1, 2], "b": ["x", None]}
NS = np.array([1, 2], "datetime64[ns]")

UNEQUAL: dict[str, Sequence[object]] = {
    "numbers": [1, 1.0, True, 2, -1, 0.0, -0.0, 1j, decimal.Decimal(1), decimal.Decimal("1.0"), math.inf, 10**5000],
    "nothing": [None, "", b"", (), [], {}, set(), frozenset(), math.nan, False, 0, ..., NotImplemented],
    "texts": ["a", b"a", "A", bytearray(b"a"), Text("a"), Text("b"), "\ud800"],
    "collections": [("a", "b"), ["a", "b"], {"a", "b"}, frozenset("ab"), {"a": "b"}, ["b", "a"], ["ab"], [["a"], "b"]],
    "dicts": [
        {1: 2},
        {2: 1},
        {1: 2, 3: 4},
        {1: 4, 3: 2},
        defaultdict(int, {1: 2}),
        OrderedDict({1: 2}),
        Counter({1: 2}),
    ],
    "queues": [deque([1, 2]), deque([2, 1]), deque([1, 2], maxlen=2)],
    "orders": [OrderedDict([(1, 2), (3, 4)]), OrderedDict([(3, 4), (1, 2)])],
    "tuples": [Point(1, 2), Point(2, 1), (1, 2)],
    "subclasses": [Names({"a"}), Names({"b"}), {"a"}],
    "enums": [Color.RED, Color.BLUE, 1],
    "times": [
        date(2024, 1, 1),
        datetime(2024, 1, 1),  # noqa: DTZ001
        datetime(2024, 1, 1, tzinfo=timezone.utc),
        datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC")),
        datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Paris")),
        datetime(2024, 1, 1, fold=1, tzinfo=ZoneInfo("Europe/Paris")),
        time(1),
        time(1, tzinfo=timezone.utc),
        timedelta(1),
        timedelta(2),
        timezone(timedelta(hours=1)),
        ZoneInfo("UTC"),
        pd.Timestamp("2024-01-01"),
        pd.Timestamp("2024-01-01", tz="UTC"),
    ],
    "identifiers": [uuid.UUID(int=1), uuid.UUID(int=2), 1],
    "paths": [Path("a"), Path("b"), PurePosixPath("a"), "a"],
    "ranges": [range(3), range(4), slice(3), slice(1, 3), [0, 1, 2]],
    "patterns": [re.compile("a"), re.compile("a", re.IGNORECASE), re.compile(b"a"), "a"],
    "dataclasses": [Rate(1.0), Rate(2.0), Rate(1.0, ["a"]), Slotted(1.0), Slotted(2.0)],
    "models": [
        Settings(factor=1),
        Settings(factor=2),
        Settings(factor=1, parts={"a": 1}),
        Scale(factor=1),
        Scale(factor=2),
    ],
    "instances": [Plain(1), Plain(2), Plain("1"), Plain(None)],
    "arrays": [np.array([1, 2]), np.array([2, 1]), np.array([[1, 2]]), np.array([1.0, 2]), np.array(["1", "2"]), NS],
    "numpy's numbers": [np.float64(1), np.float32(1), np.int64(1), np.dtype("int64"), np.dtype("int32")],
    "pandas": [
        pd.DataFrame(FRAME),
        pd.DataFrame(FRAME, index=[1, 2]),
        pd.DataFrame({"a": [1, 2], "b": ["x", "None"]}),
        pd.DataFrame({"a": [1, 2], "c": ["x", None]}),
        pd.DataFrame({"b": ["x", None], "a": [1, 2]}),
        pd.DataFrame({"a": [1.0, 2], "b": ["x", None]}),
        pd.DataFrame(FRAME).astype({"b": "category"}),
        pd.DataFrame(FRAME).astype({"b": "string"}),
        pd.DataFrame({"a": pd.to_datetime([1, 2])}),
        pd.DataFrame({"a": pd.to_datetime([1, 3])}),
        pd.DataFrame({"a": pd.to_datetime([1, 2], utc=True)}),
        pd.Series([1, 2]),
        pd.Series([1, 2], name="a"),
        pd.Index([1, 2]),
        pd.MultiIndex.from_tuples([(1, 2)]),
        pd.NA,
        pd.NaT,
    ],
    "polars": [
        pl.DataFrame(FRAME),
        pl.DataFrame({"b": ["x", None], "a": [1, 2]}),
        pl.DataFrame(FRAME, schema_overrides={"a": pl.Int8}),
        pl.DataFrame(FRAME, schema_overrides={"b": pl.Categorical}),
        pl.Series([1, 2]),
        pl.Series(NS),
        pl.Series(np.array([1, 3], "datetime64[ns]")),
    ],
    "pyarrow": [
        pa.table(FRAME),
        pa.table({"a": [1, 3], "b": ["x", None]}),
        pa.table({"a": pa.array([1, 2], "int8"), "b": ["x", None]}),
        pa.record_batch(FRAME),
        pa.array([1, 2]),
        pa.array(NS),
        pa.array(np.array([1, 3], "datetime64[ns]")),
        pa.schema({"a": "int64"}),
        pa.schema({"a": "int32"}),
        pa.int64(),
    ],
    "SQL": [
        sb.Query("SELECT 1"),
        sb.Query("SELECT 2"),
        sqlglot.parse_one("SELECT 1"),
        sqlglot.parse_one("SELECT 2"),
        sqlglot.parse_one("SELECT a"),
        sqlglot.parse_one('SELECT "a"'),
    ],
    "functions": [
        len,
        max,
        np.add,
        np.subtract,
        math.sqrt,
        operator.itemgetter(1),
        operator.itemgetter(2),
        pd.DataFrame,
    ],
    "partials": [functools.partial(max, 1), functools.partial(max, 2), functools.partial(min, 1)],
    "methods": [Plain(1).compute, Plain(2).compute, Plain.compute, [1].append, [2].append],
    "loggers": [logging.getLogger("a"), logging.getLogger("b")],
    "modules": [np, math, json],
    "types": [list[int], list[str], int | None, int | str, list, int],
}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(left, right, id=f"{kind}-{i}")
        for kind, values in UNEQUAL.items()
        for i, (left, right) in enumerate(itertools.combinations(values, 2))
    ],
)
def test_unequal_values_have_unequal_digests(left: object, right: object) -> None:
    assert None not in (digest(left), digest(right))
    assert digest(left) != digest(right)


def rate_whose_doubled_was_read() -> Rate:
    rate = Rate(1.0)
    assert rate.doubled == 2
    return rate


EQUAL: dict[str, tuple[object, object]] = {
    "nan": (math.nan, -math.nan),
    "sets": ({f"{i}" for i in range(50)}, {f"{i}" for i in reversed(range(50))}),
    "dicts": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "shared": ([x := ["a"], x], [["a"], ["a"]]),
    "dataclass": (Rate(1.0), rate_whose_doubled_was_read()),
    "model": (Settings(factor=1), Settings(factor=1, parts={})),
    "resource": (Scale(factor=1), Scale(factor=1)),
    "set's subclass": (Names("abc"), Names("cba")),
    "array": (np.arange(6)[::2], np.array([0, 2, 4])),
    "pandas": (pd.DataFrame(FRAME), pd.DataFrame(FRAME).iloc[:]),
    "pandas' index": (pd.Series([1, 2]), pd.Series([1, 2], index=[0, 1])),
    "polars": (pl.DataFrame(FRAME), pl.concat([pl.DataFrame(FRAME)[:1], pl.DataFrame(FRAME)[1:]])),
    "pyarrow": (pa.table(FRAME), pa.concat_tables([pa.table(FRAME)[:1], pa.table(FRAME)[1:]])),
    "SQL": (sqlglot.parse_one("SELECT a"), sqlglot.parse_one("select  a")),
    "closures": (holding(holding(1)), holding(holding(1))),
    "markers": (object(), object()),
    "loggers": (logging.getLogger("a"), logging.getLogger("a")),
    "partials": (functools.partial(max, 1, key=len), functools.partial(max, 1, key=len)),
    "methods": (Plain(1).compute, Plain(1).compute),
}


@pytest.mark.parametrize(("left", "right"), EQUAL.values(), ids=EQUAL)
def test_equal_values_have_equal_digests(left: object, right: object) -> None:
    assert digest(left) == digest(right) is not None


class Client:
    """Like a connection, it can't be compared, and it is of no module of the user's."""

    def __init__(self) -> None:
        self.calls = 0


Client.__module__ = "pandas"
INCOMPARABLE = {
    "lock": threading.Lock(),
    "a library's client": Client(),
    "generator": (i for i in range(3)),
    "handler": logging.StreamHandler(),
    "in a list": [threading.Lock()],
    "in a dict": {"a": {"b": threading.Lock()}},
    "in an instance": Plain(threading.Lock()),
    "in a dataclass": Rate(threading.Lock()),  # type: ignore[arg-type]
    "in a partial": functools.partial(max, threading.Lock()),
    "in a method": Plain(threading.Lock()).compute,
    "in another closure": holding(threading.Lock()),
}


@pytest.mark.parametrize("value", INCOMPARABLE.values(), ids=INCOMPARABLE)
def test_what_cannot_be_compared_counts_as_changed(value: Any) -> None:
    assert digest(value) is None
    assert code_of(functools.partial(lambda x: x, value)) is None
    assert code_of(lambda x=value: x) is None
    assert code_of(lambda *, x=value: x) is None


@pytest.mark.parametrize("value", INCOMPARABLE.values(), ids=INCOMPARABLE)
def test_a_global_that_cannot_be_compared_does_not_matter(value: object) -> None:
    if isinstance(value, types.FunctionType):
        return
    found = code_of(defined("def f(): return log, x", log=value, x=1))
    assert found is not None
    assert found == code_of(defined("def f(): return log, x", log=value, x=1))
    assert found != code_of(defined("def f(): return log, x", log=value, x=2))


def test_the_rest_of_a_global_counts_beside_what_cannot_be_compared() -> None:
    def found(factor: int) -> str | None:
        return code_of(defined("def f(): return x", x={"lock": threading.Lock(), "of": Plain(factor)}))

    assert found(1) == found(1) is not None
    assert found(1) != found(2)


# Pieces of source, of which all define other functions.
DIFFERENT = {
    "constant": ["def f(): return 1", "def f(): return 2", "def f(): return 1.0", "def f(): return True"],
    "nested constant": ["def f(): return [x + 1 for x in y]", "def f(): return [x + 2 for x in y]"],
    "texts in comprehensions": ["def f(): return [x + 'a' for x in y]", "def f(): return [x + 'b' for x in y]"],
    "lambdas": ["f = lambda: 'a'", "f = lambda: 'b'"],
    "lambdas inside": ["def f(): return lambda: 'a'", "def f(): return lambda: 'b'"],
    "set": ["def f(): return x in {1, 2}", "def f(): return x in {1, 3}"],
    "operator": ["def f(a, b): return a + b", "def f(a, b): return a - b"],
    "attribute": ["def f(a): return a.x", "def f(a): return a.y"],
    "builtin": ["def f(a): return min(a)", "def f(a): return max(a)"],
    "parameters": [
        "def f(a, b): return a",
        "def f(b, a): return a",
        "def f(a, *, b): return a",
        "def f(a, /, b): return a",
    ],
    "defaults": ["def f(a=1): return a", "def f(a=2): return a", "def f(*, a=1): return a", "def f(*, a=2): return a"],
    "handlers": [
        "def f():\n try:\n  a()\n except A:\n  b()\n c()",
        "def f():\n try:\n  a()\n  c()\n except A:\n  b()",
    ],
    "closures": ["def g(x): return lambda: x\nf = g(1)", "def g(x): return lambda: x\nf = g(2)"],
    "helpers": ["def g(): return 1\ndef f(): return g()", "def g(): return 2\ndef f(): return g()"],
    "helpers of helpers": [f"def h(): return {i}\ndef g(): return h()\ndef f(): return g()" for i in range(3)],
    "far helpers": [
        "def g0(): return %d\n%s\nf = g900"  # noqa: UP031
        % (i, "\n".join(f"def g{n + 1}(): return g{n}()" for n in range(900)))
        for i in range(2)
    ],
    "recursion": [f"def f(n): return g(n - 1) if n else {i}\ndef g(n): return f(n)" for i in range(3)],
    "the helper of two": [
        "def g(): return 1\ndef h(): return 2\ndef f(): return g() - h()",
        "def g(): return 2\ndef h(): return 1\ndef f(): return g() - h()",
    ],
    "helpers by name": ["T = {'a': len}\ndef f(): return T['a']", "T = {'a': max}\ndef f(): return T['a']"],
    "globals": ["x = 1\ndef f(): return x", "x = 2\ndef f(): return x", "x = [1]\ndef f(): return x"],
    "globals of nested functions": ["x = 1\ndef f(): return lambda: x", "x = 2\ndef f(): return lambda: x"],
    "lambdas in a dict": [f"T = {{'a': lambda x: x + {i}}}\ndef f(x): return T['a'](x)" for i in range(2)],
    "global instances": [f"class A:\n def g(self): return {i}\na = A()\ndef f(): return a.g()" for i in range(2)],
    "classes": [f"class A:\n def g(self): return {i}\ndef f(): return A().g()" for i in range(2)],
    "attributes of classes": [f"class A:\n x = {i}\ndef f(): return A.x" for i in range(2)],
    "base classes": [f"class B:\n x = {i}\nclass A(B): pass\ndef f(): return A.x" for i in range(2)],
    "class methods": [f"class A:\n @classmethod\n def g(cls): return {i}\ndef f(): return A.g()" for i in range(2)],
    "static methods": [f"class A:\n @staticmethod\n def g(): return {i}\nf = A.g" for i in range(2)],
    "properties": [f"class A:\n @property\n def g(self): return {i}\ndef f(): return A().g" for i in range(2)],
    "super": [
        f"class B:\n def g(self): return {i}\nclass A(B):\n def g(self): return super().g()\ndef f(): return A().g()"
        for i in range(2)
    ],
    "enums": [f"import enum\nclass A(enum.Enum):\n B = {i}\ndef f(): return A.B.value" for i in range(2)],
    "dataclasses": [
        f"import dataclasses\n@dataclasses.dataclass\nclass A:\n x: int = {i}\ndef f(): return A().x" for i in range(2)
    ],
    "factories of dataclasses": [
        "import dataclasses as d\n@d.dataclass\nclass A:\n"
        f" x: list = d.field(default_factory=lambda: [{i}])\ndef f(): return A().x"
        for i in range(2)
    ],
    "models": [
        f"import pydantic\nclass A(pydantic.BaseModel):\n x: int = {i}\ndef f(): return A().x" for i in range(2)
    ],
    "caches": [f"import functools\n@functools.lru_cache\ndef g(): return {i}\ndef f(): return g()" for i in range(2)],
    "cached": [f"import functools\n@functools.cache\ndef f(): return {i}" for i in range(2)],
    "decorated": [
        "import functools\ndef d(g):\n @functools.wraps(g)\n"
        f" def h(): return g() + {i}\n return h\n@d\ndef f(): return {j}"
        for i in range(2)
        for j in range(2)
    ],
    "a library's decorator": [f"import contextlib\n@contextlib.contextmanager\ndef f():\n yield {i}" for i in range(2)],
    "dispatch": [
        f"import functools\n@functools.singledispatch\ndef f(x): return 0\n@f.register\ndef g(x: int): return {i}"
        for i in range(2)
    ],
    "callable objects": [
        f"class A:\n def __init__(self, x): self.x = x\n def __call__(self): return self.x + {i}\nf = A({j})"
        for i in range(2)
        for j in range(2)
    ],
    "bound methods": [
        f"class A:\n def __init__(self, x): self.x = x\n def g(self): return self.x + {i}\nf = A({j}).g"
        for i in range(2)
        for j in range(2)
    ],
    "partials": [
        f"import functools\ndef g(x, y): return x + {i}\nf = functools.partial(g, {j})"
        for i in range(2)
        for j in range(2)
    ],
    "modules": ["import math as m\ndef f(): return m.sin", "import cmath as m\ndef f(): return m.sin"],
    "library functions": [
        "from math import sin as g\ndef f(): return g(1)",
        "from math import cos as g\ndef f(): return g(1)",
    ],
}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(left, right, id=f"{kind}-{i}")
        for kind, sources in DIFFERENT.items()
        for i, (left, right) in enumerate(itertools.combinations(sources, 2))
    ],
)
def test_different_code_has_different_digests(left: str, right: str) -> None:
    found = [code_of(defined(source)) for source in (left, left, right)]
    assert found[0] == found[1] is not None
    assert found[0] != found[2]


SAME = {
    "comments": ["def f(a):\n return a", "\n\n# A comment.\ndef f(a):\n  # Another.\n\n  return a"],
    "names": ["def f(a): return a", "def g(a): return a\nf = g"],
    "docstrings": ["def f(a):\n 'One.'\n return a", "def f(a):\n 'Two.'\n return a"],
    "annotations": ["def f(a): return a", "def f(a: int) -> str: return a"],
    "globals that aren't named": ["x = 1\ndef f(a): return a.x", "x = 2\ndef f(a): return a.x"],
    "order of definition": ["def g(): return f\ndef f(): return g", "def f(): return g\ndef g(): return f"],
    "order of a dict": ["x = {'a': 1, 'b': 2}\ndef f(): return x", "x = {'b': 2, 'a': 1}\ndef f(): return x"],
    "docstrings of classes": [f"class A:\n '{i}'\n x = 1\ndef f(): return A" for i in range(2)],
    "a cycle": ["x = []\nx.append(x)\ndef f(): return x"] * 2,
    "a missing global": ["def f(): return missing"] * 2,
    "an empty cell": ["def g():\n def h(): return x\n return h\n x = 1\nf = g()"] * 2,
}


@pytest.mark.parametrize("sources", SAME.values(), ids=SAME)
def test_the_same_code_has_the_same_digest(sources: Sequence[str]) -> None:
    left, right = [code_of(defined(source)) for source in sources]
    assert left == right is not None


def test_a_function_of_a_module_of_the_users_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = types.ModuleType("helpers_of_a_user")
    monkeypatch.setitem(sys.modules, helpers.__name__, helpers)

    def found(source: str, text: str) -> str | None:
        exec(source, vars(helpers))
        return code_of(defined(text, helpers=helpers, np=np))

    for text in ("def f(): return helpers.g()", "def f(): return helpers.g().x", "def f(): return helpers.x, np.sum"):
        assert found("def g(): return x\nx = 1", text) == found("def g(): return x\nx = 1", text) is not None
        assert found("def g(): return x\nx = 1", text) != found("def g(): return x\nx = 2", text)


def test_installed_code_counts_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "made-1.dist-info").mkdir()
    (tmp_path / "made_by_others.py").write_text("def g(): return 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    others: Any = __import__("made_by_others")
    before = code_of(defined("def f(): return g()", g=others.g))
    others.g.__code__ = (lambda: 2).__code__
    assert code_of(defined("def f(): return g()", g=others.g)) == before is not None


MODULE = """
import dataclasses, enum, functools, pathlib, re
import dagster as dg, numpy as np, pandas as pd, polars as pl, pyarrow as pa, sqlglot
import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.provenance.code import code_of

class Color(enum.Enum):
    RED = 1

class Scale(dg.ConfigurableResource):
    factor: int

@dataclasses.dataclass
class Rate:
    factor: float
    color: Color = Color.RED
    def of(self, x): return x * self.factor

NAMES = {f"name {i}" for i in range(100)}
TABLE = {name: len(name) for name in NAMES}

@functools.lru_cache
def helper(x):
    return x in {"a", "b", "c", "d"} and other(x)

def other(x):
    return helper(x) or TABLE[x]

def made(*values):
    def compute(partitions, rate=Rate(2.0), *, names=frozenset(NAMES)):
        return values, helper, NAMES, [name for name in NAMES if name in {"x", "y", "z"}], Scale
    return compute

frame = {"a": [1, 2], "b": ["x", None]}
print(code_of(made(
    Scale(factor=2), Rate(1.0).of, re.compile("a"), pathlib.Path("a"), np.arange(3), pd.DataFrame(frame),
    pd.Series(["a", "b"], dtype="category"), pl.DataFrame(frame), pl.Series(["a"], dtype=pl.Categorical),
    pa.table(frame), sqlglot.parse_one("SELECT a, b FROM c"), sb.Query("SELECT 1"), {Color.RED, 1, "a"},
    {frozenset({"a", "b"}): NAMES}, dg.DailyPartitionsDefinition, int | None, functools.partial(helper, "a"),
    sb.not_null("a"), pd.Timestamp(0),
)))
"""


@pytest.mark.parametrize("how", ["script", "module"])
def test_the_digest_is_the_same_in_every_process(tmp_path: Path, how: str) -> None:
    found: set[str] = set()
    for seed, folder in (("1", "one"), ("2", "another")):
        place = tmp_path / folder
        place.mkdir()
        (place / "assets_of_a_user.py").write_text("\n" * len(folder) + MODULE)
        called = ["assets_of_a_user.py"] if how == "script" else ["-c", "import assets_of_a_user"]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, *called], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert found != {"None"}


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(allow_nan=False, width=16)
    | st.text(max_size=2)
    | st.binary(max_size=2)
    | st.dates()
    | st.decimals(allow_nan=False, places=1)
    | st.sampled_from(Color)
)
_HASHABLE = st.recursive(
    _LEAVES, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
_NESTED = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(_HASHABLE, inner, max_size=3)
        | st.sets(_HASHABLE, max_size=3)
        | st.builds(Rate, inner)
    ),
    max_leaves=8,
)


def typed(value: Any) -> object:
    """Return what is equal for values that are equal and of the same types, and for no others."""
    if isinstance(value, list | tuple):
        return type(value), tuple(map(typed, value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(typed, value))
    if isinstance(value, dict):
        return dict, frozenset((typed(key), typed(one)) for key, one in value.items())
    if isinstance(value, Rate):
        return Rate, typed(value.factor), typed(value.names)
    return type(value), repr(value)


@given(_NESTED, _NESTED)
def test_values_are_equal_if_and_only_if_their_digests_are(left: object, right: object) -> None:
    assert (digest(left) == digest(right)) == (typed(left) == typed(right))


@given(_NESTED)
def test_a_copy_has_the_same_digest(value: object) -> None:
    import copy

    assert digest(copy.deepcopy(value)) == digest(value) is not None
