/* A disk whose flush takes as long as SLOW_FLUSH_US says, for whoever is started with this in LD_PRELOAD.
 * Machines with a write cache flush in 0.1 ms, network disks take 2 to 10 ms: group commit matters on the second. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_the_medium(void) {
    const char *microseconds = getenv("SLOW_FLUSH_US");
    if (microseconds != NULL)
        usleep((useconds_t)atol(microseconds));
}

int fsync(int descriptor) {
    static int (*real)(int);
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for_the_medium();
    return real(descriptor);
}

int fdatasync(int descriptor) {
    static int (*real)(int);
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for_the_medium();
    return real(descriptor);
}
