import { Alert, Button, Checkbox, Group, Menu, Progress, SimpleGrid, Stack, Text, Timeline } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconChevronDown, IconPlayerStop, IconRefresh } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useEffect, useRef, useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { cancelExecution, enqueue, readLogs, retryExecution, runTask } from "../api/actions";
import { isGone, type ExecutionDetail, type ExecutionState, type Schemas } from "../api/client";
import { executionQuery, executorsQuery } from "../api/queries";
import { useAct } from "../components/act";
import { AskParams } from "../components/ask-params";
import { useCopy } from "../components/copy";
import { Decision } from "../components/decision";
import { Took } from "../components/execution-table";
import { Children, Parent } from "../components/family";
import { Block, Empty, Failure, JsonBlock, Loading } from "../components/feedback";
import { Facts, Page, Section } from "../components/page";
import { useMay } from "../components/session";
import { Dot, StateMark, reasonText, startedText, triggerText } from "../components/state";
import { Signals, Steps } from "../components/steps";
import { Ago, Moment, useNow } from "../components/time";
import { WorkflowGraph } from "../components/workflow-graph";
import { asCurl, asPython } from "../snippets";
import { clock, duration, visible } from "../format";
import { executionRoute } from "../router";
import { stateColors } from "../theme";

const retryable: ExecutionState[] = ["failed", "cancelled", "parked"];
const over: ExecutionState[] = ["success", "failed", "cancelled", "skipped"];

export default function ExecutionPage() {
  const { id } = executionRoute.useParams();
  const found = useQuery(executionQuery(id));
  if (found.data === undefined || isGone(found.error)) return found.error ? <Failure error={found.error} retry={() => void found.refetch()} /> : <Loading />;
  return <Shown execution={found.data} />;
}

function Shown({ execution }: { execution: ExecutionDetail }) {
  const { t } = useTranslation();
  const name = execution.task_name ?? execution.task_type;
  const last = execution.attempts.at(-1);
  return (
    <Page title={`${name} #${execution.id}`} aside={<Actions execution={execution} />}>
      <Group gap="md">
        <StateMark state={execution.state} reason={execution.reason} />
        <Text size="sm" c="dimmed" component="div">{t("execution.took")} <Took execution={execution} /><InAll execution={execution} /></Text>
        {execution.cancel_requested_at && !over.includes(execution.state) ? <Text size="sm" c="var(--mantine-color-error)">{t("execution.cancelling")}</Text> : null}
      </Group>
      {execution.progress != null && !over.includes(execution.state) ? (
        <div>
          <Progress value={execution.progress * 100} size="lg" aria-label={t("execution.progress")} />
          <Text size="sm" c="dimmed">{Math.round(execution.progress * 100)} % {visible(execution.progress_message ?? "")}</Text>
        </div>
      ) : null}
      {execution.error ? (
        <Alert color="red" variant="outline" title={visible(execution.message ?? t("execution.error"))}>
          <Text size="sm" className="mono wrap" c="var(--mantine-color-text)">{visible(execution.error)}</Text>
        </Alert>
      ) : null}
      {execution.task_type === "approval" && execution.state === "suspended" ? (
        <Section title={t("approvals.question")}><Decision id={execution.id} title={`#${execution.id}`} approvers={approversOf(execution)} /></Section>
      ) : null}
      {execution.task_type === "workflow" ? <WorkflowGraph id={execution.id} isOver={over.includes(execution.state)} /> : null}
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <Section title={t("common.details")}><Details execution={execution} /></Section>
        <Section title={t("execution.timeline")}><Attempts attempts={execution.attempts} /></Section>
      </SimpleGrid>
      <Children execution={execution} />
      <Steps execution={execution} />
      <Signals execution={execution} isOver={over.includes(execution.state)} />
      <SimpleGrid cols={{ base: 1, md: execution.result === null ? 1 : 2 }} spacing="md">
        <Section title={t("execution.params")}><JsonBlock value={execution.params} label={t("execution.params")} /></Section>
        {execution.result === null ? null : <Section title={t("execution.result")}><JsonBlock value={execution.result} label={t("execution.result")} /></Section>}
      </SimpleGrid>
      {last?.traceback ? <Section title={t("execution.traceback")}><Block text={last.traceback} label={t("execution.traceback")} /></Section> : null}
      <Log key={`${execution.id} ${execution.finished_at}`} execution={execution} />
    </Page>
  );
}

