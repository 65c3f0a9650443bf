/* The load generator of the benches: see load.py, which builds and calls it.
 *
 * load HOST PORT SECONDS CONNECTIONS RATE FIRST < REQUEST
 *
 * REQUEST is one whole HTTP request; every run of 36 @ in it becomes a UUID of its own. RATE 0 is a closed loop: each
 * connection sends its next request when the last was answered. Else requests leave by the clock, and waiting for a free
 * connection counts as latency.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MARK 36
#define ROOM 65536

struct peer {
    int fd;
    double began;
    size_t sent, got;
    char *request;
    char answer[ROOM];
};

static char *whole;
static size_t length, marks, mark_at[4096];
static uint64_t number;
static long statuses[600], lost;
static double *latencies;
static size_t answered, room;
static struct peer *peers, **idle;
static size_t idles;
static double *queue;
static size_t head, tail, queue_room;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t mixed(uint64_t x) { /* splitmix64: ids as random as a sender's, and none twice */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void put_uuid(char *at) {
    uint64_t high = mixed(number), low = mixed(~number);
    char text[MARK + 1];
    number++;
    snprintf(text, sizeof text, "%08x-%04x-4%03x-%04x-%012llx", (unsigned)(high >> 32), (unsigned)(high >> 16) & 0xffff,
             (unsigned)high & 0xfff, 0x8000 | ((unsigned)(low >> 48) & 0x3fff),
             (unsigned long long)(low & 0xffffffffffffu));
    memcpy(at, text, MARK);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void push(struct peer *peer) {
    while (peer->sent < length) {
        ssize_t n = send(peer->fd, peer->request + peer->sent, length - peer->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the next EPOLLOUT goes on */
        peer->sent += n;
    }
}

static void begin(struct peer *peer, double at) {
    for (size_t i = 0; i < marks; i++)
        put_uuid(peer->request + mark_at[i]);
    peer->began = at;
    peer->sent = peer->got = 0;
    push(peer);
}

static void note(double took) {
    if (answered == room) {
        room = room ? 2 * room : 1 << 16;
        latencies = realloc(latencies, room * sizeof *latencies);
    }
    latencies[answered++] = took;
}

static int whole_answer(struct peer *peer) {
    peer->answer[peer->got] = 0;
    char *end = strstr(peer->answer, "\r\n\r\n");
    if (!end)
        return 0;
    char *size = strcasestr(peer->answer, "content-length:");
    size_t body = size && size < end ? strtoul(size + 15, NULL, 10) : 0;
    return peer->got >= (size_t)(end + 4 - peer->answer) + body;
}

static void receive(struct peer *peer, double rate) {
    ssize_t n = recv(peer->fd, peer->answer + peer->got, ROOM - 1 - peer->got, MSG_DONTWAIT);
    if (n == 0) {
        lost++;
        close(peer->fd);
        return;
    }
    if (n < 0)
        return;
    peer->got += n;
    if (!whole_answer(peer))
        return;
    double t = now();
    int status = atoi(peer->answer + 9);
    statuses[status > 0 && status < 600 ? status : 0]++;
    note(t - peer->began);
    if (rate == 0)
        begin(peer, t);
    else if (head < tail)
        begin(peer, queue[head++ % queue_room]);
    else
        idle[idles++] = peer;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    if (!answered)
        return 0;
    size_t at = share * answered;
    return 1000 * latencies[at < answered ? at : answered - 1];
}

int main(int argc, char **argv) {
    if (argc != 7)
        return 2;
    double seconds = atof(argv[3]), rate = atof(argv[5]);
    size_t connections = strtoul(argv[4], NULL, 10);
    number = strtoull(argv[6], NULL, 10);
    whole = malloc(1 << 21);
    for (ssize_t n; (n = read(0, whole + length, (1 << 21) - length)) > 0;)
        length += n;
    static const char sought[MARK + 1] = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";
    for (char *at = whole; (at = memmem(at, length - (at - whole), sought, MARK)); at += MARK)
        mark_at[marks++] = at - whole;
    int poll = epoll_create1(0);
    peers = calloc(connections, sizeof *peers);
    idle = calloc(connections, sizeof *idle);
    queue_room = 1 << 22;
    queue = malloc(queue_room * sizeof *queue);
    for (size_t i = 0; i < connections; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
        inet_pton(AF_INET, argv[1], &to.sin_addr);
        peers[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(peers[i].fd, (struct sockaddr *)&to, sizeof to))
            fail("connect");
        setsockopt(peers[i].fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        peers[i].request = malloc(length);
        memcpy(peers[i].request, whole, length);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &peers[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, peers[i].fd, &event);
    }
    double began = now();
    uint64_t due = 0;
    for (size_t i = 0; i < connections; i++) {
        peers[i].sent = length;
        if (rate == 0)
            begin(&peers[i], now());
        else
            idle[idles++] = &peers[i];
    }
    for (double t = began; t - began < seconds; t = now()) {
        for (; rate > 0 && due <= (uint64_t)((t - began) * rate); due++) {
            double at = began + due / rate;
            if (idles)
                begin(idle[--idles], at);
            else if (tail - head < queue_room)
                queue[tail++ % queue_room] = at;
        }
        struct epoll_event events[256];
        double left = rate > 0 ? began + due / rate - now() : 0.05; /* a timeout in ms would be late by a ms */
        struct timespec patience = {.tv_nsec = left > 0 ? (long)(left * 1e9) % 1000000000 : 0};
        int n = epoll_pwait2(poll, events, 256, &patience, NULL);
        for (int i = 0; i < n; i++) {
            struct peer *peer = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                push(peer);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(peer, rate);
        }
    }
    double took = now() - began;
    qsort(latencies, answered, sizeof *latencies, ascending);
    printf("{\"answered\":%zu,\"seconds\":%.6f,\"statuses\":{", answered, took);
    const char *comma = "";
    for (int i = 0; i < 600; i++)
        if (statuses[i]) {
            printf("%s\"%d\":%ld", comma, i, statuses[i]);
            comma = ",";
        }
    if (lost)
        printf("%s\"lost\":%ld", comma, lost);
    printf("},\"p50\":%.3f,\"p99\":%.3f,\"worst\":%.3f}\n", percentile(0.5), percentile(0.99), percentile(1));
    return 0;
}
