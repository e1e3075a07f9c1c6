/** Every read of the API, by its key in the cache. */
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";

import { api, body, type ExecutionState } from "./client";
import type { Language } from "../i18n";

const root = "/api/v1/scheduler";

export interface ExecutionFilters {
  state?: ExecutionState[];
  task_id?: number;
  task_type?: string;
  parent_id?: number;
  trigger?: string;
  since?: string;
  until?: string;
  search?: string;
}

export interface TaskFilters {
  search?: string;
  task_type?: string;
  is_active?: boolean;
  last_state?: ExecutionState;
  order?: "id" | "name" | "next_run_at";
}

export type Period = "hour" | "day" | "week";

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: async () => body(await api.GET(`${root}/session`)),
  retry: false,
  staleTime: 60_000,
});

export const statusQuery = queryOptions({
  queryKey: ["status"],
  queryFn: async () => body(await api.GET(`${root}/status`)),
  refetchInterval: 10_000,
});

export const attentionQuery = queryOptions({
  queryKey: ["attention"],
  queryFn: async () => body(await api.GET(`${root}/attention`)),
  refetchInterval: 15_000,
});

export const statisticsQuery = (period: Period, of: { task_id?: number; task_type?: string } = {}) =>
  queryOptions({
    queryKey: ["statistics", period, of],
    queryFn: async () => body(await api.GET(`${root}/statistics`, { params: { query: { period, ...of } } })),
    refetchInterval: period === "hour" ? 15_000 : 60_000,
    placeholderData: (previous) => previous,
  });

export const executorStatisticsQuery = (period: Period) =>
  queryOptions({
    queryKey: ["statistics", "executors", period],
    queryFn: async () => body(await api.GET(`${root}/statistics/executors`, { params: { query: { period } } })),
    refetchInterval: 60_000,
  });

/** One that fires every second would leave no room for the others. */
const FIRES_OF_A_TASK = 3;

export const firesQuery = (limit: number) =>
  queryOptions({
    queryKey: ["fires", limit],
    queryFn: async () => body(await api.GET(`${root}/fires`, { params: { query: { limit, per_task: FIRES_OF_A_TASK } } })),
    refetchInterval: 15_000,
  });

/** The hours of the browser's clock, which in India begin half an hour after those of UTC. */
const hourBegins = ((new Date().getTimezoneOffset() % 60) + 60) % 60;

export const calendarQuery = queryOptions({
  queryKey: ["calendar"],
  queryFn: async () => body(await api.GET(`${root}/calendar`, { params: { query: { hours: 168, minute: hourBegins } } })),
  staleTime: 60_000,
});

export const nodesQuery = (stoppedSince: string) =>
  queryOptions({
    queryKey: ["nodes", stoppedSince],
    queryFn: async () => body(await api.GET(`${root}/nodes`, { params: { query: { stopped_since: stoppedSince } } })),
    refetchInterval: 10_000,
  });

export const executorsQuery = queryOptions({
  queryKey: ["executors"],
  queryFn: async () => body(await api.GET(`${root}/executors`)),
  staleTime: 300_000,
});

export const settingsQuery = queryOptions({
  queryKey: ["settings"],
  queryFn: async () => body(await api.GET(`${root}/settings`)),
});

export const tokensQuery = queryOptions({
  queryKey: ["tokens"],
  queryFn: async () => body(await api.GET(`${root}/tokens`)),
});

