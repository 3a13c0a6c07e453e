/* A non-blocking byte stream, plain TCP or TLS, on one epoll loop. Knows neither MQTT nor HTTP. */
#ifndef STREAM_H
#define STREAM_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

typedef struct stream stream;

typedef struct {
    void (*opened)(stream *s);                  /* connected, and the TLS handshake done */
    void (*received)(stream *s);                /* s->in holds s->in_len bytes and a NUL; call stream_consume() */
    void (*closed)(stream *s, const char *why); /* gone; the stream may be opened again with stream_connect() */
} stream_events;

struct stream {
    int fd;
    SSL *ssl;
    SSL_CTX *ctx; /* NULL: plain */
    int server;   /* this end answers the handshake */
    int open;
    uint32_t armed; /* what epoll watches */
    char *in, *out;
    size_t in_len, in_cap, out_len, out_cap;
    const stream_events *events;
    void *owner;
};

uint64_t now_ns(void);
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
struct sockaddr_in parse_address(const char *host_port);

SSL_CTX *client_tls(int save_memory);
SSL_CTX *server_tls(const char *certificate, const char *key);

void loop_init(void);
void loop_once(int timeout_ms);
void stream_connect(stream *s, const struct sockaddr_in *peer, uint32_t source); /* source 0: any */
void stream_accepted(stream *s, int fd);
void stream_send(stream *s, const char *data, size_t length);
void stream_consume(stream *s, size_t length);
void stream_close(stream *s, const char *why);

/* Anything else on the loop (a listening socket, stdin): called when readable. */
typedef struct {
    stream marker; /* fd only; events == NULL tells it from a stream */
    void (*readable)(int fd);
} watch;
void loop_watch(watch *w, int fd, void (*readable)(int fd));

#endif
