"""The verbs that act on many devices at once: queries, twins, jobs, imports, and the hub as one file."""
