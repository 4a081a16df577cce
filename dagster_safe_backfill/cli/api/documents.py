"""The GraphQL documents that the command sends."""

ENTRIES = """
  __typename label
  ... on TextMetadataEntry { text }
  ... on IntMetadataEntry { intRepr }
  ... on FloatMetadataEntry { floatValue }
  ... on JsonMetadataEntry { jsonString }
"""
"""What is read of the metadata that all queries ask for."""
_METADATA = f"""
metadataEntries {{
  {ENTRIES}
  ... on BoolMetadataEntry {{ boolValue }}
  ... on PathMetadataEntry {{ path }}
  ... on UrlMetadataEntry {{ url }}
}}
"""
_ERRORS = "... on Error { message }"
RUN_FIELDS = "runId status jobName tags { key value } startTime endTime"
_BACKFILL = """
id status title timestamp endTimestamp isAssetBackfill partitionSetName
tags { key value }
error { message }
assetBackfillData {
  assetBackfillStatuses {
    ... on AssetPartitionsStatusCounts {
      assetKey { path }
      numPartitionsTargeted numPartitionsInProgress numPartitionsMaterialized numPartitionsFailed
    }
    ... on UnpartitionedAssetStatus { assetKey { path } inProgress materialized failed }
  }
}
"""
_STATUSES_OF_TIME = "... on TimePartitionStatuses { ranges { startKey endKey status } }"
_STATUSES_OF_KEYS = (
    "... on DefaultPartitionStatuses { materializedPartitions failedPartitions materializingPartitions }"
)

VERSION = "query { version }"

ASSET_KEYS = "query { assetNodes { assetKey { path } } }"

ASSETS = f"""
query ($keys: [AssetKeyInput!]) {{
  assetNodes(assetKeys: $keys) {{
    assetKey {{ path }}
    repository {{ name location {{ name }} }}
    partitionDefinition {{ type dimensionTypes {{ name }} }}
    partitionKeys
    backfillPolicy {{ policyType maxPartitionsPerRun }}
    opVersion
    dependencyKeys {{ path }}
    dependedByKeys {{ path }}
    jobNames
    pools
    {_METADATA}
  }}
}}
"""

JOBS_OF_ASSETS = "query { assetNodes { assetKey { path } jobNames } }"

SCHEDULES = f"""
query ($repository: RepositorySelector!) {{
  schedulesOrError(repositorySelector: $repository) {{
    __typename
    ... on Schedules {{ results {{ name pipelineName scheduleState {{ status }} }} }}
    {_ERRORS}
  }}
}}
"""

DIMENSIONS = """
query ($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) { partitionKeysByDimension { name type partitionKeys } }
}
"""

OPEN_RUNS = f"""
query ($statuses: [RunStatus!], $limit: Int!) {{
  runsOrError(filter: {{statuses: $statuses}}, limit: $limit) {{
    __typename
    ... on Runs {{ results {{ runId status jobName tags {{ key value }} assetSelection {{ path }} }} }}
    {_ERRORS}
  }}
}}
"""

STATUSES = f"""
query ($key: AssetKeyInput!) {{
  assetNodeOrError(assetKey: $key) {{
    ... on AssetNode {{
      assetPartitionStatuses {{
        {_STATUSES_OF_TIME}
        {_STATUSES_OF_KEYS}
        ... on MultiPartitionStatuses {{
          primaryDimensionName
          ranges {{
            primaryDimStartKey primaryDimEndKey
            secondaryDim {{ {_STATUSES_OF_TIME} {_STATUSES_OF_KEYS} }}
          }}
        }}
      }}
    }}
  }}
}}
"""

NEWEST = f"""
query ($key: AssetKeyInput!, $partitions: [String!]) {{
  assetNodeOrError(assetKey: $key) {{
    ... on AssetNode {{
      latestMaterializationByPartition(partitions: $partitions) {{
        partition runId timestamp {_METADATA}
      }}
    }}
  }}
}}
"""

NEWEST_OF_ASSET = f"""
query ($key: AssetKeyInput!) {{
  assetNodeOrError(assetKey: $key) {{
    ... on AssetNode {{ assetMaterializations(limit: 1) {{ partition runId timestamp {_METADATA} }} }}
  }}
}}
"""

BACKFILL = f"""
query ($id: String!, $runs: Int!) {{
  partitionBackfillOrError(backfillId: $id) {{
    __typename
    ... on PartitionBackfill {{ {_BACKFILL} runs(limit: $runs) {{ {RUN_FIELDS} }} }}
    {_ERRORS}
  }}
}}
"""

BACKFILLS = f"""
query ($limit: Int!, $filters: BulkActionsFilter) {{
  partitionBackfillsOrError(limit: $limit, filters: $filters) {{
    __typename
    ... on PartitionBackfills {{ results {{ {_BACKFILL} }} }}
    {_ERRORS}
  }}
}}
"""

LAUNCH_BACKFILL = f"""
mutation ($params: LaunchBackfillParams!) {{
  launchPartitionBackfill(backfillParams: $params) {{
    __typename
    ... on LaunchBackfillSuccess {{ backfillId }}
    {_ERRORS}
  }}
}}
"""

REEXECUTE_BACKFILL = f"""
mutation ($params: ReexecutionParams!) {{
  reexecutePartitionBackfill(reexecutionParams: $params) {{
    __typename
    ... on LaunchBackfillSuccess {{ backfillId }}
    {_ERRORS}
  }}
}}
"""

CANCEL_BACKFILL = f"""
mutation ($id: String!) {{
  cancelPartitionBackfill(backfillId: $id) {{
    __typename
    ... on CancelBackfillSuccess {{ backfillId }}
    {_ERRORS}
  }}
}}
"""

TERMINATE_RUNS = f"""
mutation ($ids: [String!]!) {{
  terminateRuns(runIds: $ids) {{
    __typename
    ... on TerminateRunsResult {{
      terminateRunResults {{ __typename ... on TerminateRunFailure {{ run {{ status }} message }} {_ERRORS} }}
    }}
    {_ERRORS}
  }}
}}
"""

RUN = f"""
query ($id: ID!) {{
  runOrError(runId: $id) {{ __typename ... on Run {{ {RUN_FIELDS} }} {_ERRORS} }}
}}
"""

RUNS = f"""
query ($filter: RunsFilter, $limit: Int!) {{
  runsOrError(filter: $filter, limit: $limit) {{
    __typename
    ... on Runs {{ results {{ {RUN_FIELDS} }} }}
    {_ERRORS}
  }}
}}
"""

LAUNCH_RUN = f"""
mutation ($params: ExecutionParams!) {{
  launchRun(executionParams: $params) {{
    __typename
    ... on LaunchRunSuccess {{ run {{ runId }} }}
    {_ERRORS}
  }}
}}
"""

DAEMONS = """
query {
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } }
}
"""

TARGETED = """
query ($id: String!, $key: AssetKeyInput!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      partitionsTargetedForAssetKey(assetKey: $key) { ranges { start end } partitionKeys }
    }
  }
}
"""

EDGES = "query { assetNodes { assetKey { path } dependedByKeys { path } } }"

SET_POOL_LIMIT = """
mutation ($pool: String!, $limit: Int!) { setConcurrencyLimit(concurrencyKey: $pool, limit: $limit) }
"""
