"""What people see of a run: events, checks, the report and its chart."""
