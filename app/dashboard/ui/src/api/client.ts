import createClient, { type Middleware } from "openapi-fetch";

import { i18next, languageOf } from "../i18n";
import { jsonOf, parseJson } from "../json";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Execution = Schemas["ExecutionSummary"];
export type ExecutionDetail = Schemas["ExecutionDetail"];
export type ExecutionState = Schemas["ExecutionState"];
export type Task = Schemas["TaskAnswer"];
export type Executor = Schemas["ExecutorAnswer"];
export type Problem = Schemas["Problem"];
export type Role = "viewer" | "operator" | "admin";

/** A failure as the server tells it: an RFC 9457 problem document. */
export class ApiError extends Error {
  readonly status: number;
  readonly fields: Record<string, string>;

  constructor(status: number, problem: Partial<Problem>) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
    this.name = "ApiError";
    this.status = status;
    this.fields = Object.fromEntries((problem.errors ?? []).map((error) => [error.field, error.message]));
  }
}

/** A failure that the browser tells in words of its own: the page says it in its language. */
export class Unreachable extends Error {
  readonly what: "server" | "code";

  constructor(what: "server" | "code", cause: unknown) {
    super(String(cause), { cause });
    this.name = "Unreachable";
    this.what = what;
  }
}

/** The error of a field, or of a part of it (`calendar.closed.3`). */
export function errorOf(errors: Record<string, string>, field: string): string | undefined {
  return errors[field] ?? Object.entries(errors).find(([name]) => name.startsWith(`${field}.`))?.[1];
}

let csrfToken: string | null = null;

/** What a signed-in browser proves its changes with. */
export function setCsrfToken(token: string | null): void {
  csrfToken = token;
}

let signedOut = () => {};

/** What to do when the server no longer knows who asks: signed out elsewhere, or the token was revoked. */
export function onSignedOut(listener: () => void): void {
  signedOut = listener;
}

const safe = new Set(["GET", "HEAD", "OPTIONS"]);

function problemOf(text: string): Partial<Problem> {
  try {
    return parseJson(text) as Partial<Problem>;
  } catch {
    return {}; // of a proxy before the server, which speaks HTML
  }
}

/** The same answer; read as JSON its integers are what the server wrote. */
function exactly(text: string, { status, headers }: Response): Response {
  const answer = new Response(text, { status, headers });
  // Of one whose length is unknown openapi-fetch reads the text and parses that itself.
  answer.headers.set("Content-Length", String(text.length));
  return Object.assign(answer, { json: () => Promise.resolve(parseJson(text)) });
}

const guard: Middleware = {
  onRequest({ request }) {
    request.headers.set("Accept-Language", languageOf(i18next.language));
    if (csrfToken !== null && !safe.has(request.method)) request.headers.set("X-CSRF-Token", csrfToken);
    return request;
  },
  async onResponse({ response, schemaPath }) {
    const text = await response.text();
    if (response.status === 401 && schemaPath !== "/api/v1/scheduler/session") signedOut();
    if (!response.ok) throw new ApiError(response.status, problemOf(text));
    return text === "" ? response : exactly(text, response);
  },
  onError: ({ error }) => (error instanceof TypeError ? new Unreachable("server", error) : undefined),
};

export const api = createClient<paths>({ baseUrl: "/", credentials: "same-origin", bodySerializer: jsonOf });
api.use(guard);

/** The body of an answer that has one; failures have been thrown by then. */
export function body<T>(answer: { data?: T }): T {
  if (answer.data === undefined) throw new Error("the answer has no body");
  return answer.data;
}

/** Whether the server knows no such thing, or none any more: what was read of it before is of the past. */
export function isGone(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

export function messageOf(error: unknown): string {
  if (error instanceof Unreachable) return i18next.t(`unreachable.${error.what}`);
  return error instanceof Error ? error.message : String(error);
}
