/** Brings what other people and processes do into the cache, as it happens. */
import type { InfiniteData, QueryClient, QueryKey } from "@tanstack/react-query";
import { hashKey, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { parseJson } from "../json";
import type { Execution, Schemas } from "./client";
import { sessionQuery, type ExecutionFilters } from "./queries";
import { hearNews, type News } from "./stream";

type Changes = Schemas["ChangesAnswer"];
type Page = Schemas["ExecutionPage"];
type List = InfiniteData<Page, string | undefined>;

export function matches(filters: ExecutionFilters, execution: Execution): boolean {
  const text = filters.search?.toLowerCase();
  return (
    (filters.state === undefined || filters.state.length === 0 || filters.state.includes(execution.state)) &&
    (filters.task_id === undefined || filters.task_id === execution.task_id) &&
    (filters.task_type === undefined || filters.task_type === execution.task_type) &&
    (filters.parent_id === undefined || filters.parent_id === execution.parent_id) &&
    (filters.trigger === undefined || filters.trigger === execution.trigger) &&
    (filters.since === undefined || Date.parse(execution.created_at) >= Date.parse(filters.since)) &&
    (filters.until === undefined || Date.parse(execution.created_at) < Date.parse(filters.until)) &&
    (text === undefined ||
      [execution.task_name, execution.message, execution.error].some((part) => part?.toLowerCase().includes(text)))
  );
}

/** A list with what has changed: rows replaced, new ones on top, those that no longer match gone. */
export function merge(list: List, filters: ExecutionFilters, changed: Execution[]): List {
  const news = new Map(changed.map((execution) => [execution.id, execution]));
  const pages = list.pages.map((page) => ({
    ...page,
    items: page.items.flatMap((item) => {
      const found = news.get(item.id);
      news.delete(item.id);
      if (found === undefined) return [item];
      return matches(filters, found) ? [found] : [];
    }),
  }));
  const first = pages[0];
  if (first !== undefined) {
    const added = [...news.values()].filter((execution) => matches(filters, execution));
    // One that is older than what is shown belongs to a page that has not been read, unless all have been.
    const oldest = pages.at(-1)?.next_cursor == null ? 0 : (pages.at(-1)?.items.at(-1)?.id ?? 0);
    first.items = [...first.items, ...added.filter((execution) => execution.id > oldest)].sort((a, b) => b.id - a.id);
  }
  return { ...list, pages };
}

const rowsOf = (list: List) => list.pages.flatMap((page) => page.items);

/** Whether a list that was merged is no longer what the server would answer: too long, or short of what comes next. */
function isOff(before: List, after: List, limit: number): boolean {
  const rows = new Set(rowsOf(after).map((row) => row.id));
  const lacksNext = after.pages.at(-1)?.next_cursor != null && rowsOf(before).some((row) => !rows.has(row.id));
  return lacksNext || rows.size > limit * after.pages.length;
}

export function apply(client: QueryClient, changes: Changes, later: (key: QueryKey) => void): void {
  for (const { queryKey } of client.getQueryCache().findAll({ queryKey: ["executions", "list"] })) {
    const list = client.getQueryData<List>(queryKey);
    if (list === undefined) continue;
    const merged = merge(list, queryKey[2] as ExecutionFilters, changes.executions);
    client.setQueryData<List>(queryKey, merged);
    if (isOff(list, merged, queryKey[3] as number)) later(queryKey);
  }
  for (const execution of changes.executions) {
    void client.invalidateQueries({ queryKey: ["executions", "one", execution.id] });
    if (execution.parent_id !== null) later(["executions", "one", execution.parent_id]);
  }
  if (changes.is_partial) later(["executions", "list"]);
  if (changes.executions.length > 0) {
    later(["status"]);
    later(["statistics"]);
    later(["attention"]);
  }
  if (changes.tasks) {
    later(["tasks"]);
    later(["fires"]);
  }
  if (changes.nodes) {
    later(["nodes"]);
    later(["attention"]);
  }
}

const PAUSE: Record<string, number> = { statistics: 10_000, attention: 5_000, fires: 5_000 };

/** At most one refetch of a key in its pause. */
function throttled(client: QueryClient): { later: (key: QueryKey) => void; stop: () => void } {
  const waiting = new Map<string, ReturnType<typeof setTimeout>>();
  return {
    later(key) {
      const name = hashKey(key);
      if (waiting.has(name)) return;
      const pause = PAUSE[String(key[0])] ?? 2_000;
      waiting.set(
        name,
        setTimeout(() => {
          waiting.delete(name);
          void client.invalidateQueries({ queryKey: key });
        }, pause),
      );
    },
    stop() {
      waiting.forEach((timer) => clearTimeout(timer));
    },
  };
}

/** Follow the server while somebody sees this window; true while the stream is open. */
export function useLive(enabled: boolean): boolean {
  const client = useQueryClient();
  const [isOpen, setOpen] = useState(false);
  useEffect(() => {
    if (!enabled) return;
    const { later, stop } = throttled(client);
    let leave: (() => void) | undefined;
    let isUpToDate = true; // as the page was when it was opened
    let isTold = false;
    const hear = (news: News) => {
      if (news.is === "changes") {
        apply(client, parseJson(news.data) as Changes, later);
      } else if (news.is === "began" || (news.is === "goesOn" && !isTold)) {
        if (!isUpToDate) void client.invalidateQueries(); // what happened meanwhile was not told
        isUpToDate = false;
        isTold = true;
        setOpen(true);
      } else if (news.is !== "goesOn") {
        isTold = false;
        setOpen(false);
        // Refused may be who has no right any more.
        if (news.is === "refused") void client.invalidateQueries({ queryKey: sessionQuery.queryKey });
      }
    };
    const look = () => {
      leave?.();
      isTold = false;
      leave = document.visibilityState === "hidden" ? undefined : hearNews(hear);
    };
    look();
    document.addEventListener("visibilitychange", look);
    return () => {
      document.removeEventListener("visibilitychange", look);
      leave?.();
      stop();
    };
  }, [client, enabled]);
  return isOpen;
}
