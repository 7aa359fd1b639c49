"""Running the graph: jobs, schedules, retries, and the storage of Dagster's records."""
