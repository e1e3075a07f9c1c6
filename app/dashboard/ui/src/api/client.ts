import createClient, { type Middleware } from "openapi-fetch";

import { i18next } from "../i18n";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Execution = Schemas["ExecutionAnswer"];
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

const guard: Middleware = {
  onRequest({ request }) {
    if (csrfToken !== null && !safe.has(request.method)) request.headers.set("X-CSRF-Token", csrfToken);
    return request;
  },
  async onResponse({ response, schemaPath }) {
    if (response.ok) return;
    if (response.status === 401 && schemaPath !== "/api/v1/scheduler/session") signedOut();
    const problem: unknown = await response.json().catch(() => ({}));
    throw new ApiError(response.status, problem as Partial<Problem>);
  },
  onError: ({ error }) => (error instanceof TypeError ? new Unreachable("server", error) : undefined),
};

export const api = createClient<paths>({ baseUrl: "/", credentials: "same-origin" });
api.use(guard);

/** The body of an answer that has one; failures have been thrown by then. */
export function body<T>(answer: { data?: T }): T {
  if (answer.data === undefined) throw new Error("the answer has no body");
  return answer.data;
}

export function messageOf(error: unknown): string {
  if (error instanceof Unreachable) return i18next.t(`unreachable.${error.what}`);
  return error instanceof Error ? error.message : String(error);
}
