/* Records, in one file and in order, what a process does to the files below a directory: the data of every write, and
 * every open, close, truncation, rename, unlink and sync. For LD_PRELOAD; see power.py, which reads the file.
 *
 *     POWER_ROOT   the directory, absolute, without a slash at its end
 *     POWER_TRACE  where to write, outside of it
 *
 * The index of a WAL (-shm) is left out: SQLite makes it anew after a crash. So is what was in hand, which a power loss may
 * forget. A sync is written down and not done: what
 * it means is the reader's to say, and a trace takes seconds instead of minutes. One mutex spans call and record, so
 * the order of the records is the order of what happened.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CLOSE, WRITE, TRUNCATE, SYNC, UNLINK, RENAME, MKDIR };

#define DESCRIPTORS 65536
#define REAL(name) ((__typeof__(&name))real(#name))

struct head {
    int32_t kind, descriptor;
    int64_t offset, size; /* of an open: its flags, the length of its path */
};

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static unsigned char watched[DESCRIPTORS];
static int trace = -1;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int inside(const char *path) {
    const char *root = getenv("POWER_ROOT");
    size_t length = root ? strlen(root) : 0, end = path ? strlen(path) : 0;
    if (!length || end < length || strncmp(path, root, length) || (path[length] && path[length] != '/')) return 0;
    return (end < 4 || strcmp(path + end - 4, "-shm")) && (end < 8 || strcmp(path + end - 8, "/in-hand"));
}

static int known(int descriptor) { return descriptor >= 0 && descriptor < DESCRIPTORS && watched[descriptor]; }

static void note(int kind, int descriptor, int64_t offset, const void *data, size_t size) {
    struct head head = {kind, descriptor, offset, (int64_t)size};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, size}};
    if (trace < 0) trace = REAL(open)(getenv("POWER_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0 || writev(trace, parts, 2) != (ssize_t)(sizeof head + size)) abort();
}

static int opened(const char *path, int flags, mode_t mode) {
    if (!inside(path)) return REAL(open)(path, flags, mode);
    pthread_mutex_lock(&one);
    int descriptor = REAL(open)(path, flags, mode);
    if (descriptor >= DESCRIPTORS) abort();
    if (descriptor >= 0) {
        watched[descriptor] = 1;
        note(OPEN, descriptor, flags, path, strlen(path));
    }
    pthread_mutex_unlock(&one);
    return descriptor;
}

#define MODE(flags)                                    \
    mode_t mode = 0;                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {             \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode = (mode_t)va_arg(rest, int);              \
        va_end(rest);                                  \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opened(path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE(flags)
    return inside(path) ? opened(path, flags, mode) : REAL(openat)(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    MODE(flags)
    return inside(path) ? opened(path, flags, mode) : REAL(openat)(directory, path, flags, mode);
}

int close(int descriptor) {
    if (!known(descriptor)) return REAL(close)(descriptor);
    pthread_mutex_lock(&one);
    watched[descriptor] = 0;
    note(CLOSE, descriptor, 0, NULL, 0);
    int result = REAL(close)(descriptor);
    pthread_mutex_unlock(&one);
    return result;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    if (!known(descriptor)) return REAL(write)(descriptor, data, size);
    pthread_mutex_lock(&one);
    ssize_t done = REAL(write)(descriptor, data, size);
    if (done > 0) note(WRITE, descriptor, lseek(descriptor, 0, SEEK_CUR) - done, data, (size_t)done);
    pthread_mutex_unlock(&one);
    return done;
}

static ssize_t placed(int descriptor, const void *data, size_t size, off_t offset) {
    if (!known(descriptor)) return REAL(pwrite)(descriptor, data, size, offset);
    pthread_mutex_lock(&one);
    ssize_t done = REAL(pwrite)(descriptor, data, size, offset);
    if (done > 0) note(WRITE, descriptor, offset, data, (size_t)done);
    pthread_mutex_unlock(&one);
    return done;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return placed(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t offset) {
    return placed(descriptor, data, size, offset);
}

static int cut(int descriptor, off_t length) {
    if (!known(descriptor)) return REAL(ftruncate)(descriptor, length);
    pthread_mutex_lock(&one);
    int result = REAL(ftruncate)(descriptor, length);
    if (!result) note(TRUNCATE, descriptor, length, NULL, 0);
    pthread_mutex_unlock(&one);
    return result;
}

int ftruncate(int descriptor, off_t length) { return cut(descriptor, length); }

int ftruncate64(int descriptor, off_t length) { return cut(descriptor, length); }

static int synced(int descriptor) {
    pthread_mutex_lock(&one);
    note(SYNC, descriptor, 0, NULL, 0);
    pthread_mutex_unlock(&one);
    return 0;
}

int fsync(int descriptor) { return known(descriptor) ? synced(descriptor) : REAL(fsync)(descriptor); }

int fdatasync(int descriptor) { return known(descriptor) ? synced(descriptor) : REAL(fdatasync)(descriptor); }

int unlink(const char *path) {
    if (!inside(path)) return REAL(unlink)(path);
    pthread_mutex_lock(&one);
    int result = REAL(unlink)(path);
    if (!result) note(UNLINK, -1, 0, path, strlen(path));
    pthread_mutex_unlock(&one);
    return result;
}

int rename(const char *from, const char *to) {
    if (!inside(from) || !inside(to)) return REAL(rename)(from, to);
    pthread_mutex_lock(&one);
    int result = REAL(rename)(from, to);
    if (!result) {
        size_t before = strlen(from) + 1, size = before + strlen(to);
        char *both = malloc(size + 1);
        if (!both) abort();
        memcpy(both, from, before);
        strcpy(both + before, to);
        note(RENAME, -1, 0, both, size);
        free(both);
    }
    pthread_mutex_unlock(&one);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    if (!inside(path)) return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&one);
    int result = REAL(mkdir)(path, mode);
    if (!result) note(MKDIR, -1, 0, path, strlen(path));
    pthread_mutex_unlock(&one);
    return result;
}
