"""Snowflake as true as it can be had without an account: an emulator, a proxy that loses replies, a grammar gate.

Exact, as far as FACTS.md and Snowflake's documentation say: DDL commits the open transaction; READ COMMITTED for each
statement; a failed statement leaves the transaction open; table locks of UPDATE, DELETE and MERGE until the transaction
ends, LOCK_TIMEOUT, and the abort of an idle transaction that blocks; a request id runs once; SWAP WITH, CLONE and what
goes along; temporary tables and stages of one session; case of identifiers; IN-lists; MERGE's clauses and duplicates;
NUMBER as the smallest integer in Arrow; the default time zone; keys that aren't enforced; COPY INTO that loads no file
twice; CREATE SCHEMA's privilege; what ADD COLUMN takes as a DEFAULT; refused logins, and those that a person confirms.

Approximate: DDL waits for other sessions' pending rows of its table (Snowflake's needn't); after a failed statement the
transaction's earlier ones run again, on what is committed by then; HASH's values, not its laws;
session parameters: of the formats those of dates and timestamps in casts only; a result's column is
TIMESTAMP_TZ if its table's column of that name is; the offset of a TIMESTAMP_TZ is always UTC's; a division and an
average of NUMBERs are FLOAT; LAST_ALTERED is when it was made; the words of errors, not their numbers; no deadlock is
found,
its waiters run into LOCK_TIMEOUT.

Not at all: that VARCHAR(n) is too short, time travel, streams, other privileges, clustering, pruning, result
cache, bindings by the server, asynchronous and multiple statements, a transaction over two databases, two identifiers
that differ by case alone, SWAP and RENAME across schemas, formats but Parquet.
"""
