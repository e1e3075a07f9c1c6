import { Button, Group, JsonInput, Stack, Table, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconBolt, IconCheck, IconClock } from "@tabler/icons-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { signalExecution } from "../api/actions";
import type { ExecutionDetail, Schemas } from "../api/client";
import { duration, json } from "../format";
import { parseJson } from "../json";
import { useAct } from "./act";
import { Failure } from "./feedback";
import { Section } from "./page";
import { useMay } from "./session";
import { Ago } from "./time";
import { DraftModal } from "./unsent";

type Step = Schemas["StepAnswer"];

const icons: Record<Step["kind"], typeof IconCheck> = { step: IconCheck, sleep: IconClock, signal: IconBolt };

/** What an execution has done for good, and what it waits for. */
export function Steps({ execution }: { execution: ExecutionDetail }) {
  const { t } = useTranslation();
  if (execution.steps.length === 0) return null;
  return (
    <Section title={t("execution.steps")} flush>
      <Table.ScrollContainer minWidth={560} scrollAreaProps={{ type: "auto" }}>
        <Table className="rows">
          <Table.Tbody>
            {execution.steps.map((step) => (
              <StepRow key={`${step.kind} ${step.name}`} step={step} />
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </Section>
  );
}

function StepRow({ step }: { step: Step }) {
  const { t } = useTranslation();
  const Icon = icons[step.kind];
  const waits = step.finished_at === null;
  const took = waits ? null : (Date.parse(step.finished_at ?? "") - Date.parse(step.started_at)) / 1000;
  return (
    <Table.Tr data-step={step.name}>
      <Table.Td maw={220}>
        <Group gap={6} wrap="nowrap"><Icon size={15} aria-hidden style={{ flex: "none" }} /><Text size="sm" fw={500} className="clip">{step.name}</Text></Group>
      </Table.Td>
      <Table.Td><Text size="sm" c="dimmed" style={{ whiteSpace: "nowrap" }}>{t(`stepKind.${step.kind}`)}</Text></Table.Td>
      <Table.Td>
        {waits ? (
          <Text size="sm" component="div">{t("execution.waits")}{step.due_at === null ? null : <> · <Ago at={step.due_at} /></>}</Text>
        ) : (
          <Text size="sm" component="div"><Ago at={step.finished_at} /> · {duration(took)}</Text>
        )}
      </Table.Td>
      <Table.Td maw={320}><Text size="xs" className="mono clip">{step.result == null ? "" : json(step.result).replace(/\s+/g, " ")}</Text></Table.Td>
    </Table.Tr>
  );
}

/** The signals an execution was sent; one that is not over can be sent another. */
export function Signals({ execution, isOver }: { execution: ExecutionDetail; isOver: boolean }) {
  const { t } = useTranslation();
  const mayChange = useMay("operator");
  const [isAsking, asking] = useDisclosure();
  const awaited = execution.steps.find((step) => step.kind === "signal" && step.finished_at === null);
  if (execution.signals.length === 0 && awaited === undefined) return null;
  return (
    <Section
      title={t("execution.signals")}
      flush
      aside={mayChange && !isOver ? <Button size="xs" variant="default" leftSection={<IconBolt size={14} aria-hidden />} onClick={asking.open}>{t("execution.sendSignal")}</Button> : null}
    >
      {execution.signals.length === 0 ? <Text size="sm" c="dimmed" px="md" pb="sm">{t("execution.noSignals")}</Text> : null}
      <Table className="rows">
        <Table.Tbody>
          {execution.signals.map((signal) => (
            <Table.Tr key={signal.id}>
              <Table.Td maw={200}><Text size="sm" fw={500} className="clip">{signal.name}</Text></Table.Td>
              <Table.Td><Text size="sm" component="div"><Ago at={signal.signalled_at} />{signal.signalled_by ? ` · ${signal.signalled_by}` : ""}</Text></Table.Td>
              <Table.Td><Text size="sm" c="dimmed">{t(signal.consumed_at === null ? "execution.signalKept" : "execution.signalTaken")}</Text></Table.Td>
              <Table.Td maw={280}><Text size="xs" className="mono clip">{signal.payload == null ? "" : json(signal.payload).replace(/\s+/g, " ")}</Text></Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      {isAsking ? <SendSignal id={execution.id} name={awaited?.name ?? ""} onClose={asking.close} /> : null}
    </Section>
  );
}

function SendSignal({ id, name: awaited, onClose }: { id: number; name: string; onClose: () => void }) {
  const { t } = useTranslation();
  const [name, setName] = useState(awaited);
  const [payload, setPayload] = useState("");
  const [isJson, setJson] = useState(true);
  const send = useAct((body: Schemas["SignalBody"]) => signalExecution(id, body), { done: () => t("execution.signalSent", { name }), then: onClose });
  const submit = () => {
    try {
      send.mutate({ name, payload: payload.trim() === "" ? null : parseJson(payload) });
    } catch {
      setJson(false);
    }
  };
  return (
    <DraftModal opened isDirty={payload !== ""} onClose={onClose} title={t("execution.sendSignal")}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        <Stack>
          <TextInput label={t("common.name")} value={name} onChange={(event) => setName(event.currentTarget.value)} required maxLength={200} />
          <JsonInput
            label={t("execution.payload")}
            description={t("common.optional")}
            value={payload}
            onChange={(value) => {
              setPayload(value);
              setJson(true);
            }}
            error={isJson ? undefined : t("execution.notJson")}
            validationError={t("execution.notJson")}
            autosize
            minRows={3}
          />
          {send.error ? <Failure error={send.error} /> : null}
          <Button type="submit" loading={send.isPending} disabled={name.trim() === ""}>{t("execution.sendSignal")}</Button>
        </Stack>
      </form>
    </DraftModal>
  );
}
