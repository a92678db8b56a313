/* The clock of a machine that is AHEAD_S seconds ahead, for every program that this library is preloaded into: what tells
 * the time of day is ahead, what waits until a time of day takes that off again, and the monotonic clock is left alone.
 * (Debian's libfaketime 0.9.10 has Python's sleep fail where it leaves that clock alone, and its locks hang where not.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t ahead(void) {
    static time_t seconds;
    const char *told = seconds ? NULL : getenv("AHEAD_S");
    if (told) seconds = atol(told);
    return seconds;
}

/* Deadlines by the monotonic clock are small: no machine runs for thirty years. */
static const struct timespec *back(const struct timespec *until, struct timespec *room) {
    if (!until || until->tv_sec < 1000000000) return until;
    *room = *until;
    room->tv_sec -= ahead();
    return room;
}

static void *next(const char *name) {
    void *newest = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2"); /* of pthread_cond_timedwait there are two on x86-64 */
    return newest ? newest : dlsym(RTLD_NEXT, name);
}

static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void prepare(void) { real_syscall = (long (*)(long, ...))next("syscall"); }

long syscall(long number, ...) {
    __builtin_va_list given;
    __builtin_va_start(given, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = __builtin_va_arg(given, long);
    __builtin_va_end(given);
    struct timespec room;
    if (!real_syscall) prepare();
    if (number == SYS_futex && a[1] & FUTEX_CLOCK_REALTIME) a[3] = (long)back((const struct timespec *)a[3], &room);
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec room;
    if (!real) real = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))next("pthread_cond_timedwait");
    return real(condition, mutex, back(until, &room));
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    static int (*real)(sem_t *, const struct timespec *);
    struct timespec room;
    if (!real) real = (int (*)(sem_t *, const struct timespec *))next("sem_timedwait");
    return real(semaphore, back(until, &room));
}
