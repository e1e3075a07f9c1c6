import type { Executor } from "../api/client";

/** The types to choose from, with the one that is chosen: a task may name an executor that is gone. */
export function typesWith(executors: Executor[] | undefined, chosen: string | null | undefined): string[] {
  const types = executors?.map((item) => item.type) ?? [];
  return chosen == null || types.includes(chosen) ? types : [chosen, ...types];
}
