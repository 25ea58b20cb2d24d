/* Preloaded into the fork server; asleep until a child's environment wakes it.

   FAULT_SHORT=N      the Nth write to a regular file in this process writes only half of what it was given
   FAULT_REPORT=FILE  where the path of that file is left, so that the campaign knows that it happened
   FAULT_BACK=S,N     from its Nth look at the wall clock on, the process sees it S seconds earlier
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static long writes, looks;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_short(int fd) {
    const char *wanted = getenv("FAULT_SHORT");
    struct stat status;
    if (wanted == NULL || fd <= 2 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
    if (++writes != atol(wanted)) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    const char *report = getenv("FAULT_REPORT");
    int out = report != NULL ? open(report, O_WRONLY | O_CREAT | O_TRUNC, 0644) : -1;
    if (out >= 0) {
        if (length > 0) REAL(write)(out, path, (size_t)length);
        close(out);
    }
    return 1;
}

ssize_t write(int fd, const void *data, size_t size) {
    return REAL(write)(fd, data, size > 1 && is_short(fd) ? size / 2 : size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return REAL(pwrite)(fd, data, size > 1 && is_short(fd) ? size / 2 : size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (count < 1 || !is_short(fd)) return REAL(writev)(fd, parts, count);
    int last = count - 1;
    while (last > 0 && parts[last].iov_len == 0) last--;
    if (last > 0) return REAL(writev)(fd, parts, last);
    return REAL(write)(fd, parts[0].iov_base, (parts[0].iov_len + 1) / 2);
}

ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    if (!is_short(out)) return REAL(sendfile)(out, in, at, size);
    struct stat status;
    size_t there = fstat(in, &status) == 0 ? (size_t)status.st_size : size;
    return REAL(sendfile)(out, in, at, (there < size ? there : size) / 2 + 1);
}

static long seconds_back(void) {
    const char *wanted = getenv("FAULT_BACK");
    if (wanted == NULL) return 0;
    const char *comma = strchr(wanted, ',');
    return ++looks >= (comma != NULL ? atol(comma + 1) : 1) ? atol(wanted) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec -= seconds_back();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    int result = REAL(gettimeofday)(now, zone);
    if (result == 0) now->tv_sec -= seconds_back();
    return result;
}

time_t time(time_t *where) {
    time_t now = REAL(time)(NULL) - seconds_back();
    if (where != NULL) *where = now;
    return now;
}
