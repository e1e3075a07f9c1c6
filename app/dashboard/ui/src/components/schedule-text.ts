import type { useTranslation } from "react-i18next";

import type { Task } from "../api/client";
import { absolute } from "../format";

type Translate = ReturnType<typeof useTranslation>["t"];

const units = [
  ["weeks", 604_800],
  ["days", 86_400],
  ["hours", 3_600],
  ["minutes", 60],
  ["seconds", 1],
] as const;

export type Unit = (typeof units)[number][0];

export const unitSeconds = Object.fromEntries(units) as Record<Unit, number>;

/** The largest unit that says it in whole numbers. */
export function inUnits(seconds: number): { amount: number; unit: Unit } {
  const [unit, size] = units.find(([, length]) => seconds % length === 0 && seconds >= length) ?? ["seconds", 1];
  return { amount: seconds / size, unit };
}

export function scheduleText(t: Translate, language: string, task: Pick<Task, "schedule" | "timezone">): string {
  if (task.schedule === null) return t("tasks.noSchedule");
  const { type, expression } = task.schedule;
  if (type === "at") return absolute(expression, language, task.timezone);
  if (type === "cron") return expression;
  const { amount, unit } = inUnits(Number(expression));
  return `${t("form.every")} ${amount} ${t(`form.${unit}`)}`;
}
