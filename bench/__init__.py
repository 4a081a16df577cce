"""The benchmark: what safety costs, measured side by side with what users have today.

```text
__main__.py     the command: what is run, how often
report.py       tables, and the aims with their bounds
measure.py      one fresh process a measurement; medians
contenders.py   what runs in such a process
audits.py       eight audits, against one GROUP BY and against eight checks
publications.py write, publish and rollback, with archives, against the same in bare DuckDB
sameness.py     exact comparison of floats, intervals and vectors, against the database's own
data.py         the workload: TPC-H order items at scale 1, and the check of what a contender wrote
```
"""
