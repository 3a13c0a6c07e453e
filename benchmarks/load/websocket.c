/* The client's side of a WebSocket: upgrade, masked binary frames out, frames in. Knows no protocol inside. */
#define _GNU_SOURCE
#include "devices.h"

#include <stdio.h>
#include <string.h>

static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d}; /* what it is does not matter to the server's work */

void websocket_ask(stream *s, const char *host, const char *subprotocol) {
    char request[512];
    int n = snprintf(request, sizeof request,
                     "GET /$iothub/websocket HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Protocol: %s\r\n\r\n",
                     host, subprotocol);
    stream_send(s, request, (size_t)n);
}

int websocket_accepted(stream *s) {
    const char *end = memmem(s->in, s->in_len, "\r\n\r\n", 4);
    if (!end) return 0;
    if (strncmp(s->in, "HTTP/1.1 101", 12) != 0) die("no WebSocket: %.*s", (int)(end - s->in), s->in);
    stream_consume(s, (size_t)(end - s->in) + 4);
    return 1;
}

size_t websocket_unframe(stream *s, size_t plain) {
    size_t at = plain;
    while (s->in_len - at >= 2) {
        const unsigned char *head = (unsigned char *)s->in + at;
        size_t length = head[1], size = 2;
        if (length > 127) die("the server masked a frame");
        if (length == 126) size = 4;
        if (length == 127) size = 10;
        if (s->in_len - at < size) break;
        if (size > 2) length = 0;
        for (size_t i = 2; i < size; i++) length = length << 8 | head[i];
        if (s->in_len - at < size + length) break;
        if ((head[0] & 15) == 8) {
            stream_close(s, "WebSocket closed by the peer");
            return 0;
        }
        if ((head[0] & 15) <= 2) {
            memmove(s->in + plain, head + size, length);
            plain += length;
        }
        at += size + length;
    }
    memmove(s->in + plain, s->in + at, s->in_len - at);
    s->in_len -= at - plain;
    return plain;
}

void websocket_send(stream *s, const char *data, size_t length) {
    char frame[16384 + 8];
    size_t n = 2;
    if (length > sizeof frame - 8) die("message too long: %zu", length);
    frame[0] = (char)0x82;
    frame[1] = (char)(0x80 | (length < 126 ? length : 126));
    if (length >= 126) {
        frame[n++] = (char)(length >> 8);
        frame[n++] = (char)length;
    }
    memcpy(frame + n, mask, 4);
    n += 4;
    for (size_t i = 0; i < length; i++) frame[n + i] = (char)((unsigned char)data[i] ^ mask[i & 3]);
    stream_send(s, frame, n + length);
}
