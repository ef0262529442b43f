/* To be preloaded: the wall clock of a program is what the tests say, and stands still until they move it. The file $TEST_CLOCK holds
 * nanoseconds since 1970 as one 64-bit number. Clocks that count from the start of the machine, and with them all waiting, stay as they
 * are. (libfaketime cannot do that: under a clock that stands still its clock_nanosleep fails.) */

#define _GNU_SOURCE
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const volatile int64_t *now;

__attribute__((constructor)) static void begin(void)
{
    int file = open(getenv("TEST_CLOCK"), O_RDONLY | O_CLOEXEC);
    void *page = mmap(NULL, sizeof *now, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || page == MAP_FAILED)
        abort();
    now = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (now == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return syscall(SYS_clock_gettime, clock, time);
    int64_t at = *now;
    time->tv_sec = at / SECOND;
    time->tv_nsec = at % SECOND;
    return 0;
}

time_t time(time_t *seconds)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (seconds != NULL)
        *seconds = at.tv_sec;
    return at.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    (void)zone;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    tv->tv_sec = at.tv_sec;
    tv->tv_usec = at.tv_nsec / 1000;
    return 0;
}

/* A wait until some time of the wall clock (all that glibc 2.12 has): it lasts as long as the caller meant when it was told the time. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec wall, end;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &end);
    int64_t nanoseconds = (until->tv_sec - wall.tv_sec + end.tv_sec) * SECOND + until->tv_nsec - wall.tv_nsec + end.tv_nsec;
    end.tv_sec = nanoseconds / SECOND;
    end.tv_nsec = nanoseconds % SECOND;
    return sem_clockwait(semaphore, CLOCK_MONOTONIC, &end);
}
