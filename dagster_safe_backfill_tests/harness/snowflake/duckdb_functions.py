"""The functions that DuckDB has and Snowflake lacks, of which no statement for Snowflake may call one."""

from __future__ import annotations

import re
from functools import cache

import duckdb

_BOTH = """
    abs acos acosh any_value approx_count_distinct approx_top_k array_agg array_append array_cat array_contains
    array_distinct array_position array_prepend array_reverse array_slice array_sort array_to_string ascii asin asinh
    atan atan2 atanh avg bit_length cbrt ceil chr concat concat_ws contains corr cos cosh cot count count_if covar_pop
    covar_samp cume_dist current_database current_date current_role current_schema current_schemas current_user
    date_part date_trunc datediff day dayname dayofmonth dayofweek dayofyear decode degrees dense_rank exp factorial
    filter first_value flatten floor getvariable greatest hash hour json_extract_path_text kurtosis lag last_day
    last_value lead least left len length listagg ln log lower lpad ltrim map_concat map_keys max max_by md5 median min
    min_by minute mod mode month monthname nth_value ntile nullif octet_length percent_rank pi position pow power
    quarter radians random rank reduce regexp_replace regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy repeat replace reverse right round row_number rpad rtrim second sha1 sign sin sinh split
    split_part sqrt st_asgeojson st_astext st_aswkb st_aswkt st_geomfromwkb stddev stddev_pop stddev_samp substr
    substring sum tan tanh to_binary to_json to_timestamp translate trim trunc typeof unicode upper uuid_string var_pop
    var_samp variance week weekofyear year
"""
"""DuckDB's functions whose names Snowflake has too, by Snowflake's reference of functions."""

_SYNTAX = frozenset({"if", "struct_pack", "columns", "nullsafe", "try"})
"""What DuckDB calls like a function, and doesn't list."""


@cache
def duckdbs_own() -> frozenset[str]:
    """Return the names in lower case. `HASH` isn't among them, which both have, each with values of its own."""
    with duckdb.connect() as connection:
        found = connection.execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()").fetchall()
    names = {name for (name,) in found if re.fullmatch(r"[a-z_]\w*", name)}
    return frozenset(names | _SYNTAX) - frozenset(_BOTH.split())
