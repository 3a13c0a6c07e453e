/* The devices: their list, in which order they connect, and what carries their protocol: a stream, a WebSocket on one. */
#define _GNU_SOURCE
#include "devices.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BEAT = 60 };

typedef struct {
    stream stream;
    size_t plain; /* bytes at the head of stream.in that are no WebSocket's any more */
    int upgraded, ready;
} carrier;

device *devices;
uint32_t device_count;

static carrier *carriers;
static device_options options;
static uint32_t started, ready, dropped, retries;
static uint64_t answered;
static char cipher[96];
static watch beat_watch, retry_watch;

char *substitute(const char *template, const char *id) {
    const char *mark = strstr(template, "{d}");
    char *result = NULL;
    int length = mark ? asprintf(&result, "%.*s%s%s", (int)(mark - template), template, id, mark + 3)
                      : asprintf(&result, "%s", template);
    if (length < 0) die("out of memory");
    return result;
}

void read_devices(const char *path) {
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t size = 0, capacity = 0;
    if (!file) die("cannot read %s", path);
    for (ssize_t n; (n = getline(&line, &size, file)) > 0;) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        char *rest = line, *id = strsep(&rest, "\t"), *user = strsep(&rest, "\t");
        if (!rest) die("not id<TAB>user<TAB>password: %s", line);
        if (device_count == capacity) {
            capacity = capacity ? capacity * 2 : 128;
            devices = realloc(devices, capacity * sizeof *devices);
        }
        device *d = &devices[device_count++];
        *d = (device){.id = strdup(id), .user = strdup(user), .password = strdup(rest)};
        d->answer = substitute("{\"device\":\"{d}\"}", id);
    }
    free(line);
    fclose(file);
    if (!device_count) die("no device in %s", path);
}

static uint32_t index_of(stream *s) { return (uint32_t)((carrier *)s - carriers); }

static void connect_device(uint32_t i) {
    carriers[i].stream.ctx = options.tls;
    /* An address per device, in 127.1.0.0/16. */
    stream_connect(&carriers[i].stream, &options.peer, 0x7f010000u | (i / 250 % 256) << 8 | (1 + i % 250));
}

static void connect_next(void) {
    if (started < device_count) connect_device(started++);
}

/* Those that were turned away. */
static void retry(int fd) {
    uint64_t times;
    if (read(fd, &times, sizeof times) < 0) return;
    for (uint32_t i = 0; i < started; i++)
        if (carriers[i].stream.fd < 0 && !carriers[i].ready) retries++, connect_device(i);
}

void device_send(uint32_t index, const char *data, size_t length) {
    stream *s = &carriers[index].stream;
    if (s->fd < 0) return;
    if (options.websocket) websocket_send(s, data, length);
    else stream_send(s, data, length);
}

void device_ready(uint32_t index) {
    SSL *ssl = carriers[index].stream.ssl;
    if (!*cipher) snprintf(cipher, sizeof cipher, "%s%s%s", ssl ? SSL_get_version(ssl) : "plain", ssl ? " " : "",
                           ssl ? SSL_get_cipher_name(ssl) : "");
    carriers[index].ready = 1;
    ready++;
    connect_next();
}

static void opened(stream *s) {
    if (options.websocket) websocket_ask(s, options.host, options.protocol->subprotocol);
    else options.protocol->opened(index_of(s));
}

static void received(stream *s) {
    carrier *c = (carrier *)s;
    if (options.websocket) {
        if (!c->upgraded) {
            if (!websocket_accepted(s)) return;
            c->upgraded = 1;
            options.protocol->opened(index_of(s));
        }
        c->plain = websocket_unframe(s, c->plain);
    } else c->plain = s->in_len;
    if (!c->plain) return;
    size_t used = options.protocol->received(index_of(s), s->in, c->plain);
    if (s->fd < 0 || !used) return;
    stream_consume(s, used);
    c->plain -= used;
}

static void closed(stream *s, const char *why) {
    if (options.retries && !((carrier *)s)->ready) {
        ((carrier *)s)->plain = 0;
        return;
    }
    if (ready < device_count) die("device %s: %s", devices[index_of(s)].id, why);
    dropped++;
}

static const stream_events events = {opened, received, closed};

static void beat(int fd) {
    uint64_t times;
    if (read(fd, &times, sizeof times) < 0) return;
    for (uint32_t i = 0; i < started; i++)
        if (carriers[i].stream.open && (carriers[i].upgraded || !options.websocket)) options.protocol->beat(i);
}

static void every(watch *w, time_t interval, void (*work)(int fd)) {
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(timer, 0, &(struct itimerspec){{interval, 0}, {interval, 0}}, NULL);
    loop_watch(w, timer, work);
}

void devices_connect(const device_options *given) {
    options = *given;
    options.protocol->prepare(&options);
    carriers = calloc(device_count, sizeof *carriers);
    for (uint32_t i = 0; i < device_count; i++) {
        carriers[i].stream.fd = -1;
        carriers[i].stream.events = &events;
    }
    if (options.protocol->beat) every(&beat_watch, BEAT, beat);
    if (options.retries) every(&retry_watch, 1, retry);
    for (uint32_t i = 0; i < options.at_once; i++) connect_next();
}

void device_answered(void) { answered++; }
uint32_t devices_ready(void) { return ready; }
uint64_t devices_answered(void) { return answered; }
uint32_t devices_dropped(void) { return dropped; }
uint32_t devices_retries(void) { return retries; }
const char *devices_tls(void) { return cipher; }
