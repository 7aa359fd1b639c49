"""When and how the graph runs: jobs, schedules, retries, and where Dagster keeps its records."""
