import { Alert, Group, Paper, Progress, SegmentedControl, SimpleGrid, Stack, Table, Text, Tooltip } from "@mantine/core";
import { IconAlertTriangle, IconCircleCheck, IconInfoCircle } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { cloneElement, lazy, Suspense, useState, type ReactElement } from "react";
import { useTranslation } from "react-i18next";

import type { ExecutionState, Schemas } from "../api/client";
import { attentionQuery, executionsQuery, firesQuery, statisticsQuery, statusQuery, type ExecutionFilters, type Period } from "../api/queries";
import { Failure, Loaded, Loading } from "../components/feedback";
import { NodeTable } from "../components/nodes";
import { Page, Section } from "../components/page";
import { Dot, StateMark } from "../components/state";
import { Ago, useNow } from "../components/time";
import { clock, count, duration, percent, visible } from "../format";
import { stateColors } from "../theme";

const ThroughputChart = lazy(() => import("../components/chart"));
const running: ExecutionFilters = { state: ["running"] };
const waiting: ExecutionFilters = { state: ["retrying", "pending"] };
const suspended: ExecutionFilters = { state: ["suspended"] };
const underWay: ExecutionFilters = { state: ["running", "retrying", "pending"] };
const SHOWN = 12;
const periods: Period[] = ["hour", "day", "week"];

export default function Overview() {
  const { t } = useTranslation();
  const status = useQuery(statusQuery);
  return (
    <Page
      title={t("overview.title")}
      aside={status.data ? <Text size="sm" c="dimmed">{t("overview.tasksActive", { active: status.data.tasks.active, total: status.data.tasks.total })}</Text> : null}
    >
      <AttentionList />
      <Throughput />
      <SimpleGrid cols={{ base: 1, lg: 2 }} spacing="md">
        <UnderWay />
        <NextFires />
      </SimpleGrid>
      <Section title={t("overview.nodes")} flush><NodeTable /></Section>
    </Page>
  );
}

const looks = {
  error: ["red", IconAlertTriangle],
  warning: ["orange", IconAlertTriangle],
  info: ["blue", IconInfoCircle],
} as const;

function AttentionList() {
  const { t } = useTranslation();
  const found = useQuery(attentionQuery);
  if (found.data === undefined) return found.error ? <Failure error={found.error} retry={() => void found.refetch()} /> : <Loading />;
  if (found.data.length === 0) {
    return (
      <Paper withBorder p="sm" radius="md">
        <Group gap="xs"><IconCircleCheck size={18} color={stateColors.success} aria-hidden /><Text size="sm">{t("overview.allWell")}</Text></Group>
      </Paper>
    );
  }
  return (
    <Stack gap="xs" role="list" aria-label={t("overview.attention")}>
      {found.data.map((finding) => {
        const [color, Icon] = looks[finding.severity];
        return (
          <Alert key={finding.kind} role="listitem" color={color} variant="outline" p="sm" icon={<Icon aria-hidden />} aria-label={t(`severity.${finding.severity}`)} title={t(`attention.${finding.kind}`, { count: finding.count })}>
            <Group gap="sm" c="var(--mantine-color-text)">
              {finding.examples.map((example) => <ExampleLink key={`${example.kind}${example.id}`} example={example} />)}
              {finding.count > finding.examples.length ? <TheRest finding={finding} /> : null}
            </Group>
          </Alert>
        );
      })}
    </Stack>
  );
}

const restLinks: Partial<Record<Schemas["FindingAnswer"]["kind"], ReactElement>> = {
  late_fires: <Link to="/tasks" search={{ is_active: true, order: "next_run_at" }} />,
  broken_schedules: <Link to="/tasks" search={{ is_active: true }} />,
  failing_tasks: <Link to="/tasks" search={{ is_active: true, last_state: "failed" }} />,
  unknown_executors: <Link to="/tasks" search={{ is_active: true }} />,
  parked: <Link to="/executions" search={{ state: ["parked"] }} />,
  waiting_long: <Link to="/executions" search={{ state: ["pending", "suspended"] }} />,
  running_long: <Link to="/executions" search={{ state: ["running"] }} />,
  rescued: <Link to="/executions" search={{ state: ["pending", "running", "retrying", "suspended"] }} />,
  lost: <Link to="/executions" search={{ state: ["failed"] }} />,
  dead_nodes: <Link to="/system" />,
  circuit_open: <Link to="/system" />,
};

