"""Queries as SQL: a syntax tree becomes expressions for SQLite and for PostgreSQL, with bound parameters only."""
