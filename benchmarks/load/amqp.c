/* AMQP 1.0 devices, as the Node SDK does it: no SASL, put-token on `$cbs`, one link each way for methods, answers
   unsettled. Of AMQP it reads what a hub sends, and ends the run at an error. */
#define _GNU_SOURCE
#include "devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned char byte;

enum { OPEN = 0x10, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE };
enum { CBS_OUT, CBS_IN, METHODS_OUT, METHODS_IN, LINKS }; /* our handles, and the names of the links */
enum { CREDIT = 1000, WINDOW = 0x7fffffff, UUID = 16, HANDLES = 8 };

typedef struct {
    byte link_of[HANDLES]; /* our handle by the hub's */
    byte asked, attached, ready;
    uint32_t incoming;   /* the hub's next transfer-id */
    uint32_t outgoing;   /* our next delivery-id, and transfer-id */
    uint32_t taken;      /* delivery-count of METHODS_IN */
    uint32_t sent, most; /* delivery-count of METHODS_OUT, and up to where the hub's credit goes */
    byte *waiting;       /* correlation-ids of answers that have no credit */
    uint32_t waiting_count, waiting_capacity;
} peer;

static peer *peers;
static const char *host;

static void prepare(const device_options *options) {
    host = options->host;
    peers = calloc(device_count, sizeof *peers);
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

typedef struct {
    byte data[2048];
    size_t n;
} text;

static void put(text *t, const void *data, size_t length) {
    if (t->n + length > sizeof t->data) die("frame too long");
    memcpy(t->data + t->n, data, length);
    t->n += length;
}

static void put_byte(text *t, byte value) { put(t, &value, 1); }
static void put_32(byte *at, uint32_t value) {
    at[0] = (byte)(value >> 24), at[1] = (byte)(value >> 16), at[2] = (byte)(value >> 8), at[3] = (byte)value;
}

static void put_uint(text *t, uint32_t value) {
    byte encoded[5] = {0x70};
    put_32(encoded + 1, value);
    put(t, encoded, 5);
}

static void put_string(text *t, const char *value) {
    byte head[5] = {0xb1};
    put_32(head + 1, (uint32_t)strlen(value));
    put(t, head, 5);
    put(t, value, strlen(value));
}

static void put_nulls(text *t, int count) {
    while (count--) put_byte(t, 0x40);
}

/* A described list or map, its size and count filled in by `end_compound`, to which the return value goes. */
static size_t begin_compound(text *t, byte descriptor, byte code) {
    put(t, (byte[]){0, 0x53, descriptor, code, 0, 0, 0, 0, 0, 0, 0, 0}, 12);
    return t->n;
}

static void end_compound(text *t, size_t start, uint32_t count) {
    put_32(t->data + start - 8, (uint32_t)(t->n - start + 4));
    put_32(t->data + start - 4, count);
}

static size_t begin_frame(text *t, byte performative) {
    put(t, (byte[]){0, 0, 0, 0, 2, 0, 0, 0}, 8);
    return begin_compound(t, performative, 0xd0);
}

/* `start` is where the frame begins; what follows the performative is the payload of a transfer. */
static void end_frame(text *t, size_t start) { put_32(t->data + start, (uint32_t)(t->n - start)); }

static void put_terminus(text *t, byte descriptor, const char *address) {
    size_t list = begin_compound(t, descriptor, 0xd0);
    put_string(t, address);
    end_compound(t, list, 1);
}

static void put_attach(text *t, byte link, const char *source, const char *target) {
    int receiver = link == CBS_IN || link == METHODS_IN;
    size_t start = t->n, list = begin_frame(t, ATTACH);
    put_string(t, (char[]){(char)('0' + link), 0});
    put_uint(t, link);
    put_byte(t, receiver ? 0x41 : 0x42);
    put_nulls(t, 2);
    put_terminus(t, 0x28, source);
    put_terminus(t, 0x29, target);
    put_nulls(t, 2);
    put_uint(t, 0); /* initial-delivery-count */
    end_compound(t, list, 10);
    end_frame(t, start);
}

static void put_flow(text *t, const peer *p, byte link, uint32_t delivery_count, uint32_t credit) {
    size_t start = t->n, list = begin_frame(t, FLOW);
    put_uint(t, p->incoming);
    put_uint(t, WINDOW);
    put_uint(t, p->outgoing);
    put_uint(t, WINDOW);
    put_uint(t, link);
    put_uint(t, delivery_count);
    put_uint(t, credit);
    end_compound(t, list, 7);
    end_frame(t, start);
}

/* A transfer of one frame, unsettled: the payload and `end_frame` are the caller's. */
static void put_transfer(text *t, peer *p, byte link) {
    byte head[] = {0, 0, 0, 0, 2, 0, 0, 0, 0, 0x53, TRANSFER, 0xc0, 16, 5, 0x52, link,
                   0x70, 0, 0, 0, 0, 0xa0, 4, 0, 0, 0, 0, 0x43, 0x42};
    put_32(head + 17, p->outgoing);
    put_32(head + 23, p->outgoing++);
    put(t, head, sizeof head);
}

static void send_text(uint32_t index, const text *t) { device_send(index, (const char *)t->data, t->n); }

static void opened(uint32_t index) {
    text t = {.n = 0};
    put(&t, "AMQP\0\1\0\0", 8);
    size_t start = t.n, list = begin_frame(&t, OPEN);
    put_string(&t, devices[index].id);
    put_string(&t, host);
    put_uint(&t, 65536);
    end_compound(&t, list, 3);
    end_frame(&t, start);
    start = t.n, list = begin_frame(&t, BEGIN);
    put_nulls(&t, 1);
    put_uint(&t, 0);
    put_uint(&t, WINDOW);
    put_uint(&t, WINDOW);
    end_compound(&t, list, 4);
    end_frame(&t, start);
    put_attach(&t, CBS_OUT, "", "$cbs");
    put_attach(&t, CBS_IN, "$cbs", "cbs");
    put_flow(&t, &peers[index], CBS_IN, 0, 10);
    send_text(index, &t);
}

static void put_token(uint32_t index) {
    static const char *const names[] = {"operation", "type", "name"};
    const char *values[] = {"put-token", "servicebus.windows.net:sastoken", devices[index].id};
    text t = {.n = 0};
    put_transfer(&t, &peers[index], CBS_OUT);
    size_t list = begin_compound(&t, 0x73, 0xd0);
    put_string(&t, "1"); /* message-id */
    put_nulls(&t, 1);
    put_string(&t, "$cbs");
    put_nulls(&t, 1);
    put_string(&t, "cbs");
    end_compound(&t, list, 5);
    size_t map = begin_compound(&t, 0x74, 0xd1);
    for (int i = 0; i < 3; i++) put_string(&t, names[i]), put_string(&t, values[i]);
    end_compound(&t, map, 6);
    put(&t, (byte[]){0, 0x53, 0x77}, 3);
    put_string(&t, devices[index].password);
    end_frame(&t, 0);
    send_text(index, &t);
}

static void attach_methods(uint32_t index) {
    text t = {.n = 0};
    char *address = substitute("/devices/{d}/methods/devicebound", devices[index].id);
    put_attach(&t, METHODS_OUT, "", address);
    put_attach(&t, METHODS_IN, address, "");
    put_flow(&t, &peers[index], METHODS_IN, 0, CREDIT);
    send_text(index, &t);
    free(address);
}

/* Properties with the correlation-id, IoThub-status 200 and one data section. */
static void put_answer(text *t, uint32_t index, const byte *uuid) {
    static const byte before[] = {0, 0x53, 0x73, 0xc0, 23, 6, 0x40, 0x40, 0x40, 0x40, 0x40, 0x98};
    static const char after[] = "\0\x53\x74\xc1\x15\x02\xa1\x0dIoThub-status\x71\0\0\0\xc8\0\x53\x75\xa0";
    size_t start = t->n, length = strlen(devices[index].answer);
    put_transfer(t, &peers[index], METHODS_OUT);
    put(t, before, sizeof before);
    put(t, uuid, UUID);
    put(t, after, sizeof after - 1);
    put_byte(t, (byte)length);
    put(t, devices[index].answer, length);
    end_frame(t, start);
    peers[index].sent++;
    device_answered();
}

/* --- reading ---------------------------------------------------------------------------------------------------- */

static uint32_t get_32(const byte *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* What follows one value. */
static const byte *skip(const byte *at) {
    static const byte fixed[] = {[4] = 0, [5] = 1, [6] = 2, [7] = 4, [8] = 8, [9] = 16};
    byte code = *at++;
    if (code == 0) return skip(skip(at));
    switch (code >> 4) {
    case 0xa: case 0xc: case 0xe: return at + 1 + *at;
    case 0xb: case 0xd: case 0xf: return at + 4 + get_32(at);
    case 4: case 5: case 6: case 7: case 8: case 9: return at + fixed[code >> 4];
    default: die("no type of AMQP: %02x", code);
    }
}

static const byte null[] = {0x40};

/* Where the first `wanted` elements of a list begin, null for those that it has not. Returns what follows it. */
static const byte *elements(const byte *at, const byte **fields, uint32_t wanted) {
    const byte *end = skip(at);
    uint32_t count = 0;
    if (*at == 0xc0) count = at[2], at += 3;
    else if (*at == 0xd0) count = get_32(at + 5), at += 9;
    else if (*at != 0x45) die("no list: %02x", *at);
    for (uint32_t i = 0; i < wanted; i++) {
        fields[i] = i < count ? at : null;
        if (i < count) at = skip(at);
    }
    return end;
}

static uint32_t number(const byte *at) {
    switch (*at) {
    case 0x40: case 0x43: return 0;
    case 0x52: case 0x54: return at[1];
    case 0x70: case 0x71: return get_32(at + 1);
    default: die("no number: %02x", *at);
    }
}

/* The symbols and strings of a DETACH, END or CLOSE, for a person. */
static void give_up(uint32_t index, const char *what, const byte *at, const byte *end) {
    char said[512];
    size_t n = 0;
    for (; at < end && n < sizeof said - 1; at++) said[n++] = (char)(*at < ' ' || *at > '~' ? ' ' : *at);
    said[n] = 0;
    die("device %s: %s%s", devices[index].id, what, said);
}

static byte link_of(uint32_t index, const byte *handle) {
    uint32_t theirs = number(handle);
    if (theirs >= HANDLES) die("device %s: handle %u", devices[index].id, theirs);
    return peers[index].link_of[theirs];
}

static void attached(uint32_t index, const byte *list) {
    peer *p = &peers[index];
    const byte *fields[10];
    elements(list, fields, 10);
    uint32_t theirs = number(fields[1]);
    byte name = fields[0][fields[0][0] == 0xb1 ? 5 : 2];
    if (theirs >= HANDLES || name < '0' || name >= '0' + LINKS) die("device %s: an ATTACH of its own", devices[index].id);
    p->link_of[theirs] = (byte)(name - '0');
    if (name - '0' == METHODS_IN) p->taken = number(fields[9]);
    p->attached++;
}

static void answer_waiting(uint32_t index, text *t) {
    peer *p = &peers[index];
    uint32_t done = 0;
    for (; done < p->waiting_count && (int32_t)(p->most - p->sent) > 0; done++) {
        if (t->n > sizeof t->data - 512) send_text(index, t), t->n = 0;
        put_answer(t, index, p->waiting + done * UUID);
    }
    p->waiting_count -= done;
    memmove(p->waiting, p->waiting + done * UUID, p->waiting_count * UUID);
}

static void flow(uint32_t index, const byte *list, text *t) {
    peer *p = &peers[index];
    const byte *fields[7];
    elements(list, fields, 7);
    if (*fields[4] == 0x40) return; /* of the session */
    byte link = link_of(index, fields[4]);
    uint32_t credit = number(fields[6]);
    if (link == CBS_OUT && credit && !p->asked) {
        p->asked = 1;
        put_token(index);
    } else if (link == METHODS_OUT) {
        p->most = number(fields[5]) + credit;
        if (p->waiting_count) answer_waiting(index, t);
    }
}

static void cbs_answered(uint32_t index, const byte *at, const byte *end) {
    const byte *code = memmem(at, (size_t)(end - at), "status-code", 11);
    if (!code || number(code + 11) != 200) give_up(index, "put-token: ", at, end);
    attach_methods(index);
}

static void called(uint32_t index, const byte *at, const byte *end, text *t) {
    peer *p = &peers[index];
    const byte *fields[6] = {null, null, null, null, null, null};
    for (; at < end; at = skip(at))
        if (at[2] == 0x73) elements(at + 3, fields, 6);
    if (*fields[5] != 0x98) die("device %s: a request without a uuid", devices[index].id);
    if (++p->taken % (CREDIT / 2) == 0) put_flow(t, p, METHODS_IN, p->taken, CREDIT);
    if (!p->waiting_count && (int32_t)(p->most - p->sent) > 0) {
        put_answer(t, index, fields[5] + 1);
        return;
    }
    if (p->waiting_count == p->waiting_capacity) {
        p->waiting_capacity = p->waiting_capacity ? p->waiting_capacity * 2 : 16;
        p->waiting = realloc(p->waiting, p->waiting_capacity * UUID);
        if (!p->waiting) die("out of memory");
    }
    memcpy(p->waiting + p->waiting_count++ * UUID, fields[5] + 1, UUID);
}

static void transfer(uint32_t index, const byte *list, const byte *end, text *t) {
    const byte *fields[6], *payload = elements(list, fields, 6);
    peers[index].incoming++;
    if (*fields[5] == 0x41) die("device %s: a message in several frames", devices[index].id);
    switch (link_of(index, fields[0])) {
    case CBS_IN: cbs_answered(index, payload, end); break;
    case METHODS_IN: called(index, payload, end, t); break;
    default: die("device %s: a transfer on a link of ours", devices[index].id);
    }
}

static void frame(uint32_t index, const byte *at, const byte *end, text *t) {
    peer *p = &peers[index];
    const byte *fields[2];
    switch (at[2]) {
    case BEGIN:
        elements(at + 3, fields, 2);
        p->incoming = number(fields[1]);
        break;
    case ATTACH: attached(index, at + 3); break;
    case FLOW: flow(index, at + 3, t); break;
    case TRANSFER: transfer(index, at + 3, end, t); break;
    case DETACH: give_up(index, "DETACH: ", at, end); break;
    case END: give_up(index, "END: ", at, end); break;
    case CLOSE: give_up(index, "CLOSE: ", at, end); break;
    default: break; /* OPEN, DISPOSITION */
    }
    if (!p->ready && p->attached == LINKS && p->most) {
        p->ready = 1;
        device_ready(index);
    }
}

static size_t received(uint32_t index, const char *data, size_t length) {
    const byte *begin = (const byte *)data, *at = begin, *end = at + length;
    text t;
    t.n = 0;
    while (end - at >= 8) {
        uint32_t size = memcmp(at, "AMQP", 4) ? get_32(at) : 0;
        if (!size) {
            at += 8; /* the header */
            continue;
        }
        if (size < 8) die("device %s: a frame of %u bytes", devices[index].id, size);
        if ((size_t)(end - at) < size) break;
        if (t.n > sizeof t.data - 512) send_text(index, &t), t.n = 0;
        if (size > 4u * at[4]) frame(index, at + 4 * at[4], at + size, &t);
        at += size;
    }
    if (t.n) send_text(index, &t);
    return (size_t)(at - begin);
}

static void beat(uint32_t index) { device_send(index, "\0\0\0\10\2\0\0\0", 8); }

const protocol amqp_protocol = {"AMQPWSB10", prepare, opened, received, beat};
