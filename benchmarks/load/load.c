/* The load tool: devices and callers in one process on one core; prints one JSON object per phase. */
#define _GNU_SOURCE
#include "load.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char usage[] =
    "usage: load --devices FILE --mqtt|--amqp|--mqtt-ws|--amqp-ws HOST:PORT [--device-tls]\n"
    "            [--subscribe FILTER] [--answer TOPIC]  of MQTT\n"
    "            [--http HOST:PORT [--http-tls] --path PATH [--header LINE]... [--body JSON]\n"
    "             [--callers 32] [--called N] [--seconds 10] [--warmup 2] [--pids PID,PID]]\n"
    "            [--idle]  connect and hold until stdin closes  [--at-once 64]  how many connect at the same time\n"
    "            [--retry]  each second, of those that were turned away; of MQTT without WebSocket\n"
    "FILE has a line per device: id<TAB>user name<TAB>password or token. {d} in FILTER, TOPIC, PATH is the device id.\n";

static double seconds = 10, warmup = 2;
static const char *pids = "";
static device_options device_side = {.subscribe = "$iothub/methods/POST/#",
                                     .answer = "$iothub/methods/res/200/?$rid=",
                                     .at_once = 64};
static caller_options caller_side = {.path = "/twins/{d}/methods?api-version=2021-04-12",
                                     .body = "{\"methodName\":\"ping\",\"payload\":{\"value\":1}}",
                                     .callers = 32,
                                     .called = UINT32_MAX};
static const char *http_address, *device_file;
static int http_tls, device_tls, idle;
static char headers[8192];
static watch stdin_watch;
static int held = 1;

static void add_header(const char *line) {
    size_t used = strlen(headers);
    if ((size_t)snprintf(headers + used, sizeof headers - used, "%s\r\n", line) >= sizeof headers - used)
        die("headers too long");
}

static void peer(const char *address, const protocol *protocol, int websocket) {
    device_side.peer = parse_address(address);
    device_side.host = address;
    device_side.protocol = protocol;
    device_side.websocket = websocket;
}

static void options(int argc, char **argv) {
    enum { MQTT = 1, AMQP, MQTT_WS, AMQP_WS, DEVICE_TLS, HTTP, HTTP_TLS, DEVICES, SUBSCRIBE, ANSWER, PATH, HEADER,
           BODY, CALLERS, CALLED, SECONDS, WARMUP, PIDS, IDLE, AT_ONCE, RETRY };
    static const struct option table[] = {
        {"mqtt", 1, 0, MQTT}, {"amqp", 1, 0, AMQP}, {"mqtt-ws", 1, 0, MQTT_WS}, {"amqp-ws", 1, 0, AMQP_WS},
        {"device-tls", 0, 0, DEVICE_TLS}, {"http", 1, 0, HTTP}, {"http-tls", 0, 0, HTTP_TLS},
        {"devices", 1, 0, DEVICES}, {"subscribe", 1, 0, SUBSCRIBE}, {"answer", 1, 0, ANSWER},
        {"path", 1, 0, PATH}, {"header", 1, 0, HEADER}, {"body", 1, 0, BODY}, {"callers", 1, 0, CALLERS},
        {"called", 1, 0, CALLED}, {"seconds", 1, 0, SECONDS}, {"warmup", 1, 0, WARMUP}, {"pids", 1, 0, PIDS},
        {"idle", 0, 0, IDLE}, {"at-once", 1, 0, AT_ONCE}, {"retry", 0, 0, RETRY}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", table, NULL)) != -1;) switch (o) {
        case MQTT: peer(optarg, &mqtt_protocol, 0); break;
        case AMQP: peer(optarg, &amqp_protocol, 0); break;
        case MQTT_WS: peer(optarg, &mqtt_protocol, 1); break;
        case AMQP_WS: peer(optarg, &amqp_protocol, 1); break;
        case DEVICE_TLS: device_tls = 1; break;
        case HTTP: http_address = optarg; break;
        case HTTP_TLS: http_tls = 1; break;
        case DEVICES: device_file = optarg; break;
        case SUBSCRIBE: device_side.subscribe = optarg; break;
        case ANSWER: device_side.answer = optarg; break;
        case PATH: caller_side.path = optarg; break;
        case HEADER: add_header(optarg); break;
        case BODY: caller_side.body = optarg; break;
        case CALLERS: caller_side.callers = (uint32_t)atoi(optarg); break;
        case CALLED: caller_side.called = (uint32_t)atoi(optarg); break;
        case SECONDS: seconds = atof(optarg); break;
        case WARMUP: warmup = atof(optarg); break;
        case PIDS: pids = optarg; break;
        case IDLE: idle = 1; break;
        case RETRY: device_side.retries = 1; break;
        case AT_ONCE: device_side.at_once = (uint32_t)atoi(optarg); break;
        default: fputs(usage, stderr); exit(2);
        }
    if (!device_file || !device_side.protocol || (!idle && !http_address) || !caller_side.callers || !caller_side.called) {
        fputs(usage, stderr);
        exit(2);
    }
}

