"""Which instruction-set extensions this CPU has and its operating system keeps registers for (x86: CPUID and XGETBV).
"""
from libc.stdint cimport uint32_t, uint64_t

cdef extern from * nogil:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #include <cpuid.h>
    static int stepggml_cpuid(unsigned leaf, unsigned sub, unsigned *r) {
        return __get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]);
    }
    static unsigned long long stepggml_xcr0(void) {
        unsigned low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return ((unsigned long long)high << 32) | low;
    }
    #else
    static int stepggml_cpuid(unsigned leaf, unsigned sub, unsigned *r) { return 0; }
    static unsigned long long stepggml_xcr0(void) { return 0; }
    #endif
    """
    int stepggml_cpuid(uint32_t leaf, uint32_t sub, uint32_t *registers)
    uint64_t stepggml_xcr0()

# feature -> (leaf, sub-leaf, register 0..3 = eax..edx, bit, register state the system must save)
_XMM, _YMM, _ZMM, _TILE = 0x2, 0x6, 0xE6, 0x60000
_FEATURES = {
    "SSE4.2": (1, 0, 2, 20, _XMM),
    "FMA": (1, 0, 2, 12, _YMM),
    "F16C": (1, 0, 2, 29, _YMM),
    "AVX": (1, 0, 2, 28, _YMM),
    "BMI2": (7, 0, 1, 8, 0),
    "AVX2": (7, 0, 1, 5, _YMM),
    "AVX512F": (7, 0, 1, 16, _ZMM),
    "AVX512DQ": (7, 0, 1, 17, _ZMM),
    "AVX512CD": (7, 0, 1, 28, _ZMM),
    "AVX512BW": (7, 0, 1, 30, _ZMM),
    "AVX512VL": (7, 0, 1, 31, _ZMM),
    "VBMI": (7, 0, 2, 1, _ZMM),
    "VNNI": (7, 0, 2, 11, _ZMM),
    "AMX": (7, 0, 3, 24, _TILE),
    "AVX-VNNI": (7, 1, 0, 4, _YMM),
    "BF16": (7, 1, 0, 5, _ZMM),
}


def cpu_features() -> tuple[str, ...]:
    """Names of the extensions that programs may use here; empty on a machine that is not x86."""
    cdef uint32_t registers[4]
    if not stepggml_cpuid(1, 0, registers):
        return ()
    cdef bint os_saves_state = (registers[2] >> 27) & 1  # OSXSAVE
    cdef uint64_t saved = stepggml_xcr0() if os_saves_state else 0x2
    found = []
    for name, (leaf, sub, register, bit, state) in _FEATURES.items():
        if not stepggml_cpuid(leaf, sub, registers):
            continue
        if (registers[<int>register] >> <int>bit) & 1 and (saved & <uint64_t>state) == <uint64_t>state:
            found.append(name)
    return tuple(found)
