import { Alert, Button, Group, NumberInput, Select, SimpleGrid, Stack, Switch, Textarea, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCanGoBack, useNavigate, useRouter } from "@tanstack/react-router";
import { useRef, useState } from "react";
import { useTranslation } from "react-i18next";

import { changeTask, createTask, taskNamed, type JsonObject } from "../api/actions";
import { ApiError, messageOf, Unreachable, type Task } from "../api/client";
import { executorsQuery, taskQuery } from "../api/queries";
import { typesWith } from "../components/executor-types";
import { Empty, Failure, Loading } from "../components/feedback";
import { Page, Section } from "../components/page";
import ParamsForm from "../components/params-form";
import { ScheduleEditor, scheduleOf, type ScheduleDraft } from "../components/schedule-editor";
import { MomentPicker } from "../components/moment-picker";
import { inUnits } from "../components/schedule-text";
import { partOf, useRefusal } from "../components/refusal";
import { KeepUnsent } from "../components/unsent";
import { RateFields, rateDraftOf, rateLimitOf, unlimited, type RateDraft } from "../components/rate-fields";
import { numberOf, type Typed } from "../components/typed-number";
import { always, WindowFields, windowDraftOf, windowOf, type WindowDraft } from "../components/window-fields";
import { browserZone, wallTime } from "../format";
import { jsonOf } from "../json";
import { editTaskRoute, newTaskRoute } from "../router";

interface Draft {
  name: string;
  description: string;
  task_type: string | null;
  params: JsonObject;
  schedule: ScheduleDraft;
  dst_policy: Task["dst_policy"];
  start_at: string | null;
  end_at: string | null;
  is_active: boolean;
  misfire_policy: Task["misfire_policy"];
  misfire_grace_seconds: Typed;
  overlap_policy: Task["overlap_policy"];
  max_attempts: Typed;
  backoff_seconds: Typed;
  timeout_seconds: Typed;
  priority: Typed;
  jitter_seconds: Typed;
  concurrency_key: string;
  concurrency_limit: Typed;
  window: WindowDraft;
  rate: RateDraft;
}

const blank: Draft = {
  name: "",
  description: "",
  task_type: null,
  params: {},
  schedule: { kind: "cron", expression: "0 9 * * 1-5", amount: 15, unit: "minutes", at: null, timezone: browserZone },
  dst_policy: "cron",
  start_at: null,
  end_at: null,
  is_active: true,
  misfire_policy: "latest",
  misfire_grace_seconds: 60,
  overlap_policy: "skip",
  max_attempts: null,
  backoff_seconds: null,
  timeout_seconds: null,
  priority: 0,
  jitter_seconds: 0,
  concurrency_key: "",
  concurrency_limit: null,
  window: always,
  rate: unlimited,
};

/** What a clock of the task shows then; null: the browser does not know that zone, or it is no moment. */
function shownAt(moment: string, zone: string): string | null {
  try {
    return wallTime(moment, zone);
  } catch {
    return null;
  }
}

export function draftOf(task: Task): Draft {
  const { type, expression } = task.schedule ?? { type: "none", expression: "" };
  const every = type === "interval" ? inUnits(Number(expression)) : { amount: 15, unit: "minutes" as const };
  return {
    ...blank,
    ...Object.fromEntries((Object.keys(blank) as (keyof Draft)[]).filter((key) => key in task).map((key) => [key, task[key as keyof Task]])),
    schedule: {
      kind: type as ScheduleDraft["kind"],
      expression: type === "cron" ? expression : blank.schedule.expression,
      ...every,
      at: type === "at" ? shownAt(expression, task.timezone) : null,
      timezone: task.timezone,
    },
    max_attempts: task.retry?.max_attempts ?? null,
    backoff_seconds: task.retry?.backoff_seconds ?? null,
    concurrency_key: task.concurrency_key ?? "",
    window: windowDraftOf(task),
    rate: rateDraftOf(task),
  };
}

/** What stands for an empty input of these. */
const usual = { misfire_grace_seconds: 60, priority: 0, jitter_seconds: 0 };

/** Whether a "once" is left as it was stored: of an hour that comes twice a wall clock does not say which one it is. */
function isAsStored(schedule: ScheduleDraft, before: Task | undefined): boolean {
  return schedule.kind === "at" && before?.schedule?.type === "at" && schedule.timezone === before.timezone && schedule.at === shownAt(before.schedule.expression, before.timezone);
}

