/* A disk and a clock that fail while a process runs, as somebody outside of it says. For LD_PRELOAD; see disk.py.
 *
 *     DISK_ROOT     the directory of the disk, absolute, without a slash at its end
 *     DISK_CONTROL  a file of the numbers below, mapped by both sides
 *
 * A sync that fails loses what was written since the last one, at once and for good, and the next sync succeeds: so do
 * kernels (PostgreSQL wiki, "Fsync Errors"). ``blind`` is a program that tries such a sync again and believes it.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define RANGES 65536

struct control {
    int64_t clock;       /* ms that the wall clock is off */
    int64_t sync_errno;  /* the error of a sync, once ... */
    int64_t sync_at;     /* ... this many syncs from now; 0: never */
    int64_t sync_delay;  /* ms that each takes */
    int64_t blind;       /* 1: the program tries a failed sync again */
    int64_t write_errno; /* the error of every write; 0: none */
    int64_t room;        /* bytes of the whole disk; -1: as many as there are */
    int64_t room_errno;  /* the error where they are used up */
    int64_t failed;      /* syncs that have failed */
};

struct range { dev_t device; ino_t inode; off_t offset; size_t size; };

static struct control *control;
static struct range unsynced[RANGES];
static size_t ranges;
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static const char *root;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("DISK_CONTROL");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    root = getenv("DISK_ROOT");
    if (file < 0 || !root) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(file);
}

static int within(const char *path) {
    size_t length = strlen(root);
    return !strncmp(path, root, length) && (!path[length] || path[length] == '/');
}

static int inside(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return within(path);
}

/* Room */

static int64_t used_below(const char *directory) {
    int64_t sum = 0;
    char path[PATH_MAX];
    struct stat found;
    DIR *stream = opendir(directory);
    for (struct dirent *each; stream && (each = readdir(stream));) {
        if (!strcmp(each->d_name, ".") || !strcmp(each->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", directory, each->d_name);
        if (lstat(path, &found)) continue;
        sum += S_ISDIR(found.st_mode) ? used_below(path) : (int64_t)found.st_blocks * 512;
    }
    if (stream) closedir(stream);
    return sum;
}

/* How the disk answers a write that ends there: 0, or an error. */
static int refusal(int descriptor, off_t end) {
    struct stat found;
    if (!inside(descriptor)) return 0;
    if (control->write_errno) return (int)control->write_errno;
    if (control->room < 0 || fstat(descriptor, &found) || end <= (off_t)found.st_blocks * 512) return 0;
    int64_t more = (end + 4095) / 4096 * 4096 - (int64_t)found.st_blocks * 512;
    return used_below(root) + more > control->room ? (int)control->room_errno : 0;
}

static void note(int descriptor, off_t offset, ssize_t size) {
    struct stat found;
    if (size <= 0 || !control->sync_at || !inside(descriptor) || fstat(descriptor, &found)) return;
    pthread_mutex_lock(&one);
    if (ranges == RANGES) abort();
    unsynced[ranges++] = (struct range){found.st_dev, found.st_ino, offset, (size_t)size};
    pthread_mutex_unlock(&one);
}

static ssize_t placed(int descriptor, const void *data, size_t size, off_t offset) {
    if (!control) return REAL(pwrite)(descriptor, data, size, offset);
    int error = refusal(descriptor, offset + (off_t)size);
    if (error) return errno = error, -1;
    ssize_t done = REAL(pwrite)(descriptor, data, size, offset);
    note(descriptor, offset, done);
    return done;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return placed(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t offset) {
    return placed(descriptor, data, size, offset);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    if (!control || !inside(descriptor)) return REAL(write)(descriptor, data, size);
    off_t offset = lseek(descriptor, 0, SEEK_CUR);
    int error = refusal(descriptor, offset + (off_t)size);
    if (error) return errno = error, -1;
    ssize_t done = REAL(write)(descriptor, data, size);
    note(descriptor, offset, done);
    return done;
}

static int allocated(int descriptor, off_t offset, off_t size) {
    int error = control ? refusal(descriptor, offset + size) : 0;
    return error ? error : REAL(posix_fallocate)(descriptor, offset, size);
}

int posix_fallocate(int descriptor, off_t offset, off_t size) { return allocated(descriptor, offset, size); }

int posix_fallocate64(int descriptor, off_t offset, off_t size) { return allocated(descriptor, offset, size); }

static void measured(const char *path, struct statvfs *found) {
    if (!control || control->room < 0 || !within(path)) return;
    int64_t left = control->room - used_below(root);
    found->f_blocks = (fsblkcnt_t)control->room / found->f_frsize;
    found->f_bavail = found->f_bfree = left > 0 ? (fsblkcnt_t)left / found->f_frsize : 0;
}

int statvfs(const char *path, struct statvfs *found) {
    int result = REAL(statvfs)(path, found);
    if (!result) measured(path, found);
    return result;
}

int statvfs64(const char *path, struct statvfs64 *found) {
    int result = REAL(statvfs64)(path, found);
    if (!result) measured(path, (struct statvfs *)found);
    return result;
}

/* Syncs */

static int mine(const struct range *each, const struct stat *file) {
    return each->device == file->st_dev && each->inode == file->st_ino;
}

/* Forget what was written to this file since its last sync; with ``lose`` the file forgets it, too. */
static void settle(int descriptor, int lose) {
    static const char nothing[65536];
    struct stat file;
    size_t kept = 0;
    if (fstat(descriptor, &file)) return;
    for (size_t at = 0; at < ranges; at++) {
        if (!mine(&unsynced[at], &file)) unsynced[kept++] = unsynced[at];
        else if (lose && unsynced[at].size <= sizeof nothing)
            REAL(pwrite)(descriptor, nothing, unsynced[at].size, unsynced[at].offset);
    }
    ranges = kept;
}

static int synced(int descriptor, int (*sync)(int)) {
    if (!inside(descriptor)) return sync(descriptor);
    if (control->sync_delay) usleep((useconds_t)control->sync_delay * 1000);
    pthread_mutex_lock(&one);
    int fails = control->sync_at && !--control->sync_at;
    settle(descriptor, fails);
    if (fails) control->failed++;
    pthread_mutex_unlock(&one);
    if (fails && !control->blind) return errno = (int)control->sync_errno, -1;
    return sync(descriptor);
}

int fsync(int descriptor) { return synced(descriptor, REAL(fsync)); }

int fdatasync(int descriptor) { return synced(descriptor, REAL(fdatasync)); }

/* The wall clock; the monotonic one goes on as it does. */

int clock_gettime(clockid_t which, struct timespec *time) {
    int result = REAL(clock_gettime)(which, time);
    if (!result && control && which == CLOCK_REALTIME) {
        int64_t now = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + control->clock * 1000000;
        time->tv_sec = now / 1000000000;
        time->tv_nsec = now % 1000000000;
    }
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    int result = REAL(gettimeofday)(time, zone);
    if (!result && control) time->tv_sec += control->clock / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
