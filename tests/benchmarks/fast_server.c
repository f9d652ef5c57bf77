/* The fastest answer there is: reads requests by their Content-Length, writes the same KServe
 * answer to each. One thread, one epoll. Prints its port; on SIGTERM the number of answers.
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

#define MOST 4096
#define SIZE (1 << 18)
#define BODY "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"y\"," \
             "\"datatype\":\"FP32\",\"shape\":[1,3],\"data\":[0.25,-1.5,3.0]}]}"

static char *buffers[MOST];
static size_t lengths[MOST];
static volatile sig_atomic_t ended;
static char answer[1024];
static int answer_length;
static long answers;

static void end(int number) { (void)number; ended = 1; }

/* Length of the first whole request in the buffer, 0 if it is not all there. */
static size_t whole(const char *data, size_t length) {
    const char *head = memmem(data, length, "\r\n\r\n", 4);
    if (!head) return 0;
    size_t size = head + 4 - data, body = 0;
    const char *field = memmem(data, size, "Content-Length: ", 16);
    if (field) body = strtoul(field + 16, NULL, 10);
    return length >= size + body ? size + body : 0;
}

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

static ssize_t give(int fd) { return SSL_write(layers[fd], answer, answer_length); }
static int more(int fd) { return SSL_has_pending(layers[fd]); }
static void end_of(int fd) { SSL_free(layers[fd]); }
#else
static void prepare(const char *file) { (void)file; }
static void begin(int fd) { (void)fd; }

static ssize_t take(int fd, char *data, size_t size) {
    ssize_t got = recv(fd, data, size, 0);
    return got > 0 ? got : -1;
}

static ssize_t give(int fd) { return send(fd, answer, answer_length, MSG_NOSIGNAL); }
static int more(int fd) { (void)fd; return 0; }
static void end_of(int fd) { (void)fd; }
#endif

static void serve(int fd, int epoll) {
    ssize_t got;
    do {
        got = take(fd, buffers[fd] + lengths[fd], SIZE - lengths[fd]);
        if (got < 0) {
            epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
            end_of(fd);
            close(fd);
            return;
        }
        lengths[fd] += got;
        size_t at = 0, one;
        while ((one = whole(buffers[fd] + at, lengths[fd] - at))) {
            if (give(fd) == answer_length) answers++;
            at += one;
        }
        lengths[fd] -= at;
        if (at && lengths[fd]) memmove(buffers[fd], buffers[fd] + at, lengths[fd]);
    } while (got && more(fd));
}

int main(int count, char **arguments) {
    prepare(count > 1 ? arguments[1] : "");
    answer_length = snprintf(answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(BODY), BODY);
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
            if (fd != listener) { serve(fd, epoll); continue; }
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            if (fd >= MOST) { close(fd); continue; }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            if (!buffers[fd]) buffers[fd] = malloc(SIZE);
            lengths[fd] = 0;
            begin(fd);
            event.events = EPOLLIN;
            event.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
    printf("%ld\n", answers);
    return 0;
}
