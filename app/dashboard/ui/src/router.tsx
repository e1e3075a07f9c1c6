import { createRootRoute, createRoute, createRouter, lazyRouteComponent, notFound } from "@tanstack/react-router";

import { Unreachable, type ExecutionState } from "./api/client";
import type { ExecutionFilters, TaskFilters } from "./api/queries";
import { PageFailure } from "./components/feedback";
import { ForOperators, NotFound, Shell } from "./shell";
import { stateColors } from "./theme";

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound });

type Search = Record<string, unknown>;
const text = (value: unknown) => (typeof value === "string" || typeof value === "number" ? String(value) || undefined : undefined);
const isState = (value: unknown): value is ExecutionState => typeof value === "string" && value in stateColors;
const moment = (value: unknown) => (typeof value === "string" && !Number.isNaN(Date.parse(value)) ? value : undefined);
const natural = (value: unknown) => (Number.isSafeInteger(Number(value)) && Number(value) > 0 ? Number(value) : undefined);
/** Of a page about one thing: its address names a number, or there is no such page. */
const byId = {
  params: { parse: (raw: { id: string }) => ({ id: natural(raw.id) ?? 0 }), stringify: (own: { id: number }) => ({ id: String(own.id) }) },
  beforeLoad: ({ params }: { params: { id: number } }) => {
    if (params.id === 0) notFound({ throw: true });
  },
};

/**
 * A page whose code is fetched when it is asked for. Its failure is not left as the browser has it: for that one
 * TanStack reloads the window, and where the server is away nothing comes back.
 */
const page: typeof lazyRouteComponent = (load, name) =>
  lazyRouteComponent(
    () =>
      load().catch((cause: unknown) => {
        throw new Unreachable("code", cause);
      }),
    name,
  );

const overview = createRoute({
  getParentRoute: () => root,
  path: "/",
  component: page(() => import("./pages/overview")),
});

export const tasksRoute = createRoute({
  getParentRoute: () => root,
  path: "/tasks",
  validateSearch: (search: Search): TaskFilters => ({
    search: text(search.search),
    task_type: text(search.task_type),
    is_active: typeof search.is_active === "boolean" ? search.is_active : undefined,
    last_state: isState(search.last_state) ? search.last_state : undefined,
    order: search.order === "name" || search.order === "next_run_at" ? search.order : undefined,
  }),
  component: page(() => import("./pages/tasks")),
});

const forOperators = createRoute({ getParentRoute: () => root, id: "for-operators", component: ForOperators });

export const newTaskRoute = createRoute({
  getParentRoute: () => forOperators,
  path: "/tasks/new",
  validateSearch: (search: Search): { from?: number; type?: string } => ({ from: natural(search.from), type: text(search.type) }),
  component: page(() => import("./pages/task-form"), "NewTask"),
});

export const taskRoute = createRoute({
  getParentRoute: () => root,
  path: "/tasks/$id",
  ...byId,
  component: page(() => import("./pages/task")),
});

export const editTaskRoute = createRoute({
  getParentRoute: () => forOperators,
  path: "/tasks/$id/edit",
  ...byId,
  component: page(() => import("./pages/task-form"), "EditTask"),
});

const calendar = createRoute({
  getParentRoute: () => root,
  path: "/calendar",
  component: page(() => import("./pages/calendar")),
});

export const executionsRoute = createRoute({
  getParentRoute: () => root,
  path: "/executions",
  validateSearch: (search: Search): ExecutionFilters => {
    const states = (Array.isArray(search.state) ? search.state : [search.state]).filter(isState);
    return {
      state: states.length > 0 ? states : undefined,
      task_id: natural(search.task_id),
      task_type: text(search.task_type),
      parent_id: natural(search.parent_id),
      trigger: text(search.trigger),
      since: moment(search.since),
      until: moment(search.until),
      search: text(search.search),
    };
  },
  component: page(() => import("./pages/executions")),
});

export const executionRoute = createRoute({
  getParentRoute: () => root,
  path: "/executions/$id",
  ...byId,
  component: page(() => import("./pages/execution")),
});

const approvals = createRoute({
  getParentRoute: () => root,
  path: "/approvals",
  component: page(() => import("./pages/approvals")),
});

const alerts = createRoute({
  getParentRoute: () => root,
  path: "/alerts",
  component: page(() => import("./pages/alerts")),
});

const executors = createRoute({
  getParentRoute: () => root,
  path: "/executors",
  component: page(() => import("./pages/executors")),
});

const system = createRoute({
  getParentRoute: () => root,
  path: "/system",
  component: page(() => import("./pages/system")),
});

export const router = createRouter({
  routeTree: root.addChildren([
    overview, tasksRoute, taskRoute, calendar, executionsRoute, executionRoute, approvals, alerts, executors, system,
    forOperators.addChildren([newTaskRoute, editTaskRoute]),
  ]),
  basepath: "/scheduler",
  defaultPreload: "intent",
  defaultErrorComponent: PageFailure,
  scrollRestoration: true,
  search: { strict: true },
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
