import { Group, Text, Tooltip } from "@mantine/core";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";

import type { ExecutionState, Schemas, Task } from "../api/client";
import { duration } from "../format";
import { stateColors } from "../theme";

export function Dot({ color, pulse }: { color: string; pulse?: boolean }) {
  return <span className="dot" style={{ background: color }} data-pulse={pulse ? true : undefined} aria-hidden />;
}

export function StateMark({ state, reason }: { state: ExecutionState; reason?: string | null }) {
  const { t } = useTranslation();
  return (
    <Group gap={6} wrap="nowrap" component="span" data-state={state}>
      <Dot color={stateColors[state]} pulse={state === "running"} />
      <Text component="span" size="sm" fw={500} style={{ whiteSpace: "nowrap" }}>
        {t(`state.${state}`)}
      </Text>
      {reason ? <Text component="span" size="xs" c="dimmed" className="clip">{reasonText(t, reason)}</Text> : null}
    </Group>
  );
}

type Translate = ReturnType<typeof useTranslation>["t"];

export function reasonText(t: Translate, reason: string): string {
  return t(`reason.${reason}` as "reason.overlap", { defaultValue: reason });
}

export function triggerText(t: Translate, trigger: string): string {
  return t(`trigger.${trigger}` as "trigger.api", { defaultValue: trigger });
}

/** What came of asking for a run: a request may be recorded as skipped, and nothing runs. */
export function startedText(t: Translate, { id, state, reason }: { id: number; state: ExecutionState; reason: string | null }): string {
  return state === "skipped" ? t("tasks.notRan", { id, reason: reasonText(t, reason ?? "") }) : t("tasks.ran", { id });
}

/** The last runs of a task, oldest left: colour is the state, height the duration. Leads to all of them. */
export function RunBars({ task, runs }: { task: Task; runs: Schemas["RecentRun"][] }) {
  const { t } = useTranslation();
  const longest = Math.max(...runs.map((run) => run.duration_seconds ?? 0), 0.001);
  if (runs.length === 0) return <Text component="span" size="sm" c="dimmed">–</Text>;
  const inOrder = [...runs].reverse();
  const said = inOrder.map((run) => t(`state.${run.state}`)).join(", ");
  return (
    <Link className="bars" to="/executions" search={{ task_id: task.id }} aria-label={`${t("tasks.runs")}, ${task.name}: ${said}`}>
      {inOrder.map((run) => (
        <Tooltip key={run.id} label={`${t(`state.${run.state}`)} · ${duration(run.duration_seconds)} · #${run.id}`}>
          <span style={{ background: stateColors[run.state], height: 5 + 17 * ((run.duration_seconds ?? 0) / longest) }} />
        </Tooltip>
      ))}
    </Link>
  );
}