/** The draft as the API takes it. What the form does not show of the task that it was made from stays as it was. */
export function definitionOf(draft: Draft, before?: Task): JsonObject {
  const { schedule, max_attempts, backoff_seconds, concurrency_key, concurrency_limit, window, rate, ...plain } = draft;
  const attempts = numberOf(max_attempts);
  return {
    ...plain,
    timeout_seconds: numberOf(draft.timeout_seconds),
    misfire_grace_seconds: numberOf(draft.misfire_grace_seconds) ?? usual.misfire_grace_seconds,
    priority: numberOf(draft.priority) ?? usual.priority,
    jitter_seconds: numberOf(draft.jitter_seconds) ?? usual.jitter_seconds,
    ...windowOf(window),
    rate_limit: rateLimitOf(rate),
    schedule: isAsStored(schedule, before) ? { type: "at", at: before?.schedule?.expression } : scheduleOf(schedule),
    timezone: schedule.timezone,
    // Without a number of attempts the executor says how it is retried.
    retry: attempts === null ? null : { ...before?.retry, max_attempts: attempts, backoff_seconds: numberOf(backoff_seconds) ?? undefined },
    concurrency_key: concurrency_key.trim() || null,
    concurrency_limit: concurrency_key.trim() ? numberOf(concurrency_limit) : null,
  };
}

/** The inputs of numbers, as the API calls them. */
const numeric = [
  ...["retry.max_attempts", "retry.backoff_seconds", "timeout_seconds", "misfire_grace_seconds", "priority", "jitter_seconds"],
  ...["concurrency_limit", "rate_limit.limit", "rate_limit.per_seconds", "rate_limit.burst", "schedule.seconds"],
];

/** Where a number was to be and is none. */
export function notNumbers(definition: JsonObject): string[] {
  return numeric.filter((path) => typeof partOf(definition, path) === "string");
}

/** What was changed, as the API takes it: what a person left alone is not sent back, however it was read. */
export function changesOf(draft: Draft, before: Task): JsonObject {
  const shown = definitionOf(draftOf(before), before);
  const wanted = definitionOf(draft, before);
  const changed = Object.fromEntries(Object.entries(wanted).filter(([field, value]) => jsonOf(value) !== jsonOf(shown[field])));
  // Nine o'clock is another moment in another zone.
  return "timezone" in changed ? { ...changed, schedule: wanted.schedule } : changed;
}

/** The task that a form starts from: as it is now and not as it was when it was last shown, and then left alone
 * whatever others do meanwhile, since the server compares versions. */
function useOpened(id: number | undefined) {
  return useQuery({ ...taskQuery(id ?? 0), queryKey: ["tasks", "opened", id ?? 0], enabled: id !== undefined, staleTime: "static", gcTime: 0 });
}

export function NewTask() {
  const { t } = useTranslation();
  const { from, type } = newTaskRoute.useSearch();
  const source = useOpened(from);
  const isAnswerLost = useRef(false);
  const create = async (wanted: Draft) => {
    try {
      return await createTask(definitionOf(wanted, source.data));
    } catch (failure) {
      // The name may be taken by the task that was made when the answer was lost: the very one that is wanted.
      const made = isAnswerLost.current && failure instanceof ApiError && failure.status === 409 ? await taskNamed(wanted.name.trim()) : undefined;
      if (made !== undefined && Object.keys(changesOf(wanted, made)).length === 0) return made;
      isAnswerLost.current ||= failure instanceof Unreachable;
      throw failure;
    }
  };
  if (from !== undefined && source.data === undefined) {
    return source.error ? <Failure error={source.error} retry={() => void source.refetch()} /> : <Loading />;
  }
  const draft = source.data ? { ...draftOf(source.data), name: copyName(source.data.name) } : { ...blank, task_type: type ?? null };
  return <TaskForm key={from} title={t("form.createTitle")} initial={draft} before={source.data} save={create} label={t("common.create")} />;
}

const LONGEST_NAME = 200;

/** As the server counts: in characters and not in their halves. */
function copyName(name: string): string {
  return `${Array.from(name).slice(0, LONGEST_NAME - 2).join("")} 2`;
}

export function EditTask() {
  const { t } = useTranslation();
  const { id } = editTaskRoute.useParams();
  const found = useOpened(id);
  const task = found.data;
  if (task === undefined) return found.error ? <Failure error={found.error} retry={() => void found.refetch()} /> : <Loading />;
  return (
    <TaskForm
      title={t("form.editTitle", { name: task.name })}
      initial={draftOf(task)}
      before={task}
      anchor={task.created_at}
      save={(wanted) => changeTask(id, task.version, changesOf(wanted, task))}
      label={t("common.save")}
    />
  );
}

