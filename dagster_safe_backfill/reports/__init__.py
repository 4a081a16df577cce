"""The output of a run for people: events, checks, the report and its chart."""
