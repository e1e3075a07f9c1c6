import "@mantine/dates/styles.css";

import { Button, MultiSelect, NumberInput, Select, SimpleGrid, Stack, Switch, TextInput } from "@mantine/core";
import { TimeInput } from "@mantine/dates";
import { useDebouncedValue } from "@mantine/hooks";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { changeRule, createRule } from "../api/actions";
import { ApiError, errorOf, type Schemas } from "../api/client";
import { channelsQuery, taskQuery, tasksQuery } from "../api/queries";
import { browserZone } from "../format";
import { jsonOf } from "../json";
import { useAct } from "./act";
import { Failure } from "./feedback";
import { DraftModal } from "./unsent";

export type Rule = Schemas["AlertRuleAnswer"];
type Condition = Schemas["RuleDefinition"]["condition"];
export type Kind = Condition["type"];

/** What a condition of each kind starts with, and the name of its one number that is asked for. */
const usual: Record<Kind, [Condition, asked: string]> = {
  failed: [{ type: "failed", times: 3 }, "times"],
  late: [{ type: "late", seconds: 60 }, "seconds"],
  slow: [{ type: "slow", factor: 3, at_least_seconds: 1, least_runs: 20 }, "factor"],
  no_success: [{ type: "no_success", seconds: 86_400 }, "seconds"],
  parked: [{ type: "parked", count: 1 }, "count"],
};
const kinds = Object.keys(usual) as Kind[];
const severities = ["warning", "critical"] as const;

export const kindOf = (rule: Rule) => rule.condition.type as Kind;
const numberOf = (condition: Record<string, unknown>, kind: Kind) => Number(condition[usual[kind][1]]);
export const amountOf = (rule: Rule) => numberOf(rule.condition, kindOf(rule));

/** The condition as the API takes it; what else a condition of the same kind says is kept. */
export function conditionOf(kind: Kind, amount: number, before?: Rule["condition"]): Condition {
  const [start, asked] = usual[kind];
  return { ...(before?.type === kind ? before : start), [asked]: amount } as Condition;
}