/* Seconds of processor time that the servers have used. */
static double server_cpu(void) {
    double ticks = 0;
    for (const char *at = pids; *at;) {
        char path[64], text[1024], *tail;
        unsigned long user, system;
        int used = 0;
        long pid = strtol(at, &tail, 10);
        snprintf(path, sizeof path, "/proc/%ld/stat", pid);
        FILE *file = fopen(path, "r");
        if (file) {
            size_t n = fread(text, 1, sizeof text - 1, file);
            text[n] = 0;
            fclose(file);
            char *after = strrchr(text, ')'); /* the name may hold anything */
            if (after && sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu%n", &user, &system, &used) == 2)
                ticks += (double)(user + system);
        }
        at = *tail == ',' ? tail + 1 : tail + strlen(tail);
    }
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void connect_all(void) {
    uint64_t begin = now_ns(), last = begin;
    uint32_t before = 0;
    devices_connect(&device_side);
    while (devices_ready() < device_count) {
        loop_once(1000);
        if (devices_ready() != before) last = now_ns(), before = devices_ready();
        else if (now_ns() - last > 30000000000u) die("only %u of %u devices connected", before, device_count);
    }
    double taken = (double)(now_ns() - begin) / 1e9;
    printf("{\"connected\":%u,\"connect_seconds\":%.3f,\"connects_per_second\":%.0f,\"retries\":%u,"
           "\"transport\":\"%s\"}\n",
           device_count, taken, device_count / taken, devices_retries(), devices_tls());
    fflush(stdout);
}

static void run_for(double time) {
    uint64_t end = now_ns() + (uint64_t)(time * 1e9);
    for (uint64_t now; (now = now_ns()) < end;) loop_once((int)((end - now) / 1000000) + 1);
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double part) {
    if (!counted.calls) return 0;
    uint64_t rank = (uint64_t)(part * (double)(counted.calls - 1) + 0.5);
    return counted.latencies[rank] / 1e4;
}

static void call(void) {
    callers_start(&caller_side);
    run_for(warmup);
    double server = server_cpu(), own = own_cpu();
    uint64_t begin = now_ns();
    callers_record(1);
    run_for(seconds);
    callers_record(0);
    double taken = (double)(now_ns() - begin) / 1e9;
    server = server_cpu() - server;
    own = own_cpu() - own;
    callers_stop();
    uint32_t waiting = callers_waiting();
    for (uint64_t end = now_ns() + 2000000000u; callers_waiting() && now_ns() < end;) loop_once(100);
    if (counted.calls) qsort(counted.latencies, counted.calls, sizeof *counted.latencies, ascending);
    printf("{\"calls\":%lu,\"seconds\":%.3f,\"calls_per_second\":%.0f,\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,"
           "\"max_ms\":%.4f,\"not_200\":%lu,\"wrong\":%lu,\"errors\":%lu,\"unanswered\":%u,\"devices_dropped\":%u,"
           "\"answered\":%lu,\"in_flight\":%u,\"server_busy\":%.3f,\"load_busy\":%.3f,\"server_us_per_call\":%.1f,"
           "\"sample\":\"%s\"}\n",
           counted.calls, taken, (double)counted.calls / taken, percentile(.5), percentile(.9), percentile(.99),
           percentile(1), counted.not_200, counted.wrong, counted.errors, callers_waiting(), devices_dropped(),
           devices_answered(), waiting, server / taken, own / taken,
           counted.calls ? server * 1e6 / (double)counted.calls : 0, counted.sample);
}

static void stdin_readable(int fd) {
    char bytes[64];
    if (read(fd, bytes, sizeof bytes) <= 0) held = 0;
}

int main(int argc, char **argv) {
    struct rlimit files;
    options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_devices(device_file);
    if (device_count + caller_side.callers + 16 > files.rlim_max) die("needs `ulimit -n %u`", device_count + 100);
    loop_init();
    device_side.tls = device_tls ? client_tls(device_count > 2000) : NULL;
    connect_all();
    if (idle) {
        loop_watch(&stdin_watch, 0, stdin_readable);
        while (held) loop_once(-1);
        printf("{\"dropped\":%u}\n", devices_dropped());
        return 0;
    }
    caller_side.peer = parse_address(http_address);
    caller_side.tls = http_tls ? client_tls(0) : NULL;
    caller_side.host = http_address;
    caller_side.headers = headers;
    call();
    return 0;
}
