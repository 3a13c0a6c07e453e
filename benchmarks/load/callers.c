/* HTTP/1.1 keep-alive callers: one request each in flight, over the devices in turn. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct {
    stream stream;
    uint64_t sent; /* ns; 0: nothing in flight */
    uint32_t device;
} caller;

call_counts counted;

static caller *callers;
static caller_options options;
static char **requests; /* one per called device, ready to send */
static size_t *lengths;
static char **marks;    /* what must stand in the answer: "device-id" in quotes */
static uint32_t next_device;
static int recording, stopping;

static void ask(caller *c) {
    if (stopping) return;
    c->device = next_device;
    next_device = next_device + 1 == options.called ? 0 : next_device + 1;
    c->sent = now_ns();
    stream_send(&c->stream, requests[c->device], lengths[c->device]);
}

static void note(const char *text, size_t length) {
    if (*counted.sample) return;
    snprintf(counted.sample, sizeof counted.sample, "%.*s", (int)length, text);
    for (char *at = counted.sample; *at; at++)
        if (*at < ' ' || *at == '"' || *at == '\\' || *at > '~') *at = *at == '"' ? '\'' : ' ';
}

static void record(caller *c, const char *head, size_t head_length, size_t body_length) {
    uint64_t taken = (now_ns() - c->sent) / 100;
    c->sent = 0;
    if (!recording) return;
    if (counted.calls == counted.capacity) {
        counted.capacity = counted.capacity ? counted.capacity * 2 : 1u << 20;
        counted.latencies = realloc(counted.latencies, counted.capacity * sizeof *counted.latencies);
        if (!counted.latencies) die("out of memory");
    }
    counted.latencies[counted.calls++] = taken > UINT32_MAX ? UINT32_MAX : (uint32_t)taken;
    if (memcmp(head + 8, " 200", 4) != 0) {
        counted.not_200++;
        note(head, head_length + body_length);
    } else if (!memmem(head + head_length, body_length, marks[c->device], strlen(marks[c->device]))) {
        counted.wrong++; /* an answer, but not this device's */
        note(head, head_length + body_length);
    }
}

/* The value of Content-Length in a head that ends in an empty line; -1 without one. */
static long content_length(const char *head, size_t length) {
    for (const char *at = head; (at = memchr(at, '\n', length - (size_t)(at - head))) && ++at < head + length;)
        if ((*at | 32) == 'c' && strncasecmp(at, "content-length:", 15) == 0) return strtol(at + 15, NULL, 10);
    return -1;
}

static void received(stream *s) {
    caller *c = s->owner;
    const char *end = memmem(s->in, s->in_len, "\r\n\r\n", 4);
    if (!end || !c->sent) return;
    size_t head = (size_t)(end - s->in) + 4;
    long body = content_length(s->in, head);
    if (body < 0) die("an answer without Content-Length: %.*s", (int)head, s->in);
    if (s->in_len < head + (size_t)body) return;
    record(c, s->in, head, (size_t)body);
    stream_consume(s, head + (size_t)body);
    ask(c);
}

static void opened(stream *s) { ask(s->owner); }

static void closed(stream *s, const char *why) {
    caller *c = s->owner;
    if (stopping) return;
    counted.errors++;
    note(why, strlen(why));
    if (counted.errors > 1000) die("callers: more than 1,000 connections lost, the first: %s", counted.sample);
    c->sent = 0;
    stream_connect(s, &options.peer, 0);
}

static const stream_events events = {opened, received, closed};

void callers_start(const caller_options *given) {
    options = *given;
    if (options.called > device_count) options.called = device_count;
    requests = calloc(options.called, sizeof *requests);
    lengths = calloc(options.called, sizeof *lengths);
    marks = calloc(options.called, sizeof *marks);
    for (uint32_t i = 0; i < options.called; i++) {
        char *path = substitute(options.path, devices[i].id);
        int n = asprintf(&requests[i],
                         "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s"
                         "Content-Length: %zu\r\n\r\n%s",
                         path, options.host, options.headers, strlen(options.body), options.body);
        if (n < 0) die("out of memory");
        lengths[i] = (size_t)n;
        marks[i] = substitute("\"{d}\"", devices[i].id);
        free(path);
    }
    callers = calloc(options.callers, sizeof *callers);
    for (uint32_t i = 0; i < options.callers; i++) {
        stream *s = &callers[i].stream;
        s->events = &events;
        s->owner = &callers[i];
        s->ctx = options.tls;
        stream_connect(s, &options.peer, 0);
    }
}

void callers_record(int on) { recording = on; }
void callers_stop(void) { stopping = 1; }

uint32_t callers_waiting(void) {
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < options.callers; i++) waiting += callers[i].sent != 0;
    return waiting;
}
