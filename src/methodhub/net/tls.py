"""The TLS context of a listener: versions, ciphers, the certificate in use and its swap while running. Judges no
client certificate."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from methodhub.net.certificates import CertificateError, ServerCertificate

log = structlog.get_logger()

CIPHERS = (
    "ECDHE+AESGCM:ECDHE+CHACHA20:"
    # Older Windows devices have no GCM for RSA certificates; the cloud takes these too.
    "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384"
)

GROUPS = b"X25519:P-256:P-384"
"""Post-quantum groups are left out: their keys would stay in memory for as long as the connection lives."""

BUFFER_SIZE = 65_536

MAX_INTERMEDIATES = 5
"""Certificates that are looked at between a device's own and an authority that the operator registered."""

_OPTIONS = SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE


@ffi.callback("int (*)(int, X509_STORE_CTX *)")  # type: ignore[untyped-decorator]  # cffi has no types
def _accept_any(_verified: int, _store: object) -> int:
    return 1


class TlsContextHolder:
    """Holds the context that the next handshake uses; established connections keep the one they began with.

    `request_client_certificates`: ask for one and take any, self-signed too, since only the identity named later tells
    which is right (design.md, section 6). Such a listener gives no session tickets and keeps no cache: a resumed
    session would come without its certificate.
    """

    def __init__(self, chain_pem: bytes, key_pem: bytes, *, request_client_certificates: bool = False) -> None:
        self._request = request_client_certificates
        self._pem = (chain_pem, key_pem)
        # Shared by all streams of a listener, which run in one thread: nothing stays in it after the call that filled
        # it.
        self.buffer = ffi.new("char[]", BUFFER_SIZE)
        self.view = ffi.buffer(self.buffer)
        self.current = self._build(chain_pem, key_pem)

    @property
    def asks_for_certificates(self) -> bool:
        return self._request

    def ask_for_certificates(self, request: bool) -> None:
        """Ask, or do not, from the next handshake on."""
        if request != self._request:
            self._request = request
            self.current = self._build(*self._pem)

    def replace(self, chain_pem: bytes, key_pem: bytes) -> None:
        """Use another certificate from the next handshake on. Raises and changes nothing if it cannot be used.

        Raises ValueError (no certificate or key in the PEM) or OpenSSL.SSL.Error (they do not belong together).
        """
        self.current = self._build(chain_pem, key_pem)
        self._pem = (chain_pem, key_pem)

    def _build(self, chain_pem: bytes, key_pem: bytes) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(_OPTIONS)
        context.set_mode(lib.SSL_MODE_RELEASE_BUFFERS)
        # pyOpenSSL sets it; without it one SSL_write takes all it is given, and a memory BIO always has room.
        context.clear_mode(lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        context.set_cipher_list(CIPHERS.encode())
        if lib.SSL_CTX_set1_curves_list(context._context, GROUPS) != 1:
            raise ValueError("this OpenSSL has none of the groups " + GROUPS.decode())
        leaf, *chain = x509.load_pem_x509_certificates(chain_pem)
        context.use_certificate(leaf)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(load_pem_private_key(key_pem, None))  # type: ignore[arg-type]  # DH keys are not certified
        context.check_privatekey()
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if self._request:
            context.set_options(SSL.OP_NO_TICKET)
            context.set_verify_depth(MAX_INTERMEDIATES)
            # pyOpenSSL's own set_verify would look for its Connection object, which streams do without.
            lib.SSL_CTX_set_verify(context._context, SSL.VERIFY_PEER, _accept_any)
        return context


_UNUSABLE = (CertificateError, OSError, ValueError, SSL.Error)


class ServerTls:
    """One server certificate for all listeners, in two contexts: devices' ports always ask for a client certificate,
    HTTPS when it is told to. `read` gives the certificate of the day. Raises CertificateError if it cannot be used."""

    def __init__(self, read: Callable[[], ServerCertificate], *, https_asks: bool) -> None:
        self._read = read
        try:
            self._certificate = found = read()
            self.devices = TlsContextHolder(found.chain_pem, found.key_pem, request_client_certificates=True)
            self.https = TlsContextHolder(found.chain_pem, found.key_pem, request_client_certificates=https_asks)
        except _UNUSABLE as error:
            raise CertificateError(str(error)) from error

    def renew(self) -> None:
        """[HUB-certificate-renewal] Without a restart; the old one stays in use if the new one cannot be."""
        try:
            found = self._read()
            if found != self._certificate:
                for holder in (self.devices, self.https):
                    holder.replace(found.chain_pem, found.key_pem)
                self._certificate = found
                log.info("server certificate renewed")
        except _UNUSABLE as error:
            log.error("server certificate could not be renewed", error=str(error))