/** How many more there are, and where they are among others. */
function TheRest({ finding: { kind, count, examples } }: { finding: Schemas["FindingAnswer"] }) {
  const { t } = useTranslation();
  const link = restLinks[kind];
  const text = t("overview.more", { count: count - examples.length });
  return link === undefined ? <Text size="sm" c="dimmed">{text}</Text> : cloneElement(link, { className: "link" } as object, text);
}

function ExampleLink({ example }: { example: Schemas["ExampleAnswer"] }) {
  const id = Number(example.id);
  if (example.kind === "task") return <Link className="link" to="/tasks/$id" params={{ id }}>{example.name}</Link>;
  if (example.kind === "execution") return <Link className="link" to="/executions/$id" params={{ id }}>{visible(example.name)} #{id}</Link>;
  if (example.kind === "alert") return <Link className="link" to="/alerts">{visible(example.name)}</Link>;
  if (example.kind === "executor") return <Link className="link" to="/executors">{example.name}</Link>;
  return <Link className="link mono" to="/system">{example.id}</Link>;
}

function Throughput() {
  const { t, i18n } = useTranslation();
  const [period, setPeriod] = useState<Period>("hour");
  const found = useQuery(statisticsQuery(period));
  const summary = found.data?.summary;
  const ended = Object.values(summary?.states ?? {}).reduce((sum, one) => sum + one, 0);
  return (
    <Section
      title={t("overview.throughput")}
      aside={
        <SegmentedControl
          size="xs"
          aria-label={t("period.label")}
          value={period}
          onChange={(value) => setPeriod(value as Period)}
          data={periods.map((value) => ({ value, label: t(`period.${value}`) }))}
        />
      }
    >
      <Loaded query={found}>
        {(data) => (
          <>
            <SimpleGrid cols={{ base: 2, sm: 5 }}>
              <Figure name={t("overview.ended")} value={count(ended, i18n.language)} />
              <Figure name={t("overview.successRate")} value={percent(summary?.success_rate, i18n.language)} bad={(summary?.success_rate ?? 1) < 0.9} />
              <Figure name={t("overview.p50")} value={duration(summary?.p50_seconds)} />
              <Figure name={t("overview.p95")} value={duration(summary?.p95_seconds)} />
              <Figure name={t("overview.p99")} value={duration(summary?.p99_seconds)} />
            </SimpleGrid>
            <Suspense fallback={<div style={{ height: 200 }} />}><ThroughputChart data={data} /></Suspense>
            <Group gap="md">
              {(["success", "failed", "cancelled", "skipped"] as ExecutionState[]).map((state) => (
                <Group key={state} gap={6}>
                  <Dot color={stateColors[state]} />
                  <Text size="xs" c="dimmed">{t(`state.${state}`)} {count(summary?.states[state] ?? 0, i18n.language)}</Text>
                </Group>
              ))}
            </Group>
          </>
        )}
      </Loaded>
    </Section>
  );
}

function Figure({ name, value, bad }: { name: string; value: string; bad?: boolean }) {
  return (
    <div>
      <Text size="xs" c="dimmed">{name}</Text>
      <Text size="xl" fw={650} className="number" c={bad ? "var(--mantine-color-error)" : undefined}>{value}</Text>
    </div>
  );
}

