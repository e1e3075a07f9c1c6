import { execFileSync } from "node:child_process";

import { expect, test } from "vitest";

import { parseJson } from "./json";
import { asCurl, asPython } from "./snippets";

const hostile = "it's $(touch /tmp/owned) `id` \\ \"quoted\" \n 中文 <script>";
const execution = { task_id: null, task_type: "work", params: { topic: hostile, yes: true, none: null, account: 9007199254740993n } };

test("what is pasted into a shell is one request, whatever is in its params", () => {
  // `curl` is replaced by a function that prints its arguments, each on a line of its own as JSON.
  const script = `curl() { for each in "$@"; do printf '%s\\0' "$each"; done; }; CONTENTHUB_TOKEN=t; ${asCurl(execution, "http://localhost:8000")}`;
  const given = execFileSync("/bin/sh", ["-c", script]).toString().split("\0");
  expect(given).toContain("http://localhost:8000/api/v1/scheduler/executions");
  expect(given).toContain("Authorization: Bearer t");
  expect(parseJson(given[given.indexOf("--data-raw") + 1] ?? "")).toEqual({ task_type: "work", params: execution.params });
});

test("what is pasted into Python has the same body", () => {
  const line = asPython(execution, "http://localhost:8000").split("\n").find((one) => one.startsWith("body"));
  const python = `import json; ${line}; print(json.dumps(body))`;
  const printed = parseJson(execFileSync("python3", ["-c", python]).toString());
  expect(printed).toEqual({ task_type: "work", params: execution.params });
});

test("a run of a task asks for the task", () => {
  expect(asCurl({ ...execution, task_id: 3 }, "http://h")).toContain("http://h/api/v1/scheduler/tasks/3/run");
});
