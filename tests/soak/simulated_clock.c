/* The wall clock of the processes that load this, moved by an offset that all of them share; see simulated_clock.py.

   Monotonic clocks, sleeps and the times of files stay real. A wait until a time of the wall clock ends at that time of the
   moved clock; one until a time before 2001 is by a monotonic clock, and is left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL

static volatile const int64_t *offset_us;

static int64_t offset_ns(void) {
    static volatile int is_open;
    if (!is_open) {
        const char *path = getenv("SIMULATED_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file >= 0) {
            void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
            close(file);
            if (found != MAP_FAILED) offset_us = found;
        }
        is_open = 1;
    }
    return offset_us ? *offset_us * 1000 : 0;
}

static void move(struct timespec *at, int64_t by_ns) {
    int64_t ns = at->tv_sec * BILLION + at->tv_nsec + by_ns;
    at->tv_sec = ns / BILLION;
    at->tv_nsec = ns % BILLION;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *at) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = (__typeof__(&clock_gettime))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, at);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) move(at, offset_ns());
    return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static struct timespec until(const struct timespec *moved) {
    struct timespec at = *moved;
    if (at.tv_sec > BILLION) move(&at, -offset_ns());
    return at;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *at) {
    REAL(pthread_cond_timedwait);
    struct timespec end = until(at);
    return real(condition, mutex, &end);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *at) {
    REAL(sem_timedwait);
    struct timespec end = until(at);
    return real(semaphore, &end);
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *at) {
    REAL(pthread_mutex_timedlock);
    struct timespec end = until(at);
    return real(mutex, &end);
}
