/* MQTT 3.1.1 devices: CONNECT, SUBSCRIBE, and an answer to each PUBLISH that carries a $rid. */
#define _GNU_SOURCE
#include "devices.h"

#include <stdlib.h>
#include <string.h>

static char **answer_topics;
static const char *subscription;

static void prepare(const device_options *options) {
    subscription = options->subscribe;
    answer_topics = calloc(device_count, sizeof *answer_topics);
    for (uint32_t i = 0; i < device_count; i++) {
        answer_topics[i] = substitute(options->answer, devices[i].id);
        if (strlen(answer_topics[i]) > 256) die("answer topic too long");
    }
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

static void send_packet(uint32_t index, char type, const char *body, size_t length) {
    char packet[4096];
    size_t n = 1;
    if (length > sizeof packet - 8) die("packet too long: %zu", length);
    packet[0] = type;
    n += put_length(packet + 1, length);
    memcpy(packet + n, body, length);
    device_send(index, packet, n + length);
}

static void opened(uint32_t index) {
    device *d = &devices[index];
    char body[2048] = "\0\4MQTT\4";
    size_t n = 7;
    if (strlen(d->id) + strlen(d->user) + strlen(d->password) > sizeof body - 32) die("credentials too long");
    body[n++] = (char)(0x02 | 0x80 | (*d->password ? 0x40 : 0)); /* clean session, user name, password */
    body[n++] = 1100 >> 8;                                        /* keep-alive: seconds, longer than any run */
    body[n++] = (char)(1100 & 255);
    n += put_text(body + n, d->id);
    n += put_text(body + n, d->user);
    if (*d->password) n += put_text(body + n, d->password);
    send_packet(index, 0x10, body, n);
}

static void subscribe(uint32_t index) {
    char *filter = substitute(subscription, devices[index].id);
    char body[1024] = {0, 1};
    size_t n = 2 + put_text(body + 2, filter);
    body[n++] = 0;
    send_packet(index, (char)0x82, body, n);
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
    device_answered();
    return n + topic_length + payload;
}

static void packet(uint32_t index, unsigned char type, const char *body, size_t length) {
    switch (type >> 4) {
    case 2:
        if (length < 2 || body[1]) die("device %s: CONNACK code %d", devices[index].id, length < 2 ? -1 : body[1]);
        subscribe(index);
        break;
    case 9:
        if (length < 3 || (unsigned char)body[2] == 0x80) die("device %s: subscription refused", devices[index].id);
        device_ready(index);
        break;
    default: break;
    }
}

static size_t received(uint32_t index, const char *data, size_t have) {
    char out[8192];
    size_t used = 0, n = 0;
    while (have - used >= 2) {
        const char *at = data + used;
        size_t length = 0, head = 1, shift = 0;
        unsigned char byte;
        do {
            if (used + head >= have) goto partial;
            byte = (unsigned char)at[head++];
            length |= (size_t)(byte & 127) << shift;
            shift += 7;
        } while (byte & 128);
        if (have - used < head + length) break;
        if ((unsigned char)at[0] >> 4 == 3) {
            if (n > sizeof out - 1024) {
                device_send(index, out, n);
                n = 0;
            }
            n += answer(index, out + n, at + head, length, at[0] >> 1 & 3);
        } else packet(index, (unsigned char)at[0], at + head, length);
        used += head + length;
    }
partial:
    if (n) device_send(index, out, n);
    return used;
}

const protocol mqtt_protocol = {"mqtt", prepare, opened, received, NULL};