export const tasksQuery = (filters: TaskFilters) =>
  infiniteQueryOptions({
    queryKey: ["tasks", "list", filters],
    queryFn: async ({ pageParam }) =>
      body(await api.GET(`${root}/tasks`, { params: { query: { ...filters, cursor: pageParam, limit: 50 } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    placeholderData: (previous) => previous,
  });

export const taskQuery = (id: number) =>
  queryOptions({
    queryKey: ["tasks", "one", id],
    queryFn: async () => body(await api.GET(`${root}/tasks/{task_id}`, { params: { path: { task_id: id } } })),
  });

export const taskRunsQuery = (ids: number[]) =>
  queryOptions({
    queryKey: ["tasks", "runs", ids],
    queryFn: async () => body(await api.GET(`${root}/tasks/runs`, { params: { query: { task_id: ids, count: 14 } } })),
    enabled: ids.length > 0,
    placeholderData: (previous) => previous,
  });

export const taskPreviewQuery = (id: number, language: Language) =>
  queryOptions({
    queryKey: ["tasks", "preview", id, language],
    queryFn: async () =>
      body(await api.GET(`${root}/tasks/{task_id}/preview`, { params: { path: { task_id: id }, query: { count: 10, language } } })),
  });

export const taskChangesQuery = (id: number) =>
  infiniteQueryOptions({
    queryKey: ["tasks", "changes", id],
    queryFn: async ({ pageParam }) =>
      body(await api.GET(`${root}/tasks/{task_id}/changes`, { params: { path: { task_id: id }, query: { cursor: pageParam } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_cursor ?? undefined,
  });

/** Why a task ran, or did not, at that moment (ISO 8601 with an offset). */
export const explainQuery = (id: number, at: string, language: Language) =>
  queryOptions({
    queryKey: ["tasks", "explain", id, at, language],
    queryFn: async () =>
      body(await api.GET(`${root}/tasks/{task_id}/explain`, { params: { path: { task_id: id }, query: { at, language } } })),
  });

export const executionsQuery = (filters: ExecutionFilters, limit = 50) =>
  infiniteQueryOptions({
    queryKey: ["executions", "list", filters, limit],
    queryFn: async ({ pageParam }) =>
      body(await api.GET(`${root}/executions`, { params: { query: { ...filters, cursor: pageParam, limit } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    placeholderData: (previous) => previous,
  });

export const executionQuery = (id: number) =>
  queryOptions({
    queryKey: ["executions", "one", id],
    queryFn: async () =>
      body(await api.GET(`${root}/executions/{execution_id}`, { params: { path: { execution_id: id } } })),
    // Steps are stored without a change of the execution, so nobody tells of them.
    refetchInterval: (query) => (query.state.data?.state === "running" ? 2_000 : false),
  });

export const workflowQuery = (id: number, isOver: boolean) =>
  queryOptions({
    queryKey: ["executions", "one", id, "workflow"],
    queryFn: async () =>
      body(await api.GET(`${root}/executions/{execution_id}/workflow`, { params: { path: { execution_id: id } } })),
    refetchInterval: isOver ? false : 3_000,
  });

export const approvalsQuery = infiniteQueryOptions({
  queryKey: ["approvals"],
  queryFn: async ({ pageParam }) =>
    body(await api.GET(`${root}/approvals`, { params: { query: { cursor: pageParam, limit: 20 } } })),
  initialPageParam: undefined as string | undefined,
  getNextPageParam: (page) => page.next_cursor ?? undefined,
  refetchInterval: 15_000,
});

export const doctorQuery = (language: Language) =>
  queryOptions({
    queryKey: ["doctor", language],
    queryFn: async () => body(await api.GET(`${root}/doctor/schedules`, { params: { query: { days: 30, language } } })),
    staleTime: 300_000,
  });

export const alertsQuery = (language: Language) =>
  infiniteQueryOptions({
    queryKey: ["alerts", language],
    queryFn: async ({ pageParam }) =>
      body(await api.GET(`${root}/alerts`, { params: { query: { state: "open", language, cursor: pageParam, limit: 50 } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    refetchInterval: 15_000,
  });

export const rulesQuery = queryOptions({
  queryKey: ["alerts", "rules"],
  queryFn: async () => body(await api.GET(`${root}/alert-rules`)),
});

export const channelsQuery = queryOptions({
  queryKey: ["alerts", "channels"],
  queryFn: async () => body(await api.GET(`${root}/alert-channels`)),
});

export const flowQuery = queryOptions({
  queryKey: ["flow"],
  queryFn: async () => body(await api.GET(`${root}/flow`)),
  refetchInterval: 10_000,
});
