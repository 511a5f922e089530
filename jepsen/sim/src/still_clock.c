/* A system clock that stands still, for simulated runs.
 *
 * Simulated time is tokio's, which is paused. But h2 remembers streams that were reset for one second of
 * the system's time, and its answers to late frames depend on whether that second is over. It takes no
 * clock from outside, so two runs of a seed differed now and then on a busy machine.
 *
 * In a process that runs one seed, this takes the place of libc's clock_gettime: every look at a clock
 * finds it a little later than the look before, however long that took. Elsewhere, as in the process that
 * starts those runs, the system is asked.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Between two looks. A run looks some hundred thousand times: no second of anybody's is ever over. */
enum { STEP_NS = 100 };
/* 2026-01-01, as simulated wall clocks begin. */
enum { BEGAN_UNIX_S = 1767225600 };

static int is_still(void) {
    static int still = -1;
    if (still < 0) {
        still = getenv("ANABRANCH_SIM_STILL_CLOCK") != NULL;
    }
    return still;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static unsigned long long looks;
    int passes = clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME || clock == CLOCK_REALTIME;
    if (!passes || !is_still()) {
        return (int)syscall(SYS_clock_gettime, clock, time);
    }
    unsigned long long ns = __atomic_add_fetch(&looks, 1, __ATOMIC_RELAXED) * STEP_NS;
    time->tv_sec = (time_t)(ns / 1000000000) + (clock == CLOCK_REALTIME ? BEGAN_UNIX_S : 1000);
    time->tv_nsec = (long)(ns % 1000000000);
    return 0;
}
