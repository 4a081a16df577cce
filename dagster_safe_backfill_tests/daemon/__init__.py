"""Promises held by a real Dagster: a daemon, a code server and a process for each run."""
