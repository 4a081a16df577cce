"""The functions that Snowflake has; what isn't here, the emulator refuses as Snowflake would."""

from __future__ import annotations

KNOWN = frozenset(
    """
    abs acos acosh add_months any_value approx_count_distinct approx_percentile array_agg array_append array_cat
    array_compact array_construct array_construct_compact array_contains array_distinct array_except array_intersection
    array_max array_min array_position array_prepend array_size array_slice array_sort array_to_string array_unique_agg
    array_union_agg arrays_overlap arrays_to_object as_array as_binary as_boolean as_char as_date as_decimal as_double
    as_integer as_number as_object as_real as_time as_timestamp_ltz as_timestamp_ntz as_timestamp_tz as_varchar ascii
    asin asinh atan atan2 atanh avg base64_decode_binary base64_decode_string base64_encode bit_length bitand
    bitand_agg bitnot bitor bitor_agg bitshiftleft bitshiftright bitxor bitxor_agg booland booland_agg boolnot boolor
    boolor_agg boolxor boolxor_agg case cast cbrt ceil charindex char_length character_length chr char check_json
    coalesce collate collation compress concat concat_ws contains convert_timezone corr cos cosh cot count count_if
    covar_pop covar_samp cume_dist current_account current_client current_database current_date current_ip_address
    current_region current_role current_schema current_schemas current_session current_statement current_time
    current_timestamp current_transaction current_user current_version current_warehouse date date_from_parts date_part
    date_trunc dateadd datediff datefromparts day dayname dayofmonth dayofweek dayofweekiso dayofyear decode degrees
    dense_rank div0 div0null editdistance endswith equal_null exp exists extract factorial filter first_value flatten
    floor generator get get_ddl get_path getbit getdate getvariable greatest greatest_ignore_nulls grouping grouping_id
    hash hash_agg haversine hex_decode_binary hex_decode_string hex_encode hll hour identifier if iff ifnull ilike
    ilike_any in initcap insert is_array is_binary is_boolean is_char is_date is_decimal is_double is_integer
    is_null_value is_object is_real is_time is_timestamp_ltz is_timestamp_ntz is_timestamp_tz is_varchar
    jarowinkler_similarity
    json_extract_path_text kurtosis lag last_day last_query_id last_transaction last_value lead least least_ignore_nulls
    left len length like like_all like_any listagg ln localtime localtimestamp log lower lpad ltrim max max_by md5
    md5_binary md5_hex md5_number_lower64 md5_number_upper64 median min min_by minhash minute mod mode month monthname
    months_between next_day normal nth_value ntile nullif nullifzero nvl nvl2 object_agg object_construct
    object_construct_keep_null object_delete object_insert object_keys object_pick octet_length parse_ip parse_json
    parse_url percent_rank percentile_cont percentile_disc pi policy_references position pow power previous_day
    quarter radians randstr random
    rank ratio_to_report reduce regexp regexp_count regexp_instr regexp_like regexp_replace regexp_substr
    regexp_substr_all regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat
    replace result_scan reverse right rlike round row_number rpad rtrim rtrimmed_length second seq1 seq2 seq4 seq8 sha1
    sha1_binary sha1_hex sha2 sha2_binary sha2_hex sign sin sinh skew soundex space split split_part split_to_table sqrt
    square startswith stddev stddev_pop stddev_samp strip_null_value strtok strtok_to_array substr substring sum
    sysdate system$cancel_all_queries
    table tan tanh time time_from_parts time_slice timeadd timediff timestamp_from_parts timestamp_ltz_from_parts
    timestamp_ntz_from_parts timestamp_tz_from_parts timestampadd timestampdiff to_array to_binary to_boolean to_char
    to_date to_decimal to_double to_geography to_json to_number to_numeric to_object to_time to_timestamp
    to_timestamp_ltz to_timestamp_ntz to_timestamp_tz to_varchar to_variant to_xml transform translate trim trunc
    truncate try_base64_decode_binary try_base64_decode_string try_cast try_parse_json try_to_binary try_to_boolean
    try_to_date try_to_decimal try_to_double try_to_number try_to_numeric try_to_time try_to_timestamp
    try_to_timestamp_ltz try_to_timestamp_ntz try_to_timestamp_tz typeof unicode uniform upper uuid_string values
    var_pop var_samp variance variance_pop variance_samp week weekiso weekofyear width_bucket year yearofweek
    yearofweekiso zeroifnull system$abort_session system$abort_transaction system$typeof system$clustering_information
    system$last_change_commit_time system$wait number decimal numeric varchar timestamp_ntz timestamp_ltz timestamp_tz
    binary and or not all any some interval
    """.split()  # noqa: SIM905 - a list would be 500 lines
)
