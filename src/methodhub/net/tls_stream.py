"""TLS over the event loop's transport: OpenSSL between two memory BIOs, called through pyOpenSSL's handles so that a
read raises nothing and copies once. Knows no certificate policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from OpenSSL._util import ffi, lib

from methodhub.net.admission import Admission
from methodhub.net.stream import Data, Peer, Stream
from methodhub.net.tls import BUFFER_SIZE, MAX_INTERMEDIATES, TlsContextHolder

_RECORD = 16_384
"""Bytes encrypted at once, the most that a record holds: a memory BIO grows to what it is given."""

_CHUNK = BUFFER_SIZE // 2
"""Bytes decrypted at once, for the same reason."""

_SIZE = BUFFER_SIZE

_SHRINK = 4_096
"""A memory BIO that held more than this is replaced by an empty one: it never gives its memory back."""

_WANT_READ = lib.SSL_ERROR_WANT_READ
_ZERO_RETURN = lib.SSL_ERROR_ZERO_RETURN

# Each a global, since they run for each record: one look-up instead of two.
_bio_read = lib.BIO_read
_bio_write = lib.BIO_write
_clear_errors = lib.ERR_clear_error
_get_error = lib.SSL_get_error
_read = lib.SSL_read
_write = lib.SSL_write


def _reason() -> str:
    """The oldest error of OpenSSL's queue, in its words; empties the queue."""
    code = lib.ERR_get_error()
    text = lib.ERR_reason_error_string(code) if code else ffi.NULL
    _clear_errors()
    return ffi.string(text).decode() if text != ffi.NULL else "closed by the peer"


def _certificates(ssl: Any, tls: TlsContextHolder) -> tuple[bytes, ...]:
    """DER of what the client showed, leaf first. That it holds the leaf's key was proved by the handshake."""
    leaf = lib.SSL_get_peer_certificate(ssl)
    if leaf == ffi.NULL:
        return ()
    try:
        shown = [leaf]
        above = lib.SSL_get_peer_cert_chain(ssl)  # on this side of a handshake without the leaf
        if above != ffi.NULL:
            count = min(lib.sk_X509_num(above), MAX_INTERMEDIATES)
            shown += [lib.sk_X509_value(above, index) for index in range(count)]
        return tuple(_der(certificate, tls) for certificate in shown)
    finally:
        lib.X509_free(leaf)


def _der(certificate: Any, tls: TlsContextHolder) -> bytes:
    bio = lib.BIO_new(lib.BIO_s_mem())
    try:
        lib.i2d_X509_bio(bio, certificate)
        parts = []
        while (count := _bio_read(bio, tls.buffer, _SIZE)) > 0:
            parts.append(cast(bytes, tls.view[:count]))
        return b"".join(parts)
    finally:
        lib.BIO_free(bio)


