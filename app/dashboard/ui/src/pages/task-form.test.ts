import { expect, test } from "vitest";

import type { Task } from "../api/client";
import { changesOf, draftOf } from "./task-form";

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

test("only what was changed is sent", () => {
  const draft = draftOf(task);
  expect(changesOf(draft, task)).toEqual({});
  expect(changesOf({ ...draft, priority: 5 }, task)).toEqual({ priority: 5 });
  expect(changesOf({ ...draft, max_attempts: 4 }, task)).toEqual({ retry: { max_attempts: 4, jitter: true } });
  expect(changesOf({ ...draft, params: { ...draft.params, account_id: 9007199254740992n } }, task)).toEqual({ params: { account_id: 9007199254740992n, token: "********" } });
});
