"""How fast a lane may go, and how it finds the one bad member of a batch: the pure parts of delivery."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import lifecycle, retry
from router.delivery.bisection import Bisection
from router.delivery.holding import PROBE_EVERY, WRONG_ADDRESS_AFTER, Gate
from router.delivery.pace import FAILURES_TO_OPEN, MOST_TO_OPEN, RAMP_DOUBLING, Pace, RateLimit
from router.outbox.state.cursors import Held, LaneRow
from router.outbox.state.deliveries import Attempt
from router.outbox.state.lane import Lane
from router.outcome import Delivered, Hold, Rejected, Retry

NOW = 1_795_000_000_000


class TestPace:
    def test_a_healthy_lane_uses_its_concurrency(self):
        """
        Nothing is held back without a reason.
        """
        assert 8 == Pace(8).allowed(NOW)

    def test_failures_in_a_row_open_the_breaker(self):
        """
        After three failures the lane waits, and then sends one probe at a time.
        """
        pace = Pace(8)
        for _ in range(FAILURES_TO_OPEN):
            assert not pace.open
            pace.failed(NOW, 0.5)
        assert pace.open
        assert 0 == pace.allowed(NOW)
        assert 1 == pace.allowed(pace.paused_until)

    def test_however_many_went_at_once_only_one_probe_goes(self):
        """
        A lane that was used to a hundred asks a partner that fails with one request, not with the few that are left.
        """
        pace = Pace(100)
        for _ in range(FAILURES_TO_OPEN):
            pace.failed(NOW, 0.5)

        assert 1 == pace.allowed(pace.paused_until)

    def test_probes_that_fail_wait_longer_and_longer(self):
        """
        The waits of an open breaker grow to the cap of 15 minutes and no further.
        """
        pace, waits, now = Pace(8), [], NOW
        for _ in range(30):
            pace.failed(now, 0.999)
            if pace.open:
                waits.append(pace.paused_until - now)
                now = pace.paused_until

        assert waits == sorted(waits)
        assert 0.9 * retry.LONGEST_WAIT * 1000 < waits[-1] <= retry.LONGEST_WAIT * 1000

    def test_a_recovered_partner_is_not_met_by_the_whole_backlog(self):
        """
        After an outage the lane begins with one request at a time and at most doubles every 10 s.
        """
        pace = Pace(32)
        for _ in range(5):
            pace.failed(NOW, 0.5)
        now = pace.paused_until
        seen = []
        for second in range(60):
            at = now + second * 1000
            for _ in range(100):
                pace.succeeded(at)
            seen.append(pace.allowed(at))

        assert 1 == seen[0]
        assert all(seen[second] <= 2 ** (second * 1000 // RAMP_DOUBLING) for second in range(50))
        assert 32 == seen[-1]

    def test_a_clock_that_is_set_back_does_not_stop_the_ramp(self):
        """
        An hour is taken back while the lane ramps up: it goes on doubling as if nothing had happened.
        """
        pace, hour = Pace(32), 3_600_000
        for _ in range(FAILURES_TO_OPEN):
            pace.failed(NOW, 0.5)
        now = pace.paused_until
        for _ in range(100):
            pace.succeeded(now)
        pace.set_back(hour)

        assert 1 == pace.allowed(now - hour)
        assert 4 == pace.allowed(now - hour + 2 * RAMP_DOUBLING)

    def test_one_flaky_answer_slows_but_does_not_stop(self):
        """
        A single failure halves the concurrency; successes win it back.
        """
        pace = Pace(8)
        pace.failed(NOW, 0.5)
        assert 4 == pace.allowed(NOW)
        for _ in range(40):
            pace.succeeded(NOW)
        assert 8 == pace.allowed(NOW)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_partner_that_fails_half_of_the_time_is_used_in_full(self, seed: int):
        """
        Its failures are its own, and fewer requests mend none: it gets nine tenths of what it would without a pace.
        """
        dice, pace, now, asked = random.Random(seed), Pace(8), NOW, 0
        for _ in range(20):
            pace.succeeded(now)
        while now < NOW + 600_000:
            now = max(now + 100, pace.paused_until)
            for _ in range(pace.allowed(now)):
                asked += 1
                if dice.random() < 0.5:
                    pace.failed(now, 0.5)
                else:
                    pace.succeeded(now)

        assert asked >= 0.9 * 8 * 6000

    def test_one_that_was_good_and_is_dead_is_soon_left_alone(self):
        """
        After twenty failures in a row, the last of them one at a time, however many successes came before.
        """
        pace = Pace(8)
        for _ in range(1000):
            pace.succeeded(NOW)
        for _ in range(MOST_TO_OPEN):
            assert not pace.open
            allowed = pace.allowed(NOW)
            pace.failed(NOW, 0.5)

        assert (True, 0, 1) == (pace.open, pace.allowed(NOW), allowed)

    def test_one_that_asks_for_fewer_gets_fewer_at_once(self):
        """
        Whatever it took before.
        """
        pace = Pace(8)
        for _ in range(1000):
            pace.succeeded(NOW)
        pace.failed(NOW, 0.5, too_many=True)

        assert 4 == pace.allowed(NOW)

    def test_the_partner_says_when(self):
        """
        A Retry-After moves the whole lane, and an operator can let it go at once.
        """
        pace = Pace(8)
        pace.pause(NOW + 30_000)
        assert 0 == pace.allowed(NOW + 29_999)
        assert 8 == pace.allowed(NOW + 30_000)
        pace.pause(NOW + 60_000)
        pace.resume()
        assert 8 == pace.allowed(NOW)


class TestGate:
    @staticmethod
    def made(held: Held | None = None) -> tuple[Gate, Lane, Pace]:
        lane, pace = Lane(LaneRow(id=1, name="a", type="webhook", start=0, cursor=0, held=held), (), None), Pace(1)
        return Gate("a", lane, pace, lambda: 0.5, open_since=0, retry_for=0), lane, pace

    @staticmethod
    def answered(status: int, at: int) -> Attempt:
        return Attempt(seqs=[1], began=at, at=at, outcome="any", status=status)

    def test_a_clock_that_is_set_back_makes_no_wait_longer(self):
        """
        A held lane is probed when it would have been, and time that was excused ends when it would have.
        """
        gate, _, pace = self.made(Held(reason="plan", by="partner", at=NOW))
        gate.open_since = NOW
        gate.passed(NOW)
        pace.pause(NOW + 1000)
        gate.set_back(3_600_000)
        now = NOW - 3_600_000

        assert PROBE_EVERY / 1000 == gate.closed_for(now)
        assert 0 == gate.closed_for(now + PROBE_EVERY)
        assert (now, now + 1000) == (gate.open_since, pace.paused_until)

    def test_a_partner_that_says_when_is_not_asked_before(self):
        """
        By seconds, by an instant, or by both: the later one counts.
        """
        for said, wait in (
            (Retry("later", after=30.0), 30),
            (Retry("later", until=NOW + 45_000), 45),
            (Retry("later", after=60.0, until=NOW + 45_000), 60),
        ):
            gate, _, _ = self.made()
            gate.felt(said, self.answered(429, NOW), current=True)
            assert wait == gate.closed_for(NOW)

    def test_an_operator_lets_it_go_whatever_made_it_wait(self):
        """
        No back-off, no misses and no answer to what left before: and the time until now is no event's fault.
        """
        gate, lane, pace = self.made()
        for _ in range(FAILURES_TO_OPEN):
            pace.failed(NOW, 0.5)
        for _ in range(WRONG_ADDRESS_AFTER - 1):
            gate.felt(Rejected("who?"), self.answered(404, NOW), current=True)
            pace.failed(NOW, 0.5)
        left = gate.epoch
        gate.resumed(NOW + 1)
        again = gate.felt(Rejected("who?"), self.answered(404, NOW + 2), current=True)
        gate.felt(Hold("credentials refused"), self.answered(401, NOW + 2), current=left == gate.epoch)

        assert (0, False, NOW + 1) == (gate.closed_for(NOW + 1), gate.one_at_a_time, gate.open_since)
        assert (None, Rejected("who?")) == (lane.held, again)

    def test_the_first_answer_that_is_good_lets_it_go(self):
        """
        The hold ends, on disk as well; what left before says no more; and the time until then is no event's fault.
        """
        gate, lane, _ = self.made(Held(reason="plan", by="partner", at=NOW))
        left = gate.epoch
        gate.felt(Delivered(), self.answered(200, NOW + 5), current=True)
        gate.felt(Hold("credentials refused"), self.answered(401, NOW + 6), current=left == gate.epoch)

        assert (None, True, NOW + 5) == (lane.held, gate.unwritten, gate.open_since)


class TestRateLimit:
    @given(st.integers(1, 40), st.lists(st.integers(0, 400), min_size=1, max_size=200))
    def test_no_second_has_more(self, most, pauses):
        """
        However requests come, and after whatever pause, no second of the clock sees more of them than the rate says.
        """
        turns, now, left = RateLimit(float(most)), NOW, []
        for pause in pauses:
            now += pause
            while (wait := turns.wait(now)) > 0:
                now += wait
            turns.take(now)
            left.append(now)

        assert all(later - sooner >= 1000 for sooner, later in zip(left, left[most:], strict=False))

    def test_less_than_one_a_second(self):
        """
        "6/m" is one in ten seconds.
        """
        turns = RateLimit(0.1)
        turns.take(NOW)

        assert 10_000 <= turns.wait(NOW) <= 10_500
        assert 0 == turns.wait(NOW + 10_500)


class TestBisection:
    @given(st.integers(1, 2000), st.data())
    def test_one_bad_member_is_found_in_few_questions(self, size: int, data: st.DataObject):
        """
        Among n members one bad one costs at most ceil(log2 n) + 1 questions; nobody else is lost or asked alone.
        """
        bad = data.draw(st.integers(0, size - 1))
        search = Bisection(range(size))
        accepted, questions = set(), 0
        while not search.finished:
            asked = search.question()
            questions += 1
            if bad in asked:
                search.bad(asked)
                found = asked
            else:
                search.good()
                accepted |= set(asked)

        assert [bad] == found
        assert questions <= math.ceil(math.log2(size)) + 1
        assert set(range(size)) == accepted | set(search.untested) | {bad}

    @given(st.integers(2, 300), st.data())
    def test_several_bad_ones_are_found_one_by_one(self, size: int, data: st.DataObject):
        """
        Sending the untested rest again finds the next bad one, until all good ones are accepted.
        """
        bad = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=5))
        todo, accepted, dead = list(range(size)), set(), set()
        while todo:
            if not bad & set(todo):
                accepted |= set(todo)
                break
            search = Bisection(todo)
            while not search.finished:
                asked = search.question()
                if bad & set(asked):
                    search.bad(asked)
                    dead |= set(asked) if search.finished else set()
                else:
                    search.good()
                    accepted |= set(asked)
            todo = search.untested

        assert bad == dead
        assert set(range(size)) - bad == accepted

    def test_a_member_that_is_accepted_in_the_end_is_fine(self):
        """
        When every part is accepted by itself, nobody is left to blame.
        """
        search = Bisection([1, 2])
        search.good()
        search.good()
        assert search.finished
        assert [] == search.untested

    def test_abandoning_gives_back_everyone_without_an_end(self):
        """
        When the partner fails in the middle, all but those just asked about come back.
        """
        search = Bisection(list(range(8)))
        search.bad(search.question())
        assert [0, 1] == search.question()
        assert [2, 3, 4, 5, 6, 7] == search.abandon()
        assert search.finished


class TestRetry:
    @given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
    def test_waits_are_bounded(self, attempts: int, chance: float):
        """
        Never less than 50 ms, never more than 15 minutes, whatever the attempt.
        """
        assert 0.05 <= retry.delay(attempts, chance) <= retry.LONGEST_WAIT

    def test_the_first_waits_double(self):
        """
        1 s, 2 s, 4 s ... before jitter.
        """
        ceilings = [retry.delay(n, 1 - 1e-12) for n in (1, 2, 3, 11)]
        assert [1, 2, 4, 900] == [round(each) for each in ceilings]

    def test_retry_after_is_read_strictly(self):
        """
        ASCII digits and IMF dates count; what only Python reads as a number does not.
        """
        expected = {
            "30": 30.0,
            " 30 ": 30.0,
            "0": 1.0,
            "9999999": retry.LONGEST_RETRY_AFTER,
            "-5": None,
            "1e9": None,
            "inf": None,
            "nan": None,
            "٣٠": None,
            "12345678901234567890": None,
            "": None,
            "soon": None,
            "Thu, 18 Nov 2026 11:06:50 GMT": 10.0,
            "Thu, 18 Nov 2020 11:06:50 GMT": 1.0,
            "Thu, 99 Nov 2026 11:06:50 GMT": None,
        }
        now = 1_795_000_000_000  # 2026-11-18T11:06:40Z
        assert expected == {text: retry.retry_after(text, now) for text in expected}
        assert retry.retry_after(None, now) is None


class TestLifecycle:
    def test_only_an_operator_brings_the_dead_back(self):
        """
        Every state but waiting is an end; dead alone has a way back.
        """
        back = [state for state in lifecycle.MOVES if lifecycle.may_move(state, "waiting")]
        assert ["waiting", "dead"] == back
