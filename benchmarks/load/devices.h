/* Inside the device side: what a protocol of devices is, and what all of them share. */
#ifndef DEVICES_H
#define DEVICES_H

#include "load.h"

struct protocol {
    const char *subprotocol; /* its name inside a WebSocket */
    void (*prepare)(const device_options *options);
    void (*opened)(uint32_t index);
    size_t (*received)(uint32_t index, const char *data, size_t length); /* returns how many bytes it is done with */
    void (*beat)(uint32_t index);                                       /* every BEAT seconds; may be NULL */
};

void device_send(uint32_t index, const char *data, size_t length);
void device_ready(uint32_t index);
void device_answered(void);

/* A client's WebSocket on a stream. */
void websocket_ask(stream *s, const char *host, const char *subprotocol);
int websocket_accepted(stream *s); /* 0: not yet; the answer is consumed */
/* The first `plain` bytes of s->in are payload already; takes frames off what follows, returns what is payload now. */
size_t websocket_unframe(stream *s, size_t plain);
void websocket_send(stream *s, const char *data, size_t length);

#endif
