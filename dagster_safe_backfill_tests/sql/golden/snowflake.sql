-- staging: values lost by a cast
SELECT
  COUNT(
    CASE
      WHEN ABS(ROUND("IT'S", 0)) >= 1000000000 OR ROUND("IT'S", 0) <> "IT'S"
      THEN 1
    END
  ) AS "IT'S"
FROM "SOURCE";

-- staging: fill
CREATE TABLE "MAIN"."NEW" AS
SELECT
  "DAY",
  "IT'S",
  "VALUE",
  "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
FROM (
  SELECT
    "DAY" AS "DAY",
    CAST("IT'S" AS DECIMAL(9, 0)) AS "IT'S",
    "VALUE" AS "VALUE"
  FROM "SOURCE"
) AS "_SB_ROWS"
LEFT JOIN (
  SELECT
    "_SB_ORDINAL" AS "_SB_ORDINAL",
    CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
  FROM (VALUES
    (0, '2024-01-01'),
    (1, '2024-01-02'),
    (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
) AS "_SB_MAP"
  ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0";

-- staging: fill, by consecutive days
CREATE TEMPORARY TABLE "TEMP"."NEW" AS
SELECT
  "DAY",
  "IT'S",
  "VALUE",
  CASE
    WHEN "_SB_ROWS".day >= CAST('2024-01-01' AS DATE)
    AND "_SB_ROWS".day <= CAST('2024-01-02' AS DATE)
    THEN DATEDIFF(DAY, CAST('2024-01-01' AS DATE), "_SB_ROWS".day)
  END AS "_SB_PARTITION"
FROM (
  SELECT
    "DAY" AS "DAY",
    CAST("IT'S" AS DECIMAL(9, 0)) AS "IT'S",
    "VALUE" AS "VALUE"
  FROM "SOURCE"
) AS "_SB_ROWS";

-- staging: fill, by windows of time
CREATE TEMPORARY TABLE "TEMP"."NEW" AS
SELECT
  "DAY",
  "IT'S",
  "VALUE",
  "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
FROM (
  SELECT
    "DAY" AS "DAY",
    CAST("IT'S" AS DECIMAL(9, 0)) AS "IT'S",
    "VALUE" AS "VALUE"
  FROM "SOURCE"
) AS "_SB_ROWS"
LEFT JOIN (
  SELECT
    "_SB_ORDINAL" AS "_SB_ORDINAL",
    CAST("_SB_START0" AS TIMESTAMP_NTZ) AS "_SB_START0",
    CAST("_SB_END0" AS TIMESTAMP_NTZ) AS "_SB_END0"
  FROM (VALUES
    (0, '2024-01-01 00:00:00', '2024-01-02 00:00:00'),
    (1, '2024-01-02 00:00:00', '2024-01-03 00:00:00'),
    (2, '2024-01-05 00:00:00', '2024-01-06 00:00:00')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_START0", "_SB_END0")
) AS "_SB_MAP"
  ON (
    CAST("_SB_ROWS".day AS TIMESTAMP_NTZ)
  ) >= "_SB_MAP"."_SB_START0"
  AND (
    CAST("_SB_ROWS".day AS TIMESTAMP_NTZ)
  ) < "_SB_MAP"."_SB_END0";

-- staging: rows by partition
SELECT
  "_SB_PARTITION",
  COUNT(*)
FROM "MAIN"."LIVE__SHADOW_1"
GROUP BY
  "_SB_PARTITION";

-- staging: outside, a sample
SELECT DISTINCT
  day
FROM "MAIN"."LIVE__SHADOW_1"
WHERE
  "_SB_PARTITION" IS NULL
LIMIT 10;

-- staging: delete outside
DELETE FROM "MAIN"."LIVE__SHADOW_1"
WHERE
  "_SB_PARTITION" IS NULL;

-- staging: fill, with ranks
CREATE TABLE "MAIN"."NEW" AS
SELECT
  "DAY",
  "IT'S",
  "VALUE",
  CASE
    WHEN NOT (
      "DAY" IS NULL OR "IT'S" IS NULL
    )
    THEN ROW_NUMBER() OVER (PARTITION BY "DAY", "IT'S" ORDER BY "VALUE" IS NULL, "VALUE" DESC NULLS LAST)
    ELSE 1
  END AS "_SB_RANK",
  CASE
    WHEN NOT (
      "DAY" IS NULL OR "IT'S" IS NULL
    )
    THEN COUNT(*) OVER (PARTITION BY "DAY", "IT'S", "VALUE")
    ELSE 1
  END AS "_SB_TIES",
  "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
FROM (
  SELECT
    "DAY" AS "DAY",
    CAST("IT'S" AS DECIMAL(9, 0)) AS "IT'S",
    "VALUE" AS "VALUE"
  FROM "SOURCE"
) AS "_SB_ROWS"
LEFT JOIN (
  SELECT
    "_SB_ORDINAL" AS "_SB_ORDINAL",
    CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
  FROM (VALUES
    (0, '2024-01-01'),
    (1, '2024-01-02'),
    (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
) AS "_SB_MAP"
  ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0";

-- staging: duplicates
SELECT
  COUNT(CASE WHEN "_SB_RANK" > 1 THEN 1 END),
  COUNT(CASE WHEN "_SB_RANK" = 1 AND "_SB_TIES" > 1 THEN 1 END)
FROM "MAIN"."LIVE__SHADOW_2";

-- staging: tied keys
SELECT
  "DAY",
  "IT'S"
FROM "MAIN"."LIVE__SHADOW_2"
WHERE
  "_SB_RANK" = 1 AND "_SB_TIES" > 1
LIMIT 10;

-- staging: delete duplicates
DELETE FROM "MAIN"."LIVE__SHADOW_2"
WHERE
  "_SB_RANK" > 1;

-- staging: repeated keys
SELECT
  "DAY",
  "IT'S"
FROM "MAIN"."LIVE__SHADOW_1"
GROUP BY
  "DAY",
  "IT'S"
HAVING
  COUNT(*) > 1
LIMIT 1;

-- fingerprints: by partition
SELECT
  "_SB_PARTITION",
  COUNT(*),
  SUM("_SB_HASH"),
  CAST(HASH(
    1,
    CAST(1.25 AS NUMBER(18, 3)),
    CAST(2.5 AS FLOAT),
    TRUE,
    'a text',
    CAST('2024-02-29' AS DATE),
    CAST('12:34:56' AS TIME),
    CAST('2024-02-29 12:34:56' AS TIMESTAMP_NTZ),
    NULL
  ) AS DECIMAL(38, 0)) + 9223372036854775808
FROM (
  SELECT
    CAST(HASH("DAY") AS DECIMAL(38, 0)) + 9223372036854775808 AS "_SB_HASH",
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_HASHED"
GROUP BY
  "_SB_PARTITION";

-- auditing: conditions together
SELECT
  "_SB_PARTITION",
  COUNT(CASE WHEN "_SB_SHADOW"."IT'S" IS NULL OR "_SB_SHADOW"."VALUE" IS NULL THEN 1 END) AS "_SB_0",
  COUNT(CASE WHEN NOT (
    value > 0 OR day = CAST('2024-01-01' AS DATE)
  ) THEN 1 END) AS "_SB_1",
  COUNT(CASE WHEN NOT "_SB_SHADOW"."IT'S" IN (1, 2) THEN 1 END) AS "_SB_2",
  COUNT(
    CASE
      WHEN NOT (
        "_SB_SHADOW"."DAY" >= CAST('2024-01-01' AS DATE)
        AND "_SB_SHADOW"."DAY" <= CAST('2024-12-31' AS DATE)
      )
      THEN 1
    END
  ) AS "_SB_3",
  COUNT(
    CASE
      WHEN NOT "_SB_SHADOW"."IT'S" IS NULL
      AND NOT (
        NOT "_SB_FOUND_0"."_SB_FOUND_0_0" IS NULL
      )
      THEN 1
    END
  ) AS "_SB_4"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
LEFT JOIN (
  SELECT DISTINCT
    "_SB_OTHER"."ID" AS "_SB_FOUND_0_0"
  FROM "MAIN"."OTHER" AS "_SB_OTHER"
) AS "_SB_FOUND_0"
  ON "_SB_FOUND_0"."_SB_FOUND_0_0" = "_SB_SHADOW"."IT'S"
GROUP BY
  "_SB_PARTITION";

-- auditing: aggregates of live, and over the run
SELECT
  "_SB_PARTITION",
  COUNT(*) AS "_SB_0",
  (
    SUM(value) / COUNT(*)
  ) AS "_SB_1",
  SUM("VALUE") AS "_SB_2",
  AVG("VALUE") AS "_SB_3",
  COUNT(DISTINCT "VALUE") AS "_SB_4",
  PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY
    "VALUE") AS "_SB_5",
  PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY
    "VALUE") AS "_SB_6"
FROM (
  SELECT
    "_SB_ROWS".*,
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_LIVE"
GROUP BY
  GROUPING SETS (
    ("_SB_PARTITION"),
    ()
  );

-- auditing: aggregates of no rows
SELECT
  NULL,
  COUNT(*) AS "_SB_0",
  (
    SUM(value) / COUNT(*)
  ) AS "_SB_1",
  SUM("VALUE") AS "_SB_2",
  AVG("VALUE") AS "_SB_3",
  COUNT(DISTINCT "VALUE") AS "_SB_4",
  PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY
    "VALUE") AS "_SB_5",
  PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY
    "VALUE") AS "_SB_6"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
WHERE
  FALSE;

-- auditing: what a user's own query finds
SELECT
  "_SB_PARTITION",
  COUNT(*)
FROM (
  SELECT
    "_SB_ROWS".*,
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM (
      WITH batch AS (
        SELECT
          "DAY",
          "IT'S",
          "VALUE"
        FROM "MAIN"."LIVE__SHADOW_1"
      ), live AS (
        SELECT
          *
        FROM "MAIN"."LIVE"
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
      ) AS "_SB_OTHER"
    ) AS "_SB_OTHER"
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_SHADOW"
GROUP BY
  "_SB_PARTITION";

-- auditing: repeated values
SELECT
  COUNT(*)
FROM (
  SELECT
    "IT'S"
  FROM "MAIN"."LIVE__SHADOW_1"
  GROUP BY
    "IT'S"
  HAVING
    COUNT(*) > 1
  UNION ALL
  SELECT
    "_SB_LIVE"."IT'S"
  FROM "MAIN"."LIVE" AS "_SB_LIVE"
  WHERE
    NOT COALESCE(
      (
        (
          "_SB_LIVE".day >= CAST('2024-01-01' AS DATE)
          AND "_SB_LIVE".day < CAST('2024-01-03' AS DATE)
        )
        OR (
          "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
          AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
        )
      ),
      FALSE
    )
    AND EXISTS(
      SELECT
        1
      FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
      WHERE
        "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
    )
) AS "_SB_OTHER";

-- auditing: repetitions
SELECT
  "_SB_SHADOW"."_SB_PARTITION",
  COUNT(*)
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
WHERE
  EXISTS(
    SELECT
      1
    FROM (
      SELECT
        "IT'S"
      FROM "MAIN"."LIVE__SHADOW_1"
      GROUP BY
        "IT'S"
      HAVING
        COUNT(*) > 1
      UNION ALL
      SELECT
        "_SB_LIVE"."IT'S"
      FROM "MAIN"."LIVE" AS "_SB_LIVE"
      WHERE
        NOT COALESCE(
          (
            (
              "_SB_LIVE".day >= CAST('2024-01-01' AS DATE)
              AND "_SB_LIVE".day < CAST('2024-01-03' AS DATE)
            )
            OR (
              "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
              AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
            )
          ),
          FALSE
        )
        AND EXISTS(
          SELECT
            1
          FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
          WHERE
            "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
        )
    ) AS "_SB_OTHER"
    WHERE
      "_SB_OTHER"."IT'S" = "_SB_SHADOW"."IT'S"
  )
GROUP BY
  "_SB_SHADOW"."_SB_PARTITION";

-- auditing: repetitions of the key
SELECT
  "_SB_SHADOW"."_SB_PARTITION",
  COUNT(*)
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
WHERE
  EXISTS(
    SELECT
      1
    FROM (
      SELECT
        "DAY",
        "IT'S"
      FROM "MAIN"."LIVE__SHADOW_1"
      GROUP BY
        "DAY",
        "IT'S"
      HAVING
        COUNT(*) > 1
    ) AS "_SB_OTHER"
    WHERE
      "_SB_OTHER"."DAY" = "_SB_SHADOW"."DAY"
      AND "_SB_OTHER"."IT'S" = "_SB_SHADOW"."IT'S"
  )
GROUP BY
  "_SB_SHADOW"."_SB_PARTITION";

-- auditing: failing rows
SELECT
  "_SB_SHADOW"."DAY",
  "_SB_SHADOW"."IT'S",
  "_SB_SHADOW"."VALUE"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
LEFT JOIN (
  SELECT DISTINCT
    "_SB_OTHER"."DAY" AS "_SB_FOUND_0_0",
    "_SB_OTHER"."IT'S" AS "_SB_FOUND_0_1"
  FROM (
    SELECT
      "DAY",
      "IT'S"
    FROM "MAIN"."LIVE__SHADOW_1"
    GROUP BY
      "DAY",
      "IT'S"
    HAVING
      COUNT(*) > 1
  ) AS "_SB_OTHER"
) AS "_SB_FOUND_0"
  ON "_SB_FOUND_0"."_SB_FOUND_0_0" = "_SB_SHADOW"."DAY"
  AND "_SB_FOUND_0"."_SB_FOUND_0_1" = "_SB_SHADOW"."IT'S"
WHERE
  (
    NOT "_SB_FOUND_0"."_SB_FOUND_0_0" IS NULL
  )
  OR (
    "_SB_SHADOW"."DAY" IS NULL OR "_SB_SHADOW"."IT'S" IS NULL
  )
ORDER BY
  "_SB_SHADOW"."_SB_PARTITION"
LIMIT 10;

-- comparing: broken keys
SELECT
  (
    SELECT
      COUNT(*)
    FROM (
      SELECT
        "DAY",
        "IT'S"
      FROM "MAIN"."LIVE__SHADOW_1"
      GROUP BY
        "DAY",
        "IT'S"
      HAVING
        COUNT(*) > 1 OR "DAY" IS NULL OR "IT'S" IS NULL
    ) AS "_SB_BOTH"
  ),
  (
    SELECT
      COUNT(*)
    FROM (
      SELECT
        "DAY",
        "IT'S"
      FROM (
        SELECT
          "_SB_ROWS".*,
          "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
        FROM (
          SELECT
            *
          FROM "MAIN"."LIVE"
          WHERE
            (
              (
                day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
              )
              OR (
                day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
              )
            )
        ) AS "_SB_ROWS"
        LEFT JOIN (
          SELECT
            "_SB_ORDINAL" AS "_SB_ORDINAL",
            CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
          FROM (VALUES
            (0, '2024-01-01'),
            (1, '2024-01-02'),
            (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
        ) AS "_SB_MAP"
          ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
      ) AS "_SB_LIVE"
      GROUP BY
        "DAY",
        "IT'S"
      HAVING
        COUNT(*) > 1 OR "DAY" IS NULL OR "IT'S" IS NULL
    ) AS "_SB_BOTH"
  );

-- comparing: differences
SELECT
  "_SB_PARTITION",
  COUNT(CASE WHEN "_SB_ADDED" THEN 1 END),
  COUNT(CASE WHEN "_SB_REMOVED" THEN 1 END),
  COUNT(
    CASE
      WHEN NOT (
        "_SB_ADDED" OR "_SB_REMOVED"
      ) AND (
        "_SB_DIFFERS_0"
      )
      THEN 1
    END
  ),
  COUNT(
    CASE
      WHEN NOT (
        "_SB_ADDED" OR "_SB_REMOVED"
      ) AND NOT (
        "_SB_DIFFERS_0"
      )
      THEN 1
    END
  ),
  COUNT(CASE WHEN NOT (
    "_SB_ADDED" OR "_SB_REMOVED"
  ) AND "_SB_DIFFERS_0" THEN 1 END)
FROM (
  SELECT
    COALESCE("_SB_HERE"."_SB_PARTITION", "_SB_THERE"."_SB_PARTITION") AS "_SB_PARTITION",
    "_SB_THERE"."DAY" IS NULL AS "_SB_ADDED",
    "_SB_HERE"."DAY" IS NULL AS "_SB_REMOVED",
    "_SB_HERE"."VALUE" IS DISTINCT FROM "_SB_THERE"."VALUE"
    AND NOT COALESCE(
      (
        (
          CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.01
          OR CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_SB_HERE"."VALUE" AS DOUBLE))
          OR CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_SB_THERE"."VALUE" AS DOUBLE))
        )
        AND CAST(ABS((
          CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
        )) AS DOUBLE) < CAST('inf' AS DOUBLE)
      ),
      FALSE
    ) AS "_SB_DIFFERS_0"
  FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_HERE"
  FULL JOIN (
    SELECT
      "_SB_ROWS".*,
      "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
    FROM (
      SELECT
        *
      FROM "MAIN"."LIVE"
      WHERE
        (
          (
            day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
          )
          OR (
            day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
          )
        )
    ) AS "_SB_ROWS"
    LEFT JOIN (
      SELECT
        "_SB_ORDINAL" AS "_SB_ORDINAL",
        CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
      FROM (VALUES
        (0, '2024-01-01'),
        (1, '2024-01-02'),
        (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
    ) AS "_SB_MAP"
      ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
  ) AS "_SB_THERE"
    ON "_SB_HERE"."DAY" = "_SB_THERE"."DAY"
    AND "_SB_HERE"."IT'S" = "_SB_THERE"."IT'S"
    AND "_SB_HERE"."_SB_PARTITION" = "_SB_THERE"."_SB_PARTITION"
) AS "_SB_BOTH"
GROUP BY
  "_SB_PARTITION";

-- comparing: different rows
SELECT
  COALESCE("_SB_HERE"."DAY", "_SB_THERE"."DAY") AS "DAY",
  COALESCE("_SB_HERE"."IT'S", "_SB_THERE"."IT'S") AS "IT'S",
  CASE
    WHEN "_SB_THERE"."DAY" IS NULL
    THEN 'added'
    WHEN "_SB_HERE"."DAY" IS NULL
    THEN 'removed'
    ELSE 'changed'
  END AS "CHANGE",
  "_SB_HERE"."VALUE" AS "VALUE",
  "_SB_THERE"."VALUE" AS "LIVE_VALUE"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_HERE"
FULL JOIN (
  SELECT
    "_SB_ROWS".*,
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_THERE"
  ON "_SB_HERE"."DAY" = "_SB_THERE"."DAY"
  AND "_SB_HERE"."IT'S" = "_SB_THERE"."IT'S"
  AND "_SB_HERE"."_SB_PARTITION" = "_SB_THERE"."_SB_PARTITION"
WHERE
  "_SB_THERE"."DAY" IS NULL
  OR "_SB_HERE"."DAY" IS NULL
  OR (
    "_SB_HERE"."VALUE" IS DISTINCT FROM "_SB_THERE"."VALUE"
    AND NOT COALESCE(
      (
        (
          CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.01
          OR CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_SB_HERE"."VALUE" AS DOUBLE))
          OR CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_SB_THERE"."VALUE" AS DOUBLE))
        )
        AND CAST(ABS((
          CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
        )) AS DOUBLE) < CAST('inf' AS DOUBLE)
      ),
      FALSE
    )
  )
ORDER BY
  COALESCE("_SB_HERE"."_SB_PARTITION", "_SB_THERE"."_SB_PARTITION"),
  COALESCE("_SB_HERE"."DAY", "_SB_THERE"."DAY"),
  COALESCE("_SB_HERE"."IT'S", "_SB_THERE"."IT'S")
LIMIT 10;

-- comparing: changed rows
SELECT
  COALESCE("_SB_HERE"."DAY", "_SB_THERE"."DAY") AS "DAY",
  COALESCE("_SB_HERE"."IT'S", "_SB_THERE"."IT'S") AS "IT'S",
  CASE
    WHEN "_SB_THERE"."DAY" IS NULL
    THEN 'added'
    WHEN "_SB_HERE"."DAY" IS NULL
    THEN 'removed'
    ELSE 'changed'
  END AS "CHANGE",
  "_SB_HERE"."VALUE" AS "VALUE",
  "_SB_THERE"."VALUE" AS "LIVE_VALUE"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_HERE"
FULL JOIN (
  SELECT
    "_SB_ROWS".*,
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_THERE"
  ON "_SB_HERE"."DAY" = "_SB_THERE"."DAY"
  AND "_SB_HERE"."IT'S" = "_SB_THERE"."IT'S"
  AND "_SB_HERE"."_SB_PARTITION" = "_SB_THERE"."_SB_PARTITION"
WHERE
  NOT (
    "_SB_THERE"."DAY" IS NULL OR "_SB_HERE"."DAY" IS NULL
  )
  AND (
    "_SB_HERE"."VALUE" IS DISTINCT FROM "_SB_THERE"."VALUE"
    AND NOT COALESCE(
      (
        (
          CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.01
          OR CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_SB_HERE"."VALUE" AS DOUBLE))
          OR CAST(ABS((
            CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
          )) AS DOUBLE) <= 0.001 * ABS(CAST("_SB_THERE"."VALUE" AS DOUBLE))
        )
        AND CAST(ABS((
          CAST("_SB_HERE"."VALUE" AS DOUBLE) - CAST("_SB_THERE"."VALUE" AS DOUBLE)
        )) AS DOUBLE) < CAST('inf' AS DOUBLE)
      ),
      FALSE
    )
  )
ORDER BY
  COALESCE("_SB_HERE"."_SB_PARTITION", "_SB_THERE"."_SB_PARTITION"),
  COALESCE("_SB_HERE"."DAY", "_SB_THERE"."DAY"),
  COALESCE("_SB_HERE"."IT'S", "_SB_THERE"."IT'S")
LIMIT 10;

-- comparing: differences of whole rows
SELECT
  "_SB_PARTITION",
  SUM(CASE WHEN "_SB_HERE" > "_SB_THERE" THEN "_SB_HERE" - "_SB_THERE" ELSE 0 END),
  SUM(CASE WHEN "_SB_THERE" > "_SB_HERE" THEN "_SB_THERE" - "_SB_HERE" ELSE 0 END),
  SUM(CASE WHEN "_SB_HERE" < "_SB_THERE" THEN "_SB_HERE" ELSE "_SB_THERE" END)
FROM (
  SELECT
    "_SB_PARTITION" AS "_SB_PARTITION",
    SUM("_SB_HERE") AS "_SB_HERE",
    SUM("_SB_THERE") AS "_SB_THERE"
  FROM (
    SELECT
      "_SB_PARTITION",
      "DAY",
      "IT'S",
      "VALUE",
      1 AS "_SB_HERE",
      0 AS "_SB_THERE"
    FROM (
      SELECT
        "_SB_PARTITION",
        "DAY",
        "IT'S",
        "VALUE"
      FROM "MAIN"."LIVE__SHADOW_1"
    ) AS "_SB_SIDE"
    UNION ALL
    SELECT
      "_SB_PARTITION",
      "DAY",
      "IT'S",
      "VALUE",
      0 AS "_SB_HERE",
      1 AS "_SB_THERE"
    FROM (
      SELECT
        "_SB_PARTITION",
        "DAY",
        "IT'S",
        "VALUE"
      FROM (
        SELECT
          "_SB_ROWS".*,
          "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
        FROM (
          SELECT
            *
          FROM "MAIN"."LIVE"
          WHERE
            (
              (
                day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
              )
              OR (
                day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
              )
            )
        ) AS "_SB_ROWS"
        LEFT JOIN (
          SELECT
            "_SB_ORDINAL" AS "_SB_ORDINAL",
            CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
          FROM (VALUES
            (0, '2024-01-01'),
            (1, '2024-01-02'),
            (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
        ) AS "_SB_MAP"
          ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
      ) AS "_SB_LIVE"
    ) AS "_SB_SIDE"
  ) AS "_SB_BOTH"
  GROUP BY
    "_SB_PARTITION",
    "DAY",
    "IT'S",
    "VALUE"
) AS "_SB_BOTH"
GROUP BY
  "_SB_PARTITION";

-- comparing: whole rows that are gone
SELECT
  SUM("_SB_THERE") - SUM("_SB_HERE") AS "_SB_MORE",
  ANY_VALUE("DAY") AS "_SB_0",
  ANY_VALUE("IT'S") AS "_SB_1",
  ANY_VALUE("VALUE") AS "_SB_2"
FROM (
  SELECT
    "_SB_PARTITION",
    "DAY",
    "IT'S",
    "VALUE",
    1 AS "_SB_HERE",
    0 AS "_SB_THERE"
  FROM (
    SELECT
      "_SB_PARTITION",
      "DAY",
      "IT'S",
      "VALUE"
    FROM "MAIN"."LIVE__SHADOW_1"
  ) AS "_SB_SIDE"
  UNION ALL
  SELECT
    "_SB_PARTITION",
    "DAY",
    "IT'S",
    "VALUE",
    0 AS "_SB_HERE",
    1 AS "_SB_THERE"
  FROM (
    SELECT
      "_SB_PARTITION",
      "DAY",
      "IT'S",
      "VALUE"
    FROM (
      SELECT
        "_SB_ROWS".*,
        "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
      FROM (
        SELECT
          *
        FROM "MAIN"."LIVE"
        WHERE
          (
            (
              day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
            )
            OR (
              day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
            )
          )
      ) AS "_SB_ROWS"
      LEFT JOIN (
        SELECT
          "_SB_ORDINAL" AS "_SB_ORDINAL",
          CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
        FROM (VALUES
          (0, '2024-01-01'),
          (1, '2024-01-02'),
          (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
      ) AS "_SB_MAP"
        ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
    ) AS "_SB_LIVE"
  ) AS "_SB_SIDE"
) AS "_SB_BOTH"
GROUP BY
  "_SB_PARTITION",
  "DAY",
  "IT'S",
  "VALUE"
HAVING
  SUM("_SB_THERE") > SUM("_SB_HERE")
ORDER BY
  "_SB_PARTITION"
LIMIT 10;

-- comparing: no rows
SELECT
  "DAY"
FROM "MAIN"."LIVE"
WHERE
  FALSE;

-- staging: sizes
SELECT
  0,
  COUNT(*)
FROM "MAIN"."LIVE"
UNION ALL
SELECT
  1,
  COUNT(*)
FROM "MAIN"."LIVE__SHADOW_1";

-- terms: the database's version
SELECT
  CURRENT_VERSION();

-- publishing: rows by partition
SELECT
  "_SB_LIVE"."_SB_PARTITION",
  COUNT(*)
FROM (
  SELECT
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_LIVE"
GROUP BY
  "_SB_LIVE"."_SB_PARTITION";

-- publishing: differing
SELECT
  "_SB_SHADOW"."DAY",
  "_SB_SHADOW"."IT'S",
  "_SB_SHADOW"."VALUE",
  "_SB_SHADOW"."_SB_PARTITION",
  "_SB_LIVE"."DAY" IS NULL AS "_SB_IS_NEW"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
LEFT JOIN (
  SELECT
    "DAY",
    "IT'S",
    "VALUE"
  FROM "MAIN"."LIVE"
  WHERE
    (
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
    )
) AS "_SB_LIVE"
  ON "_SB_LIVE"."DAY" = "_SB_SHADOW"."DAY" AND "_SB_LIVE"."IT'S" = "_SB_SHADOW"."IT'S"
WHERE
  "_SB_LIVE"."DAY" IS NULL
  OR "_SB_LIVE"."VALUE" IS DISTINCT FROM "_SB_SHADOW"."VALUE";

-- publishing: differing by partition
SELECT
  "_SB_PARTITION",
  COUNT(*),
  COUNT(CASE WHEN "_SB_IS_NEW" THEN 1 END)
FROM "MAIN"."DIFFERING"
GROUP BY
  "_SB_PARTITION";

-- publishing: count in scope
SELECT
  COUNT(*)
FROM "MAIN"."LIVE"
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
  "_SB_LIVE"."_SB_PARTITION",
  COUNT(*)
FROM (
  SELECT
    "DAY",
    "IT'S",
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_LIVE"
GROUP BY
  "_SB_LIVE"."_SB_PARTITION";

-- publishing: gone by partition
SELECT
  "_SB_LIVE"."_SB_PARTITION",
  COUNT(*)
FROM (
  SELECT
    "DAY",
    "IT'S",
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_LIVE"
WHERE
  NOT EXISTS(
    SELECT
      1
    FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
    WHERE
      "_SB_SHADOW"."DAY" = "_SB_LIVE"."DAY" AND "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
  )
GROUP BY
  "_SB_LIVE"."_SB_PARTITION";

-- publishing: delete gone
DELETE FROM "MAIN"."LIVE" AS "_SB_LIVE"
WHERE
  (
    (
      "_SB_LIVE".day >= CAST('2024-01-01' AS DATE)
      AND "_SB_LIVE".day < CAST('2024-01-03' AS DATE)
    )
    OR (
      "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
      AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
    )
  )
  AND NOT EXISTS(
    SELECT
      1
    FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
    WHERE
      "_SB_SHADOW"."DAY" = "_SB_LIVE"."DAY" AND "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
  );

-- publishing: merge changed
MERGE INTO "MAIN"."LIVE" AS "_SB_LIVE"
USING "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
ON (
  "_SB_LIVE"."DAY" = "_SB_SHADOW"."DAY" AND "_SB_LIVE"."IT'S" = "_SB_SHADOW"."IT'S"
)
AND (
  (
    "_SB_LIVE".day >= CAST('2024-01-01' AS DATE)
    AND "_SB_LIVE".day < CAST('2024-01-03' AS DATE)
  )
  OR (
    "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
    AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
  )
)
WHEN MATCHED THEN UPDATE SET
  "VALUE" = "_SB_SHADOW"."VALUE",
  "UPDATED_AT" = CAST('2024-01-01 00:00:00+00:00' AS TIMESTAMP_TZ)
WHEN NOT MATCHED THEN INSERT ("DAY", "IT'S", "VALUE", "UPDATED_AT") VALUES (
  "_SB_SHADOW"."DAY",
  "_SB_SHADOW"."IT'S",
  "_SB_SHADOW"."VALUE",
  CAST('2024-01-01 00:00:00+00:00' AS TIMESTAMP_TZ)
);

-- publishing: delete scope
DELETE FROM "MAIN"."LIVE"
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
INSERT INTO "MAIN"."LIVE" (
  "DAY",
  "IT'S",
  "VALUE",
  "UPDATED_AT"
)
SELECT
  "_SB_SHADOW"."DAY" AS "DAY",
  "_SB_SHADOW"."IT'S" AS "IT'S",
  "_SB_SHADOW"."VALUE" AS "VALUE",
  CAST('2024-01-01 00:00:00+00:00' AS TIMESTAMP_TZ) AS "UPDATED_AT"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW";

-- publishing: keys that are live elsewhere
SELECT
  "_SB_LIVE"."_SB_PARTITION",
  "_SB_SHADOW"."_SB_PARTITION",
  COUNT(*)
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
JOIN (
  SELECT
    "IT'S",
    day AS "_SB_VALUE_0",
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE" AS "_SB_LIVE"
    WHERE
      NOT COALESCE(
        (
          "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
          AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
        ),
        FALSE
      )
      AND EXISTS(
        SELECT
          1
        FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
        WHERE
          "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_LIVE"
  ON "_SB_LIVE"."IT'S" = "_SB_SHADOW"."IT'S"
GROUP BY
  "_SB_LIVE"."_SB_PARTITION",
  "_SB_SHADOW"."_SB_PARTITION";

-- publishing: keys that are live in no partition
SELECT
  "_SB_LIVE"."IT'S",
  "_SB_LIVE"."_SB_VALUE_0"
FROM (
  SELECT
    "IT'S",
    day AS "_SB_VALUE_0",
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE" AS "_SB_LIVE"
    WHERE
      NOT COALESCE(
        (
          "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
          AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
        ),
        FALSE
      )
      AND EXISTS(
        SELECT
          1
        FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
        WHERE
          "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_LIVE"
WHERE
  "_SB_LIVE"."_SB_PARTITION" IS NULL;

-- publishing: differing, with rows that move
SELECT
  "_SB_SHADOW"."DAY",
  "_SB_SHADOW"."IT'S",
  "_SB_SHADOW"."VALUE",
  "_SB_SHADOW"."_SB_PARTITION",
  "_SB_LIVE"."IT'S" IS NULL AS "_SB_IS_NEW"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
LEFT JOIN (
  SELECT
    "DAY",
    "IT'S",
    "VALUE"
  FROM "MAIN"."LIVE"
  WHERE
    (
      (
        day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
      )
      OR (
        day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
      )
    )
) AS "_SB_LIVE"
  ON "_SB_LIVE"."IT'S" = "_SB_SHADOW"."IT'S"
WHERE
  "_SB_LIVE"."IT'S" IS NULL
  OR (
    "_SB_LIVE"."DAY" IS DISTINCT FROM "_SB_SHADOW"."DAY"
    OR "_SB_LIVE"."VALUE" IS DISTINCT FROM "_SB_SHADOW"."VALUE"
  );

-- publishing: moved by partition
SELECT
  "_SB_LIVE"."_SB_PARTITION",
  "_SB_SHADOW"."_SB_PARTITION",
  COUNT(*)
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
JOIN (
  SELECT
    "IT'S",
    "_SB_MAP"."_SB_ORDINAL" AS "_SB_PARTITION"
  FROM (
    SELECT
      *
    FROM "MAIN"."LIVE"
    WHERE
      (
        (
          day >= CAST('2024-01-01' AS DATE) AND day < CAST('2024-01-03' AS DATE)
        )
        OR (
          day >= CAST('2024-01-05' AS DATE) AND day < CAST('2024-01-06' AS DATE)
        )
      )
  ) AS "_SB_ROWS"
  LEFT JOIN (
    SELECT
      "_SB_ORDINAL" AS "_SB_ORDINAL",
      CAST("_SB_KEY0" AS DATE) AS "_SB_KEY0"
    FROM (VALUES
      (0, '2024-01-01'),
      (1, '2024-01-02'),
      (2, '2024-01-05')) AS "_SB_MAP"("_SB_ORDINAL", "_SB_KEY0")
  ) AS "_SB_MAP"
    ON "_SB_ROWS".day = "_SB_MAP"."_SB_KEY0"
) AS "_SB_LIVE"
  ON "_SB_LIVE"."IT'S" = "_SB_SHADOW"."IT'S"
WHERE
  "_SB_LIVE"."_SB_PARTITION" <> "_SB_SHADOW"."_SB_PARTITION"
GROUP BY
  "_SB_LIVE"."_SB_PARTITION",
  "_SB_SHADOW"."_SB_PARTITION";

-- publishing: merge changed, with rows that move
MERGE INTO "MAIN"."LIVE" AS "_SB_LIVE"
USING "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
ON "_SB_LIVE"."IT'S" = "_SB_SHADOW"."IT'S"
AND (
  (
    "_SB_LIVE".day >= CAST('2024-01-01' AS DATE)
    AND "_SB_LIVE".day < CAST('2024-01-03' AS DATE)
  )
  OR (
    "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
    AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
  )
)
WHEN MATCHED THEN UPDATE SET
  "DAY" = "_SB_SHADOW"."DAY",
  "VALUE" = "_SB_SHADOW"."VALUE"
WHEN NOT MATCHED THEN INSERT ("DAY", "IT'S", "VALUE") VALUES ("_SB_SHADOW"."DAY", "_SB_SHADOW"."IT'S", "_SB_SHADOW"."VALUE");

-- publishing: delete rows that move
DELETE FROM "MAIN"."LIVE" AS "_SB_LIVE"
WHERE
  (
    "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
    AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
  )
  AND EXISTS(
    SELECT
      1
    FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
    WHERE
      "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
  );

-- auditing: repeated values beside rows that stay
SELECT
  COUNT(*)
FROM (
  SELECT
    "VALUE"
  FROM "MAIN"."LIVE__SHADOW_1"
  GROUP BY
    "VALUE"
  HAVING
    COUNT(*) > 1
  UNION ALL
  SELECT
    "_SB_LIVE"."VALUE"
  FROM "MAIN"."LIVE" AS "_SB_LIVE"
  WHERE
    (
      NOT COALESCE(
        (
          (
            "_SB_LIVE".day >= CAST('2024-01-01' AS DATE)
            AND "_SB_LIVE".day < CAST('2024-01-03' AS DATE)
          )
          OR (
            "_SB_LIVE".day >= CAST('2024-01-05' AS DATE)
            AND "_SB_LIVE".day < CAST('2024-01-06' AS DATE)
          )
        ),
        FALSE
      )
      AND NOT EXISTS(
        SELECT
          1
        FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
        WHERE
          "_SB_SHADOW"."IT'S" = "_SB_LIVE"."IT'S"
      )
    )
    AND EXISTS(
      SELECT
        1
      FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW"
      WHERE
        "_SB_SHADOW"."VALUE" = "_SB_LIVE"."VALUE"
    )
) AS "_SB_OTHER";

-- publishing: create live
CREATE TABLE "MAIN"."BORN" AS
SELECT
  "_SB_SHADOW"."DAY" AS "DAY"
FROM "MAIN"."LIVE__SHADOW_1" AS "_SB_SHADOW";
