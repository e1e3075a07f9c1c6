import { QueryClient, type InfiniteData } from "@tanstack/react-query";
import { createElement } from "react";
import { QueryClientProvider } from "@tanstack/react-query";
import { act, renderHook } from "@testing-library/react";
import { expect, test, vi } from "vitest";

import type { Execution, Schemas } from "./client";
import { apply, useLive } from "./live";
import { executionsQuery } from "./queries";

const execution = (id: number, state = "running") => ({ id, state, task_id: 1, parent_id: null, created_at: "2030-01-01T00:00:00Z" }) as Execution;
const changes = (...executions: Execution[]) => ({ executions, tasks: false, nodes: false, is_partial: false }) as Schemas["ChangesAnswer"];

test.each([
  ["a row has left that others come after", ["5", 2, execution(6, "success")], [7], true],
  ["a row has left that was all there was", [null, 2, execution(6, "success")], [7], false],
  ["it is longer than its page", ["5", 2, execution(8)], [8, 7, 6], true],
  ["it is as long as its page", [null, 3, execution(8)], [8, 7, 6], false],
] as const)("a list is read again where %s: %s", (_, [next_cursor, limit, changed], shown, isReadAgain) => {
  const client = new QueryClient();
  const { queryKey } = executionsQuery({ state: ["running"] }, limit);
  client.setQueryData(queryKey, { pages: [{ items: [execution(7), execution(6)], next_cursor }], pageParams: [undefined] });
  const later = vi.fn();
  apply(client, changes(changed), later);
  const list = client.getQueryData<InfiniteData<Schemas["ExecutionPage"]>>(queryKey);
  expect(list?.pages[0]?.items.map((row) => row.id)).toEqual(shown);
  expect(later.mock.calls.some(([key]) => key === queryKey)).toBe(isReadAgain);
});

class Stream extends EventTarget {
  static open: Stream[] = [];
  readyState = 1;
  onerror = null;
  constructor() {
    super();
    Stream.open.push(this);
  }
  close() {
    Stream.open = Stream.open.filter((one) => one !== this);
  }
}

test("a window that nobody sees has no stream; seen again it has one, and reads again what it shows", () => {
  vi.stubGlobal("EventSource", Stream); // jsdom has none, and no locks either, as a page that came by plain HTTP
  const see = (state: string) => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    act(() => void document.dispatchEvent(new Event("visibilitychange")));
  };
  const client = new QueryClient();
  const readAgain = vi.spyOn(client, "invalidateQueries");
  const { result, unmount } = renderHook(() => useLive(true), { wrapper: ({ children }) => createElement(QueryClientProvider, { client }, children) });
  const greet = () => act(() => void Stream.open[0]?.dispatchEvent(new Event("hello")));
  greet();
  expect([result.current, readAgain.mock.calls.length]).toEqual([true, 0]);
  see("hidden");
  expect(Stream.open).toHaveLength(0);
  see("visible");
  expect(Stream.open).toHaveLength(1);
  greet();
  expect(readAgain).toHaveBeenCalledOnce();
  unmount();
  expect(Stream.open).toHaveLength(0);
  vi.unstubAllGlobals();
});
