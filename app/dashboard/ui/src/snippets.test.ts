import { execFileSync } from "node:child_process";

import { expect, test } from "vitest";

import { parseJson } from "./json";
import { asCurl, asPython } from "./snippets";

const hostile = "it's $(touch /tmp/owned) `id` \\ \"quoted\" \n 中文 <script>";
const execution = { task_id: null, task_type: "work", params: { topic: hostile, yes: true, none: null, account: 9007199254740993n } };

test("what is pasted into a shell is one request, whatever is in its params", () => {
  // `curl` is replaced by a function that prints its arguments, a NUL after each, and then what it is given to read.
  const script = `curl() { for each in "$@"; do printf '%s\\0' "$each"; done; cat; }; CONTENTHUB_TOKEN=t\n${asCurl(execution, "http://localhost:8000")}`;
  const given = execFileSync("/bin/sh", ["-c", script]).toString().split("\0");
  expect(given).toContain("http://localhost:8000/api/v1/scheduler/executions");
  expect(given).toContain("Authorization: Bearer t");
  expect(given).toContain("--fail-with-body");
  expect(parseJson(given.at(-1) ?? "")).toEqual({ task_type: "work", params: execution.params });
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

test("large params are pasted too: no argument of a command may have more than 128 kB", () => {
  const large = { ...execution, params: { text: "x".repeat(300_000) } };
  const script = asCurl(large, "http://h").replace(/^curl .*?(?=<<)/s, "/bin/cat ");
  const sent = execFileSync("/bin/sh", [], { input: script }).toString();
  expect(parseJson(sent)).toEqual({ task_type: "work", params: large.params });
});

test.each([["", "{}"], ["t", '{"Authorization": "Bearer t"}']])("what is pasted into Python names a token where there is one (%j)", (token, headers) => {
  const lines = asPython(execution, "http://h").split("\n");
  const given = lines.filter((line) => line.startsWith("token")).concat(lines.filter((line) => line.includes("headers=")).map((line) => `print(json.dumps(dict(${line.trim().replace(/,$/, "")})["headers"]))`));
  const printed = execFileSync("python3", ["-c", ["import json, os", ...given].join("\n")], { env: { ...process.env, CONTENTHUB_TOKEN: token } }).toString();
  expect(printed.trim()).toBe(headers);
});
