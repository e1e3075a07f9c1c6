import { expect, test } from "vitest";

import type { Task } from "../api/client";
import { changesOf, definitionOf, draftOf, notNumbers } from "./task-form";

const task = {
  name: "digest",
  description: "",
  task_type: "work",
  params: { account_id: 9007199254740993n, token: "********" },
  schedule: { type: "cron", expression: "0 9 * * *" },
  timezone: "Asia/Shanghai",
  dst_policy: "skip",
  start_at: null,
  end_at: null,
  jitter_seconds: 0,
  is_active: true,
  priority: 0,
  timeout_seconds: null,
  retry: { max_attempts: 3, jitter: true },
  misfire_policy: "latest",
  misfire_grace_seconds: 60,
  overlap_policy: "skip",
  concurrency_key: null,
  concurrency_limit: null,
  rate_limit: null,
  run_window: null,
  calendar: null,
  closed_policy: "skip",
} as unknown as Task;

test("a moment is shown on the clock of its task, and is sent again where that clock is changed", () => {
  const once = { ...task, schedule: { type: "at", expression: "2030-01-07T01:00:00+00:00" } } as Task;
  const draft = draftOf(once);
  expect(draft.schedule.at).toBe("2030-01-07 09:00:00");
  expect(changesOf(draft, once)).toEqual({});
  const moved = changesOf({ ...draft, schedule: { ...draft.schedule, timezone: "Europe/Berlin" } }, once);
  expect(moved).toEqual({ timezone: "Europe/Berlin", schedule: { type: "at", at: "2030-01-07T09:00:00" } });
  expect(draftOf({ ...once, timezone: "Nowhere/Land" }).schedule.at).toBeNull();
});

test("a moment of an hour that comes twice stays the one that is stored", () => {
  const second = { ...task, schedule: { type: "at", expression: "2027-11-07T06:30:00+00:00" }, timezone: "America/New_York" } as Task;
  const draft = draftOf(second);
  expect(draft.schedule.at).toBe("2027-11-07 01:30:00");
  expect(definitionOf(draft, second).schedule).toEqual({ type: "at", at: "2027-11-07T06:30:00+00:00" });
  expect(changesOf({ ...draft, schedule: { ...draft.schedule, at: "2027-11-07 02:30:00" } }, second)).toEqual({ schedule: { type: "at", at: "2027-11-07T02:30:00" } });
});

test("only what was changed is sent", () => {
  const draft = draftOf(task);
  expect(changesOf(draft, task)).toEqual({});
  expect(changesOf({ ...draft, priority: 5 }, task)).toEqual({ priority: 5 });
  expect(changesOf({ ...draft, max_attempts: 4 }, task)).toEqual({ retry: { max_attempts: 4, jitter: true } });
  expect(changesOf({ ...draft, params: { ...draft.params, account_id: 9007199254740992n } }, task)).toEqual({ params: { account_id: 9007199254740992n, token: "********" } });
});

test("a number is what was typed: empty is what is usual, and what is no number is told where it stands", () => {
  const draft = draftOf(task);
  expect(changesOf({ ...draft, misfire_grace_seconds: "", priority: "", timeout_seconds: "1.50" }, task)).toEqual({ timeout_seconds: 1.5 });
  const interval = { ...draft.schedule, kind: "interval" as const };
  const typed = definitionOf({ ...draft, timeout_seconds: "-", priority: "-5", schedule: { ...interval, amount: "" }, rate: { ...draft.rate, limit: "-" } });
  expect(typed).toMatchObject({ timeout_seconds: "-", priority: -5 });
  expect(notNumbers(typed)).toEqual(["timeout_seconds", "rate_limit.limit", "schedule.seconds"]);
  expect(notNumbers(definitionOf({ ...draft, schedule: { ...interval, amount: "7" } }))).toEqual([]);
});

test("without a number of attempts a task is retried as its executor says", () => {
  const draft = draftOf({ ...task, retry: { max_attempts: 3, backoff_seconds: 2, jitter: 0.1 } } as Task);
  expect(definitionOf({ ...draft, max_attempts: "" }, task).retry).toBeNull();
  expect(definitionOf({ ...draft, backoff_seconds: "" }, task).retry).toEqual({ max_attempts: 3, jitter: true });
});
