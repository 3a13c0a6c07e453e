"""One server certificate for all listeners, in two contexts: devices' ports always ask for a client certificate, HTTPS
when it is told to. Knows neither where the certificate comes from nor who asks."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from OpenSSL import SSL

from methodhub.net.certificates import CertificateError, ServerCertificate
from methodhub.net.tls import TlsContextHolder

log = structlog.get_logger()

_UNUSABLE = (CertificateError, OSError, ValueError, SSL.Error)


class ServerTls:
    """`read` gives the certificate of the day. Raises CertificateError if it cannot be used."""

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