/** What runs, then what waits: one question each, or many that wait would leave no room for what runs. */
function UnderWay() {
  const { t } = useTranslation();
  const status = useQuery(statusQuery);
  const inTurn = useInfiniteQuery(executionsQuery(running, SHOWN));
  const later = useInfiniteQuery(executionsQuery(waiting, SHOWN));
  const rows = [inTurn, later].flatMap((one) => one.data?.pages[0]?.items ?? []).slice(0, SHOWN);
  // The next ones are on their way where those that were shown have ended.
  const isAll = !inTurn.hasNextPage && !later.hasNextPage;
  const suspendedCount = status.data?.executions.suspended ?? 0;
  return (
    <Section title={t("overview.running")} flush aside={<Link className="link" to="/executions" search={underWay}>{t("common.all")}</Link>}>
      {suspendedCount > 0 ? (
        <Text size="sm" px="md" pb="xs"><Link className="link" to="/executions" search={suspended}>{t("overview.suspended", { count: suspendedCount })}</Link></Text>
      ) : null}
      <Loaded query={later.data === undefined ? later : inTurn} none={rows.length === 0 ? t(isAll ? "overview.nothingRunning" : "common.loading") : null}>
        {() => (
          <Table className="rows" layout="fixed">
            <Table.Tbody>
              {rows.map((execution) => (
                <Table.Tr key={execution.id}>
                  <Table.Td className="clip"><Link className="link" to="/executions/$id" params={{ id: execution.id }}>{visible(execution.task_name ?? execution.task_type)} #{execution.id}</Link></Table.Td>
                  <Table.Td w={110}><StateMark state={execution.state} /></Table.Td>
                  <Table.Td w={120}>
                    {execution.progress != null ? (
                      <Tooltip label={execution.progress_message ?? `${Math.round(execution.progress * 100)} %`}>
                        <Progress value={execution.progress * 100} aria-label={`${t("execution.progress")}: ${execution.task_name ?? execution.task_type}`} />
                      </Tooltip>
                    ) : (
                      <Ago at={execution.started_at ?? execution.run_at} />
                    )}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        )}
      </Loaded>
    </Section>
  );
}

function NextFires() {
  const { t, i18n } = useTranslation();
  const found = useQuery(firesQuery(60));
  const fires = found.data ?? [];
  return (
    <Section title={t("overview.next")} aside={<Link className="link" to="/calendar">{t("nav.calendar")}</Link>}>
      <Loaded query={found} none={fires.length === 0 ? t("overview.nothingNext") : null}>
        {() => (
          <>
            <FireLine fires={fires} />
            <Table layout="fixed">
              <Table.Tbody>
                {fires.slice(0, 8).map((fire) => (
                  <Table.Tr key={`${fire.task_id}${fire.at}`}>
                    <Table.Td className="clip"><Link className="link" to="/tasks/$id" params={{ id: fire.task_id }}>{fire.task_name}</Link></Table.Td>
                    <Table.Td w={90} className="number">{clock(fire.at, i18n.language)}</Table.Td>
                    <Table.Td w={110}><Ago at={fire.at} /></Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </>
        )}
      </Loaded>
    </Section>
  );
}

const COLUMNS = 60;

/** How many fires there are in each stretch from now to the last one that is known. */
function FireLine({ fires }: { fires: Schemas["FireAnswer"][] }) {
  const { t, i18n } = useTranslation();
  const now = useNow();
  const last = Math.max(...fires.map((fire) => Date.parse(fire.at)), now + 60_000);
  const columns = new Map<number, Schemas["FireAnswer"][]>();
  for (const fire of fires) {
    const place = Math.max(0, Math.min(COLUMNS - 1, Math.floor(((Date.parse(fire.at) - now) / (last - now)) * COLUMNS)));
    columns.set(place, [...(columns.get(place) ?? []), fire]);
  }
  const most = Math.max(...[...columns.values()].map((all) => all.length));
  return (
    <div>
      <div className="timeline" role="img" aria-label={t("overview.timeline")}>
        {[...columns].map(([place, all]) => (
          <Tooltip key={place} label={`${clock(all[0]?.at ?? now, i18n.language)} · ${[...new Set(all.map((fire) => visible(fire.task_name)))].slice(0, 4).join(", ")}`}>
            <a style={{ left: `${((place + 0.5) / COLUMNS) * 100}%`, height: `${25 + 75 * (all.length / most)}%` }} aria-hidden />
          </Tooltip>
        ))}
      </div>
      <Group justify="space-between"><Text size="xs" c="dimmed">{t("overview.nowMark")}</Text><Text size="xs" c="dimmed" className="number">{clock(last, i18n.language)}</Text></Group>
    </div>
  );
}
