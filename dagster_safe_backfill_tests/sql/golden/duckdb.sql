-- staging: values lost by a cast
SELECT
  COUNT(
    CASE
      WHEN CASE
        WHEN TRY_CAST(TRY_CAST("it's" AS INT) AS BIGINT) IS NULL
        THEN NOT "it's" IS NULL
        ELSE TRY_CAST(TRY_CAST("it's" AS INT) AS BIGINT) IS DISTINCT FROM "it's"
      END
      THEN 1
    END
  ) AS "it's"
FROM "source";

-- staging: fill
CREATE TABLE "main"."new" AS
SELECT
  "day",
  "it's",
  "value",
  "_sb_map"."_sb_ordinal" AS "_sb_partition"
FROM (
  SELECT
    "day" AS "day",
    CAST("it's" AS INT) AS "it's",
    "value" AS "value"
  FROM "source"
) AS "_sb_rows"
LEFT JOIN (
  SELECT
    "_sb_ordinal" AS "_sb_ordinal",
    CAST("_sb_key0" AS DATE) AS "_sb_key0"
  FROM (VALUES
    (0, '2024-01-01'),
    (1, '2024-01-02'),
    (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
) AS "_sb_map"
  ON "_sb_rows".day = "_sb_map"."_sb_key0";

-- staging: fill, by consecutive days
CREATE TEMPORARY TABLE "temp"."new" AS
SELECT
  "day",
  "it's",
  "value",
  CASE
    WHEN "_sb_rows".day >= CAST('2024-01-01' AS DATE)
    AND "_sb_rows".day <= CAST('2024-01-02' AS DATE)
    THEN DATE_DIFF('DAY', CAST('2024-01-01' AS DATE), "_sb_rows".day)
  END AS "_sb_partition"
FROM (
  SELECT
    "day" AS "day",
    CAST("it's" AS INT) AS "it's",
    "value" AS "value"
  FROM "source"
) AS "_sb_rows";

-- staging: fill, by windows of time
CREATE TEMPORARY TABLE "temp"."new" AS
SELECT
  "day",
  "it's",
  "value",
  CASE
    WHEN (
      CAST("_sb_rows".day AS TIMESTAMP)
    ) < "_sb_map"."_sb_end0"
    THEN "_sb_map"."_sb_ordinal"
  END AS "_sb_partition"
FROM (
  SELECT
    "day" AS "day",
    CAST("it's" AS INT) AS "it's",
    "value" AS "value"
  FROM "source"
) AS "_sb_rows"
ASOF LEFT JOIN (
  SELECT
    "_sb_ordinal" AS "_sb_ordinal",
    CAST("_sb_start0" AS TIMESTAMP) AS "_sb_start0",
    CAST("_sb_end0" AS TIMESTAMP) AS "_sb_end0"
  FROM (VALUES
    (0, '2024-01-01 00:00:00', '2024-01-02 00:00:00'),
    (1, '2024-01-02 00:00:00', '2024-01-03 00:00:00'),
    (2, '2024-01-05 00:00:00', '2024-01-06 00:00:00')) AS "_sb_map"("_sb_ordinal", "_sb_start0", "_sb_end0")
) AS "_sb_map"
  ON (
    CAST("_sb_rows".day AS TIMESTAMP)
  ) >= "_sb_map"."_sb_start0";

-- staging: rows by partition
SELECT
  "_sb_partition",
  COUNT(*)
FROM "main"."live__shadow_1"
GROUP BY
  "_sb_partition";

-- staging: outside, a sample
SELECT DISTINCT
  day
FROM "main"."live__shadow_1"
WHERE
  "_sb_partition" IS NULL
LIMIT 10;

-- staging: delete outside
DELETE FROM "main"."live__shadow_1"
WHERE
  "_sb_partition" IS NULL;

-- staging: fill, with ranks
CREATE TABLE "main"."new" AS
SELECT
  "day",
  "it's",
  "value",
  CASE
    WHEN NOT (
      "day" IS NULL OR "it's" IS NULL
    )
    THEN ROW_NUMBER() OVER (PARTITION BY "day", "it's" ORDER BY "value" IS NULL, "value" DESC)
    ELSE 1
  END AS "_sb_rank",
  CASE
    WHEN NOT (
      "day" IS NULL OR "it's" IS NULL
    )
    THEN COUNT(*) OVER (PARTITION BY "day", "it's", "value")
    ELSE 1
  END AS "_sb_ties",
  "_sb_map"."_sb_ordinal" AS "_sb_partition"
FROM (
  SELECT
    "day" AS "day",
    CAST("it's" AS INT) AS "it's",
    "value" AS "value"
  FROM "source"
) AS "_sb_rows"
LEFT JOIN (
  SELECT
    "_sb_ordinal" AS "_sb_ordinal",
    CAST("_sb_key0" AS DATE) AS "_sb_key0"
  FROM (VALUES
    (0, '2024-01-01'),
    (1, '2024-01-02'),
    (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
) AS "_sb_map"
  ON "_sb_rows".day = "_sb_map"."_sb_key0";

-- staging: duplicates
SELECT
  COUNT(CASE WHEN "_sb_rank" > 1 THEN 1 END),
  COUNT(CASE WHEN "_sb_rank" = 1 AND "_sb_ties" > 1 THEN 1 END)
FROM "main"."live__shadow_2";

-- staging: tied keys
SELECT
  "day",
  "it's"
FROM "main"."live__shadow_2"
WHERE
  "_sb_rank" = 1 AND "_sb_ties" > 1
LIMIT 10;

-- staging: delete duplicates
DELETE FROM "main"."live__shadow_2"
WHERE
  "_sb_rank" > 1;

-- staging: repeated keys
SELECT
  "day",
  "it's"
FROM "main"."live__shadow_1"
GROUP BY
  "day",
  "it's"
HAVING
  COUNT(*) > 1
LIMIT 1;

-- fingerprints: by partition
SELECT
  "_sb_partition",
  COUNT(*),
  SUM("_sb_hash"),
  HASH(
    1,
    170141183460469231731687303715884105727,
    2.5,
    2.5e0,
    TRUE,
    DATE '2024-02-29',
    INTERVAL 1 MONTH,
    'short',
    'a text of more than twelve bytes',
    [1, 2],
    {'a': 1},
    MAP {'a': 1},
    NULL
  )
FROM (
  SELECT
    HASH("day") AS "_sb_hash",
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_hashed"
GROUP BY
  "_sb_partition";

-- auditing: conditions together
SELECT
  "_sb_partition",
  COUNT(CASE WHEN "_sb_shadow"."it's" IS NULL OR "_sb_shadow"."value" IS NULL THEN 1 END) AS "_sb_0",
  COUNT(CASE WHEN NOT (
    value > 0 OR day = CAST('2024-01-01' AS DATE)
  ) THEN 1 END) AS "_sb_1",
  COUNT(CASE WHEN NOT "_sb_shadow"."it's" IN (1, 2) THEN 1 END) AS "_sb_2",
  COUNT(
    CASE
      WHEN NOT (
        "_sb_shadow"."day" >= CAST('2024-01-01' AS DATE)
        AND "_sb_shadow"."day" <= CAST('2024-12-31' AS DATE)
      )
      THEN 1
    END
  ) AS "_sb_3",
  COUNT(
    CASE
      WHEN NOT "_sb_shadow"."it's" IS NULL
      AND NOT EXISTS(
        SELECT
          1
        FROM "main"."other" AS "_sb_other"
        WHERE
          "_sb_other"."id" = "_sb_shadow"."it's"
      )
      THEN 1
    END
  ) AS "_sb_4"
FROM "main"."live__shadow_1" AS "_sb_shadow"
GROUP BY
  "_sb_partition";

-- auditing: aggregates of live, and over the run
SELECT
  "_sb_partition",
  COUNT(*) AS "_sb_0",
  (
    SUM(value) / COUNT(*)
  ) AS "_sb_1",
  SUM("value") AS "_sb_2",
  AVG("value") AS "_sb_3",
  COUNT(
    DISTINCT CASE
      WHEN "value" IS NULL
      THEN NULL
      WHEN CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END IS NULL
      THEN NULL
      ELSE ("value", CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END)
    END
  ) AS "_sb_4",
  QUANTILE_CONT("value", 0.5
  ORDER BY
    "value") AS "_sb_5",
  QUANTILE_CONT("value", 0.95
  ORDER BY
    "value") AS "_sb_6"
FROM (
  SELECT
    "_sb_rows".*,
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_live"
GROUP BY
  GROUPING SETS (
    ("_sb_partition"),
    ()
  );

-- auditing: aggregates of no rows
SELECT
  NULL,
  COUNT(*) AS "_sb_0",
  (
    SUM(value) / COUNT(*)
  ) AS "_sb_1",
  SUM("value") AS "_sb_2",
  AVG("value") AS "_sb_3",
  COUNT(
    DISTINCT CASE
      WHEN "value" IS NULL
      THEN NULL
      WHEN CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END IS NULL
      THEN NULL
      ELSE ("value", CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END)
    END
  ) AS "_sb_4",
  QUANTILE_CONT("value", 0.5
  ORDER BY
    "value") AS "_sb_5",
  QUANTILE_CONT("value", 0.95
  ORDER BY
    "value") AS "_sb_6"
FROM "main"."live__shadow_1" AS "_sb_shadow"
WHERE
  FALSE;

-- auditing: what a user's own query finds
SELECT
  "_sb_partition",
  COUNT(*)
FROM (
  SELECT
    "_sb_rows".*,
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM (
      WITH batch AS (
        SELECT
          "day",
          "it's",
          "value"
        FROM "main"."live__shadow_1"
      ), live AS (
        SELECT
          *
        FROM "main"."live"
      )
      SELECT
        *
      FROM (
        SELECT
          b.*
        FROM batch AS b
        JOIN live
          USING (day)
        WHERE
          b.value > live.value
      ) AS "_sb_other"
    ) AS "_sb_other"
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_shadow"
GROUP BY
  "_sb_partition";

-- auditing: repeated values
SELECT
  COUNT(*)
FROM (
  SELECT
    "it's"
  FROM "main"."live__shadow_1"
  GROUP BY
    "it's"
  HAVING
    COUNT(*) > 1
  UNION ALL
  SELECT
    "_sb_live"."it's"
  FROM "main"."live" AS "_sb_live"
  WHERE
    NOT COALESCE(
      (
        (
          "_sb_live".day >= CAST('2024-01-01' AS DATE)
          AND "_sb_live".day < CAST('2024-01-03' AS DATE)
        )
        OR (
          "_sb_live".day >= CAST('2024-01-05' AS DATE)
          AND "_sb_live".day < CAST('2024-01-06' AS DATE)
        )
      ),
      FALSE
    )
    AND EXISTS(
      SELECT
        1
      FROM "main"."live__shadow_1" AS "_sb_shadow"
      WHERE
        "_sb_shadow"."it's" = "_sb_live"."it's"
    )
) AS "_sb_other";

-- auditing: repetitions
SELECT
  "_sb_shadow"."_sb_partition",
  COUNT(*)
FROM "main"."live__shadow_1" AS "_sb_shadow"
WHERE
  EXISTS(
    SELECT
      1
    FROM (
      SELECT
        "it's"
      FROM "main"."live__shadow_1"
      GROUP BY
        "it's"
      HAVING
        COUNT(*) > 1
      UNION ALL
      SELECT
        "_sb_live"."it's"
      FROM "main"."live" AS "_sb_live"
      WHERE
        NOT COALESCE(
          (
            (
              "_sb_live".day >= CAST('2024-01-01' AS DATE)
              AND "_sb_live".day < CAST('2024-01-03' AS DATE)
            )
            OR (
              "_sb_live".day >= CAST('2024-01-05' AS DATE)
              AND "_sb_live".day < CAST('2024-01-06' AS DATE)
            )
          ),
          FALSE
        )
        AND EXISTS(
          SELECT
            1
          FROM "main"."live__shadow_1" AS "_sb_shadow"
          WHERE
            "_sb_shadow"."it's" = "_sb_live"."it's"
        )
    ) AS "_sb_other"
    WHERE
      "_sb_other"."it's" = "_sb_shadow"."it's"
  )
GROUP BY
  "_sb_shadow"."_sb_partition";

-- auditing: repetitions of the key
SELECT
  "_sb_shadow"."_sb_partition",
  COUNT(*)
FROM "main"."live__shadow_1" AS "_sb_shadow"
WHERE
  EXISTS(
    SELECT
      1
    FROM (
      SELECT
        "day",
        "it's"
      FROM "main"."live__shadow_1"
      GROUP BY
        "day",
        "it's"
      HAVING
        COUNT(*) > 1
    ) AS "_sb_other"
    WHERE
      "_sb_other"."day" = "_sb_shadow"."day"
      AND "_sb_other"."it's" = "_sb_shadow"."it's"
  )
GROUP BY
  "_sb_shadow"."_sb_partition";

-- auditing: failing rows
SELECT
  "_sb_shadow"."day",
  "_sb_shadow"."it's",
  "_sb_shadow"."value"
FROM "main"."live__shadow_1" AS "_sb_shadow"
WHERE
  EXISTS(
    SELECT
      1
    FROM (
      SELECT
        "day",
        "it's"
      FROM "main"."live__shadow_1"
      GROUP BY
        "day",
        "it's"
      HAVING
        COUNT(*) > 1
    ) AS "_sb_other"
    WHERE
      "_sb_other"."day" = "_sb_shadow"."day"
      AND "_sb_other"."it's" = "_sb_shadow"."it's"
  )
  OR (
    "_sb_shadow"."day" IS NULL OR "_sb_shadow"."it's" IS NULL
  )
ORDER BY
  "_sb_shadow"."_sb_partition"
LIMIT 10;

-- comparing: broken keys
SELECT
  (
    SELECT
      COUNT(*)
    FROM (
      SELECT
        "day",
        "it's"
      FROM "main"."live__shadow_1"
      GROUP BY
        "day",
        "it's"
      HAVING
        COUNT(*) > 1 OR "day" IS NULL OR "it's" IS NULL
    ) AS "_sb_both"
  ),
  (
    SELECT
      COUNT(*)
    FROM (
      SELECT
        "day",
        "it's"
      FROM (
        SELECT
          "_sb_rows".*,
          "_sb_map"."_sb_ordinal" AS "_sb_partition"
        FROM (
          SELECT
            *
          FROM "main"."live"
          WHERE
            (
              (
                day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
              )
              OR (
                day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
              )
            )
        ) AS "_sb_rows"
        LEFT JOIN (
          SELECT
            "_sb_ordinal" AS "_sb_ordinal",
            CAST("_sb_key0" AS DATE) AS "_sb_key0"
          FROM (VALUES
            (0, '2024-01-01'),
            (1, '2024-01-02'),
            (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
        ) AS "_sb_map"
          ON "_sb_rows".day = "_sb_map"."_sb_key0"
      ) AS "_sb_live"
      GROUP BY
        "day",
        "it's"
      HAVING
        COUNT(*) > 1 OR "day" IS NULL OR "it's" IS NULL
    ) AS "_sb_both"
  );

-- comparing: differences
SELECT
  "_sb_partition",
  COUNT(CASE WHEN "_sb_added" THEN 1 END),
  COUNT(CASE WHEN "_sb_removed" THEN 1 END),
  COUNT(
    CASE
      WHEN NOT (
        "_sb_added" OR "_sb_removed"
      ) AND (
        "_sb_differs_0"
      )
      THEN 1
    END
  ),
  COUNT(
    CASE
      WHEN NOT (
        "_sb_added" OR "_sb_removed"
      ) AND NOT (
        "_sb_differs_0"
      )
      THEN 1
    END
  ),
  COUNT(CASE WHEN NOT (
    "_sb_added" OR "_sb_removed"
  ) AND "_sb_differs_0" THEN 1 END)
FROM (
  SELECT
    COALESCE("_sb_here"."_sb_partition", "_sb_there"."_sb_partition") AS "_sb_partition",
    "_sb_there"."day" IS NULL AS "_sb_added",
    "_sb_here"."day" IS NULL AS "_sb_removed",
    "_sb_here"."value" IS DISTINCT FROM "_sb_there"."value"
    AND NOT COALESCE(
      (
        (
          CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.01
          OR CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_sb_here"."value" AS DOUBLE))
          OR CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_sb_there"."value" AS DOUBLE))
        )
        AND CAST(ABS((
          CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
        )) AS DOUBLE) < CAST('inf' AS DOUBLE)
      ),
      FALSE
    ) AS "_sb_differs_0"
  FROM "main"."live__shadow_1" AS "_sb_here"
  FULL JOIN (
    SELECT
      "_sb_rows".*,
      "_sb_map"."_sb_ordinal" AS "_sb_partition"
    FROM (
      SELECT
        *
      FROM "main"."live"
      WHERE
        (
          (
            day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
          )
          OR (
            day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
          )
        )
    ) AS "_sb_rows"
    LEFT JOIN (
      SELECT
        "_sb_ordinal" AS "_sb_ordinal",
        CAST("_sb_key0" AS DATE) AS "_sb_key0"
      FROM (VALUES
        (0, '2024-01-01'),
        (1, '2024-01-02'),
        (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
    ) AS "_sb_map"
      ON "_sb_rows".day = "_sb_map"."_sb_key0"
  ) AS "_sb_there"
    ON "_sb_here"."day" = "_sb_there"."day"
    AND "_sb_here"."it's" = "_sb_there"."it's"
    AND "_sb_here"."_sb_partition" = "_sb_there"."_sb_partition"
) AS "_sb_both"
GROUP BY
  "_sb_partition";

-- comparing: different rows
SELECT
  COALESCE("_sb_here"."day", "_sb_there"."day") AS "day",
  COALESCE("_sb_here"."it's", "_sb_there"."it's") AS "it's",
  CASE
    WHEN "_sb_there"."day" IS NULL
    THEN 'added'
    WHEN "_sb_here"."day" IS NULL
    THEN 'removed'
    ELSE 'changed'
  END AS "change",
  "_sb_here"."value" AS "value",
  "_sb_there"."value" AS "live_value"
FROM "main"."live__shadow_1" AS "_sb_here"
FULL JOIN (
  SELECT
    "_sb_rows".*,
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_there"
  ON "_sb_here"."day" = "_sb_there"."day"
  AND "_sb_here"."it's" = "_sb_there"."it's"
  AND "_sb_here"."_sb_partition" = "_sb_there"."_sb_partition"
WHERE
  "_sb_there"."day" IS NULL
  OR "_sb_here"."day" IS NULL
  OR (
    "_sb_here"."value" IS DISTINCT FROM "_sb_there"."value"
    AND NOT COALESCE(
      (
        (
          CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.01
          OR CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_sb_here"."value" AS DOUBLE))
          OR CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_sb_there"."value" AS DOUBLE))
        )
        AND CAST(ABS((
          CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
        )) AS DOUBLE) < CAST('inf' AS DOUBLE)
      ),
      FALSE
    )
  )
ORDER BY
  COALESCE("_sb_here"."_sb_partition", "_sb_there"."_sb_partition"),
  COALESCE("_sb_here"."day", "_sb_there"."day"),
  COALESCE("_sb_here"."it's", "_sb_there"."it's")
LIMIT 10;

-- comparing: changed rows
SELECT
  COALESCE("_sb_here"."day", "_sb_there"."day") AS "day",
  COALESCE("_sb_here"."it's", "_sb_there"."it's") AS "it's",
  CASE
    WHEN "_sb_there"."day" IS NULL
    THEN 'added'
    WHEN "_sb_here"."day" IS NULL
    THEN 'removed'
    ELSE 'changed'
  END AS "change",
  "_sb_here"."value" AS "value",
  "_sb_there"."value" AS "live_value"
FROM "main"."live__shadow_1" AS "_sb_here"
FULL JOIN (
  SELECT
    "_sb_rows".*,
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_there"
  ON "_sb_here"."day" = "_sb_there"."day"
  AND "_sb_here"."it's" = "_sb_there"."it's"
  AND "_sb_here"."_sb_partition" = "_sb_there"."_sb_partition"
WHERE
  NOT (
    "_sb_there"."day" IS NULL OR "_sb_here"."day" IS NULL
  )
  AND (
    "_sb_here"."value" IS DISTINCT FROM "_sb_there"."value"
    AND NOT COALESCE(
      (
        (
          CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.01
          OR CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_sb_here"."value" AS DOUBLE))
          OR CAST(ABS((
            CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_sb_there"."value" AS DOUBLE))
        )
        AND CAST(ABS((
          CAST("_sb_here"."value" AS DOUBLE) - CAST("_sb_there"."value" AS DOUBLE)
        )) AS DOUBLE) < CAST('inf' AS DOUBLE)
      ),
      FALSE
    )
  )
ORDER BY
  COALESCE("_sb_here"."_sb_partition", "_sb_there"."_sb_partition"),
  COALESCE("_sb_here"."day", "_sb_there"."day"),
  COALESCE("_sb_here"."it's", "_sb_there"."it's")
LIMIT 10;

-- comparing: differences of whole rows
SELECT
  "_sb_partition",
  SUM(CASE WHEN "_sb_here" > "_sb_there" THEN "_sb_here" - "_sb_there" ELSE 0 END),
  SUM(CASE WHEN "_sb_there" > "_sb_here" THEN "_sb_there" - "_sb_here" ELSE 0 END),
  SUM(CASE WHEN "_sb_here" < "_sb_there" THEN "_sb_here" ELSE "_sb_there" END)
FROM (
  SELECT
    "_sb_partition" AS "_sb_partition",
    SUM("_sb_here") AS "_sb_here",
    SUM("_sb_there") AS "_sb_there"
  FROM (
    SELECT
      "_sb_partition",
      "day",
      "it's",
      "value",
      1 AS "_sb_here",
      0 AS "_sb_there"
    FROM (
      SELECT
        "_sb_partition",
        "day",
        "it's",
        "value"
      FROM "main"."live__shadow_1"
    ) AS "_sb_side"
    UNION ALL
    SELECT
      "_sb_partition",
      "day",
      "it's",
      "value",
      0 AS "_sb_here",
      1 AS "_sb_there"
    FROM (
      SELECT
        "_sb_partition",
        "day",
        "it's",
        "value"
      FROM (
        SELECT
          "_sb_rows".*,
          "_sb_map"."_sb_ordinal" AS "_sb_partition"
        FROM (
          SELECT
            *
          FROM "main"."live"
          WHERE
            (
              (
                day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
              )
              OR (
                day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
              )
            )
        ) AS "_sb_rows"
        LEFT JOIN (
          SELECT
            "_sb_ordinal" AS "_sb_ordinal",
            CAST("_sb_key0" AS DATE) AS "_sb_key0"
          FROM (VALUES
            (0, '2024-01-01'),
            (1, '2024-01-02'),
            (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
        ) AS "_sb_map"
          ON "_sb_rows".day = "_sb_map"."_sb_key0"
      ) AS "_sb_live"
    ) AS "_sb_side"
  ) AS "_sb_both"
  GROUP BY
    "_sb_partition",
    "day",
    "it's",
    "value",
    CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END
) AS "_sb_both"
GROUP BY
  "_sb_partition";

-- comparing: whole rows that are gone
SELECT
  SUM("_sb_there") - SUM("_sb_here") AS "_sb_more",
  ANY_VALUE("day") AS "_sb_0",
  ANY_VALUE("it's") AS "_sb_1",
  ANY_VALUE("value") AS "_sb_2"
FROM (
  SELECT
    "_sb_partition",
    "day",
    "it's",
    "value",
    1 AS "_sb_here",
    0 AS "_sb_there"
  FROM (
    SELECT
      "_sb_partition",
      "day",
      "it's",
      "value"
    FROM "main"."live__shadow_1"
  ) AS "_sb_side"
  UNION ALL
  SELECT
    "_sb_partition",
    "day",
    "it's",
    "value",
    0 AS "_sb_here",
    1 AS "_sb_there"
  FROM (
    SELECT
      "_sb_partition",
      "day",
      "it's",
      "value"
    FROM (
      SELECT
        "_sb_rows".*,
        "_sb_map"."_sb_ordinal" AS "_sb_partition"
      FROM (
        SELECT
          *
        FROM "main"."live"
        WHERE
          (
            (
              day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
            )
            OR (
              day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
            )
          )
      ) AS "_sb_rows"
      LEFT JOIN (
        SELECT
          "_sb_ordinal" AS "_sb_ordinal",
          CAST("_sb_key0" AS DATE) AS "_sb_key0"
        FROM (VALUES
          (0, '2024-01-01'),
          (1, '2024-01-02'),
          (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
      ) AS "_sb_map"
        ON "_sb_rows".day = "_sb_map"."_sb_key0"
    ) AS "_sb_live"
  ) AS "_sb_side"
) AS "_sb_both"
GROUP BY
  "_sb_partition",
  "day",
  "it's",
  "value",
  CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END
HAVING
  SUM("_sb_there") > SUM("_sb_here")
ORDER BY
  "_sb_partition"
LIMIT 10;

-- comparing: no rows
SELECT
  "day"
FROM "main"."live"
WHERE
  FALSE;

-- staging: sizes
SELECT
  0,
  COUNT(*)
FROM "main"."live"
UNION ALL
SELECT
  1,
  COUNT(*)
FROM "main"."live__shadow_1";

-- terms: the database's version
SELECT
  VERSION();

-- publishing: rows by partition
SELECT
  "_sb_live"."_sb_partition",
  COUNT(*)
FROM (
  SELECT
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_live"
GROUP BY
  "_sb_live"."_sb_partition";

-- publishing: differing
SELECT
  "_sb_shadow"."day",
  "_sb_shadow"."it's",
  "_sb_shadow"."value",
  "_sb_shadow"."_sb_partition",
  "_sb_live"."day" IS NULL AS "_sb_is_new"
FROM "main"."live__shadow_1" AS "_sb_shadow"
LEFT JOIN (
  SELECT
    "day",
    "it's",
    "value"
  FROM "main"."live"
  WHERE
    (
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
    )
) AS "_sb_live"
  ON "_sb_live"."day" = "_sb_shadow"."day" AND "_sb_live"."it's" = "_sb_shadow"."it's"
WHERE
  "_sb_live"."day" IS NULL
  OR "_sb_live"."value" IS DISTINCT FROM "_sb_shadow"."value";

-- publishing: differing by partition
SELECT
  "_sb_partition",
  COUNT(*),
  COUNT(CASE WHEN "_sb_is_new" THEN 1 END)
FROM "main"."differing"
GROUP BY
  "_sb_partition";

-- publishing: count in scope
SELECT
  COUNT(*)
FROM "main"."live"
WHERE
  (
    (
      day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
    )
    OR (
      day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
    )
  );

-- publishing: rows in scope
SELECT
  "_sb_live"."_sb_partition",
  COUNT(*)
FROM (
  SELECT
    "day",
    "it's",
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_live"
GROUP BY
  "_sb_live"."_sb_partition";

-- publishing: gone by partition
SELECT
  "_sb_live"."_sb_partition",
  COUNT(*)
FROM (
  SELECT
    "day",
    "it's",
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_live"
WHERE
  NOT EXISTS(
    SELECT
      1
    FROM "main"."live__shadow_1" AS "_sb_shadow"
    WHERE
      "_sb_shadow"."day" = "_sb_live"."day" AND "_sb_shadow"."it's" = "_sb_live"."it's"
  )
GROUP BY
  "_sb_live"."_sb_partition";

-- publishing: delete gone
DELETE FROM "main"."live" AS "_sb_live"
WHERE
  (
    (
      "_sb_live".day >= CAST('2024-01-01' AS DATE)
      AND "_sb_live".day < CAST('2024-01-03' AS DATE)
    )
    OR (
      "_sb_live".day >= CAST('2024-01-05' AS DATE)
      AND "_sb_live".day < CAST('2024-01-06' AS DATE)
    )
  )
  AND NOT EXISTS(
    SELECT
      1
    FROM "main"."live__shadow_1" AS "_sb_shadow"
    WHERE
      "_sb_shadow"."day" = "_sb_live"."day" AND "_sb_shadow"."it's" = "_sb_live"."it's"
  );

-- publishing: merge changed
MERGE INTO "main"."live" AS "_sb_live"
USING "main"."live__shadow_1" AS "_sb_shadow"
ON (
  "_sb_live"."day" = "_sb_shadow"."day" AND "_sb_live"."it's" = "_sb_shadow"."it's"
)
AND (
  (
    "_sb_live".day >= CAST('2024-01-01' AS DATE)
    AND "_sb_live".day < CAST('2024-01-03' AS DATE)
  )
  OR (
    "_sb_live".day >= CAST('2024-01-05' AS DATE)
    AND "_sb_live".day < CAST('2024-01-06' AS DATE)
  )
)
WHEN MATCHED THEN UPDATE SET
  "value" = "_sb_shadow"."value",
  "updated_at" = CAST('2024-01-01 00:00:00+00:00' AS TIMESTAMPTZ)
WHEN NOT MATCHED THEN INSERT ("day", "it's", "value", "updated_at") VALUES (
  "_sb_shadow"."day",
  "_sb_shadow"."it's",
  "_sb_shadow"."value",
  CAST('2024-01-01 00:00:00+00:00' AS TIMESTAMPTZ)
);

-- publishing: delete scope
DELETE FROM "main"."live"
WHERE
  (
    (
      day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
    )
    OR (
      day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
    )
  );

-- publishing: insert staged
INSERT INTO "main"."live" (
  "day",
  "it's",
  "value",
  "updated_at"
)
SELECT
  "_sb_shadow"."day" AS "day",
  "_sb_shadow"."it's" AS "it's",
  "_sb_shadow"."value" AS "value",
  CAST('2024-01-01 00:00:00+00:00' AS TIMESTAMPTZ) AS "updated_at"
FROM "main"."live__shadow_1" AS "_sb_shadow";

-- publishing: keys that are live elsewhere
SELECT
  "_sb_live"."_sb_partition",
  "_sb_shadow"."_sb_partition",
  COUNT(*)
FROM "main"."live__shadow_1" AS "_sb_shadow"
JOIN (
  SELECT
    "it's",
    day AS "_sb_value_0",
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live" AS "_sb_live"
    WHERE
      NOT COALESCE(
        (
          "_sb_live".day >= CAST('2024-01-05' AS DATE)
          AND "_sb_live".day < CAST('2024-01-06' AS DATE)
        ),
        FALSE
      )
      AND EXISTS(
        SELECT
          1
        FROM "main"."live__shadow_1" AS "_sb_shadow"
        WHERE
          "_sb_shadow"."it's" = "_sb_live"."it's"
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_live"
  ON "_sb_live"."it's" = "_sb_shadow"."it's"
GROUP BY
  "_sb_live"."_sb_partition",
  "_sb_shadow"."_sb_partition";

-- publishing: keys that are live in no partition
SELECT
  "_sb_live"."it's",
  "_sb_live"."_sb_value_0"
FROM (
  SELECT
    "it's",
    day AS "_sb_value_0",
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live" AS "_sb_live"
    WHERE
      NOT COALESCE(
        (
          "_sb_live".day >= CAST('2024-01-05' AS DATE)
          AND "_sb_live".day < CAST('2024-01-06' AS DATE)
        ),
        FALSE
      )
      AND EXISTS(
        SELECT
          1
        FROM "main"."live__shadow_1" AS "_sb_shadow"
        WHERE
          "_sb_shadow"."it's" = "_sb_live"."it's"
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_live"
WHERE
  "_sb_live"."_sb_partition" IS NULL;

-- publishing: differing, with rows that move
SELECT
  "_sb_shadow"."day",
  "_sb_shadow"."it's",
  "_sb_shadow"."value",
  "_sb_shadow"."_sb_partition",
  "_sb_live"."it's" IS NULL AS "_sb_is_new"
FROM "main"."live__shadow_1" AS "_sb_shadow"
LEFT JOIN (
  SELECT
    "day",
    "it's",
    "value"
  FROM "main"."live"
  WHERE
    (
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
    )
) AS "_sb_live"
  ON "_sb_live"."it's" = "_sb_shadow"."it's"
WHERE
  "_sb_live"."it's" IS NULL
  OR (
    "_sb_live"."day" IS DISTINCT FROM "_sb_shadow"."day"
    OR "_sb_live"."value" IS DISTINCT FROM "_sb_shadow"."value"
  );

-- publishing: moved by partition
SELECT
  "_sb_live"."_sb_partition",
  "_sb_shadow"."_sb_partition",
  COUNT(*)
FROM "main"."live__shadow_1" AS "_sb_shadow"
JOIN (
  SELECT
    "it's",
    "_sb_map"."_sb_ordinal" AS "_sb_partition"
  FROM (
    SELECT
      *
    FROM "main"."live"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_sb_rows"
  LEFT JOIN (
    SELECT
      "_sb_ordinal" AS "_sb_ordinal",
      CAST("_sb_key0" AS DATE) AS "_sb_key0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_sb_map"("_sb_ordinal", "_sb_key0")
  ) AS "_sb_map"
    ON "_sb_rows".day = "_sb_map"."_sb_key0"
) AS "_sb_live"
  ON "_sb_live"."it's" = "_sb_shadow"."it's"
WHERE
  "_sb_live"."_sb_partition" <> "_sb_shadow"."_sb_partition"
GROUP BY
  "_sb_live"."_sb_partition",
  "_sb_shadow"."_sb_partition";

-- publishing: merge changed, with rows that move
MERGE INTO "main"."live" AS "_sb_live"
USING "main"."live__shadow_1" AS "_sb_shadow"
ON "_sb_live"."it's" = "_sb_shadow"."it's"
AND (
  (
    "_sb_live".day >= CAST('2024-01-01' AS DATE)
    AND "_sb_live".day < CAST('2024-01-03' AS DATE)
  )
  OR (
    "_sb_live".day >= CAST('2024-01-05' AS DATE)
    AND "_sb_live".day < CAST('2024-01-06' AS DATE)
  )
)
WHEN MATCHED THEN UPDATE SET
  "day" = "_sb_shadow"."day",
  "value" = "_sb_shadow"."value"
WHEN NOT MATCHED THEN INSERT ("day", "it's", "value") VALUES ("_sb_shadow"."day", "_sb_shadow"."it's", "_sb_shadow"."value");

-- publishing: delete rows that move
DELETE FROM "main"."live" AS "_sb_live"
WHERE
  (
    "_sb_live".day >= CAST('2024-01-05' AS DATE)
    AND "_sb_live".day < CAST('2024-01-06' AS DATE)
  )
  AND EXISTS(
    SELECT
      1
    FROM "main"."live__shadow_1" AS "_sb_shadow"
    WHERE
      "_sb_shadow"."it's" = "_sb_live"."it's"
  );

-- auditing: repeated values beside rows that stay
SELECT
  COUNT(*)
FROM (
  SELECT
    "value",
    CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END AS "_sb_form_1_value"
  FROM "main"."live__shadow_1"
  GROUP BY
    "value",
    CASE WHEN "value" = 0 AND SIGNBIT("value") THEN '-' ELSE '' END
  HAVING
    COUNT(*) > 1
  UNION ALL
  SELECT
    "_sb_live"."value",
    CASE
      WHEN "_sb_live"."value" = 0 AND SIGNBIT("_sb_live"."value")
      THEN '-'
      ELSE ''
    END AS "_sb_form_1_value"
  FROM "main"."live" AS "_sb_live"
  WHERE
    (
      NOT COALESCE(
        (
          (
            "_sb_live".day >= CAST('2024-01-01' AS DATE)
            AND "_sb_live".day < CAST('2024-01-03' AS DATE)
          )
          OR (
            "_sb_live".day >= CAST('2024-01-05' AS DATE)
            AND "_sb_live".day < CAST('2024-01-06' AS DATE)
          )
        ),
        FALSE
      )
      AND NOT EXISTS(
        SELECT
          1
        FROM "main"."live__shadow_1" AS "_sb_shadow"
        WHERE
          "_sb_shadow"."it's" = "_sb_live"."it's"
      )
    )
    AND COALESCE(
      (
        (
          "_sb_live"."value",
          CASE
            WHEN "_sb_live"."value" = 0 AND SIGNBIT("_sb_live"."value")
            THEN '-'
            ELSE ''
          END
        ) IN (
          SELECT
            "_sb_shadow"."value",
            CASE
              WHEN "_sb_shadow"."value" = 0 AND SIGNBIT("_sb_shadow"."value")
              THEN '-'
              ELSE ''
            END
          FROM "main"."live__shadow_1" AS "_sb_shadow"
          WHERE
            NOT "_sb_shadow"."value" IS NULL
            AND NOT CASE
              WHEN "_sb_shadow"."value" = 0 AND SIGNBIT("_sb_shadow"."value")
              THEN '-'
              ELSE ''
            END IS NULL
        )
      ),
      FALSE
    )
) AS "_sb_other";

-- publishing: create live
CREATE TABLE "main"."born" AS
SELECT
  "_sb_shadow"."day" AS "day"
FROM "main"."live__shadow_1" AS "_sb_shadow";
