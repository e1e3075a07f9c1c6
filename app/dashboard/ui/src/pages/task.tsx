import { Alert, Button, Group, Menu, SimpleGrid, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconChevronDown, IconPlayerPause, IconPlayerPlay, IconRocket } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import type { TFunction } from "i18next";
import { useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { pauseTask, resumeTask, runTask } from "../api/actions";
import { isGone, type ExecutionState, type Task } from "../api/client";
import { explainQuery, statisticsQuery, taskChangesQuery, taskPreviewQuery, taskQuery } from "../api/queries";
import { useAct } from "../components/act";
import { AskParams } from "../components/ask-params";
import { Backfill } from "../components/backfill";
import { DeleteTask } from "../components/delete-task";
import { ExecutionTable } from "../components/execution-table";
import { Empty, Failure, JsonBlock, Loaded, Loading } from "../components/feedback";
import { MomentPicker } from "../components/moment-picker";
import { Fires } from "../components/fires";
import { Facts, Page, Section } from "../components/page";
import { scheduleText } from "../components/schedule-text";
import { useMay } from "../components/session";
import { startedText, StateMark } from "../components/state";
import { Ago, Moment } from "../components/time";
import { dayName } from "../components/window-fields";
import { browserZone, duration, percent, visible } from "../format";
import { languageOf } from "../i18n";
import { jsonOf } from "../json";
import { taskRoute } from "../router";
import { NextFire } from "./tasks";

export default function TaskPage() {
  const { id } = taskRoute.useParams();
  const found = useQuery(taskQuery(id));
  if (found.data === undefined || isGone(found.error)) return found.error ? <Failure error={found.error} retry={() => void found.refetch()} /> : <Loading />;
  return <Shown task={found.data} />;
}

function Shown({ task }: { task: Task }) {
  const { t, i18n } = useTranslation();
  const week = useQuery(statisticsQuery("week", { task_id: task.id }));
  return (
    <Page title={task.name} aside={<Actions task={task} />}>
      {task.description ? <Text c="dimmed" className="wrap">{task.description}</Text> : null}
      {task.schedule_error ? <Alert color="red" variant="outline" title={t("tasks.broken", { error: task.schedule_error })} /> : null}
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <Section title={t("task.summary")}>
          <Facts
            items={[
              [t("common.type"), task.task_type],
              [t("tasks.schedule"), <>{scheduleText(t, i18n.language, task)}{task.schedule ? ` · ${task.timezone}` : ""}</>],
              [t("tasks.next"), <NextFire key="next" task={task} />],
              [t("tasks.last"), <Group key="last" gap="xs">{task.last_state ? <StateMark state={task.last_state as ExecutionState} /> : null}<Ago at={task.last_run_at} /></Group>],
              [t("executors.success"), `${percent(week.data?.summary.success_rate, i18n.language)} · ${t("period.week")}`],
              [t("executors.durations"), `${duration(week.data?.summary.p50_seconds)} / ${duration(week.data?.summary.p95_seconds)}`],
              ...(task.declared_in_code ? ([[t("common.state"), t(task.declaration_missing ? "tasks.gone" : "tasks.declared")]] as [string, string][]) : []),
            ]}
          />
        </Section>
        <Section title={t("task.policies")}>
          <Facts
            items={[
              [t("task.misfire"), t(`form.misfire_${task.misfire_policy}`)],
              [t("task.overlap"), t(`form.overlap_${task.overlap_policy}`)],
              [t("task.retry"), task.retry?.max_attempts == null ? t("task.noRetry") : t("task.attempts", { count: task.retry.max_attempts })],
              [t("task.timeout"), duration(task.timeout_seconds)],
              [t("task.priority"), task.priority],
              [t("task.concurrency"), task.concurrency_key === null ? "–" : `${task.concurrency_key} ≤ ${task.concurrency_limit ?? 1}`],
              [t("task.jitter"), duration(task.jitter_seconds)],
              [t("flow.rate"), rateText(t, task)],
              [t("window.title"), windowText(t, task, i18n.language)],
              ...(["start_at", "end_at"] as const).flatMap((bound): [string, ReactNode][] => {
                const at = task[bound];
                return at === null ? [] : [[t(`form.${bound}`, { zone: browserZone }), <Moment key={bound} at={at} />]];
              }),
            ]}
          />
        </Section>
      </SimpleGrid>
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <NextFires task={task} />
        <Stack gap="md">
          <Section title={t("task.params")}><JsonBlock value={task.params} label={t("task.params")} /></Section>
          <Why task={task} />
        </Stack>
      </SimpleGrid>
      <Section title={t("task.executions")} flush aside={<Link className="link" to="/executions" search={{ task_id: task.id }}>{t("common.all")}</Link>}>
        <ExecutionTable filters={{ task_id: task.id }} limit={10} empty={t("executions.empty")} withoutTask />
      </Section>
      <History id={task.id} />
    </Page>
  );
}

function rateText(t: TFunction, { rate_limit: rate }: Task): string {
  if (rate === null) return "–";
  const values = { limit: rate.limit, seconds: rate.per_seconds };
  return rate.key == null ? t("rate.text", values) : t("rate.textOf", { ...values, key: rate.key });
}

/** Its hours and days, then the days on which it is closed. */
function windowText(t: TFunction, { run_window: window, calendar, closed_policy }: Task, language: string): string {
  if (window === null && calendar === null) return t("window.always");
  const parts = [
    window === null ? "" : t("window.hours", { opens: window.opens, closes: window.closes }),
    (window?.days ?? []).map((day) => dayName(day, language)).join(" "),
    calendar?.country == null ? "" : t("window.holidays", { country: [calendar.country, calendar.subdivision].filter(Boolean).join("-") }),
    calendar?.closed.length ? t("window.closedDays", { count: calendar.closed.length }) : "",
    t(`window.closed_${closed_policy}`),
  ];
  return parts.filter(Boolean).join(" · ");
}

function Actions({ task }: { task: Task }) {
  const { t } = useTranslation();
  const mayChange = useMay("operator");
  const navigate = useNavigate();
  const [isAsking, ask] = useDisclosure();
  const [isBackfilling, backfill] = useDisclosure();
  const run = useAct((params?: Record<string, unknown>) => runTask(task.id, params), { done: (execution) => startedText(t, execution) });
  const toggle = useAct(task.is_active ? pauseTask : resumeTask);
  const ToggleIcon = task.is_active ? IconPlayerPause : IconPlayerPlay;
  if (!mayChange) return null;
  return (
    <>
      <Button leftSection={<IconRocket size={16} aria-hidden />} loading={run.isPending} onClick={() => run.mutate(undefined)}>{t("tasks.run")}</Button>
      <Button variant="default" leftSection={<ToggleIcon size={16} aria-hidden />} onClick={() => toggle.mutate(task.id)}>{t(task.is_active ? "tasks.pause" : "tasks.resume")}</Button>
      <Menu position="bottom-end">
        <Menu.Target><Button variant="default" rightSection={<IconChevronDown size={16} aria-hidden />}>{t("common.actions")}</Button></Menu.Target>
        <Menu.Dropdown>
          <Menu.Item onClick={ask.open}>{t("tasks.runWith")}</Menu.Item>
          {task.schedule === null ? null : <Menu.Item onClick={backfill.open}>{t("backfill.action")}</Menu.Item>}
          <Menu.Item component={Link} to="/tasks/$id/edit" params={{ id: task.id } as never}>{t("common.edit")}</Menu.Item>
          <Menu.Item onClick={() => void navigate({ to: "/tasks/new", search: { from: task.id } })}>{t("common.duplicate")}</Menu.Item>
          <DeleteTask task={task} then={() => void navigate({ to: "/tasks" })} />
        </Menu.Dropdown>
      </Menu>
      <AskParams opened={isAsking} title={t("tasks.runTitle", { name: task.name })} taskType={task.task_type} params={task.params} onClose={ask.close} submit={(params) => run.mutateAsync(params)} />
      <Backfill task={task} opened={isBackfilling} onClose={backfill.close} />
    </>
  );
}

function NextFires({ task }: { task: Task }) {
  const { t, i18n } = useTranslation();
  const preview = useQuery({ ...taskPreviewQuery(task.id, languageOf(i18n.language)), enabled: task.schedule !== null });
  return (
    <Section title={t("task.next")}>
      {task.schedule === null ? (
        <Empty>{t("tasks.noSchedule")}</Empty>
      ) : preview.data === undefined ? (
        preview.error ? <Failure error={preview.error} /> : <Loading />
      ) : (
        <Stack gap="xs">
          <Text size="sm" fw={600}>{preview.data.description}</Text>
          {preview.data.warnings.map((warning) => <Text key={warning} size="sm" c="var(--mantine-color-error)">{warning}</Text>)}
          <Fires fires={preview.data.fires} zone={task.timezone} language={i18n.language} />
        </Stack>
      )}
    </Section>
  );
}

/** The question of the morning after: why did it run, or not run, at nine? */
function Why({ task }: { task: Task }) {
  const { t, i18n } = useTranslation();
  const [at, setAt] = useState<string | null>(null);
  const found = useQuery({ ...explainQuery(task.id, at ?? "", languageOf(i18n.language)), enabled: at !== null });
  return (
    <Section title={t("task.explain")}>
      <MomentPicker label={t("task.explainAt", { zone: browserZone })} value={at} onChange={setAt} clearable />
      {found.error ? <Failure error={found.error} /> : null}
      {found.data ? <Text size="sm" className="wrap" role="status">{visible(found.data.explanation)}</Text> : null}
    </Section>
  );
}

function History({ id }: { id: number }) {
  const { t } = useTranslation();
  const found = useInfiniteQuery(taskChangesQuery(id));
  const changes = found.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Section title={t("task.history")}>
      <Loaded query={found} none={changes.length === 0 ? t("task.noChanges") : null}>
        {() => (
          <Stack gap="sm">
            {changes.map((change) => (
              <div key={change.id}>
                <Group gap="xs">
                  <Text size="sm" fw={600}>{t("task.changedBy", { who: change.changed_by, action: t(`task.change_${change.action}` as "task.change_update", { defaultValue: change.action }) })}</Text>
                  <Text size="xs" c="dimmed" component="div"><Moment at={change.changed_at} /> · {t("task.version", { version: change.version })}</Text>
                </Group>
                {change.action === "update" ? (
                  <Facts items={Object.entries(change.changes).map(([field, pair]) => [fieldText(t, field), <ChangedValue key={field} pair={pair} />])} />
                ) : null}
              </div>
            ))}
            {found.hasNextPage ? (
              <Button variant="default" loading={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>{t("common.more")}</Button>
            ) : null}
          </Stack>
        )}
      </Loaded>
    </Section>
  );
}

/** What the form calls a field of a task. */
const fieldText = (t: TFunction, field: string) => t(`taskField.${field}` as "taskField.name", { defaultValue: field });

const shown = (value: unknown) => visible(jsonOf(value) ?? "");

function ChangedValue({ pair }: { pair: unknown }) {
  const [before, after] = Array.isArray(pair) ? (pair as unknown[]) : [undefined, pair];
  return (
    <span className="mono">
      <del style={{ opacity: 0.75 }}>{shown(before)}</del> → <ins style={{ textDecoration: "none" }}>{shown(after)}</ins>
    </span>
  );
}
