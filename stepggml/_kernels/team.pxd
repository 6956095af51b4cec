# cython: language_level=3
"""What a kernel needs from the team that runs it: its share of the rows, a barrier, memory that the whole team sees."""
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free

from .ggml cimport barrier_state, ggml_compute_params

cdef extern from * nogil:
    """
    #include <sched.h>
    #include <stdlib.h>
    #if defined(__x86_64__) || defined(__i386__)
    #define stepggml_pause() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define stepggml_pause() __asm__ volatile("yield")
    #else
    #define stepggml_pause() ((void)0)
    #endif
    #define stepggml_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define stepggml_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define stepggml_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
    """
    void pause "stepggml_pause"()
    int32_t atomic_load "stepggml_load"(const int32_t *p)
    void atomic_store "stepggml_store"(int32_t *p, int32_t value)
    int32_t atomic_add "stepggml_add"(int32_t *p, int32_t value)
    void sched_yield()
    int posix_memalign(void **p, size_t alignment, size_t size)

cdef enum:
    SPIN_LIMIT = 4000  # pauses before a waiting thread offers its core to another program


cdef inline void wait_while(const int32_t *p, int32_t value) noexcept nogil:
    """Spin until *p changes; after a while let other threads of this core run in between."""
    cdef int spins = 0
    while atomic_load(p) == value:
        if spins < SPIN_LIMIT:
            spins += 1
            pause()
        else:
            sched_yield()


cdef inline void barrier_wait(barrier_state *barrier, int32_t n_threads) noexcept nogil:
    """Return when n_threads threads have called; the last one resets the counter and lets the others go."""
    if n_threads == 1:
        return
    cdef int32_t passed = atomic_load(&barrier.passed)
    if atomic_add(&barrier.arrived, 1) == n_threads - 1:
        atomic_store(&barrier.arrived, 0)
        atomic_add(&barrier.passed, 1)
    else:
        wait_while(&barrier.passed, passed)


cdef inline void ggml_barrier(const ggml_compute_params *params) noexcept nogil:
    """Wait for the other threads of this node."""
    if params.nth > 1:
        barrier_wait(&params.threadpool.kernel_barrier, params.nth)


cdef inline void share(const ggml_compute_params *params, int64_t n, int64_t *first, int64_t *end) noexcept nogil:
    """This thread's contiguous part of n rows; the parts differ by one row at most."""
    first[0] = n * params.ith // params.nth
    end[0] = n * (params.ith + 1) // params.nth


cdef inline char *team_scratch(const ggml_compute_params *params, size_t size) noexcept nogil:
    """Memory of at least `size` bytes, 64-byte aligned, the same for all threads; NULL when there is none. Every thread
    must call.

    No thread changes the size before all have looked at it, so all decide alike whether to wait here.
    """
    cdef void *memory = NULL
    if params.threadpool == NULL:
        return NULL
    if params.threadpool.scratch_size < size:
        ggml_barrier(params)
        if params.ith == 0:
            free(params.threadpool.scratch)
            if posix_memalign(&memory, 64, size) != 0:
                memory = NULL
            params.threadpool.scratch = <char *>memory
            params.threadpool.scratch_size = size if memory != NULL else 0
        ggml_barrier(params)
        # ^ the new pointer is not read before it is there
    return params.threadpool.scratch if params.threadpool.scratch_size >= size else NULL
