/* The fastest answer there is: reads requests by their Content-Length, writes the same KServe
 * answer to each. One thread, one epoll. Prints its port; on SIGTERM the number of answers. */
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

static void serve(int fd, int epoll) {
    ssize_t got = recv(fd, buffers[fd] + lengths[fd], SIZE - lengths[fd], 0);
    if (got <= 0) {
        epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
        close(fd);
        return;
    }
    lengths[fd] += got;
    size_t at = 0, one;
    while ((one = whole(buffers[fd] + at, lengths[fd] - at))) {
        if (send(fd, answer, answer_length, MSG_NOSIGNAL) == answer_length) answers++;
        at += one;
    }
    lengths[fd] -= at;
    if (at && lengths[fd]) memmove(buffers[fd], buffers[fd] + at, lengths[fd]);
}

int main(void) {
    answer_length = snprintf(answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(BODY), BODY);
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
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
            event.events = EPOLLIN;
            event.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
    printf("%ld\n", answers);
    return 0;
}
