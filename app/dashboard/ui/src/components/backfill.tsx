import { Alert, Button, Group, NumberInput, SegmentedControl, SimpleGrid, Stack, Text } from "@mantine/core";
import { skipToken, useQuery, useQueryClient } from "@tanstack/react-query";
import { notifications } from "@mantine/notifications";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { backfillTask, previewBackfill } from "../api/actions";
import { ApiError, messageOf, type Schemas, type Task } from "../api/client";
import { browserZone } from "../format";
import { MomentPicker } from "./moment-picker";
import { Moment } from "./time";
import { DraftModal } from "./unsent";

const paces = ["one", "some", "timed"] as const;
type PaceKind = (typeof paces)[number];

interface PaceDraft {
  kind: PaceKind;
  at_once: number;
  every_seconds: number;
}

export function paceOf({ kind, at_once, every_seconds }: PaceDraft): Schemas["Pace"] {
  if (kind === "some") return { at_once };
  if (kind === "timed") return { every_seconds };
  return {};
}

/** Ask for a past range, show what it would run, and run it. */
export function Backfill({ task, opened, onClose }: { task: Task; opened: boolean; onClose: () => void }) {
  const { t } = useTranslation();
  const [isDirty, setDirty] = useState(false);
  const leave = () => {
    setDirty(false);
    onClose();
  };
  return (
    <DraftModal opened={opened} isDirty={isDirty} onClose={leave} title={t("backfill.title", { name: task.name })} size="lg">
      {(close) => <Asked task={task} onClose={close} onDone={leave} onDirty={setDirty} />}
    </DraftModal>
  );
}

interface AskedProps {
  task: Task;
  onClose: () => void;
  onDone: () => void;
  onDirty: (isDirty: boolean) => void;
}

function Asked({ task, onClose, onDone, onDirty }: AskedProps) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const client = useQueryClient();
  const [start, setStart] = useState<string | null>(null);
  const [end, setEnd] = useState<string | null>(null);
  const [pace, setPace] = useState<PaceDraft>({ kind: "one", at_once: 4, every_seconds: 60 });
  const [isBusy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<unknown>();
  const range = start !== null && end !== null ? { start, end } : null;
  const changed = <T,>(set: (value: T) => void) => (value: T) => {
    set(value);
    onDirty(true);
  };
  const found = useQuery({
    queryKey: ["backfill", task.id, range],
    queryFn: range === null ? skipToken : () => previewBackfill(task.id, range),
    retry: false,
    gcTime: 0,
  });
  const error = refusal ?? found.error;
  const errors = error instanceof ApiError ? error.fields : {};
  const elsewhere = error != null && !Object.keys(errors).some((name) => ["start", "end", "pace.at_once", "pace.every_seconds"].includes(name));
  const count = found.error === null ? (found.data?.count ?? 0) : 0;

  const submit = async () => {
    if (range === null) return;
    setBusy(true);
    setRefusal(undefined);
    try {
      const made = await backfillTask(task.id, { ...range, pace: paceOf(pace) });
      await client.invalidateQueries();
      notifications.show({ message: t("backfill.done", { count: made.count }), color: "teal" });
      onDone();
      await navigate({ to: "/executions", search: { task_id: task.id } });
    } catch (failure) {
      setRefusal(failure);
    } finally {
      setBusy(false);
    }
  };

  const picker = { maxDate: new Date(), required: true } as const;
  return (
    <Stack>
      <Text size="sm" c="dimmed">{t("backfill.text")} {t("form.yourTime", { zone: browserZone })}</Text>
      <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
        <MomentPicker {...picker} label={t("backfill.start")} value={start} onChange={changed(setStart)} error={errors.start} />
        <MomentPicker {...picker} label={t("backfill.end")} value={end} onChange={changed(setEnd)} error={errors.end} />
      </SimpleGrid>
      <SegmentedControl fullWidth aria-label={t("backfill.pace")} value={pace.kind} onChange={(kind) => setPace({ ...pace, kind: kind as PaceKind })} data={paces.map((value) => ({ value, label: t(`backfill.${value}`) }))} />
      {pace.kind === "some" ? <NumberInput label={t("backfill.atOnce")} min={1} value={pace.at_once} onChange={(value) => setPace({ ...pace, at_once: Number(value) })} error={errors["pace.at_once"]} /> : null}
      {pace.kind === "timed" ? <NumberInput label={t("backfill.every")} min={0} value={pace.every_seconds} onChange={(value) => setPace({ ...pace, every_seconds: Number(value) })} error={errors["pace.every_seconds"]} /> : null}
      <div aria-live="polite" role="region" aria-label={t("backfill.preview")}>
        {found.data !== undefined && found.error === null ? <Found found={found.data} /> : null}
        {elsewhere ? <Alert color="red" variant="outline" role="alert">{messageOf(error)}</Alert> : null}
      </div>
      <Group justify="flex-end">
        <Button variant="default" onClick={onClose}>{t("common.cancel")}</Button>
        <Button loading={isBusy} disabled={count === 0} onClick={() => void submit()}>{t("backfill.confirm", { count })}</Button>
      </Group>
    </Stack>
  );
}

function Found({ found }: { found: Schemas["BackfillAnswer"] }) {
  const { t } = useTranslation();
  return (
    <Stack gap={4}>
      <Text size="sm" fw={600}>{found.count === 0 ? t("backfill.none") : t("backfill.count", { count: found.count })}</Text>
      {found.first !== null && found.last !== null ? <Text size="sm" component="div"><Moment at={found.first} /> – <Moment at={found.last} /></Text> : null}
      {found.known_count > 0 ? <Text size="sm" c="dimmed">{t("backfill.known", { count: found.known_count })}</Text> : null}
      {found.closed > 0 ? <Text size="sm" c="dimmed">{t("backfill.closed", { count: found.closed })}</Text> : null}
    </Stack>
  );
}