/** Make a rule, or change one. */
export function RuleForm({ rule, onClose }: { rule?: Rule | undefined; onClose: () => void }) {
  const { t } = useTranslation();
  const channels = useQuery(channelsQuery);
  const [name, setName] = useState(rule?.name ?? "");
  const [taskId, setTaskId] = useState(rule?.task_id ?? null);
  const [kind, setKind] = useState<Kind>(rule ? kindOf(rule) : "failed");
  const [amount, setAmount] = useState<number | string>(rule ? amountOf(rule) : numberOf({ ...usual.failed[0] }, "failed"));
  const [severity, setSeverity] = useState(rule?.severity === "critical" ? ("critical" as const) : ("warning" as const));
  const [told, setTold] = useState(rule?.channel_ids.map(String) ?? []);
  const [remind, setRemind] = useState<number | string>(rule?.remind_seconds ?? "");
  const [recovery, setRecovery] = useState(rule?.notify_recovery ?? true);
  const [from, setFrom] = useState(rule?.quiet_hours?.start ?? "");
  const [until, setUntil] = useState(rule?.quiet_hours?.end ?? "");
  const zone = rule?.quiet_hours?.timezone ?? browserZone;
  const save = useAct(
    (definition: Schemas["RuleDefinition"]) => (rule ? changeRule({ id: rule.id, ...definition }) : createRule(definition)),
    { then: onClose },
  );
  const fields = save.error instanceof ApiError ? save.error.fields : {};
  const isElsewhere = save.error !== null && !["name", "task_id", "condition", "channel_ids", "remind_seconds", "quiet_hours"].some((field) => errorOf(fields, field));

  const definition: Schemas["RuleDefinition"] = {
    name,
    task_id: taskId,
    condition: conditionOf(kind, Number(amount), rule?.condition),
    severity,
    channel_ids: told.map(Number),
    remind_seconds: remind === "" ? null : Number(remind),
    notify_recovery: recovery,
    quiet_hours: from === "" && until === "" ? null : { start: from || "00:00", end: until || "00:00", timezone: zone },
    check_seconds: rule?.check_seconds ?? 30,
    is_active: rule?.is_active ?? true,
  };
  const [before] = useState(definition);
  const isDirty = jsonOf(definition) !== jsonOf(before);

  return (
    <DraftModal opened isDirty={isDirty} onClose={onClose} title={rule ? t("alerts.editRule", { name: rule.name }) : t("alerts.newRule")}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate(definition);
        }}
      >
        <Stack>
          <TextInput label={t("common.name")} value={name} onChange={(event) => setName(event.currentTarget.value)} error={fields.name} required data-autofocus />
          <TaskSelect value={taskId} onChange={setTaskId} error={fields.task_id} />
          <Select
            label={t("alerts.condition")}
            allowDeselect={false}
            value={kind}
            data={kinds.map((value) => ({ value, label: t(`alerts.when_${value}`) }))}
            onChange={(value) => {
              const chosen = value as Kind;
              setKind(chosen);
              setAmount(numberOf({ ...usual[chosen][0] }, chosen));
            }}
          />
          <NumberInput label={t(`alerts.amount_${kind}`)} min={1} value={amount} onChange={setAmount} error={errorOf(fields, "condition")} required />
          <Select label={t("alerts.severity")} allowDeselect={false} value={severity} data={severities.map((value) => ({ value, label: t(`alerts.${value}`) }))} onChange={(value) => setSeverity(value as (typeof severities)[number])} />
          <MultiSelect label={t("alerts.channels")} data={channels.data?.map((channel) => ({ value: String(channel.id), label: channel.name })) ?? []} value={told} onChange={setTold} error={errorOf(fields, "channel_ids")} />
          <NumberInput label={t("alerts.remind")} description={t("alerts.remindHint")} min={60} value={remind} onChange={setRemind} error={fields.remind_seconds} />
          <SimpleGrid cols={2} spacing="sm" style={{ alignItems: "end" }}>
            <TimeInput label={t("alerts.quietFrom")} description={t("alerts.quietHint")} value={from} onChange={(event) => setFrom(event.currentTarget.value)} error={errorOf(fields, "quiet_hours")} />
            <TimeInput label={t("alerts.quietUntil")} description={zone} value={until} onChange={(event) => setUntil(event.currentTarget.value)} />
          </SimpleGrid>
          <Switch label={t("alerts.recovery")} checked={recovery} onChange={(event) => setRecovery(event.currentTarget.checked)} />
          {isElsewhere ? <Failure error={save.error} /> : null}
          <Button type="submit" loading={save.isPending} disabled={name.trim() === "" || amount === ""}>{t(rule ? "common.save" : "common.create")}</Button>
        </Stack>
      </form>
    </DraftModal>
  );
}

const TYPING_MS = 200;

/** One task, found by a part of its name; null: any. */
function TaskSelect({ value, onChange, error }: { value: number | null; onChange: (task_id: number | null) => void; error: string | undefined }) {
  const { t } = useTranslation();
  const [typed, setTyped] = useState("");
  const [search] = useDebouncedValue(typed.trim(), TYPING_MS);
  const found = useInfiniteQuery(tasksQuery(search === "" ? {} : { search }));
  const chosen = useQuery({ ...taskQuery(value ?? 0), enabled: value !== null });
  const tasks = new Map((found.data?.pages[0]?.items ?? []).map((task) => [String(task.id), task.name]));
  if (value !== null) tasks.set(String(value), chosen.data?.name ?? `#${value}`);
  return (
    <Select
      label={t("alerts.task")}
      placeholder={t("alerts.anyTask")}
      searchable
      clearable
      clearButtonProps={{ "aria-label": t("alerts.anyTask") }}
      value={value === null ? null : String(value)}
      data={[...tasks].map(([id, label]) => ({ value: id, label }))}
      filter={({ options }) => options}
      onSearchChange={setTyped}
      onChange={(id) => onChange(id === null ? null : Number(id))}
      error={error}
    />
  );
}
