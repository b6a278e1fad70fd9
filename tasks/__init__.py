"""Verbs: small retryable Prefect tasks over batches of files."""
