"""The authority and the server certificate of a hub: read or made at the start, shared between nodes, renewed while it
runs; and whether HTTPS asks for client certificates."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from methodhub.config import Settings
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.clock import Clock
from methodhub.core.ports import CertificateExpected, Event, HubStore, IdentityStore, StoreUnavailable
from methodhub.net.certificates import (
    CertificateError,
    ServerCertificate,
    authority_text,
    ensure_authority,
    ensure_server_certificate,
    install_authority,
    load_operator_certificate,
)
from methodhub.net.tls import ServerTls, TlsContextHolder
from methodhub.process import StartError
from methodhub.server.background import Background

CA_NAME = "ca.pem"
CERTIFICATE_CHECK_INTERVAL = 3600.0
"""Seconds between two looks at whether the server certificate must be renewed, or was replaced by its operator."""


def ca_file(settings: Settings) -> Path:
    """What SDKs must trust: the hub's own authority, or with an operator's certificate that file."""
    return settings.certificate or settings.data_dir / CA_NAME


AUTHORITY = "authority"
"""The secret by which the nodes of one database share their authority."""


async def prepare_authority(settings: Settings, store: HubStore, now: float) -> str | None:
    """[HUB-one-authority] Read the hub's authority, or make one; with a `database_url` that of the first node becomes
    everyone's, so that a device may meet any of them. Returns a note if another one was replaced. Raises StartError.
    """
    directory = settings.data_dir
    try:
        is_new = not (directory / CA_NAME).exists()
        own = ensure_authority(directory, now)
        if settings.database_url is None:
            return None
        replaced = install_authority(directory, await store.secret(AUTHORITY, authority_text(own)))
        ensure_authority(directory, now)
    except (CertificateError, OSError, StoreUnavailable) as error:
        raise StartError(f"The authority cannot be used: {error}") from error
    if not replaced or is_new:
        return None
    return (
        f"{directory / CA_NAME} was replaced by the authority that all nodes on this database share; the one before is "
        f"in {CA_NAME}.former. Whoever trusts that one must be told of the new one."
    )


class ServerCertificates:
    """TLS of all listeners. `tls` raises StartError if the certificate cannot be used."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        authorities: CertificateAuthorities,
        store: IdentityStore,
        hub_store: HubStore,
        background: Background,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._authorities = authorities
        self._store = store
        self._hub_store = hub_store
        self._background = background
        self._expectations = 0
        """How often an identity or a CA was told of that needs client certificates."""

    async def load(self) -> str | None:
        """Read the certificate, or make one. Returns what its operator should know. Raises StartError."""
        note = None
        if self._settings.certificate is None:
            note = await prepare_authority(self._settings, self._hub_store, self._clock.wall())
        choice = self._settings.https_client_certificates
        asks = choice == "on"
        if choice == "auto":
            asks = len(self._authorities) > 0 or await self._store.expects_certificates()
        try:
            self.tls = ServerTls(self._read, https_asks=asks)
        except CertificateError as error:
            raise StartError(f"The server certificate cannot be used: {error}") from error
        return note

    def _read(self) -> ServerCertificate:
        settings = self._settings
        if settings.certificate is not None and settings.certificate_key is not None:
            return load_operator_certificate(settings.certificate, settings.certificate_key)
        now = self._clock.wall()
        authority = ensure_authority(settings.data_dir, now)
        return ensure_server_certificate(
            settings.data_dir, authority, settings.hostname, settings.certificate_key_type, now
        )

    async def renew(self) -> None:
        self.tls.renew()

    def expect(self, event: Event) -> None:
        """[HUB-certificate-request] HTTPS asks for client certificates while some are of use: browsers prompt."""
        if self._settings.https_client_certificates != "auto":
            return
        if isinstance(event, CertificateExpected) or len(self._authorities):
            self._expectations += 1
            self.tls.https.ask_for_certificates(True)
        elif self.tls.https.asks_for_certificates:
            self._background.spawn(self._stop_asking(self.tls.https, self._expectations))

    async def recheck(self) -> None:
        """[HUB-one-truth] What another node told of may have been lost."""
        if self._settings.https_client_certificates == "auto" and not self.tls.https.asks_for_certificates:
            with suppress(StoreUnavailable):
                if await self._store.expects_certificates():
                    self.expect(CertificateExpected())

    async def _stop_asking(self, https: TlsContextHolder, seen: int) -> None:
        """Unless an identity still needs it, or one came while the store was asked."""
        with suppress(StoreUnavailable):
            if not await self._store.expects_certificates() and self._expectations == seen:
                https.ask_for_certificates(False)
