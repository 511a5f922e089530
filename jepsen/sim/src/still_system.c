/* What the system would say by chance, said in order: the time, and random bytes. For simulated runs.
 *
 * Simulated time is tokio's, which is paused, and what our code draws comes from seeds that are passed in.
 * But h2 remembers streams that were reset for one second of the system's time, quinn's BBR draws the phase
 * in which it probes, and ring draws keys; none of them takes a clock or a source of randomness from
 * outside. So two runs of a seed differed now and then.
 *
 * In a process that runs one seed, this takes the place of libc's clock_gettime, getrandom and syscall:
 * every look at a clock finds it a little later than the look before, however long that took, and random
 * bytes follow from the seed. In other processes, as in the one that starts those runs, the system is asked.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Between two looks. A run looks some hundred thousand times: no second of anybody's is ever over. */
enum { STEP_NS = 100 };
/* 2026-01-01, as simulated wall clocks begin. */
enum { BEGAN_UNIX_S = 1767225600 };

/* The seed of the run, as text; nothing where the system is asked. */
static const char *seed(void) {
    static const char *text;
    static int known;
    if (!known) {
        text = getenv("ANABRANCH_SIM_STILL");
        known = 1;
    }
    return text;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static uint64_t looks;
    int passes = clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME || clock == CLOCK_REALTIME;
    if (!passes || !seed()) {
        return (int)syscall(SYS_clock_gettime, clock, time);
    }
    uint64_t ns = __atomic_add_fetch(&looks, 1, __ATOMIC_RELAXED) * STEP_NS;
    time->tv_sec = (time_t)(ns / 1000000000) + (clock == CLOCK_REALTIME ? BEGAN_UNIX_S : 1000);
    time->tv_nsec = (long)(ns % 1000000000);
    return 0;
}

/* SplitMix64 (Steele, Lea, Flood 2014), begun at the seed. */
static uint64_t next_random(void) {
    static uint64_t draws;
    uint64_t nth = __atomic_add_fetch(&draws, 1, __ATOMIC_RELAXED);
    uint64_t z = strtoull(seed(), NULL, 10) + nth * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

ssize_t getrandom(void *to, size_t length, unsigned int flags) {
    if (!seed()) {
        return syscall(SYS_getrandom, to, length, flags);
    }
    for (size_t filled = 0; filled < length; filled += sizeof(uint64_t)) {
        uint64_t drawn = next_random();
        size_t left = length - filled;
        memcpy((char *)to + filled, &drawn, left < sizeof drawn ? left : sizeof drawn);
    }
    return (ssize_t)length;
}

/* ring asks for random bytes by the number of the call. */
long syscall(long number, ...) {
    static long (*of_libc)(long, ...);
    long given[6];
    va_list rest;
    va_start(rest, number);
    for (int nth = 0; nth < 6; nth++) {
        given[nth] = va_arg(rest, long);
    }
    va_end(rest);
    if (number == SYS_getrandom && seed()) {
        return getrandom((void *)given[0], (size_t)given[1], (unsigned int)given[2]);
    }
    if (!of_libc) {
        of_libc = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    }
    return of_libc(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