const approversOf = ({ params: { approvers } }: ExecutionDetail): string[] => (Array.isArray(approvers) ? approvers.map(String) : []);

function Details({ execution }: { execution: ExecutionDetail }) {
  const { t } = useTranslation();
  const executors = useQuery(executorsQuery);
  const ofExecutor = executors.data?.find((one) => one.type === execution.task_type)?.timeout_seconds;
  const optional = (name: string, value: ReactNode): [string, ReactNode][] => (value == null || value === false || value === 0 ? [] : [[name, value]]);
  return (
    <Facts
      items={[
        [t("executions.task"), execution.task_id === null ? "–" : <Link className="link" to="/tasks/$id" params={{ id: execution.task_id }}>{execution.task_name}</Link>],
        [t("common.type"), execution.task_type],
        [t("execution.trigger"), `${triggerText(t, execution.trigger)}${execution.triggered_by ? ` · ${t("execution.by", { who: execution.triggered_by })}` : ""}`],
        ...optional(t("execution.parent"), execution.parent && <Parent parent={execution.parent} childKey={execution.child_key} />),
        ...optional(t("execution.message"), execution.message && visible(execution.message)),
        ...optional(t("execution.scheduledFor"), execution.scheduled_for && <><Moment at={execution.scheduled_for} />{execution.fire_count > 1 ? ` · ${t("execution.fireCount", { count: execution.fire_count })}` : ""}</>),
        [t("execution.created"), <Moment key="created" at={execution.created_at} />],
        ...optional(t("execution.runAt"), execution.run_at !== null && execution.run_at !== execution.created_at && <Moment at={execution.run_at} />),
        [t("execution.startedAt"), <Moment key="started" at={execution.started_at} />],
        [t("execution.finishedAt"), <Moment key="finished" at={execution.finished_at} />],
        [t("task.timeout"), execution.timeout_seconds == null && ofExecutor != null ? t("execution.limitOfExecutor", { limit: duration(ofExecutor) }) : duration(execution.timeout_seconds)],
        ...optional(t("execution.owner"), execution.owner),
        ...optional(t("execution.key"), execution.concurrency_key && `${execution.concurrency_key} ≤ ${execution.concurrency_limit ?? 1}`),
        ...optional(t("execution.idempotency"), execution.idempotency_key),
        ...optional(t("execution.priority"), execution.priority),
        ...optional(t("execution.rescues"), execution.rescues),
      ]}
    />
  );
}

const attemptState = (attempt: Schemas["AttemptAnswer"]): ExecutionState =>
  attempt.status === "success" ? "success" : attempt.status === "running" ? "running" : "failed";

/** From the first attempt to the end: what was suspended or tried again took longer than its last attempt. */
function InAll({ execution }: { execution: ExecutionDetail }) {
  const { t } = useTranslation();
  const now = useNow();
  const first = execution.attempts[0];
  if (first === undefined || execution.attempts.length < 2) return null;
  const end = execution.finished_at === null ? now : Date.parse(execution.finished_at);
  return <> · {t("execution.inAll")} {duration(Math.max(0, (end - Date.parse(first.started_at)) / 1000))}</>;
}

function Attempts({ attempts }: { attempts: Schemas["AttemptAnswer"][] }) {
  const { t } = useTranslation();
  if (attempts.length === 0) return <Empty>{t("execution.noAttempts")}</Empty>;
  return (
    <Timeline bulletSize={14} lineWidth={2} active={attempts.length} color="gray">
      {attempts.map((attempt) => (
        <Timeline.Item
          key={attempt.number}
          bullet={<Dot color={stateColors[attemptState(attempt)]} />}
          title={<Text size="sm" fw={600}>{t("execution.attemptNumber", { number: attempt.number })} · {t(`state.${attemptState(attempt)}`)}{attempt.reason ? ` · ${reasonText(t, attempt.reason)}` : ""}</Text>}
        >
          <Text size="xs" c="dimmed" component="div"><Ago at={attempt.started_at} /> · {duration(attempt.duration_seconds)} · <span className="mono">{attempt.node}</span></Text>
          {attempt.error ? <Text size="xs" className="mono wrap">{visible(attempt.error)}</Text> : null}
        </Timeline.Item>
      ))}
    </Timeline>
  );
}

