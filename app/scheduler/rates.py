"""Rate limits: how many attempts may start, and when the next one may. Pure functions of values.

The algorithm is GCRA (ITU-T I.371), a token bucket whose whole state is one moment, the *theoretical arrival time*
(tat): when the bucket will be full again. A start moves it by one interval, `per_seconds / limit`; one may start
as long as it lies less than `burst` intervals ahead. So within any `per_seconds` at most `limit + burst - 1`
start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from dataclasses import dataclass as plain_dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from math import ceil
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from app.core.errors import InvalidRequest
from app.core.language import Said

CLOCK_SKEW = timedelta(seconds=60)
"""How far apart the clocks of two nodes may be. A bucket that would be full later than this and its burst allow
was written under a slower limit or before a clock went back, and is not believed."""
LATENCY_SECONDS = 0.1
"""By default a burst makes up for starts that come this late."""
LONGEST_BUCKET = 300
"""Characters of a bucket's name at most."""
FURTHEST = timedelta(days=3660)
"""Nobody is told to wait longer than this at once, and no bucket takes longer to fill: calendars end."""
_MOST_AT_ONCE = 1_000_000
_LONGEST_VALUE = 120
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RateLimit:
    """At most `limit` attempts start within any `per_seconds`; those that come too early wait.

    They start evenly spaced: `RateLimit(10, per_seconds=60)` lets one go every 6 seconds. `burst` lets that many
    go at once after a pause, and then up to `limit + burst - 1` within `per_seconds`; by default it is what
    accrues in a tenth of a second, and at least 1. `key` names a param: each of its values has a bucket of its
    own.
    """

    limit: Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
    per_seconds: Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False, strict=True)] = 1.0
    burst: Annotated[int | None, Field(ge=1, le=_MOST_AT_ONCE, strict=True)] = None
    key: Annotated[str | None, Field(min_length=1, max_length=100)] = None

    @model_validator(mode="after")
    def _consistent(self) -> RateLimit:
        if self.interval * self.capacity > FURTHEST:
            raise ValueError(
                Said(
                    f"burst {self.burst} takes more than {FURTHEST.days} days to accrue; give a smaller one",
                    f"burst {self.burst} 需要超过 {FURTHEST.days} 天才能积满；请填写更小的值",
                )
            )
        return self

    @property
    def interval(self) -> timedelta:
        """Between two starts, in the long run; rounded up, so that no rounding lets one more through."""
        return timedelta(microseconds=ceil(self.per_seconds * 1_000_000 / self.limit))

    @property
    def capacity(self) -> int:
        """How many may start at once when none has for long."""
        if self.burst is not None:
            return self.burst
        return max(1, int(min(self.limit * LATENCY_SECONDS / self.per_seconds, _MOST_AT_ONCE)))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, as a task keeps it."""
        return asdict(self)


@plain_dataclass(frozen=True, slots=True)
class RateRule:
    """A limit and the bucket it draws on."""

    bucket: str
    limit: RateLimit

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, as an execution keeps it."""
        return {"bucket": self.bucket, **self.limit.as_dict()}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> RateRule:
        """From an execution's `rate_limit`. Raises ValueError: it makes none."""
        values = dict(stored)
        bucket = values.pop("bucket", None)
        if not isinstance(bucket, str):
            raise ValueError(Said("rate_limit.bucket must be a text", "rate_limit.bucket 须为文本"))  # noqa: TRY004 - what a limit that cannot be read raises
        if len(bucket) > LONGEST_BUCKET or "\x00" in bucket:
            raise ValueError(
                Said(
                    f"rate_limit.bucket must have at most {LONGEST_BUCKET} characters, and no NUL",
                    f"rate_limit.bucket 最多 {LONGEST_BUCKET} 个字符，且不能含 NUL",
                )
            )
        return cls(bucket, RateLimit(**values))


