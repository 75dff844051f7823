"""Every kernel through every check of the shared suite."""

import pytest

from agop.kernels import KERNELS
from tests.kernels import conformance
from tests.kernels.conformance import CASES, CHECKS, METRIC_CHECKS, METRICS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_kernel(name, check):
    check(CASES[name])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("check", METRIC_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_jacobian(name, check, metric):
    check(CASES[name], metric)


@pytest.mark.parametrize("name", CASES)
def test_block_size(name, monkeypatch):
    conformance.check_block_size(CASES[name], monkeypatch)


def test_every_registered_kernel_has_a_case():
    assert {type(case.kernel) for case in CASES.values()} >= set(KERNELS.values())


class _WrongSlope(conformance.RationalQuadratic):
    def slope(self, s):
        return -1 / (1 + s)


class _Asymmetric(conformance.RationalQuadratic):
    def value(self, s):
        return 1 - s  # not positive semi-definite


@pytest.mark.parametrize("kernel", [_WrongSlope(), _Asymmetric()])
def test_the_suite_can_fail(kernel, monkeypatch):
    good = CASES["user_radial"]
    bad = conformance.Case(kernel, good.values, good.formula, good.mp)
    with pytest.raises(AssertionError):
        conformance.check_kernel(bad, monkeypatch)


def test_the_suite_passes_as_a_whole(monkeypatch):
    conformance.check_kernel(CASES["laplace"], monkeypatch)
