"""Rows of identities, policies and device sessions, in SQLite or in memory. Knows no rule of theirs."""