function Actions({ execution }: { execution: ExecutionDetail }) {
  const { t } = useTranslation();
  const mayChange = useMay("operator");
  const navigate = useNavigate();
  const copy = useCopy();
  const [isAsking, ask] = useDisclosure();
  const retry = useAct(retryExecution);
  const cancel = useAct(cancelExecution);
  const again = useAct(
    (params: Record<string, unknown>) =>
      execution.task_id === null
        ? enqueue({ task_type: execution.task_type, params: params, priority: execution.priority })
        : runTask(execution.task_id, params),
    { done: (made) => startedText(t, made), then: (made) => void navigate({ to: "/executions/$id", params: { id: made.id } }) },
  );
  return (
    <>
      {mayChange && retryable.includes(execution.state) ? (
        <Button leftSection={<IconRefresh size={16} aria-hidden />} loading={retry.isPending} onClick={() => retry.mutate(execution.id)}>{t("execution.retry")}</Button>
      ) : null}
      {mayChange && !over.includes(execution.state) ? (
        <Button variant="default" c="var(--mantine-color-error)" leftSection={<IconPlayerStop size={16} aria-hidden />} loading={cancel.isPending} onClick={() => cancel.mutate(execution.id)}>{t("execution.cancel")}</Button>
      ) : null}
      <Menu position="bottom-end">
        <Menu.Target><Button variant="default" rightSection={<IconChevronDown size={16} aria-hidden />}>{t("common.actions")}</Button></Menu.Target>
        <Menu.Dropdown>
          {mayChange ? <Menu.Item onClick={ask.open}>{t("execution.again")}</Menu.Item> : null}
          <Menu.Item onClick={() => void copy(asCurl(execution))}>{t("execution.curl")}</Menu.Item>
          <Menu.Item onClick={() => void copy(asPython(execution))}>{t("execution.python")}</Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <AskParams opened={isAsking} title={t("execution.againTitle")} taskType={execution.task_type} params={execution.params} onClose={ask.close} submit={(params) => again.mutateAsync(params)} />
    </>
  );
}

const FOLLOW_MILLISECONDS = 1_000;

function Log({ execution }: { execution: ExecutionDetail }) {
  const { t, i18n } = useTranslation();
  const [lines, setLines] = useState<Schemas["LogAnswer"][]>([]);
  const [follows, setFollows] = useState(true);
  const [error, setError] = useState<unknown>();
  const box = useRef<HTMLDivElement>(null);
  const isOver = over.includes(execution.state);
  const { id, finished_at: finishedAt } = execution;

  useEffect(() => {
    let isGone = false;
    let after = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = async () => {
      try {
        const page = await readLogs(id, after);
        if (isGone) return;
        after = page.after;
        if (page.items.length > 0) setLines((before) => [...before, ...page.items]);
        setError(undefined);
        if (page.items.length === 500) return void read();
      } catch (failure) {
        setError(failure);
      }
      if (!isOver) timer = setTimeout(() => void read(), FOLLOW_MILLISECONDS);
    };
    void read();
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [id, isOver, finishedAt]);

  useEffect(() => {
    if (follows && !isOver) box.current?.scrollTo({ top: box.current.scrollHeight });
  }, [lines, follows, isOver]);

  return (
    <Section
      title={t("execution.logs")}
      aside={isOver ? null : <Checkbox size="xs" label={t("execution.follow")} checked={follows} onChange={(event) => setFollows(event.currentTarget.checked)} />}
    >
      {error !== undefined ? <Failure error={error} /> : null}
      {lines.length === 0 ? (
        <Empty>{t("execution.noLogs")}</Empty>
      ) : (
        <div className="log mono" ref={box} tabIndex={0} role="log" aria-label={t("execution.logs")}>
          {lines.map((line) => (
            <Stack key={line.id} gap={0}>
              <div className="wrap">
                <span style={{ opacity: 0.75 }}>{clock(line.logged_at, i18n.language)} {line.level.padEnd(7)} {line.attempt > 1 ? `[${line.attempt}] ` : ""}</span>
                {visible(line.message)}
              </div>
            </Stack>
          ))}
        </div>
      )}
    </Section>
  );
}
