"""Snowflake as true as it can be had without an account: an emulator, a proxy that loses replies, a gate of the grammar."""
