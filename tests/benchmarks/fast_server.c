/* The fastest answer there is: one thread, one epoll, one send for all that one recv brought.
 *
 * POSTs are infer requests: their whole body is read and thrown away, and each gets the same KServe
 * answer. GETs are what perf_analyzer asks before it begins; the model's statistics hold how many
 * infer requests were answered. Prints its port; ends on SIGTERM.
 * Compiled with -DTLS -lssl it speaks https; its argument is a file of its certificate and key. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
#endif

#define MOST 4096        /* connections */
#define HEAD 8192        /* of one request */
#define SIZE (1 << 20)   /* read at once */
#define TOGETHER 16      /* answers in one send */
#ifndef WIDE
#define WIDE "4"         /* values of the input */
#endif
#define INPUT "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1," WIDE "]}"
#define OUTPUT "{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1,3]}"
#define CONFIG(kind, name, dim) \
    "\"" kind "\":[{\"name\":\"" name "\",\"data_type\":\"TYPE_FP32\",\"dims\":[" dim "]}]"

static const char infer[] = "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[{\"name\":"
    "\"y\",\"datatype\":\"FP32\",\"shape\":[1,3],\"data\":[0.25,-1.5,3.0]}]}";
static const char about[] = "{\"name\":\"fast\",\"version\":\"1\",\"extensions\":[\"statistics\","
    "\"model_configuration\",\"binary_tensor_data\"]}";
static const char model[] = "{\"name\":\"m\",\"versions\":[\"1\"],\"platform\":\"c\",\"inputs\":["
    INPUT "],\"outputs\":[" OUTPUT "]}";
static const char config[] = "{\"name\":\"m\",\"platform\":\"c\",\"backend\":\"c\","
    "\"max_batch_size\":8," CONFIG("input", "x", WIDE) "," CONFIG("output", "y", "3") "}";
static const char statistics[] = "{\"model_stats\":[{\"name\":\"m\",\"version\":\"1\","
    "\"inference_count\":%1$ld,\"execution_count\":%1$ld,\"inference_stats\":{"
    "\"success\":{\"count\":%1$ld,\"ns\":0},\"fail\":{\"count\":0,\"ns\":0},"
    "\"queue\":{\"count\":%1$ld,\"ns\":0},\"compute_input\":{\"count\":%1$ld,\"ns\":0},"
    "\"compute_infer\":{\"count\":%1$ld,\"ns\":0},\"compute_output\":{\"count\":%1$ld,\"ns\":0},"
    "\"cache_hit\":{\"count\":0,\"ns\":0},\"cache_miss\":{\"count\":0,\"ns\":0}},"
    "\"batch_stats\":[]}]}";

static struct {
    char head[HEAD];  /* of a request that has not come whole */
    size_t kept;      /* bytes of it */
    size_t body;      /* bytes of a body that are still to come */
} connections[MOST];
static volatile sig_atomic_t ended;
static char scratch[HEAD + SIZE], answers[TOGETHER * 1024];
static size_t answer_length;
static long answered;

static void end(int number) { (void)number; ended = 1; }

#ifdef TLS
static SSL *layers[MOST];
static SSL_CTX *context;

static void prepare(const char *file) {
    context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_read_ahead(context, 1); /* one recv for a record, not one for its head, too */
    if (SSL_CTX_use_certificate_chain_file(context, file) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, file, SSL_FILETYPE_PEM) != 1) exit(1);
}

static void begin(int fd) {
    layers[fd] = SSL_new(context);
    SSL_set_fd(layers[fd], fd);
    SSL_set_accept_state(layers[fd]);
}

/* Like recv, but 0 also for nothing at all; the handshake is made on the way. */
static ssize_t take(int fd, char *data, size_t size) {
    int got = SSL_read(layers[fd], data, size);
    if (got > 0) return got;
    return SSL_get_error(layers[fd], got) == SSL_ERROR_WANT_READ ? 0 : -1;
}

static ssize_t give(int fd, const char *data, size_t length) {
    return SSL_write(layers[fd], data, length);
}

static int more(int fd) { return SSL_has_pending(layers[fd]); }
static void end_of(int fd) { SSL_free(layers[fd]); }
#else
static void prepare(const char *file) { (void)file; }
static void begin(int fd) { (void)fd; }

