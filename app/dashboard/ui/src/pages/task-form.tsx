import { Alert, Button, Group, NumberInput, Select, SimpleGrid, Stack, Switch, Textarea, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCanGoBack, useNavigate, useRouter } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { changeTask, createTask, type JsonObject } from "../api/actions";
import { ApiError, messageOf, type Task } from "../api/client";
import { executorsQuery, taskQuery } from "../api/queries";
import { Empty, Failure, Loading } from "../components/feedback";
import { Page, Section } from "../components/page";
import ParamsForm from "../components/params-form";
import { ScheduleEditor, scheduleOf, type ScheduleDraft } from "../components/schedule-editor";
import { MomentPicker } from "../components/moment-picker";
import { inUnits } from "../components/schedule-text";
import { useRefusal } from "../components/refusal";
import { RateFields, rateDraftOf, rateLimitOf, unlimited, type RateDraft } from "../components/rate-fields";
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
  misfire_grace_seconds: number;
  overlap_policy: Task["overlap_policy"];
  max_attempts: number | null;
  backoff_seconds: number | null;
  timeout_seconds: number | null;
  priority: number;
  jitter_seconds: number;
  concurrency_key: string;
  concurrency_limit: number | null;
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

/** The draft as the API takes it. What the form does not show of the task that it was made from stays as it was. */
export function definitionOf(draft: Draft, before?: Task): JsonObject {
  const { schedule, max_attempts, backoff_seconds, concurrency_key, concurrency_limit, window, rate, ...plain } = draft;
  const retry = {
    ...before?.retry,
    ...(max_attempts === null ? {} : { max_attempts }),
    ...(backoff_seconds === null ? {} : { backoff_seconds }),
  };
  return {
    ...plain,
    ...windowOf(window),
    rate_limit: rateLimitOf(rate),
    schedule: scheduleOf(schedule),
    timezone: schedule.timezone,
    retry: max_attempts === null && backoff_seconds === null ? null : retry,
    concurrency_key: concurrency_key.trim() || null,
    concurrency_limit: concurrency_key.trim() ? concurrency_limit : null,
  };
}

/** What was changed, as the API takes it: what a person left alone is not sent back, however it was read. */
export function changesOf(draft: Draft, before: Task): JsonObject {
  const shown = definitionOf(draftOf(before), before);
  const wanted = definitionOf(draft, before);
  const changed = Object.fromEntries(Object.entries(wanted).filter(([field, value]) => jsonOf(value) !== jsonOf(shown[field])));
  // Nine o'clock is another moment in another zone.
  return "timezone" in changed ? { ...changed, schedule: wanted.schedule } : changed;
}

export function NewTask() {
  const { t } = useTranslation();
  const { from, type } = newTaskRoute.useSearch();
  const source = useQuery({ ...taskQuery(from ?? 0), enabled: from !== undefined });
  if (from !== undefined && source.data === undefined) {
    return source.error ? <Failure error={source.error} /> : <Loading />;
  }
  const draft = source.data ? { ...draftOf(source.data), name: `${source.data.name} 2` } : { ...blank, task_type: type ?? null };
  return <TaskForm key={from} title={t("form.createTitle")} initial={draft} before={source.data} save={(wanted) => createTask(definitionOf(wanted, source.data))} label={t("common.create")} />;
}

export function EditTask() {
  const { t } = useTranslation();
  const { id } = editTaskRoute.useParams();
  const found = useQuery({ ...taskQuery(id), staleTime: Infinity, refetchOnWindowFocus: false });
  const [opened, setOpened] = useState<Task>();
  if (found.data === undefined) return found.error ? <Failure error={found.error} /> : <Loading />;
  // What was opened is what the change is meant for, whatever others do meanwhile: the server compares versions.
  const task = opened ?? found.data;
  if (opened === undefined) setOpened(found.data);
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
  const [draft, setDraft] = useState(initial);
  const definition = definitionOf(draft, before);
  const [areParamsJson, setParamsJson] = useState(true);
  const [isBusy, setBusy] = useState(false);
  const { error, errors, refuse, forget } = useRefusal(definition);
  const unplaced = Object.entries(errors).filter(([path]) => !inputs.some((input) => path === input || path.startsWith(`${input}.`)));
  const change = (changes: Partial<Draft>) => setDraft((before) => ({ ...before, ...changes }));
  const executor = executors.data?.find((item) => item.type === draft.task_type);

  const submit = async () => {
    setBusy(true);
    forget();
    try {
      const task = await save(draft);
      await client.invalidateQueries();
      notifications.show({ message: t("form.saved", { name: task.name }), color: "teal" });
      await navigate({ to: "/tasks/$id", params: { id: task.id } });
    } catch (failure) {
      refuse(failure);
    } finally {
      setBusy(false);
    }
  };

  return (
    <Page title={title}>
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
                <Select label={t("form.executor")} value={draft.task_type} data={executors.data?.map((item) => item.type) ?? []} onChange={(value) => change({ task_type: value, params: {} })} error={errors.task_type} allowDeselect={false} searchable required />
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
                  <Numeric label={t("form.backoff")} value={draft.backoff_seconds} onChange={(backoff_seconds) => change({ backoff_seconds })} error={errors["retry.backoff_seconds"]} />
                  <Numeric label={t("form.timeout")} value={draft.timeout_seconds} onChange={(timeout_seconds) => change({ timeout_seconds })} error={errors.timeout_seconds} />
                  <Numeric label={t("form.grace")} value={draft.misfire_grace_seconds} onChange={(value) => change({ misfire_grace_seconds: value ?? 60 })} error={errors.misfire_grace_seconds} />
                  <Numeric label={t("form.priority")} value={draft.priority} onChange={(value) => change({ priority: value ?? 0 })} error={errors.priority} />
                  <Numeric label={t("form.jitter")} value={draft.jitter_seconds} onChange={(value) => change({ jitter_seconds: value ?? 0 })} error={errors.jitter_seconds} />
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
  value: number | null;
  onChange: (value: number | null) => void;
  error?: string | undefined;
  disabled?: boolean;
}

function Numeric({ label, value, onChange, error, disabled }: NumericProps) {
  return <NumberInput label={label} value={value ?? ""} onChange={(next) => onChange(next === "" ? null : Number(next))} error={error} disabled={disabled} />;
}
