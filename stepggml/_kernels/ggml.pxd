# cython: language_level=3
"""ggml's structs as the kernels see them (C: ggml.h, ggml-impl.h, ggml-common.h), field by field.

The Python twins of these structs are the ctypes classes of stepggml.ggml; a test compares every offset
(host/layout.pyx). Only declarations and two-line accessors are here; left out: everything that allocates or builds.
The types of elements are in types.pxd.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t

from .types cimport ggml_blck_size, ggml_type_size

cdef enum:
    GGML_MAX_DIMS = 4
    GGML_MAX_SRC = 10
    GGML_MAX_NAME = 64

cdef enum:  # what a kernel returns
    DONE = 0          # dst is computed
    UNSUPPORTED = 1   # not this combination of types or layout; nothing was written, every thread says the same
    ASSERTION = 2     # the operands are wrong (an index out of range, a work buffer too small)

ctypedef uint16_t ggml_half
ctypedef uint8_t c_bool

cdef struct ggml_object:
    size_t offs
    size_t size
    ggml_object *next
    int32_t type
    char padding[4]

cdef struct ggml_tensor:
    int32_t type
    void *buffer
    int64_t ne[4]
    size_t nb[4]
    int32_t op
    int32_t op_params[16]
    int32_t flags
    ggml_tensor *src[10]
    ggml_tensor *view_src
    size_t view_offs
    void *data
    char name[64]
    void *extra
    char padding[8]

cdef struct ggml_context:
    size_t mem_size
    void *mem_buffer
    c_bool mem_buffer_owned
    c_bool no_alloc
    int32_t n_objects
    ggml_object *objects_begin
    ggml_object *objects_end

cdef struct ggml_hash_set:
    size_t size
    uint32_t *used
    ggml_tensor **keys

cdef struct ggml_cgraph:
    int32_t size
    int32_t n_nodes
    int32_t n_leafs
    ggml_tensor **nodes
    ggml_tensor **grads
    ggml_tensor **grad_accs
    ggml_tensor **leafs
    ggml_hash_set visited_hash_set
    int32_t order

# -------------------------------------------------------------------------------------------- blocks of quantized types
cdef struct block_q4_0:  # x = d * (q - 8)
    ggml_half d
    uint8_t qs[16]       # low nibbles: elements 0..15, high nibbles: elements 16..31

cdef struct block_q4_1:  # x = d * q + m
    ggml_half d
    ggml_half m
    uint8_t qs[16]

cdef struct block_q5_0:  # x = d * (q - 16); bit j of qh is the fifth bit of element j
    ggml_half d
    uint8_t qh[4]
    uint8_t qs[16]

cdef struct block_q5_1:  # x = d * q + m
    ggml_half d
    ggml_half m
    uint8_t qh[4]
    uint8_t qs[16]

cdef struct block_q8_0:  # x = d * q
    ggml_half d
    int8_t qs[32]

cdef struct block_q8_1:  # x = d * q; s = d * sum of q
    ggml_half d
    ggml_half s
    int8_t qs[32]

cdef struct block_iq4_nl:  # x = d * value[q], from a fixed table of 16 values
    ggml_half d
    uint8_t qs[16]

cdef struct block_q2_K:  # x = d * (sc & 15) * q - dmin * (sc >> 4), per sub-block of 16
    uint8_t scales[16]
    uint8_t qs[64]
    ggml_half d
    ggml_half dmin

cdef struct block_q3_K:  # x = d * (sc - 32) * (q - 4); hmask has the third bits
    uint8_t hmask[32]
    uint8_t qs[64]
    uint8_t scales[12]
    ggml_half d

cdef struct block_q4_K:  # x = d * sc * q - dmin * mn, per sub-block of 32; sc and mn have 6 bits
    ggml_half d
    ggml_half dmin
    uint8_t scales[12]
    uint8_t qs[128]

cdef struct block_q5_K:  # the same; qh has the fifth bits
    ggml_half d
    ggml_half dmin
    uint8_t scales[12]
    uint8_t qh[32]
    uint8_t qs[128]

cdef struct block_q6_K:  # x = d * sc * (q - 32), per sub-block of 16; qh has bits 5 and 6
    uint8_t ql[128]
    uint8_t qh[64]
    int8_t scales[16]
    ggml_half d

cdef struct block_q8_K:  # x = d * q; bsums[k] = sum of the k-th 16 codes
    float d
    int8_t qs[256]
    int16_t bsums[16]

# -------------------------------------------------------------------------------------------- one kernel's surroundings
cdef struct barrier_state:  # arrived and passed lie in cache lines of their own
    int32_t arrived
    char pad0[60]
    int32_t passed
    char pad1[60]

cdef struct ggml_threadpool:
    barrier_state node_barrier    # between nodes: all threads of the team
    barrier_state kernel_barrier  # inside a kernel: its nth threads
    char *scratch                 # memory that outlives a node: panels and converted activations
    size_t scratch_size

cdef struct ggml_compute_params:
    int32_t ith
    int32_t nth
    size_t wsize
    void *wdata
    ggml_threadpool *threadpool

ctypedef int (*kernel_t)(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil


cdef inline int64_t ggml_nelements(const ggml_tensor *t) noexcept nogil:
    return t.ne[0] * t.ne[1] * t.ne[2] * t.ne[3]


cdef inline int64_t ggml_nrows(const ggml_tensor *t) noexcept nogil:
    return t.ne[1] * t.ne[2] * t.ne[3]


cdef inline bint same_shape(const ggml_tensor *a, const ggml_tensor *b) noexcept nogil:
    return a.ne[0] == b.ne[0] and a.ne[1] == b.ne[1] and a.ne[2] == b.ne[2] and a.ne[3] == b.ne[3]


cdef inline bint ggml_is_contiguous(const ggml_tensor *t) noexcept nogil:
    """Elements lie one after the other; the stride of a dimension with one element does not matter."""
    cdef size_t next_nb = ggml_type_size(t.type)
    if t.ne[0] != ggml_blck_size(t.type) and t.nb[0] != next_nb:
        return False
    next_nb *= t.ne[0] // ggml_blck_size(t.type)
    for i in range(1, 4):
        if t.ne[i] != 1:
            if t.nb[i] != next_nb:
                return False
            next_nb *= t.ne[i]
    return True


cdef inline char *row_at(const ggml_tensor *t, int64_t row) noexcept nogil:
    """Address of a row, counted over dimensions 1, 2 and 3 in row-major order."""
    cdef int64_t i1 = row % t.ne[1]
    cdef int64_t rest = row // t.ne[1]
    cdef int64_t i2 = rest % t.ne[2]
    cdef int64_t i3 = rest // t.ne[2]
    return <char *>t.data + i1 * <int64_t>t.nb[1] + i2 * <int64_t>t.nb[2] + i3 * <int64_t>t.nb[3]


cdef inline float param_f32(const ggml_tensor *t, int i) noexcept nogil:
    return (<const float *>t.op_params)[i]
