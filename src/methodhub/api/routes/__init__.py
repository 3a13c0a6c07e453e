"""Routes of the service beyond single identities and method calls. Each module is a room of its own."""