static ssize_t take(int fd, char *data, size_t size) {
    ssize_t got = recv(fd, data, size, 0);
    return got > 0 ? got : -1;
}

static ssize_t give(int fd, const char *data, size_t length) {
    return send(fd, data, length, MSG_NOSIGNAL);
}

static int more(int fd) { (void)fd; return 0; }
static void end_of(int fd) { (void)fd; }
#endif

static size_t answer(char *into, size_t most, const char *body) {
    return snprintf(into, most, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
}

static void out(int fd, const char *data, size_t length) {
    if (give(fd, data, length) != (ssize_t)length) shutdown(fd, SHUT_RDWR);
}

static void tell(int fd, const char *path) {
    char body[2048], whole[4096];
    const char *found = "";
    if (!strncmp(path, "/v2/models/m/stats", 18) || !strncmp(path, "/v2/models/m/versions/1/s", 25)) {
        snprintf(body, sizeof body, statistics, answered);
        found = body;
    } else if (strstr(path, "/config")) found = config;
    else if (strstr(path, "/ready") || strstr(path, "/live")) found = "";
    else if (!strncmp(path, "/v2/models/m", 12)) found = model;
    else if (!strncmp(path, "/v2", 3)) found = about;
    out(fd, whole, answer(whole, sizeof whole, found));
}

/* All requests that begin in `data`; gives how many bytes of a further one are left over. */
static size_t requests(int fd, char *data, size_t length) {
    size_t at = 0, number = 0;
    while (at < length) {
        char *end = memmem(data + at, length - at, "\r\n\r\n", 4);
        if (!end) break;
        *end = 0;
        char *begin = data + at;
        at = end + 4 - data;
        if (*begin != 'P') {
            char *space = strchr(begin + 4, ' ');
            if (space) *space = 0;
            tell(fd, begin + 4);
            continue;
        }
        const char *field = strstr(begin, "\nContent-Length:");
        size_t body = field ? strtoul(field + 16, NULL, 10) : 0;
        connections[fd].body = body > length - at ? body - (length - at) : 0;
        at += body - connections[fd].body;
        if (connections[fd].body) return 0;
        answered++;
        if (++number == TOGETHER) {
            out(fd, answers, number * answer_length);
            number = 0;
        }
    }
    if (number) out(fd, answers, number * answer_length);
    return length - at;
}

/* What came on a connection, behind what was kept of it. */
static void received(int fd, size_t kept, size_t got) {
    char *data = scratch + HEAD - kept;
    memcpy(data, connections[fd].head, kept);
    size_t length = kept + got, body = connections[fd].body;
    if (body) {
        size_t here = body < length ? body : length;
        connections[fd].body = body -= here;
        data += here;
        length -= here;
        if (body) return;
        answered++;
        out(fd, answers, answer_length);
    }
    size_t left = requests(fd, data, length);
    connections[fd].kept = left < HEAD ? left : 0;
    memcpy(connections[fd].head, data + length - left, connections[fd].kept);
}

static void serve(int fd) {
    ssize_t got;
    do {
        got = take(fd, scratch + HEAD, SIZE);
        if (got < 0) {
            end_of(fd);
            close(fd);
            return;
        }
        if (got) received(fd, connections[fd].kept, got);
    } while (got && more(fd));
}

int main(int count, char **words) {
    prepare(count > 1 ? words[1] : "");
    answer_length = answer(answers, sizeof answers, infer);
    for (int i = 1; i < TOGETHER; i++)
        memcpy(answers + i * answer_length, answers, answer_length);
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof where;
    if (bind(listener, (void *)&where, size) || listen(listener, 4096)) return 1;
    getsockname(listener, (void *)&where, &size);
    printf("%d\n", ntohs(where.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    while (!ended) {
        int number = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < number; i++) {
            int fd = events[i].data.fd, one = 1;
            if (fd != listener) { serve(fd); continue; }
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            if (fd >= MOST) { close(fd); continue; }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            connections[fd].kept = connections[fd].body = 0;
            begin(fd);
            event.events = EPOLLIN;
            event.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
    return 0;
}
