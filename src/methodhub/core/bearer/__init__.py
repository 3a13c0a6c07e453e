"""Bearer tokens of OpenID Connect issuers: who issued them, what they say, what they let their holder do."""
