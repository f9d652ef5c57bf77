/* The least lateness this machine allows: arrivals by an absolute timerfd, sent as they fall due.
 *
 *     timer PORT CONNECTIONS REQUEST-FILE < ARRIVALS
 *
 * ARRIVALS are int64 nanoseconds from the beginning, rising. Each is sent on an idle connection of
 * those opened before (what finds none waits, and is not counted). Prints how many it sent on time
 * by its own means, and the P50, P99 and largest of their lateness in µs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * SECOND + at.tv_nsec;
}

static int rising(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static char *all(int fd, size_t *length) {
    size_t room = 1 << 20, got = 0;
    char *data = malloc(room);
    for (ssize_t one; (one = read(fd, data + got, room - got)) > 0;) {
        got += one;
        if (got == room) data = realloc(data, room *= 2);
    }
    *length = got;
    return data;
}

static int connected(int port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (connect(fd, (void *)&where, sizeof where)) exit(1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

int main(int count, char **words) {
    if (count != 4) return 2;
    size_t length, bytes, connections = atoi(words[2]);
    char *request = all(open(words[3], O_RDONLY), &length);
    int64_t *due = (int64_t *)all(0, &bytes), *late = malloc(bytes);
    size_t arrivals = bytes / sizeof *due, next = 0, timed = 0, idle = connections;
    int epoll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int *free_ones = malloc(connections * sizeof(int));
    struct epoll_event event = {.events = EPOLLIN}, events[256];
    for (size_t i = 0; i < connections; i++) {
        event.data.fd = free_ones[i] = connected(atoi(words[1]));
        epoll_ctl(epoll, EPOLL_CTL_ADD, free_ones[i], &event);
    }
    event.events = EPOLLIN | EPOLLET;
    event.data.fd = timer;
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    int64_t origin = now() + SECOND / 10;
    int waited = 0;
    char answer[65536];
    while (next < arrivals || idle < connections) {
        int64_t at;
        while (next < arrivals && origin + due[next] <= (at = now())) {
            if (!idle) { waited = 1; break; }
            int fd = free_ones[--idle];
            if (send(fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) return 1;
            if (!waited) late[timed++] = at - origin - due[next];
            waited = 0;
            next++;
        }
        if (next < arrivals && idle) {
            int64_t moment = origin + due[next];
            struct itimerspec set = {.it_value = {moment / SECOND, moment % SECOND}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &set, NULL);
        }
        int number = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < number; i++) {
            int fd = events[i].data.fd;
            if (fd == timer) continue;
            if (recv(fd, answer, sizeof answer, 0) <= 0) return 1;
            free_ones[idle++] = fd;
        }
    }
    if (!timed) return 1;
    qsort(late, timed, sizeof *late, rising);
    printf("%zu %.1f %.1f %.1f\n", timed, late[timed / 2] / 1e3, late[timed * 99 / 100] / 1e3,
           late[timed - 1] / 1e3);
    return 0;
}
