/* The least a server can do for this load, in C: no JSON, no checks, no look-up. Not a peer: if the load tool
   gets far more calls/s out of this than out of the floor, then the tool is not what the others are limited by. */
#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { PEERS = 65536 };

typedef struct {
    stream stream;
} peer;

static peer *peers;
static uint32_t peer_count;
static stream *by_number[PEERS]; /* device "bench-<n>" */
static SSL_CTX *tls;
static watch watches[2];

static void nothing(stream *s) { (void)s; }
static void closed(stream *s, const char *why) { (void)s, (void)why; }

static void http_received(stream *s) {
    const char *end = memmem(s->in, s->in_len, "\r\n\r\n", 4), *id, *length;
    if (!end) return;
    if (!(length = strcasestr(s->in, "\r\ncontent-length:")) || !(id = strchr(s->in, '-'))) die("not understood");
    size_t total = (size_t)(end - s->in) + 4 + strtoul(length + 17, NULL, 10);
    if (s->in_len < total) return;
    stream *device = by_number[strtoul(id + 1, NULL, 10) % PEERS];
    stream_consume(s, total);
    if (!device || device->fd < 0) die("no such device");
    char packet[128];
    int n = snprintf(packet + 4, sizeof packet - 4, "$iothub/methods/POST/ping/?$rid=%zx", (size_t)((peer *)s - peers));
    n += snprintf(packet + 4 + n, sizeof packet - 4 - (size_t)n, "{\"value\":1}") + 2;
    packet[0] = 0x30;
    packet[1] = (char)n;
    packet[2] = 0;
    packet[3] = (char)(n - 2 - 11);
    stream_send(device, packet, (size_t)n + 2);
}

static void publish_received(const char *body, size_t length) {
    size_t topic = (size_t)((unsigned char)body[0] << 8 | (unsigned char)body[1]);
    const char *rid = memmem(body + 2, topic, "$rid=", 5);
    char reply[512], json[256];
    if (!rid) return;
    int n = snprintf(json, sizeof json, "{\"status\":200,\"payload\":%.*s}", (int)(length - 2 - topic), body + 2 + topic);
    n = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                 n, json);
    stream *caller = &peers[strtoul(rid + 5, NULL, 16) % PEERS].stream;
    if (caller->fd >= 0) stream_send(caller, reply, (size_t)n);
}

static void mqtt_received(stream *s) {
    while (s->in_len >= 2) {
        size_t length = (unsigned char)s->in[1], head = 2;
        if (length & 128) {
            if (s->in_len < 3) return;
            length = (length & 127) | (size_t)(unsigned char)s->in[2] << 7;
            head = 3;
        }
        if (s->in_len < head + length) return;
        char *body = s->in + head;
        switch ((unsigned char)s->in[0] >> 4) {
        case 1: {
            size_t id = (size_t)((unsigned char)body[10] << 8 | (unsigned char)body[11]);
            const char *dash = memchr(body + 12, '-', id);
            if (!dash) die("device id without a number");
            by_number[strtoul(dash + 1, NULL, 10) % PEERS] = s;
            stream_send(s, "\x20\2\0\0", 4);
            break;
        }
        case 8: stream_send(s, (char[]){(char)0x90, 3, body[0], body[1], 0}, 5); break;
        case 3: publish_received(body, length); break;
        default: break;
        }
        stream_consume(s, head + length);
    }
}

static const stream_events http = {nothing, http_received, closed}, mqtt = {nothing, mqtt_received, closed};

static void accept_one(int listener, const stream_events *events) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (peer_count == PEERS) die("too many connections");
    stream *s = &peers[peer_count++].stream;
    s->events = events;
    s->ctx = tls;
    stream_accepted(s, fd);
}

static void http_accept(int fd) { accept_one(fd, &http); }
static void mqtt_accept(int fd) { accept_one(fd, &mqtt); }

static void listen_at(const char *address, watch *w, void (*readable)(int)) {
    struct sockaddr_in own = parse_address(address);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) != 0 || listen(fd, 1024) != 0) die("%s: %s", address, strerror(errno));
    loop_watch(w, fd, readable);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 5) die("usage: ceiling HTTP-HOST:PORT MQTT-HOST:PORT [CERTIFICATE KEY]");
    signal(SIGPIPE, SIG_IGN);
    peers = calloc(PEERS, sizeof *peers);
    if (!peers) die("out of memory");
    if (argc == 5) tls = server_tls(argv[3], argv[4]);
    loop_init();
    listen_at(argv[1], &watches[0], http_accept);
    listen_at(argv[2], &watches[1], mqtt_accept);
    for (;;) loop_once(-1);
}
