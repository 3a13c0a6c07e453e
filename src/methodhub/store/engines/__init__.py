"""How a database is opened and spoken to, one module for each kind. Knows no row."""
