/* The loop, sockets and TLS. Level-triggered: one read per wake-up, and what is left wakes us again. */
#define _GNU_SOURCE
#include "stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int epoll = -1;

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

struct sockaddr_in parse_address(const char *host_port) {
    char host[64];
    const char *colon = strrchr(host_port, ':');
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (!colon || (size_t)(colon - host_port) >= sizeof host) die("not HOST:PORT: %s", host_port);
    memcpy(host, host_port, (size_t)(colon - host_port));
    host[colon - host_port] = 0;
    address.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("not an IPv4 address: %s", host);
    /* The tool offers load to whatever listens: never let it leave the machine. */
    if ((ntohl(address.sin_addr.s_addr) >> 24) != 127) die("loopback addresses only: %s", host);
    return address;
}

SSL_CTX *client_tls(int save_memory) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL); /* what is measured is the server, not trust */
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (save_memory) SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    else SSL_CTX_set_read_ahead(ctx, 1);
    return ctx;
}

SSL_CTX *server_tls(const char *certificate, const char *key) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        die("cannot use %s and %s", certificate, key);
    return ctx;
}

void loop_init(void) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1: %s", strerror(errno));
}

static void arm(stream *s, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (s->armed == events) return;
    if (epoll_ctl(epoll, s->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
    s->armed = events;
}

void loop_watch(watch *w, int fd, void (*readable)(int fd)) {
    *w = (watch){.marker = {.fd = fd}, .readable = readable};
    arm(&w->marker, EPOLLIN);
}

void stream_close(stream *s, const char *why) {
    if (s->fd < 0) return;
    SSL_free(s->ssl);
    close(s->fd);
    s->fd = -1;
    s->ssl = NULL;
    s->open = 0;
    s->armed = 0;
    s->in_len = s->out_len = 0;
    ERR_clear_error();
    s->events->closed(s, why);
}

static void begin_tls(stream *s) {
    s->ssl = SSL_new(s->ctx);
    SSL_set_fd(s->ssl, s->fd);
    if (s->server) SSL_set_accept_state(s->ssl);
    else SSL_set_connect_state(s->ssl);
}

static void opened(stream *s) {
    s->open = 1;
    arm(s, EPOLLIN);
    s->events->opened(s);
}

static void readable(stream *s);

static void handshake(stream *s) {
    int result = SSL_do_handshake(s->ssl);
    if (result == 1) {
        opened(s);
        /* Read ahead: the peer's first bytes may have come with its Finished, and epoll will not tell. */
        if (s->fd >= 0 && SSL_has_pending(s->ssl)) readable(s);
        return;
    }
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ: arm(s, EPOLLIN); break;
    case SSL_ERROR_WANT_WRITE: arm(s, EPOLLIN | EPOLLOUT); break;
    default: stream_close(s, "TLS handshake failed");
    }
}

void stream_connect(stream *s, const struct sockaddr_in *peer, uint32_t source) {
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) die("socket: %s (raise `ulimit -n`)", strerror(errno));
    s->armed = 0;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (source) {
        /* The port is chosen at connect: free per pair of addresses, so 28,000 is no ceiling. */
        struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
        setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(s->fd, (struct sockaddr *)&own, sizeof own) != 0) die("bind: %s", strerror(errno));
    }
    if (connect(s->fd, (const struct sockaddr *)peer, sizeof *peer) != 0 && errno != EINPROGRESS) {
        stream_close(s, strerror(errno));
        return;
    }
    arm(s, EPOLLOUT);
}

void stream_accepted(stream *s, int fd) {
    int one = 1;
    s->fd = fd;
    s->armed = 0;
    s->server = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (s->ctx) begin_tls(s);
    if (s->ssl) handshake(s);
    else opened(s);
}

static void room_for(char **buffer, size_t *capacity, size_t need) {
    if (need <= *capacity) return;
    size_t size = *capacity ? *capacity : 1024;
    while (size < need) size *= 2;
    *buffer = realloc(*buffer, size);
    if (!*buffer) die("out of memory");
    *capacity = size;
}

/* How many bytes went out; 0 when the socket is full; -1 when the stream is gone. */
static ssize_t write_some(stream *s, const char *data, size_t length) {
    if (s->ssl) {
        int n = SSL_write(s->ssl, data, (int)length);
        if (n > 0) return n;
        int error = SSL_get_error(s->ssl, n);
        return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
    }
    ssize_t n = send(s->fd, data, length, MSG_NOSIGNAL);
    if (n >= 0) return n;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

void stream_send(stream *s, const char *data, size_t length) {
    while (length && !s->out_len) {
        ssize_t n = write_some(s, data, length);
        if (n < 0) {
            stream_close(s, "write failed");
            return;
        }
        if (n == 0) break;
        data += n;
        length -= (size_t)n;
    }
    if (!length) return;
    room_for(&s->out, &s->out_cap, s->out_len + length);
    memcpy(s->out + s->out_len, data, length);
    s->out_len += length;
    arm(s, EPOLLIN | EPOLLOUT);
}

static void flush(stream *s) {
    while (s->out_len) {
        ssize_t n = write_some(s, s->out, s->out_len);
        if (n < 0) {
            stream_close(s, "write failed");
            return;
        }
        if (n == 0) return;
        memmove(s->out, s->out + n, s->out_len - (size_t)n);
        s->out_len -= (size_t)n;
    }
    arm(s, EPOLLIN);
}

void stream_consume(stream *s, size_t length) {
    memmove(s->in, s->in + length, s->in_len - length);
    s->in_len -= length;
}

static void readable(stream *s) {
    do {
        room_for(&s->in, &s->in_cap, s->in_len + 512);
        size_t space = s->in_cap - s->in_len - 1;
        ssize_t n;
        if (s->ssl) {
            n = SSL_read(s->ssl, s->in + s->in_len, (int)space);
            if (n <= 0) {
                int error = SSL_get_error(s->ssl, (int)n);
                if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
                n = 0;
            }
        } else {
            n = recv(s->fd, s->in + s->in_len, space, 0);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        }
        if (n <= 0) {
            stream_close(s, "closed by the peer");
            return;
        }
        s->in_len += (size_t)n;
        s->in[s->in_len] = 0;
        s->events->received(s);
    } while (s->fd >= 0 && s->ssl && SSL_has_pending(s->ssl));
}

static void connected(stream *s) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        stream_close(s, strerror(error));
        return;
    }
    if (!s->ctx) {
        opened(s);
        return;
    }
    begin_tls(s);
    handshake(s);
}


void loop_once(int timeout_ms) {
    struct epoll_event events[512];
    int count = epoll_wait(epoll, events, 512, timeout_ms);
    for (int i = 0; i < count; i++) {
        stream *s = events[i].data.ptr;
        if (s->fd < 0) continue;
        if (!s->events) ((watch *)s)->readable(s->fd);
        else if (!s->open && s->ssl) handshake(s);
        else if (!s->open) connected(s);
        else {
            if (events[i].events & EPOLLOUT) flush(s);
            if (s->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(s);
        }
    }
}
