/* MQTT 3.1.1 devices: CONNECT, SUBSCRIBE, and an answer to each PUBLISH that carries a $rid. */
#define _GNU_SOURCE
#include "load.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

device *devices;
uint32_t device_count;

static stream *streams;
static char **answer_topics;
static device_options options;
static uint32_t started, ready, dropped;
static uint64_t answered;
static char cipher[96];

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

static size_t put_length(char *at, size_t length) {
    size_t n = 0;
    do {
        at[n] = (char)(length % 128);
        length /= 128;
        if (length) at[n] |= (char)0x80;
        n++;
    } while (length);
    return n;
}

static size_t put_text(char *at, const char *text) {
    size_t length = strlen(text);
    at[0] = (char)(length >> 8);
    at[1] = (char)length;
    memcpy(at + 2, text, length);
    return length + 2;
}

static void send_packet(stream *s, char type, const char *body, size_t length) {
    char packet[4096];
    size_t n = 1;
    if (length > sizeof packet - 8) die("packet too long: %zu", length);
    packet[0] = type;
    n += put_length(packet + 1, length);
    memcpy(packet + n, body, length);
    stream_send(s, packet, n + length);
}

static void opened(stream *s) {
    device *d = &devices[s - streams];
    char body[2048] = "\0\4MQTT\4";
    size_t n = 7;
    if (strlen(d->id) + strlen(d->user) + strlen(d->password) > sizeof body - 32) die("credentials too long");
    body[n++] = (char)(0x02 | 0x80 | (*d->password ? 0x40 : 0)); /* clean session, user name, password */
    body[n++] = 1100 >> 8;                                        /* keep-alive: seconds, longer than any run */
    body[n++] = (char)(1100 & 255);
    n += put_text(body + n, d->id);
    n += put_text(body + n, d->user);
    if (*d->password) n += put_text(body + n, d->password);
    send_packet(s, 0x10, body, n);
}

static void subscribe(stream *s) {
    char *filter = substitute(options.subscribe, devices[s - streams].id);
    char body[1024] = {0, 1};
    size_t n = 2 + put_text(body + 2, filter);
    body[n++] = 0;
    send_packet(s, (char)0x82, body, n);
    free(filter);
}

/* Appends the answer to one PUBLISH at `out` and returns its length; 0 when there is nothing to answer. */
static size_t answer(uint32_t index, char *out, const char *body, size_t length, int qos) {
    size_t topic = (size_t)((unsigned char)body[0] << 8 | (unsigned char)body[1]), n = 0;
    if (topic + 2 > length) die("malformed PUBLISH");
    const char *rid = memmem(body + 2, topic, "$rid=", 5);
    if (qos) {
        memcpy(out, "\x40\2", 2);
        memcpy(out + 2, body + 2 + topic, 2);
        n = 4;
    }
    if (!rid) return n;
    rid += 5;
    size_t rid_length = (size_t)(body + 2 + topic - rid);
    size_t prefix = strlen(answer_topics[index]), payload = strlen(devices[index].answer);
    size_t topic_length = prefix + rid_length;
    out[n++] = 0x30;
    n += put_length(out + n, 2 + topic_length + payload);
    out[n++] = (char)(topic_length >> 8);
    out[n++] = (char)topic_length;
    memcpy(out + n, answer_topics[index], prefix);
    memcpy(out + n + prefix, rid, rid_length);
    memcpy(out + n + topic_length, devices[index].answer, payload);
    answered++;
    return n + topic_length + payload;
}

static void connect_next(void) {
    if (started == device_count) return;
    uint32_t i = started++;
    streams[i].ctx = options.tls;
    /* An address per device, in 127.1.0.0/16. */
    stream_connect(&streams[i], &options.peer, 0x7f010000u | (i / 250 % 256) << 8 | (1 + i % 250));
}

static void packet(stream *s, unsigned char type, const char *body, size_t length) {
    switch (type >> 4) {
    case 2:
        if (length < 2 || body[1]) die("device %s: CONNACK code %d", devices[s - streams].id, length < 2 ? -1 : body[1]);
        subscribe(s);
        break;
    case 9:
        if (length < 3 || (unsigned char)body[2] == 0x80) die("device %s: subscription refused", devices[s - streams].id);
        if (!*cipher) snprintf(cipher, sizeof cipher, "%s%s%s", s->ssl ? SSL_get_version(s->ssl) : "plain",
                               s->ssl ? " " : "", s->ssl ? SSL_get_cipher_name(s->ssl) : "");
        ready++;
        connect_next();
        break;
    default: break;
    }
}

static void received(stream *s) {
    char out[8192];
    size_t used = 0, n = 0;
    while (s->in_len - used >= 2) {
        const char *at = s->in + used;
        size_t length = 0, head = 1, shift = 0;
        unsigned char byte;
        do {
            if (used + head >= s->in_len) goto partial;
            byte = (unsigned char)at[head++];
            length |= (size_t)(byte & 127) << shift;
            shift += 7;
        } while (byte & 128);
        if (s->in_len - used < head + length) break;
        if ((unsigned char)at[0] >> 4 == 3) {
            if (n > sizeof out - 1024) {
                stream_send(s, out, n);
                n = 0;
            }
            n += answer((uint32_t)(s - streams), out + n, at + head, length, at[0] >> 1 & 3);
        } else packet(s, (unsigned char)at[0], at + head, length);
        used += head + length;
    }
partial:
    if (used) stream_consume(s, used);
    if (n) stream_send(s, out, n);
}

static void closed(stream *s, const char *why) {
    if (ready < device_count) die("device %s: %s", devices[s - streams].id, why);
    dropped++;
}

static const stream_events events = {opened, received, closed};

void devices_connect(const device_options *given) {
    options = *given;
    streams = calloc(device_count, sizeof *streams);
    answer_topics = calloc(device_count, sizeof *answer_topics);
    for (uint32_t i = 0; i < device_count; i++) {
        streams[i].fd = -1;
        streams[i].events = &events;
        answer_topics[i] = substitute(options.answer, devices[i].id);
        if (strlen(answer_topics[i]) > 256) die("answer topic too long");
    }
    for (uint32_t i = 0; i < options.at_once; i++) connect_next();
}

uint32_t devices_ready(void) { return ready; }
uint64_t devices_answered(void) { return answered; }
uint32_t devices_dropped(void) { return dropped; }
const char *devices_tls(void) { return cipher; }