class TlsStream(Stream):
    """The server's side of one TLS connection."""

    __slots__ = ("_bio_in", "_bio_out", "_fresh", "_holder", "_peer_notified", "_pending", "_ssl")

    def __init__(
        self, admission: Admission, factory: Callable[[Stream], asyncio.Protocol], holder: TlsContextHolder
    ) -> None:
        super().__init__(admission, factory)
        self._holder = holder
        self._ssl: Any = None
        self._bio_in: Any = None
        self._bio_out: Any = None
        self._pending: list[bytes] | None = None
        """Writes made while a chunk is being delivered; None outside. One record carries them all."""
        self._peer_notified = False
        self._fresh = True
        """The BIOs are still those that the handshake went through, and grew."""

    @property
    def peer(self) -> Peer:
        """Read anew from OpenSSL, which keeps the chain as long as the session lives: a copy would cost memory."""
        return Peer(self._address, _certificates(self._ssl, self._holder) if self._ssl is not None else ())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._holder
        return super().get_extra_info(name, default)

    # Bytes from the peer

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.received_bytes += size
        if size <= _CHUNK:
            self._feed(data, size)
        else:
            view = memoryview(data)
            for start in range(0, size, _CHUNK):
                chunk = bytes(view[start : start + _CHUNK])
                self._feed(chunk, len(chunk))
        if self._waiting is not None:
            self._check_bytes()

    def _feed(self, data: bytes, size: int) -> None:
        """Decrypt and deliver what `data` completes. OpenSSL then holds no more than a partial record."""
        if self._closing:
            return
        _bio_write(self._bio_in, data, size)
        if self._factory is not None and not self._shake_hands():
            return
        _clear_errors()
        ssl = self._ssl
        buffer, view = self._holder.buffer, self._holder.view
        count = _read(ssl, buffer, _SIZE)
        plain = b""
        if count > 0:
            plain = view[:count]
            count = _read(ssl, buffer, _SIZE)
            if count > 0:
                parts = [plain]
                while count > 0:
                    parts.append(view[:count])
                    count = _read(ssl, buffer, _SIZE)
                plain = b"".join(parts)
        error = _get_error(ssl, count)
        if error == _WANT_READ and (self._fresh or size > _SHRINK):
            self._fresh = False
            self._send()
            self._renew_bios()
        wrote = plain and self._deliver(plain)
        if error != _WANT_READ:
            self._no_more(error)
        elif not wrote:
            self._send()  # an answer of TLS itself, such as the refusal to renegotiate

    def _deliver(self, plain: bytes) -> bool:
        pending: list[bytes] = []
        self._pending = pending
        try:
            self._protocol.data_received(plain)
        finally:
            self._pending = None
        if not pending or self._closing:
            return False
        self._encrypt(pending[0] if len(pending) == 1 else b"".join(pending))
        return True

    def _no_more(self, error: int) -> None:
        if self._closing:
            return
        if error == _ZERO_RETURN:
            if not self._peer_notified:
                self._peer_notified = True
                self._tell_eof()
            return
        self._admission.tls_broken(self, _reason())
        self._send()  # the alert
        self._end()

    def eof_received(self) -> bool:
        self._peer_ended = True
        if self._closing:
            return False
        if self._factory is not None:
            self._admission.handshake_failed(self, "closed by the peer")
            self.abort()
        elif not self._peer_notified:
            self._tell_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._factory is not None and not self._closing:
            self._admission.handshake_failed(self, "connection lost")
        super().connection_lost(exc)
        ssl, self._ssl = self._ssl, None
        self._pending = self._bio_in = self._bio_out = None
        if ssl is not None:
            lib.SSL_free(ssl)  # and both BIOs

    # The handshake

    def _open(self) -> None:
        self._ssl = lib.SSL_new(self._holder.current._context)
        self._renew_bios()
        lib.SSL_set_accept_state(self._ssl)

    def _shake_hands(self) -> bool:
        """Take the handshake further; True once it is done and the protocol has been started."""
        _clear_errors()
        result = lib.SSL_do_handshake(self._ssl)
        error = 0 if result == 1 else _get_error(self._ssl, result)
        self._send()
        if error == _WANT_READ:
            return False
        if error:
            self._admission.handshake_failed(self, _reason())
            self._factory = None
            self._end()
            return False
        self._start_protocol()
        return not self._closing

    def _renew_bios(self) -> None:
        """Both are empty: SSL_read returned WANT_READ, so what there is of a record lies in OpenSSL's own buffer."""
        memory = lib.BIO_s_mem()
        self._bio_in, self._bio_out = lib.BIO_new(memory), lib.BIO_new(memory)
        lib.SSL_set_bio(self._ssl, self._bio_in, self._bio_out)

    # Bytes to the peer

    def get_write_buffer_size(self) -> int:
        size = self._inner.get_write_buffer_size()
        return size + sum(map(len, self._pending)) if self._pending else size

    def write(self, data: Data) -> None:
        if self._closing or not data:
            return
        data = bytes(data)
        if self._pending is not None:
            self._pending.append(data)
        else:
            self._encrypt(data)

    def _encrypt(self, data: bytes) -> None:
        size = len(data)
        if size <= _RECORD:
            done = _write(self._ssl, data, size) == size
            self._send()
        else:
            start = ffi.from_buffer(data)
            for offset in range(0, size, _RECORD):
                length = min(_RECORD, size - offset)
                done = _write(self._ssl, start + offset, length) == length
                self._send()
        if not done:
            self._admission.tls_broken(self, _reason())
            self.abort()
        elif size > _SHRINK:
            self._bio_out = lib.BIO_new(lib.BIO_s_mem())
            lib.SSL_set_bio(self._ssl, self._bio_in, self._bio_out)

    def _send(self) -> None:
        """Hand down what OpenSSL has written."""
        buffer = self._holder.buffer
        count = _bio_read(self._bio_out, buffer, _SIZE)
        while count > 0:
            self._inner.write(self._holder.view[:count])
            if count < _SIZE:
                return
            count = _bio_read(self._bio_out, buffer, _SIZE)

    def _say_goodbye(self) -> None:
        pending, self._pending = self._pending, None
        if pending:
            self._encrypt(b"".join(pending))
        _clear_errors()
        lib.SSL_shutdown(self._ssl)
        self._send()

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("TLS closes both ways at once")
