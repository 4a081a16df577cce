"""Databases: all input and output of the library. Drivers are imported here only."""
