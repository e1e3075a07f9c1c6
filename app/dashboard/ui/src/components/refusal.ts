import { useState } from "react";

import type { JsonObject } from "../api/actions";
import { ApiError } from "../api/client";
import { jsonOf } from "../json";

/** The part of a request that the server calls by that dotted path; tags of unions stand in paths and not in requests. */
export function partOf(value: unknown, path: string): unknown {
  const parts = path.split(".");
  return parts.reduce((part, name, index) => {
    if (typeof part !== "object" || part === null) return part;
    const inner = (part as JsonObject)[name];
    return inner === undefined && index < parts.length - 1 ? part : inner;
  }, value);
}

/** What the server refused of a request, by field; what was changed since then is no longer wrong. */
export function stillWrong(error: unknown, sent: JsonObject, now: JsonObject): Record<string, string> {
  if (!(error instanceof ApiError)) return {};
  return Object.fromEntries(Object.entries(error.fields).filter(([path]) => jsonOf(partOf(sent, path)) === jsonOf(partOf(now, path))));
}

/** The last refusal of a form that would now send `now`. */
export function useRefusal(now: JsonObject) {
  const [refusal, setRefusal] = useState<{ error: unknown; sent: JsonObject }>();
  const errors = refusal === undefined ? {} : stillWrong(refusal.error, refusal.sent, now);
  const isMended = refusal?.error instanceof ApiError && Object.keys(refusal.error.fields).length > 0 && Object.keys(errors).length === 0;
  return {
    error: isMended ? undefined : refusal?.error,
    errors,
    refuse: (error: unknown) => setRefusal({ error, sent: now }),
    forget: () => setRefusal(undefined),
  };
}
