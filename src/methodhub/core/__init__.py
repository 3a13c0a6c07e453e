"""The domain: identities, access, calls. Knows no wire, no socket and no SQL."""
