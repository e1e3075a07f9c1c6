/** An execution as something to paste into a terminal or a program. */
import type { Schemas } from "./api/client";
import { jsonOf } from "./json";

/** What was asked for. */
type Asked = Pick<Schemas["ExecutionAnswer"], "task_id" | "task_type" | "params">;

function request(execution: Asked): { path: string; text: string } {
  const root = "/api/v1/scheduler";
  const { path, body } = execution.task_id === null
    ? { path: `${root}/executions`, body: { task_type: execution.task_type, params: execution.params } }
    : { path: `${root}/tasks/${execution.task_id}/run`, body: { params: execution.params } };
  return { path, text: jsonOf(body) ?? "" };
}

/** In single quotes nothing is special to a POSIX shell but the quote itself. */
const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

export function asCurl(execution: Asked, origin = window.location.origin): string {
  const { path, text } = request(execution);
  return [
    `curl --fail-with-body -X POST ${quoted(origin + path)}`,
    `-H "Authorization: Bearer $CONTENTHUB_TOKEN"`,
    `-H 'Content-Type: application/json'`,
    // No argument: one may not have more than 128 kB. The JSON is one line that begins with a brace, never END.
    `--data-binary @- <<'END'`,
  ].join(" \\\n  ") + `\n${text}\nEND\n`;
}

export function asPython(execution: Asked, origin = window.location.origin): string {
  const { path, text } = request(execution);
  // A JSON text is no Python literal (true, null), and a Python string literal takes JSON's escapes.
  return [
    "import json",
    "import os",
    "",
    "import httpx",
    "",
    `body = json.loads(${jsonOf(text)})`,
    `token = os.environ.get("CONTENTHUB_TOKEN")`,
    `answer = httpx.post(`,
    `    ${jsonOf(origin + path)},`,
    `    json=body,`,
    `    headers={"Authorization": f"Bearer {token}"} if token else {},`,
    `)`,
    `answer.raise_for_status()`,
    `print(answer.json()["id"])`,
  ].join("\n");
}
