import { ActionIcon, Button, Checkbox, Group, Menu, Paper, Select, SimpleGrid, Table, Text } from "@mantine/core";
import { IconDots, IconPlayerPause, IconPlayerPlay, IconPlus, IconRocket, IconTrash } from "@tabler/icons-react";
import { useInfiniteQuery, useQueries, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { deleteTask, pauseTask, resumeTask, runTask } from "../api/actions";
import type { ExecutionState, Task } from "../api/client";
import { executorsQuery, taskRunsQuery, tasksQuery, type TaskFilters } from "../api/queries";
import { useAct, useActOnMany, useConfirm } from "../components/act";
import { DeleteTask } from "../components/delete-task";
import { typesWith } from "../components/executor-types";
import { Empty, Loaded } from "../components/feedback";
import { Page } from "../components/page";
import { scheduleText } from "../components/schedule-text";
import { SearchBox } from "../components/search-box";
import { useMay } from "../components/session";
import { RunBars, startedText, StateMark } from "../components/state";
import { Ago } from "../components/time";
import { tasksRoute } from "../router";

const lastStates: ExecutionState[] = ["success", "failed", "cancelled", "skipped"];

export default function Tasks() {
  const { t, i18n } = useTranslation();
  const filters = tasksRoute.useSearch();
  const mayChange = useMay("operator");
  const found = useInfiniteQuery(tasksQuery(filters));
  const tasks = found.data?.pages.flatMap((page) => page.items) ?? [];
  // Of each page by itself: more than a hundred tasks are not answered at once.
  const pages = found.data?.pages.map((page) => page.items.map((task) => task.id)) ?? [];
  const runs = useQueries({ queries: pages.map((ids) => taskRunsQuery(ids)) });
  const runsOf = new Map(runs.flatMap(({ data }) => data?.map((one) => [one.task_id, one.runs] as const) ?? []));
  const [picked, setPicked] = useState<ReadonlySet<number>>(new Set());
  const chosen = tasks.filter((task) => picked.has(task.id));
  const isFiltered = Object.entries(filters as Record<string, unknown>).some(([key, value]) => key !== "order" && value !== undefined);
  const toggle = (id: number) =>
    setPicked((before) => {
      const after = new Set(before);
      if (!after.delete(id)) after.add(id);
      return after;
    });

  return (
    <Page
      title={t("tasks.title")}
      aside={mayChange ? <Button component={Link} to="/tasks/new" leftSection={<IconPlus size={16} aria-hidden />}>{t("tasks.new")}</Button> : null}
    >
      <Filters filters={filters} />
      {chosen.length > 0 ? <Bulk tasks={chosen} clear={() => setPicked(new Set())} /> : null}
      <Loaded query={found}>
        {() => (
          <Paper withBorder radius="md" style={{ overflow: "hidden" }}>
            {tasks.length === 0 ? (
              <Empty>{t(isFiltered ? "tasks.noMatch" : "tasks.empty")}</Empty>
            ) : (
              <Table.ScrollContainer minWidth={860} scrollAreaProps={{ type: "auto" }}>
                <Table className="rows" verticalSpacing="sm">
                  <Table.Thead>
                    <Table.Tr>
                      {mayChange ? (
                        <Table.Th w={40}>
                          <Checkbox
                            aria-label={t("common.selectAll")}
                            checked={chosen.length === tasks.length}
                            indeterminate={chosen.length > 0 && chosen.length < tasks.length}
                            onChange={() => setPicked(chosen.length === tasks.length ? new Set() : new Set(tasks.map((task) => task.id)))}
                          />
                        </Table.Th>
                      ) : null}
                      <Table.Th>{t("common.name")}</Table.Th>
                      <Table.Th>{t("tasks.schedule")}</Table.Th>
                      <Table.Th>{t("tasks.next")}</Table.Th>
                      <Table.Th>{t("tasks.last")}</Table.Th>
                      <Table.Th>{t("tasks.runs")}</Table.Th>
                      <Table.Th w={48} aria-label={t("common.actions")} />
                    </Table.Tr>
                  </Table.Thead>
                  <Table.Tbody>
                    {tasks.map((task) => (
                      <Table.Tr key={task.id}>
                        {mayChange ? (
                          <Table.Td>
                            <Checkbox aria-label={t("common.select", { name: task.name })} checked={picked.has(task.id)} onChange={() => toggle(task.id)} />
                          </Table.Td>
                        ) : null}
                        <Table.Td>
                          <Link className="link" to="/tasks/$id" params={{ id: task.id }} style={{ display: "block", maxWidth: "min(24rem, 70vw)", fontWeight: 600 }}>{task.name}</Link>
                          <Text size="xs" c="dimmed" className="clip">{task.task_type}{task.declaration_missing ? ` · ${t("tasks.gone")}` : ""}</Text>
                        </Table.Td>
                        <Table.Td>
                          <Text size="sm">{scheduleText(t, i18n.language, task)}</Text>
                          {task.schedule ? <Text size="xs" c="dimmed">{task.timezone}</Text> : null}
                        </Table.Td>
                        <Table.Td><NextFire task={task} /></Table.Td>
                        <Table.Td>
                          {task.last_state ? <StateMark state={task.last_state as ExecutionState} /> : null}
                          <Text size="xs" c="dimmed" component="div"><Ago at={task.last_run_at} /></Text>
                        </Table.Td>
                        <Table.Td><RunBars task={task} runs={runsOf.get(task.id) ?? []} /></Table.Td>
                        <Table.Td>{mayChange ? <TaskMenu task={task} /> : null}</Table.Td>
                      </Table.Tr>
                    ))}
                  </Table.Tbody>
                </Table>
              </Table.ScrollContainer>
            )}
          </Paper>
        )}
      </Loaded>
      {found.hasNextPage ? (
        <Button variant="default" loading={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>{t("common.more")}</Button>
      ) : null}
    </Page>
  );
}

export function NextFire({ task }: { task: Task }) {
  const { t } = useTranslation();
  if (task.schedule_error) return <Text size="sm" c="var(--mantine-color-error)" lineClamp={2}>{t("tasks.broken", { error: task.schedule_error })}</Text>;
  if (!task.is_active) return <Text size="sm" c="dimmed">{t("tasks.paused")}</Text>;
  if (task.schedule === null) return <Text size="sm" c="dimmed">–</Text>;
  if (task.next_run_at === null) {
    const isOver = task.exhausted_at !== null || (task.run_window === null && task.calendar === null);
    return <Text size="sm" c="dimmed">{t(isOver ? "tasks.exhausted" : "tasks.closed")}</Text>;
  }
  return <Ago at={task.next_run_at} />;
}

function Filters({ filters }: { filters: TaskFilters }) {
  const { t } = useTranslation();
  const navigate = useNavigate({ from: "/tasks" });
  const executors = useQuery(executorsQuery);
  const change = (changes: TaskFilters) => void navigate({ search: (before) => ({ ...before, ...changes }), replace: true });
  return (
    <SimpleGrid cols={{ base: 2, md: 6 }} spacing="xs" role="search">
      <SearchBox searched={filters.search ?? ""} placeholder={t("common.search")} search={(text) => change({ search: text || undefined })} />
      <Select aria-label={t("common.type")} placeholder={t("common.type")} clearable data={typesWith(executors.data, filters.task_type)} value={filters.task_type ?? null} onChange={(value) => change({ task_type: value ?? undefined })} />
      <Select aria-label={t("tasks.activity")} placeholder={t("tasks.activity")} clearable data={[{ value: "true", label: t("tasks.active") }, { value: "false", label: t("tasks.paused") }]} value={filters.is_active === undefined ? null : String(filters.is_active)} onChange={(value) => change({ is_active: value === null ? undefined : value === "true" })} />
      <Select aria-label={t("tasks.lastState")} placeholder={t("tasks.lastState")} clearable data={lastStates.map((value) => ({ value, label: t(`state.${value}`) }))} value={filters.last_state ?? null} onChange={(value) => change({ last_state: (value as ExecutionState | null) ?? undefined })} />
      <Select aria-label={t("tasks.order")} allowDeselect={false} data={(["id", "name", "next_run_at"] as const).map((value) => ({ value, label: t(`tasks.order_${value}`) }))} value={filters.order ?? "id"} onChange={(value) => change({ order: value === "id" ? undefined : (value as TaskFilters["order"]) })} />
    </SimpleGrid>
  );
}

function Bulk({ tasks, clear }: { tasks: Task[]; clear: () => void }) {
  const { t } = useTranslation();
  const mayDelete = useMay("admin");
  const confirm = useConfirm();
  const pause = useActOnMany(pauseTask);
  const resume = useActOnMany(resumeTask);
  const run = useActOnMany((id: number) => runTask(id));
  const remove = useActOnMany(deleteTask, clear);
  const ids = tasks.map((task) => task.id);
  const isBusy = [pause, resume, run, remove].some((one) => one.isPending);
  return (
    <Paper withBorder p="xs" radius="md" role="region" aria-label={t("common.selected", { count: tasks.length })}>
      <Group gap="xs">
        <Text size="sm" fw={600}>{t("common.selected", { count: tasks.length })}</Text>
        <Button size="xs" variant="default" disabled={isBusy} leftSection={<IconRocket size={14} aria-hidden />} onClick={() => run.mutate(ids)}>{t("tasks.run")}</Button>
        <Button size="xs" variant="default" disabled={isBusy} leftSection={<IconPlayerPause size={14} aria-hidden />} onClick={() => pause.mutate(ids)}>{t("tasks.pause")}</Button>
        <Button size="xs" variant="default" disabled={isBusy} leftSection={<IconPlayerPlay size={14} aria-hidden />} onClick={() => resume.mutate(ids)}>{t("tasks.resume")}</Button>
        {mayDelete ? (
          <Button
            size="xs"
            color="red"
            variant="outline"
            disabled={isBusy}
            leftSection={<IconTrash size={14} aria-hidden />}
            onClick={() => confirm(t("tasks.bulkDeleteTitle", { count: ids.length }), t("tasks.deleteText"), t("common.delete"), () => remove.mutate(ids))}
          >
            {t("common.delete")}
          </Button>
        ) : null}
        <Button size="xs" variant="subtle" onClick={clear}>{t("common.close")}</Button>
      </Group>
    </Paper>
  );
}

function TaskMenu({ task }: { task: Task }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const run = useAct((id: number) => runTask(id), { done: (execution) => startedText(t, execution) });
  const toggle = useAct(task.is_active ? pauseTask : resumeTask);
  return (
    <Menu position="bottom-end">
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={`${t("common.actions")}: ${task.name}`}><IconDots size={18} aria-hidden /></ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item onClick={() => run.mutate(task.id)}>{t("tasks.run")}</Menu.Item>
        <Menu.Item onClick={() => toggle.mutate(task.id)}>{t(task.is_active ? "tasks.pause" : "tasks.resume")}</Menu.Item>
        <Menu.Item onClick={() => void navigate({ to: "/tasks/$id/edit", params: { id: task.id } })}>{t("common.edit")}</Menu.Item>
        <Menu.Item onClick={() => void navigate({ to: "/tasks/new", search: { from: task.id } })}>{t("common.duplicate")}</Menu.Item>
        <DeleteTask task={task} />
      </Menu.Dropdown>
    </Menu>
  );
}