/** Where the form says what is wrong: at these and at all inside them. */
const inputs = [
  ...["name", "description", "task_type", "params", "schedule", "timezone", "overlap_policy", "misfire_policy", "misfire_grace_seconds"],
  ...["retry.max_attempts", "retry.backoff_seconds", "timeout_seconds", "priority", "jitter_seconds", "concurrency_key", "concurrency_limit"],
  ...["rate_limit", "run_window", "calendar", "closed_policy", "dst_policy", "start_at", "end_at"],
];

/** The part of a definition that decides when it fires. */
function firingOf({ schedule, timezone, dst_policy, start_at, end_at, jitter_seconds, run_window, calendar, closed_policy }: JsonObject): JsonObject {
  return { schedule, timezone, dst_policy, start_at, end_at, jitter_seconds, run_window, calendar, closed_policy };
}

interface FormProps {
  title: string;
  initial: Draft;
  /** What the draft was made from, of which it shows a part. */
  before?: Task | undefined;
  /** Where an interval counts from: when the task was created. */
  anchor?: string;
  save: (draft: Draft) => Promise<Task>;
  label: string;
}

function TaskForm({ title, initial, before, anchor, save, label }: FormProps) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { history } = useRouter();
  const canGoBack = useCanGoBack();
  const leave = () => (canGoBack ? history.back() : void navigate({ to: "/tasks" }));
  const client = useQueryClient();
  const executors = useQuery(executorsQuery);
  const [opened] = useState(initial);
  const [draft, setDraft] = useState(initial);
  const definition = definitionOf(draft, before);
  const [areParamsJson, setParamsJson] = useState(true);
  const [isBusy, setBusy] = useState(false);
  const { error, errors, refuse, forget } = useRefusal(definition);
  const unplaced = Object.entries(errors).filter(([path]) => !inputs.some((input) => path === input || path.startsWith(`${input}.`)));
  const change = (changes: Partial<Draft>) => setDraft((before) => ({ ...before, ...changes }));
  const executor = executors.data?.find((item) => item.type === draft.task_type);

  const paramsOf = useRef(new Map<string | null, JsonObject>());
  const choose = (task_type: string | null) => {
    paramsOf.current.set(draft.task_type, draft.params);
    change({ task_type, params: paramsOf.current.get(task_type) ?? {} });
  };

  const submit = async () => {
    const wrong = notNumbers(definition);
    if (wrong.length > 0) {
      const message = t("invalid.type", { kind: t("kind.number") });
      refuse(new ApiError(422, { errors: wrong.map((field) => ({ field, message, kind: "type" })) }));
      return;
    }
    setBusy(true);
    forget();
    try {
      const task = await save(draft);
      await client.invalidateQueries();
      notifications.show({ message: t("form.saved", { name: task.name }), color: "teal" });
      await navigate({ to: "/tasks/$id", params: { id: task.id }, ignoreBlocker: true });
    } catch (failure) {
      refuse(failure);
    } finally {
      setBusy(false);
    }
  };

  return (
    <Page title={title}>
      <KeepUnsent isDirty={jsonOf(draft) !== jsonOf(opened)} />
      <form
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <Stack gap="md">
          <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md" style={{ alignItems: "start" }}>
            <Stack gap="md">
              <Section title={t("task.summary")}>
                <TextInput label={t("form.name")} value={draft.name} onChange={(event) => change({ name: event.currentTarget.value })} error={errors.name} required />
                <Textarea label={t("form.description")} value={draft.description} onChange={(event) => change({ description: event.currentTarget.value })} error={errors.description} autosize minRows={2} />
                <Select label={t("form.executor")} value={draft.task_type} data={typesWith(executors.data, draft.task_type)} onChange={choose} error={errors.task_type} allowDeselect={false} searchable required />
                <Switch label={t("form.active")} checked={draft.is_active} onChange={(event) => change({ is_active: event.currentTarget.checked })} />
              </Section>
              <Section title={t("form.params")}>
                {executors.data === undefined ? (
                  <Loading />
                ) : draft.task_type === null ? (
                  <Empty>{t("form.executorFirst")}</Empty>
                ) : (
                  <ParamsForm key={draft.task_type} executor={executor} value={draft.params} onChange={(params) => change({ params })} onValid={setParamsJson} errors={errors} />
                )}
              </Section>
            </Stack>
            <Stack gap="md">
              <Section title={t("form.schedule")}>
                <ScheduleEditor draft={draft.schedule} onChange={(schedule) => change({ schedule })} errors={errors} firing={{ definition: firingOf(definition), anchor }} />
              </Section>
              <Section title={t("form.policies")}>
                <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm" style={{ alignItems: "end" }}>
                  <Select label={t("form.overlap")} value={draft.overlap_policy} allowDeselect={false} data={(["skip", "queue", "allow", "cancel_running"] as const).map((value) => ({ value, label: t(`form.overlap_${value}`) }))} onChange={(value) => change({ overlap_policy: (value ?? "skip") as Draft["overlap_policy"] })} error={errors.overlap_policy} />
                  <Select label={t("form.misfire")} value={draft.misfire_policy} allowDeselect={false} data={(["latest", "all", "skip"] as const).map((value) => ({ value, label: t(`form.misfire_${value}`) }))} onChange={(value) => change({ misfire_policy: (value ?? "latest") as Draft["misfire_policy"] })} error={errors.misfire_policy} />
                  <Numeric label={t("form.attempts")} value={draft.max_attempts} onChange={(max_attempts) => change({ max_attempts })} error={errors["retry.max_attempts"]} />
                  <Numeric label={t("form.backoff")} value={draft.backoff_seconds} onChange={(backoff_seconds) => change({ backoff_seconds })} error={errors["retry.backoff_seconds"]} disabled={numberOf(draft.max_attempts) === null} />
                  <Numeric label={t("form.timeout")} value={draft.timeout_seconds} onChange={(timeout_seconds) => change({ timeout_seconds })} error={errors.timeout_seconds} />
                  <Numeric label={t("form.grace")} value={draft.misfire_grace_seconds} usually={usual.misfire_grace_seconds} onChange={(misfire_grace_seconds) => change({ misfire_grace_seconds })} error={errors.misfire_grace_seconds} />
                  <Numeric label={t("form.priority")} value={draft.priority} usually={usual.priority} onChange={(priority) => change({ priority })} error={errors.priority} />
                  <Numeric label={t("form.jitter")} value={draft.jitter_seconds} usually={usual.jitter_seconds} onChange={(jitter_seconds) => change({ jitter_seconds })} error={errors.jitter_seconds} />
                  <TextInput label={t("form.key")} value={draft.concurrency_key} onChange={(event) => change({ concurrency_key: event.currentTarget.value })} error={errors.concurrency_key} />
                  <Numeric label={t("form.limit")} value={draft.concurrency_limit} onChange={(concurrency_limit) => change({ concurrency_limit })} error={errors.concurrency_limit} disabled={draft.concurrency_key.trim() === ""} />
                  <RateFields draft={draft.rate} onChange={(changes) => change({ rate: { ...draft.rate, ...changes } })} errors={errors} />
                </SimpleGrid>
              </Section>
              <Section title={t("window.title")}>
                <Stack gap="sm">
                  <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm" style={{ alignItems: "end" }}>
                    <MomentPicker label={t("form.start_at", { zone: browserZone })} value={draft.start_at} onChange={(start_at) => change({ start_at })} error={errors.start_at} clearable />
                    <MomentPicker label={t("form.end_at", { zone: browserZone })} value={draft.end_at} onChange={(end_at) => change({ end_at })} error={errors.end_at} clearable />
                  </SimpleGrid>
                  <WindowFields draft={draft.window} onChange={(changes) => change({ window: { ...draft.window, ...changes } })} errors={errors} />
                  <Select label={t("form.dst")} value={draft.dst_policy} allowDeselect={false} data={(["cron", "skip"] as const).map((value) => ({ value, label: t(`form.dst_${value}`) }))} onChange={(value) => change({ dst_policy: value === "skip" ? "skip" : "cron" })} error={errors.dst_policy} disabled={draft.schedule.kind !== "cron"} />
                </Stack>
              </Section>
            </Stack>
          </SimpleGrid>
          {error !== undefined ? (
            <Alert color="red" variant="outline" role="alert" title={error instanceof ApiError && error.status === 412 ? t("form.conflict") : t("common.error")}>
              {unplaced.length > 0 ? unplaced.map(([path, message]) => <div key={path}>{path}: {message}</div>) : Object.keys(errors).length > 0 ? t("form.atFields") : messageOf(error)}
            </Alert>
          ) : null}
          <Group justify="flex-end">
            <Button variant="default" onClick={leave}>{t("common.cancel")}</Button>
            <Button type="submit" loading={isBusy} disabled={!areParamsJson}>{label}</Button>
          </Group>
        </Stack>
      </form>
    </Page>
  );
}

interface NumericProps {
  label: string;
  value: Typed;
  onChange: (value: Typed) => void;
  error?: string | undefined;
  disabled?: boolean;
  /** What stands for an empty input. */
  usually?: number;
}

function Numeric({ value, usually, ...props }: NumericProps) {
  return <NumberInput value={value ?? ""} placeholder={usually === undefined ? undefined : String(usually)} {...props} />;
}
