/* The two halves of the load: devices that answer, callers that ask. */
#ifndef LOAD_H
#define LOAD_H

#include "stream.h"

typedef struct {
    char *id, *user, *password;
    char *answer; /* the JSON it answers with: {"device":"<id>"} */
} device;

extern device *devices;
extern uint32_t device_count;

void read_devices(const char *path);

typedef struct protocol protocol;
extern const protocol mqtt_protocol, amqp_protocol;

typedef struct {
    struct sockaddr_in peer;
    SSL_CTX *tls;
    const char *host; /* as it stands in the Host header and in OPEN */
    const protocol *protocol;
    int websocket;         /* the protocol runs inside one */
    const char *subscribe; /* topic filter of MQTT; {d} is the device id */
    const char *answer;    /* topic of an answer up to the rid; {d} is the device id */
    uint32_t at_once;      /* how many connect at the same time */
    int retries;           /* one that is turned away comes again, each second; MQTT without WebSocket */
} device_options;

void devices_connect(const device_options *options);
uint32_t devices_ready(void);
uint64_t devices_answered(void);
uint32_t devices_dropped(void);
uint32_t devices_retries(void);
const char *devices_tls(void);

typedef struct {
    struct sockaddr_in peer;
    SSL_CTX *tls;
    const char *host; /* as it stands in the Host header */
    const char *path; /* {d} is the device id */
    const char *headers;
    const char *body;
    uint32_t callers;
    uint32_t called; /* how many of the devices are called, in turn */
} caller_options;

typedef struct {
    uint64_t calls, not_200, wrong, errors;
    uint32_t *latencies; /* in units of 100 ns */
    uint64_t capacity;
    char sample[200]; /* the first answer that was not as expected */
} call_counts;

extern call_counts counted;

void callers_start(const caller_options *options);
void callers_record(int on);
void callers_stop(void);
uint32_t callers_waiting(void);

char *substitute(const char *template, const char *id);

#endif
