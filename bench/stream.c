// A loop over memory as STREAM has it (McCalpin 1995, "Memory Bandwidth and Machine Balance in Current High Performance Computers"),
// beside which bench/system.ts measures our own: plain C over doubles, as the compiler makes of it. Each thread has memory of its own.
// Lines of stdin ask for "read|write|copy|triad BYTES", of all threads together; each is answered with the bytes that were moved and the
// ns that it took. A thread goes on where it was the last time. Bytes are counted as the program means them: what is read and what is
// written, not what a cache brings in to write to it.
//
//   stream THREADS BYTES_PER_THREAD

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { threads_max = 64 };

typedef struct {
    double *memory;
    size_t count;   // Doubles.
    size_t length;  // Of each array, how many are gone over this time,
    size_t at;      // and from where on.
    char kind;
    double sum;  // So that reading is not left out.
} Share;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *work(void *argument) {
    Share *share = argument;
    const size_t length = share->length;
    // Whole cache lines apart.
    const size_t half = share->count / 16 * 8;
    const size_t third = share->count / 24 * 8;
    double *a = share->memory + share->at;
    switch (share->kind) {
        case 'r': {
            double sum = 0;
            for (size_t at = 0; at < length; at++) sum += a[at];
            share->sum += sum;
            break;
        }
        case 'w':
            for (size_t at = 0; at < length; at++) a[at] = 2.0;
            break;
        case 'c':
            for (size_t at = 0; at < length; at++) a[half + at] = a[at];
            break;
        case 't':
            for (size_t at = 0; at < length; at++) a[at] = a[third + at] + 3.0 * a[2 * third + at];
            break;
    }
    return NULL;
}

int main(int count, char **words) {
    if (count != 3) return 2;
    const int threads = atoi(words[1]);
    const size_t bytes = strtoull(words[2], NULL, 10);
    if (threads < 1 || threads > threads_max || bytes < 4096) return 2;
    Share shares[threads_max];
    for (int thread = 0; thread < threads; thread++) {
        double *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return 1;
        // As the library asks for its own.
        madvise(memory, bytes, MADV_HUGEPAGE);
        for (size_t at = 0; at < bytes / sizeof(double); at++) memory[at] = 1.0;
        shares[thread] = (Share){.memory = memory, .count = bytes / sizeof(double)};
    }
    char kind[16];
    unsigned long long wanted;
    while (scanf("%15s %llu", kind, &wanted) == 2) {
        const size_t arrays = kind[0] == 't' ? 3 : kind[0] == 'c' ? 2 : 1;
        const size_t length = wanted / (arrays * sizeof(double) * (size_t)threads) / 8 * 8;
        const size_t limit = bytes / sizeof(double) / arrays / 8 * 8;
        if (length == 0 || length > limit) return 2;
        pthread_t started[threads_max];
        const uint64_t begin = now_ns();
        for (int thread = 0; thread < threads; thread++) {
            shares[thread].kind = kind[0];
            shares[thread].length = length;
            shares[thread].at += length;
            if (shares[thread].at + length > limit) shares[thread].at = 0;
            if (thread > 0 && pthread_create(&started[thread], NULL, work, &shares[thread]) != 0) return 1;
        }
        work(&shares[0]);
        for (int thread = 1; thread < threads; thread++) pthread_join(started[thread], NULL);
        printf("%llu %llu\n", (unsigned long long)(length * arrays * sizeof(double) * (size_t)threads), (unsigned long long)(now_ns() - begin));
        fflush(stdout);
    }
    return 0;
}