def rule_of(limit: RateLimit, owner: str, params: Mapping[str, Any]) -> RateRule:
    """The rule of `owner` (`executor:TYPE`, `task:ID`, `request:NAME`) for one execution's params.

    Where `limit.key` names a param, its value is part of the bucket's name; executions without it share one.
    """
    if limit.key is None:
        return RateRule(owner, limit)
    value = json.dumps(params.get(limit.key), sort_keys=True, ensure_ascii=False, default=str)
    if len(value) > min(_LONGEST_VALUE, LONGEST_BUCKET - len(owner) - 1):
        value = blake2b(value.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return RateRule(f"{owner}:{value}", limit)


def task_rule(task_id: int, stored: Mapping[str, Any], params: Mapping[str, Any]) -> RateRule:
    """The rule of a task's own limit, as its row keeps it.

    Raises:
        InvalidRequest: it cannot be read; plain SQL has written it.
    """
    try:
        limit = RateLimit(**stored)
    except (TypeError, ValidationError) as error:
        raise InvalidRequest.of("rate_limit", Said(f"cannot be read: {error}", f"无法读取：{error}")) from None
    return rule_of(limit, f"task:{task_id}", params)


@plain_dataclass(frozen=True, slots=True)
class Bucket:
    """What is known of a bucket; as it is without a record: full."""

    tat: datetime = _LONG_AGO
    line_end: datetime | None = None
    """The moment given to the last one that was put off."""
    line_priority: int = 0
    """The lowest priority in that line."""


def believed(bucket: Bucket, limit: RateLimit, now: datetime) -> Bucket:
    """The bucket, or an empty one where it is further ahead than `limit` could have brought it: the limit was a
    slower one then, or the clock went back since.

    Whoever looks at a bucket to change it stores what it believes: a bound that moved with the clock would keep
    everybody waiting as long as the old record says.
    """
    empty = now + limit.interval * limit.capacity
    return replace(bucket, tat=empty) if bucket.tat > empty + CLOCK_SKEW else bucket


def take(bucket: Bucket, limit: RateLimit, now: datetime) -> Bucket | None:
    """The bucket after a start at `now`; None: it must wait."""
    bucket = believed(bucket, limit, now)
    if bucket.tat - now > limit.interval * (limit.capacity - 1):
        return None
    return replace(bucket, tat=max(bucket.tat, now) + limit.interval)


def next_start(bucket: Bucket, limit: RateLimit, now: datetime) -> datetime:
    """When the next one may start: `now`, or later."""
    return max(now, believed(bucket, limit, now).tat - limit.interval * (limit.capacity - 1))


def next_starts(bucket: Bucket, limit: RateLimit, now: datetime, count: int) -> list[datetime]:
    """When each of the next `count` may start."""
    first = max(believed(bucket, limit, now).tat, now) - limit.interval * (limit.capacity - 1)
    return [max(now, first + min(limit.interval * ahead, FURTHEST)) for ahead in range(count)]


def tokens(bucket: Bucket, limit: RateLimit, now: datetime) -> int:
    """How many may start at `now`."""
    used = max(believed(bucket, limit, now).tat - now, timedelta())
    return max(0, limit.capacity - ceil(used / limit.interval))


def put_off(
    bucket: Bucket, limit: RateLimit, now: datetime, *, priority: int, has_waited: bool, ahead: int
) -> tuple[Bucket, datetime]:
    """When one that may not start at `now` shall try again, and the bucket that remembers it.

    Each gets a moment of its own, one interval after the one before, so that a thousand waiting ones are moved
    once and not a thousand times. Whoever has had a moment (`has_waited`: another one was quicker) or has a
    higher priority than somebody in line comes to its head instead, after the `ahead` that this claim has put
    there.
    """
    bucket = believed(bucket, limit, now)
    first = next_start(bucket, limit, now)
    end = bucket.line_end if bucket.line_end is not None and bucket.line_end > now else None
    if end is None:
        return replace(bucket, line_end=first, line_priority=priority), first
    if has_waited or priority > bucket.line_priority:
        moment = first + limit.interval * ahead
        return replace(bucket, line_end=max(end, moment)), moment
    moment = max(first, min(end + limit.interval, now + FURTHEST))
    return replace(bucket, line_end=moment, line_priority=min(priority, bucket.line_priority)), moment
