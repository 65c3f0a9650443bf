"""The body: whatever the bytes are, the answer is a value, and it is the one the corpus names."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.body import (
    MAX_DEPTH,
    MAX_EVENT,
    MAX_EVENTS,
    MAX_KEYS,
    MAX_REQUEST,
    Body,
    Item,
    pixel,
    read,
)
from router.problem import Malformed
from tests.corpus import CORPUS, BodyCase, among

CASES = CORPUS.body
ALONE = [name for name, case in CASES.items() if case.inside is not None]
UNENCODED = [name for name, case in CASES.items() if case.encoding is None and len(case.raw()) <= MAX_REQUEST]


def summary(answer: Body | Malformed) -> dict[str, Any]:
    """What a sender is told, without the words."""
    if isinstance(answer, Malformed):
        return {"status": answer.status, "code": answer.code}
    problems = [(item.problem.index, item.problem.code) for item in answer.items if item.problem is not None]
    return {"status": 200, "accepted": len(answer.items) - len(problems), "problems": problems}


def expected(case: BodyCase) -> dict[str, Any]:
    if case.status != 200:
        return {"status": case.status, "code": case.code}
    problems = case.problems or [(index, case.all_problems) for index in range(400) if case.all_problems]
    return {"status": 200, "accepted": case.accepted, "problems": problems}


class TestCorpus:
    @pytest.mark.parametrize("name", CASES)
    def test_alone(self, name: str) -> None:
        """
        Every body gets the answer of the corpus, with the place where it breaks, what was repaired, and what was read.
        """
        case = CASES[name]
        raw = case.raw()
        answer = read(raw, case.encoding, strict_utf8=case.strict_utf8)

        assert expected(case) == summary(answer)
        assert len(raw) == (case.length or len(raw))
        if isinstance(answer, Malformed):
            assert answer.position == (answer.position if case.position is None else case.position)
        if isinstance(answer, Body) and case.notes is not None:
            assert case.notes == [(index, note) for index, item in enumerate(answer.items) for note in item.notes]
        if isinstance(answer, Body) and case.values is not None:
            assert case.values == [item.value for item in answer.items]

    @pytest.mark.parametrize("name", ALONE)
    def test_in_a_batch_of_400_good_events(self, name: str) -> None:
        """
        What a bad event is answered does not depend on its neighbours, and they do not suffer from it.
        """
        case = CASES[name]
        answer = read(among(case.raw()), strict_utf8=case.strict_utf8)

        if case.inside == "refused":
            assert {"status": 400, "code": case.code} == summary(answer)
        else:
            problems = [] if case.inside == "taken" else [(200, case.inside)]
            assert {"status": 200, "accepted": 401 - len(problems), "problems": problems} == summary(answer)
            assert isinstance(answer, Body)
            assert [200] * bool(case.notes) == [index for index, item in enumerate(answer.items) if item.notes]

    @pytest.mark.parametrize("name", UNENCODED)
    def test_gzipped(self, name: str) -> None:
        """
        Gzip changes nothing but the bytes.
        """
        case = CASES[name]
        raw = case.raw()

        assert read(raw, strict_utf8=case.strict_utf8) == read(
            gzip.compress(raw), "gzip", strict_utf8=case.strict_utf8
        )
