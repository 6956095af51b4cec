"""Runs the nodes of a graph on a team of threads (C: the threadpool and graph compute of ggml-cpu.c).

A Plan is a flat array of kernel and tensor pointers. One call from Python runs all of it without the interpreter lock:
every thread of the Team walks the same array, each does its share of a node, and a spin barrier separates the nodes.
Neighbouring nodes too small to be worth a barrier run on the calling thread alone. Between graphs the threads are
parked.

Left out on purpose: a work queue. Rows are split statically, so each thread reads one contiguous stream of weights.
"""
import os
import threading

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free

from .ggml cimport DONE, ggml_compute_params, ggml_nelements, ggml_tensor, ggml_threadpool, kernel_t
from .team cimport atomic_add, atomic_load, atomic_store, barrier_wait, pause, sched_yield
from .types cimport ggml_blck_size, ggml_type_size

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, void *)
    int pthread_cond_destroy(pthread_cond_t *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_broadcast(pthread_cond_t *)

cdef extern from * nogil:
    """
    #include <time.h>
    #ifdef CLOCK_MONOTONIC_COARSE
    #define STEPGGML_CLOCK CLOCK_MONOTONIC_COARSE
    #else
    #define STEPGGML_CLOCK CLOCK_MONOTONIC
    #endif
    static long long stepggml_now_ms(void) {
        struct timespec t;
        clock_gettime(STEPGGML_CLOCK, &t);
        return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
    }
    static void stepggml_keep_smaller(long long *p, long long value) {
        long long old = __atomic_load_n(p, __ATOMIC_ACQUIRE);
        while (value < old && !__atomic_compare_exchange_n(p, &old, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {}
    }
    #define stepggml_load64(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    """
    long long now_ms "stepggml_now_ms"()
    void keep_smaller "stepggml_keep_smaller"(long long *p, long long value)
    long long atomic_load64 "stepggml_load64"(const long long *p)

cdef enum:
    MAX_N_THREADS = 512
    PARK_SPINS = 2000      # pauses (about 0.1 ms) that a thread waits for the next graph before it goes to sleep
    POLL_MS = 10           # how often the calling thread looks for Ctrl-C
    SMALL_BYTES = 24576    # a node that touches less than this is done before a second thread has noticed it
    FINISHED = 0
    POLL_SIGNALS = 1

cdef enum:  # why a run stopped; the smallest wins when threads disagree
    STOP_ASSERTION = 0
    STOP_PYTHON = 1
    STOP_ABORT = 2

cdef struct step_t:
    kernel_t kernel       # NULL: Python must run this node
    ggml_tensor *tensor
    int32_t n_tasks
    bint skip             # a view: nothing to do
    bint barrier_after

cdef struct job_t:
    const step_t *steps
    int64_t first
    int64_t n
    size_t wsize
    void *wdata
    const int32_t *abort_flag
    int32_t n_threads
    bint polls_signals

cdef struct team_t:
    ggml_threadpool pool
    job_t job
    long long stop        # 4 * index of the node + reason; atomic, only ever lowered during a job
    int32_t job_number    # atomic; workers wait for it to change
    int32_t closing
    int32_t n_alive       # workers that still look at this struct
    pthread_mutex_t mutex
    pthread_cond_t wake

cdef long long NO_STOP = 0x7FFFFFFFFFFFFFFF


cdef int ggml_compute_forward_nop(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """VIEW, RESHAPE, PERMUTE, TRANSPOSE and NONE: the tensor already describes the bytes; nothing moves."""
    return DONE


KERNELS = {
    "ggml_compute_forward_none": <size_t>&ggml_compute_forward_nop,
    "ggml_compute_forward_view": <size_t>&ggml_compute_forward_nop,
    "ggml_compute_forward_reshape": <size_t>&ggml_compute_forward_nop,
    "ggml_compute_forward_permute": <size_t>&ggml_compute_forward_nop,
    "ggml_compute_forward_transpose": <size_t>&ggml_compute_forward_nop,
}


cdef void run_step(team_t *team, const job_t *job, int32_t ith, int64_t i) noexcept nogil:
    """This thread's share of node i, unless an earlier node has already stopped the run."""
    cdef const step_t *step = &job.steps[i]
    cdef ggml_compute_params params
    cdef int32_t n_tasks = step.n_tasks if step.n_tasks < job.n_threads else job.n_threads
    cdef int status
    if ith >= n_tasks or atomic_load64(&team.stop) < 4 * i:
        return
    params.ith = ith
    params.nth = n_tasks
    params.wsize = job.wsize
    params.wdata = job.wdata
    params.threadpool = &team.pool
    status = step.kernel(&params, step.tensor)
    if status != DONE:
        keep_smaller(&team.stop, 4 * i + (STOP_PYTHON if status == 1 else STOP_ASSERTION))


cdef int walk(team_t *team, int32_t ith, int64_t *position, bint resumed) noexcept nogil:
    """One thread's way through the nodes from *position on.

    The calling thread (ith 0) returns POLL_SIGNALS now and then, after its share of a node and before the barrier; it
    goes on with resumed = True. All other returns are FINISHED, with every thread of the team at the same node.
    """
    cdef const job_t *job = &team.job
    cdef int64_t i = position[0]
    cdef long long next_poll = now_ms() + POLL_MS
    while i < job.n:
        if job.steps[i].skip:
            i += 1
            continue
        if job.steps[i].kernel == NULL:
            keep_smaller(&team.stop, 4 * i + STOP_PYTHON)
            break
        if not resumed:
            run_step(team, job, ith, i)
            if ith == 0:
                if job.abort_flag != NULL and atomic_load(job.abort_flag) != 0:
                    keep_smaller(&team.stop, 4 * i + STOP_ABORT)
                if job.polls_signals and now_ms() >= next_poll:
                    position[0] = i
                    return POLL_SIGNALS
        resumed = False
        if job.steps[i].barrier_after:
            barrier_wait(&team.pool.node_barrier, job.n_threads)
            if atomic_load64(&team.stop) < 4 * (i + 1):
                break
        i += 1
    barrier_wait(&team.pool.node_barrier, job.n_threads)
    return FINISHED


cdef void work(team_t *team, int32_t ith) noexcept nogil:
    """A worker's life: wait for a job, do its part, wait again; asleep when nothing comes for a while."""
    cdef int32_t seen = 0
    cdef int64_t position
    cdef int spins
    while True:
        spins = 0
        while atomic_load(&team.job_number) == seen and spins < PARK_SPINS:
            spins += 1
            pause()
        if atomic_load(&team.job_number) == seen:
            pthread_mutex_lock(&team.mutex)
            while atomic_load(&team.job_number) == seen:
                pthread_cond_wait(&team.wake, &team.mutex)
            pthread_mutex_unlock(&team.mutex)
        if atomic_load(&team.closing):
            break
        seen = atomic_load(&team.job_number)
        position = team.job.first
        if ith < team.job.n_threads:
            walk(team, ith, &position, False)
    atomic_add(&team.n_alive, -1)


cdef void announce(team_t *team) noexcept nogil:
    """Let the workers see that something has changed: a job, or the end."""
    pthread_mutex_lock(&team.mutex)
    atomic_add(&team.job_number, 1)
    pthread_cond_broadcast(&team.wake)
    pthread_mutex_unlock(&team.mutex)


def _worker(size_t team, int ith) -> None:
    with nogil:
        work(<team_t *>team, ith)


cdef class Team:
    """n_threads threads that run plans together: the caller of Plan.run is number 0, the others sleep in between.

    Raises ValueError for a number outside 1..512. `close()` ends the threads; a closed team runs nothing any more.
    """
    cdef team_t *team
    cdef readonly int n_threads
    cdef list workers
    cdef object pid
    cdef bint busy

    def __cinit__(self, int n_threads):
        if not 1 <= n_threads <= MAX_N_THREADS:
            raise ValueError(f"a team has 1 to {MAX_N_THREADS} threads, not {n_threads}")
        self.n_threads = n_threads
        self.workers = []
        self._start()

    cdef _start(self):
        self.team = <team_t *>calloc(1, sizeof(team_t))
        if self.team == NULL:
            raise MemoryError()
        pthread_mutex_init(&self.team.mutex, NULL)
        pthread_cond_init(&self.team.wake, NULL)
        self.pid = os.getpid()
        for ith in range(1, self.n_threads):
            arguments = (<size_t>self.team, ith)
            thread = threading.Thread(target=_worker, args=arguments, name=f"stepggml-{ith}", daemon=True)
            atomic_add(&self.team.n_alive, 1)
            try:
                thread.start()
            except BaseException:
                atomic_add(&self.team.n_alive, -1)
                self.close()
                raise
            self.workers.append(thread)

    cdef _check(self):
        """A team that was inherited over a fork has lost its threads: start others."""
        if self.team == NULL:
            raise ValueError("this team is closed")
        if self.pid != os.getpid():
            self.workers = []
            self._start()  # the struct of the parent's team stays: its locks are in an unknown state here

    def close(self) -> None:
        """End the threads and give their memory back. Closing twice does nothing."""
        if self.busy:
            raise RuntimeError("this team is running a plan")
        self._end()
        for thread in self.workers:
            thread.join()
        self.workers = []

    cdef _end(self):
        cdef team_t *team = self.team
        self.team = NULL
        if team == NULL or self.pid != os.getpid():
            return
        with nogil:
            atomic_store(&team.closing, 1)
            announce(team)
            while atomic_load(&team.n_alive) > 0:
                sched_yield()
            pthread_mutex_destroy(&team.mutex)
            pthread_cond_destroy(&team.wake)
            free(team.pool.scratch)
            free(team)

    def __dealloc__(self):
        self._end()


cdef int64_t touched_bytes(const ggml_tensor *t) noexcept nogil:
    """How much a node reads and writes, about: below SMALL_BYTES one thread is the quickest."""
    cdef int64_t n_bytes = tensor_bytes(t)
    for i in range(10):
        if t.src[i] != NULL:
            n_bytes += tensor_bytes(t.src[i])
    return n_bytes


cdef int64_t tensor_bytes(const ggml_tensor *t) noexcept nogil:
    cdef int64_t size = ggml_type_size(t.type)
    return ggml_nelements(t) * (size if size > 0 else 1) // ggml_blck_size(t.type)


cdef class Plan:
    """The nodes of one graph, ready to run: a list of (kernel address, tensor address, n_tasks).

    Kernel address 0 means that Python must run the node. The tensors must stay where they are while the plan lives;
    their fields may change between runs. Views (a kernel of plan.KERNELS) are passed over. A node that touches less
    than small_bytes is given to one thread.
    """
    cdef step_t *steps
    cdef readonly int64_t n_nodes

    def __cinit__(self, nodes, int64_t small_bytes=SMALL_BYTES):
        nodes = list(nodes)
        self.n_nodes = len(nodes)
        self.steps = <step_t *>calloc(len(nodes) + 1, sizeof(step_t))
        if self.steps == NULL:
            raise MemoryError()
        cdef step_t *step
        for i, (kernel, tensor, n_tasks) in enumerate(nodes):
            step = &self.steps[<int64_t>i]
            step.kernel = <kernel_t><size_t>kernel
            step.tensor = <ggml_tensor *><size_t>tensor
            step.skip = step.kernel == ggml_compute_forward_nop
            step.n_tasks = max(1, n_tasks)
            if step.kernel != NULL and not step.skip and touched_bytes(step.tensor) < small_bytes:
                step.n_tasks = 1
        self._place_barriers()

    cdef _place_barriers(self):
        """Only between two nodes of the calling thread alone is there no barrier."""
        cdef step_t *step
        cdef step_t *later = NULL
        cdef int64_t i
        for i in range(self.n_nodes - 1, -1, -1):
            step = &self.steps[i]
            if step.skip:
                continue
            step.barrier_after = later == NULL or later.kernel == NULL or step.n_tasks > 1 or later.n_tasks > 1
            later = step

    def __dealloc__(self):
        free(self.steps)

    def __len__(self) -> int:
        return self.n_nodes

    cdef bint _is_parallel(self, int64_t first) noexcept:
        cdef int64_t i
        for i in range(first, self.n_nodes):
            if not self.steps[i].skip and self.steps[i].n_tasks > 1:
                return True
        return False

    def run(self, Team team not None, int64_t first=0, size_t work_addr=0, size_t work_size=0,
            size_t abort_flag_addr=0) -> tuple[int, int]:
        """Run the nodes from `first` on; return (index of the node to go on with, status).

        Status 0: all done. 1: node `index` needs Python. 2: an assertion failed in node `index`. 3: aborted before node
        `index`, because the int32 at abort_flag_addr became nonzero. A pending Ctrl-C raises KeyboardInterrupt, with
        all threads at rest.
        """
        if not 0 <= first <= self.n_nodes:
            raise IndexError(f"node {first} of a plan of {self.n_nodes}")
        team._check()
        if team.busy:
            raise RuntimeError("this team is running another plan")
        team.busy = True
        try:
            return self._run(team, first, work_addr, work_size, abort_flag_addr)
        finally:
            team.busy = False

    cdef _run(self, Team team, int64_t first, size_t work_addr, size_t work_size, size_t abort_flag_addr):
        cdef team_t *t = team.team
        cdef job_t *job = &t.job
        cdef int64_t position = first
        cdef int reason
        cdef bint resumed = False
        error = None
        job.steps = self.steps
        job.first = first
        job.n = self.n_nodes
        job.wsize = work_size
        job.wdata = <void *>work_addr
        job.abort_flag = <const int32_t *>abort_flag_addr
        job.n_threads = team.n_threads if self._is_parallel(first) else 1
        job.polls_signals = threading.get_ident() == threading.main_thread().ident
        t.stop = NO_STOP
        if job.n_threads > 1:
            announce(t)
        while True:
            with nogil:
                reason = walk(t, 0, &position, resumed)
            if reason == FINISHED:
                break
            resumed = True
            try:
                PyErr_CheckSignals()
            except BaseException as e:  # kept until the other threads have come to rest
                error = e
                keep_smaller(&t.stop, 4 * position + STOP_ABORT)
        if error is not None:
            raise error
        if t.stop == NO_STOP:
            return self.n_nodes, 0
        if t.stop % 4 == STOP_ABORT:
            return t.stop // 4 + 1, 3
        return t.stop // 4, 2 if t.stop % 4 == STOP_ASSERTION else 1
