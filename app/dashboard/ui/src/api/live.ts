/** Brings what other people and processes do into the cache, as it happens. */
import type { InfiniteData, QueryClient } from "@tanstack/react-query";
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { parseJson } from "../json";
import type { Execution, Schemas } from "./client";
import { sessionQuery, type ExecutionFilters } from "./queries";

type Changes = Schemas["ChangesAnswer"];
type Page = Schemas["ExecutionPage"];
type Key = (string | number)[];

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
export function merge(
  list: InfiniteData<Page, string | undefined>,
  filters: ExecutionFilters,
  changed: Execution[],
): InfiniteData<Page, string | undefined> {
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

function apply(client: QueryClient, changes: Changes, later: (key: Key) => void): void {
  for (const query of client.getQueryCache().findAll({ queryKey: ["executions", "list"] })) {
    const filters = query.queryKey[2] as ExecutionFilters;
    client.setQueryData<InfiniteData<Page, string | undefined>>(query.queryKey, (list) =>
      list === undefined ? list : merge(list, filters, changes.executions),
    );
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
function throttled(client: QueryClient): { later: (key: Key) => void; stop: () => void } {
  const waiting = new Map<string, ReturnType<typeof setTimeout>>();
  return {
    later(key) {
      const name = key.join("/");
      if (waiting.has(name)) return;
      const pause = PAUSE[name] ?? 2_000;
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

/** Follow the server; true while the stream is open. The browser reconnects by itself. */
export function useLive(enabled: boolean): boolean {
  const client = useQueryClient();
  const [isOpen, setOpen] = useState(false);
  useEffect(() => {
    if (!enabled) return;
    const { later, stop } = throttled(client);
    let source: EventSource;
    let again: ReturnType<typeof setTimeout> | undefined;
    let wasLost = false;
    const connect = () => {
      source = new EventSource("/api/v1/scheduler/events");
      source.addEventListener("hello", () => {
        setOpen(true);
        if (wasLost) void client.invalidateQueries(); // what happened meanwhile was not told
        wasLost = false;
      });
      source.addEventListener("changes", (event) =>
        apply(client, parseJson((event as MessageEvent<string>).data) as Changes, later),
      );
      source.onerror = () => {
        setOpen(false);
        wasLost = true;
        if (source.readyState !== EventSource.CLOSED) return;
        // After a refusal the browser gives up; a server that restarts may refuse for a while, or who asks has no
        // right any more.
        again = setTimeout(connect, 3_000);
        void client.invalidateQueries({ queryKey: sessionQuery.queryKey });
      };
    };
    connect();
    return () => {
      source.close();
      clearTimeout(again);
      stop();
    };
  }, [client, enabled]);
  return isOpen;
}
