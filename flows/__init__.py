"""Stories: one Prefect flow per source, the flows that tend the library, and the command line."""
