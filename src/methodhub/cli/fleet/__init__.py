"""The verbs that act on many devices at once: queries, twins, jobs and imports."""
