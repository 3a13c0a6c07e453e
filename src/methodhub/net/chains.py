"""Whether a chain of certificates leads to one of the authorities it is judged against. Knows no identity and no
authority of the system."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from methodhub.core.access import AuthenticationError


def verify_chain(chain: Sequence[bytes], authorities: Sequence[bytes], now: float) -> bytes:
    """The DER of the authority that the chain (DER, leaf first) leads to. `now`: seconds since 1970.

    An authority vouches by itself, whether or not it is signed by another. OpenSSL judges, as it also takes plain
    leaves without extensions. Raises AuthenticationError.
    """
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(datetime.datetime.fromtimestamp(now, datetime.UTC))
    try:
        for authority in authorities:
            store.add_cert(_read(authority))
        leaf, *above = map(_read, chain)
        verified = crypto.X509StoreContext(store, leaf, above).get_verified_chain()
    except crypto.X509StoreContextError as error:
        failed = error.certificate.to_cryptography().subject.rfc4514_string()
        raise AuthenticationError(f"no registered CA vouches for the certificate: {error} ({failed[:260]})") from None
    except (crypto.Error, ValueError) as error:
        raise AuthenticationError(f"the chain of certificates cannot be read: {error}") from None
    return verified[-1].to_cryptography().public_bytes(Encoding.DER)


def _read(der: bytes) -> crypto.X509:
    return crypto.X509.from_cryptography(x509.load_der_x509_certificate(der))
