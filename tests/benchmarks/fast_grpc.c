/* The fastest gRPC answers there are: nghttp2, one thread, one epoll, one send for all that one recv
 * brought.
 *
 * Its argument is a folder: the file NAME there is the message that each call of that name gets. The
 * calls of ModelInfer are counted, in the eight bytes of its file `count`. Prints its port; ends on
 * SIGTERM. Compiled with -lnghttp2. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 4096      /* connections */
#define SIZE (1 << 20) /* read, or sent, at once */
#define MESSAGE 8192   /* the longest of an answer: it fits into one frame */
#define NAMES 32
#define FIELD(name, value) \
    {(uint8_t *)name, (uint8_t *)value, sizeof name - 1, sizeof value - 1, NGHTTP2_NV_FLAG_NONE}

struct message { char name[64]; uint8_t data[MESSAGE]; size_t length; };

static struct message messages[NAMES];
static nghttp2_session *sessions[MOST];
static nghttp2_session_callbacks *callbacks;
static volatile sig_atomic_t ended;
static volatile uint64_t *answered;
static uint8_t scratch[SIZE], out[SIZE];

static void end(int number) { (void)number; ended = 1; }

/* The answer to a call, read from the folder when it is first asked for; NULL if there is none. */
static struct message *known(const char *folder, const uint8_t *path, size_t length) {
    const uint8_t *slash = memrchr(path, '/', length);
    size_t size = slash ? path + length - slash - 1 : 0;
    if (!size || size >= sizeof messages[0].name) return NULL;
    struct message *found = messages;
    for (; found < messages + NAMES && *found->name; found++)
        if (strlen(found->name) == size && !memcmp(found->name, slash + 1, size)) return found;
    if (found == messages + NAMES) return NULL;
    char file[4096];
    snprintf(file, sizeof file, "%s/%.*s", folder, (int)size, slash + 1);
    FILE *from = fopen(file, "rb");
    if (!from) return NULL;
    size_t read = fread(found->data + 5, 1, MESSAGE - 5, from);
    fclose(from);
    uint32_t big = htonl(read); /* behind a zero: not compressed */
    memcpy(found->data + 1, &big, 4);
    found->length = 5 + read;
    memcpy(found->name, slash + 1, size);
    return found;
}

static ssize_t body(nghttp2_session *session, int32_t stream, uint8_t *into, size_t room,
                    uint32_t *flags, nghttp2_data_source *source, void *folder) {
    static nghttp2_nv trailers[] = {FIELD("grpc-status", "0")};
    struct message *found = source->ptr;
    (void)folder;
    if (found->length > room) return NGHTTP2_ERR_CALLBACK_FAILURE;
    memcpy(into, found->data, found->length);
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, stream, trailers, 1);
    return found->length;
}

static int header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                  size_t size, const uint8_t *value, size_t length, uint8_t flags, void *folder) {
    (void)flags;
    if (size == 5 && !memcmp(name, ":path", 5))
        nghttp2_session_set_stream_user_data(session, frame->hd.stream_id,
                                             known(folder, value, length));
    return 0;
}

static int received(nghttp2_session *session, const nghttp2_frame *frame, void *folder) {
    static nghttp2_nv fields[] = {FIELD(":status", "200"),
                                  FIELD("content-type", "application/grpc")},
                      refused[] = {FIELD(":status", "200"),
                                   FIELD("content-type", "application/grpc"),
                                   FIELD("grpc-status", "12")};
    (void)folder;
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) || !frame->hd.stream_id) return 0;
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    struct message *found = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!found) return nghttp2_submit_response(session, frame->hd.stream_id, refused, 3, NULL);
    if (!strcmp(found->name, "ModelInfer")) ++*answered;
    nghttp2_data_provider data = {.source.ptr = found, .read_callback = body};
    return nghttp2_submit_response(session, frame->hd.stream_id, fields, 2, &data);
}

/* Windows are so large that they are never what is waited for. */
static void begin(int fd, char *folder) {
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1024},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 30}};
    nghttp2_session_server_new(&sessions[fd], callbacks, folder);
    nghttp2_submit_settings(sessions[fd], NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(sessions[fd], NGHTTP2_FLAG_NONE, 0, 1 << 30);
}

static int give(int fd) {
    for (;;) {
        size_t length = 0;
        while (length < SIZE / 2) {
            const uint8_t *piece;
            ssize_t size = nghttp2_session_mem_send(sessions[fd], &piece);
            if (size < 0) return -1;
            if (!size) break;
            memcpy(out + length, piece, size);
            length += size;
        }
        if (!length) return 0;
        if (send(fd, out, length, MSG_NOSIGNAL) != (ssize_t)length) return -1;
    }
}

static void serve(int fd) {
    ssize_t got = recv(fd, scratch, SIZE, 0);
    if (got > 0 && nghttp2_session_mem_recv(sessions[fd], scratch, got) == got && !give(fd) &&
        (nghttp2_session_want_read(sessions[fd]) || nghttp2_session_want_write(sessions[fd])))
        return;
    nghttp2_session_del(sessions[fd]);
    close(fd);
}

int main(int count, char **words) {
    char file[4096];
    if (count != 2) return 2;
    snprintf(file, sizeof file, "%s/count", words[1]);
    int counter = open(file, O_RDWR);
    answered = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, counter, 0);
    if (answered == MAP_FAILED) return 1;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, received);
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
            if (fd != listener) { serve(fd); continue; }
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            if (fd >= MOST) { close(fd); continue; }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            begin(fd, words[1]);
            event.events = EPOLLIN;
            event.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            if (give(fd)) { nghttp2_session_del(sessions[fd]); close(fd); }
        }
    }
    return 0;
}
