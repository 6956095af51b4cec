"""Which instruction-set variant is chosen, and that all of them have the same kernels."""

import os
import subprocess
import sys

import pytest
from kernel_tensor import VARIANTS

from stepggml import _kernels
from stepggml._kernels.variants import VARIANTS as VARIANT_TABLE
from stepggml._kernels.variants import variant_score


def in_new_process(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )


NAME = "from stepggml import _kernels; print(_kernels.chosen().name)"


def supported():
    """The variants of this installation whose features this processor has, best first."""
    present = set(_kernels.cpu_features())
    found = [v for v in _kernels.variants() if present.issuperset(v.features)]
    return sorted(found, key=lambda variant: variant_score(variant.features), reverse=True)


def test_the_best_variant_is_chosen():
    assert [v.name for v in supported()] == VARIANTS
    assert in_new_process(NAME, STEPGGML_KERNELS="").stdout.strip() == supported()[0].name
    for variant in _kernels.variants():
        assert variant.supported == (not variant.missing) == (variant.score > 0) == (variant in supported())


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_can_be_forced(name):
    assert in_new_process(NAME, STEPGGML_KERNELS=name).stdout.strip() == name


def test_a_variant_that_cannot_be_had():
    done = in_new_process(NAME, STEPGGML_KERNELS="vax")
    assert done.returncode != 0 and "STEPGGML_KERNELS=vax: no such variant, there are:" in done.stderr
    for variant in _kernels.variants():
        if not variant.supported:
            done = in_new_process(NAME, STEPGGML_KERNELS=variant.name)
            assert done.returncode != 0 and f"this CPU lacks {', '.join(variant.missing)}" in done.stderr


@pytest.mark.parametrize("name", VARIANTS)
def test_a_processor_that_has_no_more_than_a_variant_needs(monkeypatch, name):
    """As if this were the least machine that can run it: it is the best of what is left."""
    monkeypatch.setattr(_kernels, "cpu_features", lambda: VARIANT_TABLE[name][0])
    found = _kernels.variants.__wrapped__()
    assert found[0].name == name and found[0].supported
    assert all(variant.missing for variant in found if variant.score == 0)


def test_scores_follow_the_features():
    """1 plus a bit per feature: FMA F16C SSE4.2 BMI2 AVX AVX2 are bits 0 to 5, AVX-512 is 7, VNNI 10."""
    scores = {v.name: v.score for v in _kernels.variants() if v.supported}
    want = {"base": 1, "avx2": 1 + 63, "avx512": 1 + 63 + 128 + 1024}
    assert scores == {name: want[name] for name in scores}


def test_all_variants_have_the_same_kernels():
    names = _kernels.kernel_names()
    for variant in VARIANTS:
        assert all(_kernels.kernel_address(name, variant) for name in names)
    assert _kernels.kernel_address("ggml_compute_forward_nonsense") == 0
    with pytest.raises(ValueError, match="no kernel variant 'vax'"):
        _kernels.kernel_address(names[0], "vax")
