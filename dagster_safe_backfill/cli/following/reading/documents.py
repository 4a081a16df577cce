"""The GraphQL documents by which a backfill is followed. They were run on Dagster 1.13.27."""

from __future__ import annotations

from dagster_safe_backfill.cli.api.documents import ENTRIES

_TABLES = f"""
metadataEntries {{
  {ENTRIES}
  ... on TableMetadataEntry {{ table {{ records }} }}
}}
"""

RUNS = """
query ($filter: RunsFilter!, $cursor: String, $limit: Int!) {
  runsOrError(filter: $filter, cursor: $cursor, limit: $limit) {
    __typename
    ... on Runs {
      results {
        runId status jobName tags { key value } startTime endTime creationTime updateTime assetSelection { path }
      }
    }
    ... on Error { message }
  }
}
"""

MATERIALIZED_BY = """
query ($id: ID!) {
  runOrError(runId: $id) {
    ... on Run { assets { key { path } } assetMaterializations { partition assetKey { path } } }
  }
}
"""

LOG = f"""
query ($id: ID!, $cursor: String, $limit: Int!) {{
  logsForRun(runId: $id, afterCursor: $cursor, limit: $limit) {{
    __typename
    ... on EventConnection {{
      cursor hasMore
      events {{
        __typename
        ... on MaterializationEvent {{ partition assetKey {{ path }} }}
        ... on AssetCheckEvaluationEvent {{
          evaluation {{ checkName success severity partition description assetKey {{ path }} {_TABLES} }}
        }}
        ... on ExecutionStepFailureEvent {{
          stepKey
          error {{ message className causes {{ message }} }}
          failureMetadata {{ description {_TABLES} }}
        }}
        ... on RunFailureEvent {{ message error {{ message }} }}
        ... on RunCanceledEvent {{ message }}
      }}
    }}
    ... on Error {{ message }}
  }}
}}
"""

AUDIT_OF_STAGED = f"""
query ($audit: AssetKeyInput!, $live: AssetKeyInput!) {{
  assetsLatestInfo(assetKeys: [$audit, $live]) {{
    assetKey {{ path }} unstartedRunIds inProgressRunIds
    latestRun {{ runId status endTime }}
  }}
  assetNodeOrError(assetKey: $audit) {{
    ... on AssetNode {{
      assetMaterializations(limit: 1) {{ runId timestamp {_TABLES} }}
      assetChecksOrError {{
        ... on AssetChecks {{
          checks {{
            name
            executionForLatestMaterialization {{
              runId status evaluation {{ success severity description {_TABLES} }}
            }}
          }}
        }}
      }}
    }}
  }}
}}
"""


JOB = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { partitionNames } }
}
"""


def batches(runs: int, assets: int) -> str:
    """Return the query for how much each run has materialized, as `r0` and so on, and for assets' newest batches."""
    given = [*(f"$r{number}: ID!" for number in range(runs)), *(f"$k{n}: AssetKeyInput!" for n in range(assets))]
    counted = "... on Run { stats { ... on RunStatsSnapshot { materializations } } }"
    observed = (
        "... on AssetNode { assetObservations(limit: 5) {"
        " runId metadataEntries { label ... on IntMetadataEntry { intRepr } } } }"
    )
    asked = [
        *(f"r{number}: runOrError(runId: $r{number}) {{ {counted} }}" for number in range(runs)),
        *(f"k{number}: assetNodeOrError(assetKey: $k{number}) {{ {observed} }}" for number in range(assets)),
    ]
    return f"query ({', '.join(given)}) {{ {' '.join(asked)} }}"
